"""The benchmark of the metrics cube runs, and its cases are what they say."""

import subprocess
import sys

import numpy as np
from metrics_cube.counts import compute_confusion, compute_dice

from tests.bench.metrics_cases import SHAPE, TYPICAL_CM3, make_case
from tests.cubes.metrics_files import ROOT


def test_quick_run_prints_every_ratio() -> None:
    command = [sys.executable, str(ROOT / "tests" / "bench" / "bench_metrics.py"), "--quick"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    for line in (
        "median:",
        "worst:",
        "start-up",
        "memory",
        "6 cases in a process",
        "surface-distance / ours, least:",
        "surface-distance / ours, median:",
        "MedPy / ours, least:",
        "surface-distance / without kernel, least:",
    ):
        assert f"  {line}" in done.stdout, line


def test_cases_are_seeded_nested_and_of_the_stated_size() -> None:
    first, again = make_case(0, TYPICAL_CM3[0], 3), make_case(0, TYPICAL_CM3[0], 3)
    assert np.array_equal(first.reference, again.reference)
    assert np.array_equal(first.prediction, again.prediction)
    assert first.reference.shape == SHAPE
    assert first.reference.flags.f_contiguous
    assert np.unique(first.reference).tolist() == [0, 1, 2, 4]
    assert np.count_nonzero(first.reference) == 13000
    dice = compute_dice(compute_confusion(first.reference > 0, first.prediction > 0))
    assert 0.7 < dice < 0.97
    assert (TYPICAL_CM3[0], TYPICAL_CM3[-1], len(TYPICAL_CM3)) == (13, 245, 12)
