"""scripts/setup on a small checkout of its own: real venv, real pip, two tiny packages, no network."""

import hashlib
import os
import platform
import runpy
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# The build backend of the small checkout; the same function makes the packages that its list names.
BACKEND = """
import zipfile
from pathlib import Path


def write_wheel(folder, name, text):
    info = f"{name}-1.dist-info"
    target = Path(folder) / f"{name}-1-py3-none-any.whl"
    with zipfile.ZipFile(target, "w") as wheel:
        wheel.writestr(f"{name}_module.py", text)
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\\nName: {name}\\nVersion: 1\\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        files = [f"{name}_module.py", f"{info}/METADATA", f"{info}/WHEEL", f"{info}/RECORD"]
        wheel.writestr(f"{info}/RECORD", "".join(f"{file},,\\n" for file in files))
    return target.name


def build_editable(wheel_directory, config_settings=None, metadata_directory=None):
    return write_wheel(wheel_directory, "project", "")
"""
PYPROJECT = """
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
[project]
name = "project"
version = "1"
"""
TOOLS = "bash awk cat cut dirname env find flock grep id ls mkdir rm sed sha256sum sort touch xargs"


class Checkout:
    """A folder with scripts/setup, a list of packages and the packages themselves."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.venv = folder / ".venv"
        self.wheels = folder.parent / "wheels"  # pip splits PIP_FIND_LINKS at spaces, which the checkout's name has
        for place in (folder / "scripts", folder / "requirements", self.wheels):
            place.mkdir(parents=True)
        shutil.copy(ROOT / "scripts" / "setup", folder / "scripts" / "setup")
        (folder / "backend.py").write_text(BACKEND)
        (folder / "pyproject.toml").write_text(PYPROJECT)
        self.write_list("setuptools")

    def write_list(self, *names: str, damaged: str = "") -> None:
        """Write the list of packages; the hash of `damaged` is a wrong one."""
        write_wheel = runpy.run_path(str(self.folder / "backend.py"))["write_wheel"]
        lines = []
        for name in names:
            wheel = self.wheels / write_wheel(self.wheels, name, "value = 1")
            digest = "0" * 64 if name == damaged else hashlib.sha256(wheel.read_bytes()).hexdigest()
            lines.append(f"{name}==1 \\\n    --hash=sha256:{digest}\n")
        (self.folder / "requirements" / "dev.txt").write_text("# a comment\n" + "".join(lines))

    def start(self, **environment: str) -> subprocess.Popen[str]:
        """Start scripts/setup among settings of a host that would spoil it if it heeded them."""
        hostile = {"PIP_USER": "1", "PIP_TARGET": "/nowhere", "PIP_CONSTRAINT": "/nowhere", "PYTHONPATH": "/nowhere"}
        source = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(self.wheels), "PIP_CONFIG_FILE": os.devnull}
        base = {"PATH": os.environ["PATH"], "HOME": str(self.folder), "PYTHON": sys.executable}
        return subprocess.Popen(
            [str(self.folder / "scripts" / "setup")],
            env=base | hostile | source | environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, **environment: str) -> tuple[int, str]:
        """Run scripts/setup to its end; exit code and what it said. Its stdout stays empty."""
        process = self.start(**environment)
        output, messages = process.communicate(timeout=120)
        assert output == ""
        return process.returncode, messages

    def imports(self, module: str) -> bool:
        command = [str(self.venv / "bin" / "python"), "-Ic", f"import {module}"]
        return subprocess.run(command, capture_output=True).returncode == 0


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path / "a checkout")


@pytest.fixture
def bare_path(tmp_path: Path) -> Path:
    """A folder for PATH that holds the plain tools and neither Python nor apt-get."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in TOOLS.split():
        program = shutil.which(name)
        assert program is not None, name
        (folder / name).symlink_to(program)
    return folder


def _write_python(path: Path, version: str, complete: bool = False) -> Path:
    """Write something that calls itself a Python of that version; `complete` claims to have venv, which then fails."""
    has_venv = int(not complete)
    path.write_text(
        f"#!/bin/sh\ncase $2 in *version_info*) echo {version} ;; *ensurepip*) exit {has_venv} ;; *) exit 1 ;; esac\n"
    )
    path.chmod(0o755)
    return path


