"""Images of the cubes, built once a session from the local base image."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BASE = "fedeval-base:bookworm"
TAGS = {
    "data_prep": "fedeval/fets-data-prep:0.1.0",
    "model": "fedeval/fets-model:0.1.0",
    "metrics": "fedeval/fets-metrics:0.1.0",
}


@pytest.fixture(scope="session")
def cube_image() -> Callable[[str], str]:
    """A function that builds the image of a cube (cached by the engine) and returns its tag."""
    built: dict[str, str] = {}

    def build(name: str) -> str:
        if name not in built:
            project = ROOT / "mlcubes" / name / "project"
            command = ["docker", "build", "-q", "--build-arg", f"BASE_IMAGE={BASE}", "-t", TAGS[name], str(project)]
            done = subprocess.run(command, capture_output=True, text=True, timeout=900)
            assert done.returncode == 0, done.stderr[-2000:]
            built[name] = TAGS[name]
        return built[name]

    return build
