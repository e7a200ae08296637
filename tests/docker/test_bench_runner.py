"""The benches of runner and limits run and print their figures; what the figures are is for people to judge."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.docker
BENCH = Path(__file__).resolve().parents[1] / "bench"


def printed(name: str) -> str:
    done = subprocess.run([sys.executable, str(BENCH / name), "--quick"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_overhead_of_the_runner_is_printed_for_both_engines() -> None:
    text = printed("bench_runner.py")
    for engine in ("process", "docker"):
        assert re.search(rf"^{engine} .*overhead +\d+\.\d+ s, ratio \d+\.\d+$", text, re.MULTILINE), text


def test_breaches_and_cost_of_limits_are_printed() -> None:
    text = printed("bench_limits.py")
    for limit in ("time", "memory", "output"):
        assert re.search(rf"^breach of {limit} .*p50 \d+\.\d+ s, max \d+\.\d+ s", text, re.MULTILINE), text
    assert re.search(r"plain docker run .*ratio \d+\.\d+", text) and "--per-case" in text
