"""Limits of a benchmark file: zero is no limit, and no number is not one."""

import pytest

from fedeval.errors import BenchmarkError
from fedeval.limits import Limits, load_limits


@pytest.mark.parametrize(
    "section",
    [
        {"memory_mb": 0}, {"pids": 0}, {"memory_mb": 1.5}, {"per_case_s": 0}, {"per_case_s": float("inf")},
        {"per_case_s": float("nan")}, {"cpus": 0}, {"pids": -1}, {"tmp_mb": "64"}, {"log_mb": True},
        {"memory_mb": None}, {"pids": 1 << 40}, {"memory": 5},
    ],
    ids=str,
)  # fmt: skip
def test_what_is_no_limit_is_refused(section: dict[str, object]) -> None:
    with pytest.raises(BenchmarkError):
        load_limits(section, Limits(), "benchmark")


def test_limits_go_over_the_base() -> None:
    found = load_limits({"per_case_s": 1.5, "start_up_s": 0, "cpus": None, "pids": 7}, Limits(), "benchmark")
    assert (found.per_case_s, found.start_up_s, found.cpus, found.pids) == (1.5, 0, None, 7)
    assert found.memory_mb == Limits().memory_mb
    assert found.budget_s(4) == 6.0
