"""The metrics as a package: built at installation, without a compiler, and never from a stale library."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from metrics_cube import kernel_sources, native
from metrics_cube.build import run_build
from metrics_cube.hausdorff import compute_hausdorff95

from tests.cubes.metrics_files import CUBE
from tests.cubes.metrics_masks import ISOTROPIC, build_kernel, iterate_pairs

PROJECT = CUBE / "project"


def copy_project(place: Path) -> Path:
    """The project without what was built in it."""
    shutil.copytree(PROJECT, place, ignore=shutil.ignore_patterns("*.so", "__pycache__", "build", "*.egg-info"))
    return place


def install(project: Path, target: Path, **environment: str) -> None:
    """Install the package as a user would, without network."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-build-isolation"]
    command += ["--disable-pip-version-check", "--root-user-action=ignore", "--target", str(target), str(project)]
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, **environment}, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr


def score_with(packages: Path) -> tuple[bool, list[float]]:
    """Whether the installed package found its kernel, and some values by it."""
    program = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import numpy as np, metrics_cube\n"
        "from metrics_cube.hausdorff import compute_hausdorff95\n"
        "from metrics_cube.labels import IDENTITY\n"
        "from metrics_cube.native import load_kernel\n"
        "assert metrics_cube.__file__.startswith(sys.argv[1])\n"
        "kernel, rng = load_kernel(), np.random.default_rng(5)\n"
        "for _ in range(20):\n"
        "    g, p = rng.random((2, 9, 8, 7)) < 0.3\n"
        "    if kernel:\n"
        "        a, b = (kernel.pack(np.asfortranarray(m, np.uint8), IDENTITY, 1) for m in (g, p))\n"
        "        print(*kernel.score(a, b, (1., 2., .7), 2)[1][0])\n"
        "    else:\n"
        "        found = compute_hausdorff95(g, p, (1., 2., .7)); print(found.pooled, found.directed)\n"
        "print(kernel is not None)"
    )
    command = [sys.executable, "-I", "-c", program, str(packages)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    *values, found = done.stdout.split()
    return found == "True", [float(value) for value in values]


def test_installed_with_and_without_a_compiler_the_values_are_the_same(tmp_path: Path) -> None:
    build_kernel()  # skips where there is no compiler
    project = copy_project(tmp_path / "project")
    install(project, tmp_path / "with")
    shutil.rmtree(project)
    install(copy_project(project), tmp_path / "without", CC="/nowhere/cc")
    native_found, native_values = score_with(tmp_path / "with")
    scipy_found, scipy_values = score_with(tmp_path / "without")
    assert (native_found, scipy_found) == (True, False)
    assert native_values == scipy_values
    assert len(scipy_values) == 40


def test_build_command_says_what_it_did(tmp_path: Path) -> None:
    build_kernel()
    command = [sys.executable, "-m", "metrics_cube.build", str(tmp_path)]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, f"built {tmp_path / '_kernel.so'}\n")
    assert done.stderr == "", "the compiler has nothing to warn of"
    assert [path.name for path in tmp_path.iterdir()] == ["_kernel.so"]
    bare = {**os.environ, "PATH": str(tmp_path)}
    bare.pop("CC", None)
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, env=bare, timeout=60, check=False)
    assert done.returncode == 1
    assert "found no C compiler" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_library_of_other_sources_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build_kernel()
    library = run_build(tmp_path / "k.so")
    monkeypatch.setattr(native, "LIBRARY", library)
    native.load_kernel.cache_clear()
    try:
        assert native.load_kernel() is not None
        native.load_kernel.cache_clear()
        changed = tmp_path / "kernel"
        shutil.copytree(kernel_sources.SOURCES, changed)
        (changed / "rows.h").write_text((changed / "rows.h").read_text() + "\n")
        monkeypatch.setattr(kernel_sources, "SOURCES", changed)
        assert native.load_kernel() is None
        native.load_kernel.cache_clear()
        library.unlink()  # a library in use must not be written over
        library.write_bytes(b"no library")
        assert native.load_kernel() is None
        native.load_kernel.cache_clear()
        library.unlink()
        assert native.load_kernel() is None
    finally:
        native.load_kernel.cache_clear()


def test_the_kernel_is_small_and_does_not_grow_unseen() -> None:
    """House rule: files below 400 lines, lines of at most 120 columns."""
    for path in sorted([*kernel_sources.SOURCES.iterdir(), *(PROJECT / "metrics_cube").glob("*.py")]):
        lines = path.read_text().splitlines()
        assert len(lines) < 400, path.name
        assert max(map(len, lines)) <= 120, path.name


def test_usable_on_arrays_without_the_cube() -> None:
    """The values do not need a file: a mask and its spacing are enough."""
    for g, p, _ in iterate_pairs(61, 5):
        if g.any() and p.any():
            assert np.isfinite(compute_hausdorff95(g, p, ISOTROPIC).pooled)
