"""What was found to be wrong with a case, and how it is shown."""

import sys
from dataclasses import astuple, dataclass

from rich.console import Console
from rich.table import Table
from rich.text import Text

DATASET = "(dataset)"
HEADINGS = ("case", "file", "problem", "expected", "found")


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong: prepared case id, which file, what about it, expected against found."""

    case: str
    part: str
    problem: str
    expected: str
    found: str


def findings_text(findings: list[Finding]) -> str:
    """Findings as aligned plain lines, for logs and pipes."""
    rows = [HEADINGS, *(astuple(finding) for finding in findings)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADINGS))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def print_findings(findings: list[Finding]) -> None:
    """Print a table on a terminal, plain lines elsewhere."""
    if not sys.stdout.isatty():
        print(findings_text(findings))
        return
    table = Table(*HEADINGS)
    for finding in findings:
        table.add_row(*(Text(cell) for cell in astuple(finding)))
    Console().print(table)
