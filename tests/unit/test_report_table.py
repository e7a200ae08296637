"""The numbers of the report: states, statistics, axes and boxes, worked by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fedeval.report.table import Scale, as_number, choose_scale, compute_plot, compute_table

REGIONS = {"WT": (1, 2, 4), "TC": (1, 4)}
METRICS: list[dict[str, Any]] = [
    {"key": "Dice", "label": "Dice", "direction": "higher", "unit": None},
    {"key": "Hausdorff95", "label": "HD95", "direction": "lower", "unit": "mm"},
]


def scores(dice: float = 0.9, status: str = "ok", reason: str | None = None) -> dict[str, Any]:
    values = {"Dice_WT": dice, "Dice_TC": dice - 0.01, "Hausdorff95_WT": 2.0, "Hausdorff95_TC": 3.0}
    return {**values, "missing_pred": status == "missing", "status": status, "reason": reason}


def case_entry(case: str, status: str = "ok", reason: str | None = None, detail: str = "") -> dict[str, Any]:
    return {"case": case, "status": status, "reason": reason, "detail": detail, "wall_s": 4.0}


def test_the_state_of_the_runner_goes_before_that_of_the_metrics_cube() -> None:
    record = {"cases": [case_entry("a", "timeout", "slow", "180.2 s"), case_entry("b"), case_entry("c")]}
    results = {"a": scores(0.0, "missing", "no file"), "b": scores(0.0, "invalid", "shape"), "c": scores()}
    rows, _ = compute_table(record, results, REGIONS, METRICS)
    assert [(row.status, row.reason, row.penalised) for row in rows] == [
        ("timeout", "slow: 180.2 s", True), ("invalid", "shape", True), ("ok", "", False),
    ]  # fmt: skip


def test_upstream_results_without_a_status_are_understood() -> None:
    results = {"a": {"Dice_WT": 0.0, "missing_pred": True}, "b": {"Dice_WT": 0.5, "missing_pred": False}}
    rows, _ = compute_table({}, results, REGIONS, METRICS)
    assert [row.status for row in rows] == ["missing", "ok"]


def test_the_summary_of_the_record_is_shown_where_there_is_one() -> None:
    summary = {"Dice_WT": {"mean": 0.123, "median": 0.2, "min": 0.0, "max": 1.0, "n": 2}}
    _, columns = compute_table({"summary": summary}, {"a": scores(0.9), "b": scores(0.8)}, REGIONS, METRICS)
    assert columns[0].stats["mean"] == 0.123
    assert columns[1].stats["mean"] == pytest.approx((0.89 + 0.79) / 2)


def test_box_and_points_lie_at_their_values() -> None:
    results = {name: scores(dice) for name, dice in zip("abcde", (0.2, 0.4, 0.5, 0.6, 1.0), strict=True)}
    rows, columns = compute_table({}, results, REGIONS, METRICS)
    lane = compute_plot([0], rows, columns)["lanes"][0]
    assert [point[0] for point in lane["points"]] == [20.0, 40.0, 50.0, 60.0, 100.0]
    # Quartiles 0.4 and 0.6: whiskers reach 0.3 on either side, so 0.2 stays and 1.0 lies outside.
    assert lane["box"] == {"median": 50.0, "low": 40.0, "high": 60.0, "least": 20.0, "most": 60.0}


def test_four_cases_get_no_box() -> None:
    rows, columns = compute_table({}, {name: scores() for name in "abcd"}, REGIONS, METRICS)
    assert set(compute_plot([0], rows, columns)["lanes"][0]["box"]) == {"median"}


@pytest.mark.parametrize(
    ("values", "bounded", "expected"),
    [
        ([0.5], True, Scale(1.0, False, (0.0, 0.2, 0.4, 0.6, 0.8, 1.0))),
        ([1.0, 4.15], False, Scale(6.0, False, (0.0, 2.0, 4.0, 6.0))),
        ([0.0], False, Scale(1.0, False, (0.0, 0.25, 0.5, 0.75, 1.0))),
        ([], False, Scale(1.0, False, (0.0, 0.25, 0.5, 0.75, 1.0))),
        ([1.0, 2.0, 374.0], False, Scale(374.0 * 1.1, True, (0.0, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0))),
    ],
)
def test_scales(values: list[float], bounded: bool, expected: Scale) -> None:
    assert choose_scale(values, bounded) == expected
    assert expected.place(0.0) == 0.0 and expected.place(expected.end) == 100.0


def test_only_finite_numbers_are_numbers() -> None:
    assert [as_number(value) for value in (1, 0.5, np.float32(2))] == [1.0, 0.5, 2.0]
    odd = (True, "1", None, float("nan"), -float("inf"), 10**400, [1])
    assert [as_number(value) for value in odd] == [None] * len(odd)


def test_digits_follow_the_usable_values() -> None:
    results = {"a": {"Dice_WT": 0.9991, "status": "ok"}, "b": {"Dice_WT": 0.0, "status": "missing"}}
    _, columns = compute_table({}, results, REGIONS, METRICS)
    assert columns[0].show(0.9991) == "0.9991" and columns[2].show(1.0) == "1.00" and columns[1].show(None) == "n/a"
    assert columns[0].stats["mean"] == pytest.approx(0.49955) and columns[0].usable_mean == 0.9991
