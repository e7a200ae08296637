"""Shell scripts, the Makefile and .ci/run: they parse, name no outside address, and say no clearly."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PLACES = [*sorted((ROOT / "scripts").iterdir()), ROOT / ".ci" / "run"]
SHELL = [path for path in PLACES if path.is_file() and path.read_bytes().startswith(b"#!/usr/bin/env bash\n")]


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _engine(arguments: list[str], state: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [ROOT / "scripts" / "docker_engine", *arguments],
        env={**os.environ, "FEDEVAL_ENGINE_STATE": str(state), **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize("path", SHELL, ids=_name)
def test_script_parses_stops_at_errors_and_can_be_run(path: Path) -> None:
    done = subprocess.run(["bash", "-n", path], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "\nset -euo pipefail\n" in path.read_text()
    assert os.access(path, os.X_OK)
    assert path.read_text().splitlines()[1].startswith("# "), "the second line says what the script is for"


@pytest.mark.parametrize("path", [*SHELL, ROOT / "Makefile"], ids=_name)
def test_script_names_no_outside_address_and_no_place_of_one_machine(path: Path) -> None:
    assert not re.search(r"https?://|\b(?:deb|pypi)\.[a-z]+\.[a-z]+|/home/", path.read_text())


def test_every_target_is_phony_and_explained() -> None:
    text = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z]+):", text, re.MULTILINE))
    phony = re.search(r"^\.PHONY: (.*)$", text, re.MULTILINE)
    assert phony is not None and set(phony[1].split()) == targets
    assert {"demo", "test", "setup", "check", "bench", "clean", "help"} <= targets
    done = subprocess.run(["make", "-C", ROOT, "help"], capture_output=True, text=True)
    assert done.returncode == 0
    assert {line.split()[1] for line in done.stdout.splitlines() if line.startswith("make ")} == targets


def test_clean_leaves_the_environment_and_what_is_not_generated(tmp_path: Path) -> None:
    shutil.copy(ROOT / "Makefile", tmp_path)
    kept = [tmp_path / ".venv" / "x" / "__pycache__" / "kept.pyc", tmp_path / "src" / "kept.py"]
    removed = [tmp_path / name for name in ("demo/x", "src/__pycache__/x.pyc", "src/f.egg-info/PKG-INFO")]
    for path in [*kept, *removed]:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    subprocess.run(["make", "-C", tmp_path, "clean"], check=True, capture_output=True, env=environment)
    assert all(path.exists() for path in kept)
    assert not any(path.exists() for path in removed)


def test_last_command_of_ci_is_the_suite() -> None:
    text = (ROOT / ".ci" / "run").read_text()
    commands = [line for line in text.splitlines() if re.match(r"(make|scripts/)", line)]
    assert commands[-1].startswith("make test")
    assert "export FEDEVAL_REQUIRE_DOCKER=1" in text


def test_engine_that_does_not_answer_is_one_clear_error(tmp_path: Path) -> None:
    # Port 9 of loopback: nothing listens there. The installed engine, if any, is not looked at.
    nowhere = {"DOCKER_HOST": "tcp://127.0.0.1:9"}
    assert _engine(["status"], tmp_path / "state", **nowhere).returncode == 1
    done = _engine(["start"], tmp_path / "state", **nowhere)
    assert done.returncode == 1
    for part in ("found: ", "expected: ", "next: ", "tcp://127.0.0.1:9"):
        assert part in done.stderr
    assert not (tmp_path / "state").exists()


def test_engine_of_others_is_left_alone(tmp_path: Path) -> None:
    # A note of an earlier call whose process id now belongs to another program.
    other = subprocess.Popen(["sleep", "60"])
    try:
        (tmp_path / "started").write_text(f"{other.pid}\n")
        assert _engine(["stop"], tmp_path).returncode == 0
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_wrong_usage_of_engine_script(tmp_path: Path) -> None:
    done = _engine([], tmp_path)
    assert done.returncode == 2 and done.stderr.startswith("usage: ")


def test_build_of_a_folder_that_is_no_cube() -> None:
    command = [str(ROOT / "scripts" / "build_cubes"), "docs"]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 1
    assert "docs is no cube" in done.stderr and "next: " in done.stderr