def test_two_calls_make_one_environment_that_is_kept_and_updated_in_place(checkout: Checkout, tmp_path: Path) -> None:
    both = [checkout.start(), checkout.start()]
    messages = "".join(process.communicate(timeout=120)[1] for process in both)
    assert [process.returncode for process in both] == [0, 0], messages
    assert messages.count("making .venv") == 1
    assert messages.count("waiting for another set-up") == 1
    assert checkout.imports("setuptools_module")
    assert checkout.run() == (0, "")

    (checkout.venv / "sentinel").touch()
    checkout.write_list("setuptools", "extra", damaged="extra")
    code, messages = checkout.run()
    assert code == 1 and "setup: pip could not install the pinned packages" in messages
    assert not checkout.imports("extra_module")

    checkout.write_list("setuptools", "extra")
    code, messages = checkout.run()
    assert code == 0 and "updating .venv" in messages
    assert checkout.imports("extra_module")
    assert (checkout.venv / "sentinel").exists()

    # Scripts of an environment name its place: one that was moved is not kept.
    checkout.folder = checkout.folder.rename(tmp_path / "moved")
    python = _write_python(tmp_path / "python", platform.python_version(), complete=True)
    code, messages = checkout.run(PYTHON=str(python))
    assert code == 1 and f"making .venv with {python} " in messages


def test_interrupted_set_up_is_made_anew(checkout: Checkout) -> None:
    process = checkout.start()
    deadline = time.monotonic() + 60
    while not (checkout.venv / "pyvenv.cfg").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert (checkout.venv / ".setup-running").exists() and not (checkout.venv / ".setup-done").exists()
    code, messages = checkout.run()
    assert code == 0 and "making .venv" in messages
    assert checkout.imports("setuptools_module")
    assert not (checkout.venv / ".setup-running").exists()


@pytest.mark.parametrize("version", ["2.7.18", "3.10.13", "3.14.0"])
def test_unsuitable_python_is_one_clear_error(checkout: Checkout, bare_path: Path, version: str) -> None:
    _write_python(bare_path / "python3", version)
    code, messages = checkout.run(PATH=str(bare_path), PYTHON="")
    assert code == 1
    assert messages.startswith("setup: no suitable Python\n  found: ")
    assert f"python3: {version}\n" in messages and "3.11, 3.12 or 3.13" in messages and "next: " in messages
    assert not checkout.venv.exists()


@pytest.mark.parametrize(("python", "found"), [("no-such-python", "not there"), ("false", "does not run")])
def test_named_python_that_is_none(checkout: Checkout, python: str, found: str) -> None:
    code, messages = checkout.run(PYTHON=python)
    assert code == 1 and f"{python}: {found}\n" in messages
    assert not checkout.venv.exists()


def test_missing_venv_module_names_the_package(checkout: Checkout, bare_path: Path) -> None:
    _write_python(bare_path / "python3", "3.12.3")
    code, messages = checkout.run(PATH=str(bare_path), PYTHON="")
    assert code == 1
    assert "no ensurepip" in messages and "apt-get install python3.12-venv" in messages
    assert not checkout.venv.exists()


def test_python_that_can_make_environments_goes_first(checkout: Checkout, bare_path: Path) -> None:
    _write_python(bare_path / "python3.13", "3.13.0")
    python = _write_python(bare_path / "python3", "3.11.2", complete=True)
    code, messages = checkout.run(PATH=str(bare_path), PYTHON="")
    assert code == 1 and f"making .venv with {python} (3.11.2)\n" in messages
    assert "could not make a virtual environment" in messages and not (checkout.venv / ".setup-done").exists()


def test_foreign_folder_is_never_removed(checkout: Checkout) -> None:
    checkout.venv.mkdir()
    (checkout.venv / "thesis.txt").write_text("years of work")
    code, messages = checkout.run()
    assert code == 1 and "is in the way" in messages
    assert (checkout.venv / "thesis.txt").read_text() == "years of work"
