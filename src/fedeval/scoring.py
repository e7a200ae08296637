"""Running the metrics cube and joining its numbers with what the runner knows of each case."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedeval.benchmark import Benchmark
from fedeval.cube import CubeManifest
from fedeval.dataset import Dataset
from fedeval.engine.base import ImageRecord
from fedeval.errors import MetricsError
from fedeval.inference import Inference
from fedeval.log import show_safe
from fedeval.strict_yaml import load_mapping
from fedeval.task import Session, TaskRun, fail_task, run_task
from fedeval.work import CaseRecord

MAX_RESULTS_BYTES = 64 << 20


@dataclass(frozen=True)
class Scores:
    """Results of all cases, the cases' final states, and how the metrics cube ran."""

    run: TaskRun
    results: Mapping[str, Mapping[str, Any]]
    cases: tuple[CaseRecord, ...]


def evaluate(
    session: Session, benchmark: Benchmark, cube: CubeManifest, image: ImageRecord, dataset: Dataset,
    inference: Inference, scratch: Path,
) -> Scores:  # fmt: skip
    """Score the checked predictions.

    Raises
    ------
    MetricsError
        The cube failed, or its results lack a case or a metric: never a score.
    """
    target = scratch / "scores" / "results.yaml"
    paths = {"predictions": inference.accepted, "labels": dataset.labels, "output_path": target}
    if not any(inference.accepted.iterdir()):  # the cube gets a folder that says "nothing was handed in"
        (inference.accepted / ".none").touch()
    limits = benchmark.limits["metrics"]
    run = run_task(session, "metrics", cube, image, "evaluate", paths, limits, len(dataset.cases))
    if not run.outcome.ok or not target.is_file():
        raise fail_task(
            MetricsError, "metrics", "evaluate", run, "this is a fault of the benchmark, not of the submission"
        )
    found = load_mapping(target, MetricsError, "results of the metrics cube", MAX_RESULTS_BYTES)
    rows = {case.case: _row(found, case, benchmark) for case in inference.cases}
    cases = tuple(_final_state(case, found[case.case]) for case in inference.cases)
    return Scores(run, rows, cases)


def _row(found: Mapping[str, Any], case: CaseRecord, benchmark: Benchmark) -> dict[str, Any]:
    """One case's numbers with the runner's state over the cube's."""
    row = found.get(case.case)
    wanted = [f"{metric.key}_{region}" for region in benchmark.regions for metric in benchmark.metrics]
    missing = wanted if not isinstance(row, dict) else [key for key in wanted if not _is_number(row.get(key))]
    if not isinstance(row, dict) or missing:
        raise MetricsError(
            f"the metrics cube left no complete result for case {show_safe(case.case, 80)}",
            f"missing {', '.join(missing[:4])}", "mend the metrics cube: every reference gets a row with every metric",
        )  # fmt: skip
    joined = dict(row)
    if case.status != "ok":
        joined["missing_pred"] = case.status != "invalid"
        joined["status"], joined["reason"] = case.status, case.reason
    return joined


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _final_state(case: CaseRecord, row: Mapping[str, Any]) -> CaseRecord:
    """The cube may refuse what the runner let pass; it never improves a state."""
    status = str(row.get("status", "ok"))
    if case.status != "ok" or status == "ok":
        return case
    return CaseRecord(case.case, show_safe(status, 40), show_safe(str(row.get("reason")), 120), "", case.wall_s)


def summarise(
    results: Mapping[str, Mapping[str, Any]], benchmark: Benchmark
) -> dict[str, dict[str, float | int | None]]:
    """Mean, median, minimum and maximum of each metric over cases; undefined values (NaN) are left out, also of `n`."""
    summary: dict[str, dict[str, float | int | None]] = {}
    for metric in benchmark.metrics:
        for region in benchmark.regions:
            key = f"{metric.key}_{region}"
            values: Sequence[float] = [float(row[key]) for row in results.values() if not math.isnan(row[key])]
            summary[key] = {
                "mean": statistics.fmean(values) if values else None,
                "median": statistics.median(values) if values else None,
                "min": min(values, default=None),
                "max": max(values, default=None),
                "n": len(values),
            }
    return summary
