"""Markers that depend on the machine; CI requires the real parts: nothing for ``docker`` or ``browser`` is skipped."""

import os
import shutil
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from tests.cube_factory import medperf

ROOT = Path(__file__).resolve().parents[1]


@cache
def _docker_answers() -> bool:
    program = shutil.which("docker")
    return program is not None and subprocess.run([program, "info"], capture_output=True, timeout=60).returncode == 0


_NEEDS: dict[str, tuple[Callable[[], bool], str]] = {
    "docker": (_docker_answers, "no container engine answers: start one with scripts/docker_engine"),
    "browser": (lambda: shutil.which("chromium") is not None, "no chromium on PATH"),
    "apptainer": (lambda: bool(shutil.which("apptainer") or shutil.which("singularity")), "no apptainer on PATH"),
    "gpu": (lambda: shutil.which("nvidia-smi") is not None, "no NVIDIA GPU"),
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what this machine cannot run, unless FEDEVAL_REQUIRE_DOCKER says that it must (CI)."""
    required = {"docker", "browser"} if os.environ.get("FEDEVAL_REQUIRE_DOCKER") else set()
    for item in items:
        for marker, (present, reason) in _NEEDS.items():
            if item.get_closest_marker(marker) and marker not in required and not present():
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(autouse=True)
def _own_settings(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the home folder's storage or mlcube settings."""
    own = tmp_path_factory.mktemp("settings")
    monkeypatch.setenv("MEDPERF_STORAGE", str(own / "medperf"))
    monkeypatch.setenv("MLCUBE_SYSTEM_SETTINGS", str(own / "mlcube-settings.yaml"))
    for name in ("MEDPERF_PLATFORM", "MEDPERF_LOGLEVEL", "MEDPERF_TOY_SIZE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three CI-size toy cases of site 1, prepared once a session by the real cube; take it with ``-d``."""
    storage = tmp_path_factory.mktemp("prepared")
    done = medperf("--platform=process", f"--storage={storage}", "test", "-b", "1", "--toy-size", "ci")
    assert done.returncode == 0, done.stderr
    return next(path.parent for path in (storage / "data").glob("*/dataset.json"))
