"""What a person or a machine gets at the end of a command: a table, or one JSON document."""

from __future__ import annotations

import json
import sys
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from fedeval.errors import FedevalError
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
    table.add_row("mean", *means, f"{record['timing']['inference_s']:.1f} s", Text(record["outcome"]["status"]))
    return table


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
    found = {"code": error.exit_code, "name": type(error).__name__, "message": error.what, "found": error.found,
             "next": error.next_step}  # fmt: skip
    return json.dumps({"schema": "fedeval.error/1", "error": found}, indent=1)


def print_error(error: FedevalError) -> None:
    """The three parts of a message on stderr."""
    print(f"error: {error}", file=sys.stderr)
