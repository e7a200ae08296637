"""The benchmarks of the runner and of limits still run, and print what they promise."""

import subprocess
import sys

import pytest

from tests.cube_factory import ROOT


def run_quick(name: str, *more: str) -> str:
    command = [sys.executable, str(ROOT / "tests" / "bench" / name), "--quick", *more]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, stdin=subprocess.DEVNULL, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.docker
def test_limits() -> None:
    lines = run_quick("bench_limits.py").splitlines()
    for line, name in zip(lines, ("time", "memory", "output"), strict=False):
        assert line.startswith(f"breach of {name}") and "p50" in line and "max" in line
    assert all("ratio" in line and "plain docker run" in line for line in lines[3:5])
    assert "for each container more" in lines[5] and len(lines) == 6


def test_runner() -> None:
    (line,) = run_quick("bench_runner.py", "--platform=process").splitlines()
    assert line.startswith("process  ci") and "bare tasks" in line and "overhead" in line and "ratio" in line
