"""What a person or a machine gets at the end of a command: a table, or one JSON document."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from fedeval.batch import SubmissionOutcome
from fedeval.errors import FedevalError, RunsMissingError, SubmissionsFailedError
from fedeval.log import show_safe
from fedeval.pipeline import TestOutcome
from fedeval.results import record_text


def print_outcome(outcome: TestOutcome) -> None:
    """Per-case table of the ranked metrics on stdout, then where everything lies."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=120)
    console.print(_score_table(outcome))
    for label, path in _places(outcome).items():
        print(f"{label:<8} {path}")


def _places(outcome: TestOutcome) -> dict[str, str]:
    files = outcome.files
    return {
        "results": str(files.results),
        "record": str(files.record),
        "masks": str(files.predictions),
        "log": str(outcome.log),
        "report": str(files.report),
    }


def _score_table(outcome: TestOutcome) -> Table:
    benchmark, record = outcome.benchmark, outcome.record
    columns = [
        (f"{metric.label}\n{region}" + (f" {metric.unit}" if metric.unit else ""), f"{metric.key}_{region}")
        for metric in benchmark.metrics if metric.ranked for region in benchmark.regions
    ]  # fmt: skip
    table = Table(title=Text(f"{benchmark.title}: {record['cubes']['model']['name']}"), title_justify="left")
    table.add_column("case", overflow="fold")
    for header, _ in columns:
        table.add_column(Text(header), justify="right", no_wrap=True)
    table.add_column("time", justify="right")
    table.add_column("status")
    for case in record["cases"]:
        row = outcome.results[case["case"]]
        wall = "-" if case["wall_s"] is None else f"{case['wall_s']:.1f} s"
        cells = [_number(row[key]) for _, key in columns]
        table.add_row(Text(show_safe(case["case"], 60)), *cells, wall, Text(case["status"]))
    means = [_number(record["summary"][key]["mean"]) for _, key in columns]
    table.add_section()
    walls = [case["wall_s"] for case in record["cases"] if case["wall_s"] is not None]
    wall = f"{sum(walls) / len(walls):.1f} s" if walls else "-"
    table.add_row("mean", *means, wall, Text(record["outcome"]["status"]))
    return table


def print_batch(outcomes: Sequence[SubmissionOutcome]) -> None:
    """One line a submission on stdout: state, cases, mean Dice, time, why it ended."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=140)
    table = Table(title=f"{len(outcomes)} submissions", title_justify="left")
    for header in ("submission", "status", "cases ok", "mean Dice", "inference", "why, where"):
        table.add_column(header, overflow="fold")
    for outcome in outcomes:
        table.add_row(*(Text(cell) for cell in _batch_row(outcome)))
    console.print(table)


def _batch_row(outcome: SubmissionOutcome) -> tuple[str, ...]:
    why = outcome.error.what if outcome.error else str(outcome.folder)
    if outcome.record is None:
        return (outcome.submission, outcome.status, "-", "-", "-", why)
    cases = outcome.record["cases"]
    done = sum(case["status"] == "ok" for case in cases)
    means = [stats["mean"] for key, stats in outcome.record["summary"].items() if key.startswith("Dice_")]
    dice = _number(sum(means) / len(means)) if means and None not in means else "-"
    seconds = f"{outcome.record['timing']['inference_s']:.1f} s"
    return (outcome.submission, outcome.status, f"{done} of {len(cases)}", dice, seconds, why)


def batch_text(outcomes: Sequence[SubmissionOutcome]) -> str:
    """One JSON document for a list of submissions."""
    runs = [
        {
            "submission": outcome.submission, "status": outcome.status, "attempts": outcome.attempts,
            "error": None if outcome.error is None else _error_entry(outcome.error),
            "folder": None if outcome.folder is None else str(outcome.folder),
            "record": None if outcome.record is None else json.loads(record_text(outcome.record)),
        }
        for outcome in outcomes
    ]  # fmt: skip
    return json.dumps({"schema": "fedeval.runs/1", "runs": runs}, indent=1)


def batch_error(outcomes: Sequence[SubmissionOutcome]) -> FedevalError | None:
    """What a list ends with: nothing when all are ok; a platform's fault weighs more than a participant's."""
    left = [outcome.submission for outcome in outcomes if outcome.status == "not_run"]
    if left:
        return RunsMissingError(
            f"{len(left)} of {len(outcomes)} submissions have no result by a fault of the platform",
            ", ".join(left[:5]), "mend it and give the same command again; complete results are kept",
        )  # fmt: skip
    bad = [outcome.submission for outcome in outcomes if outcome.status != "ok"]
    if bad:
        return SubmissionsFailedError(
            f"{len(bad)} of {len(outcomes)} submissions did not finish every case", ", ".join(bad[:5]),
            "their results are kept, with the official penalty; nothing to do here",
        )  # fmt: skip
    return None


def _number(value: float | None) -> str:
    return "-" if value is None or value != value else f"{value:.3f}" if value < 10 else f"{value:.1f}"


def outcome_text(outcome: TestOutcome) -> str:
    """One JSON document: the run record, the results and where the files are."""
    document: dict[str, Any] = json.loads(record_text(outcome.record))
    document["results"] = json.loads(record_text(outcome.results))
    document["files"] = _places(outcome)
    return json.dumps(document, indent=1)


def error_text(error: FedevalError) -> str:
    """One JSON document for a run that ended before there were results."""
    return json.dumps({"schema": "fedeval.error/1", "error": _error_entry(error)}, indent=1)


def _error_entry(error: FedevalError) -> dict[str, Any]:
    return {"code": error.exit_code, "name": type(error).__name__, "message": error.what, "found": error.found,
            "next": error.next_step}  # fmt: skip


def print_error(error: FedevalError) -> None:
    """The three parts of a message on stderr."""
    print(f"error: {error}", file=sys.stderr)
