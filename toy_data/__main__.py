"""Command line: ``python -m toy_data cases --site 1 --cases 3 --seed 0 --out DIR [--size full|ci]``."""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from toy_data.case import ToyCase
from toy_data.errors import ToyDataError
from toy_data.grid import GRIDS
from toy_data.writing import write_cases


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: 0, 1 for a failure, 130 when interrupted.

    Wrong arguments end with code 2, as argparse does it.
    """
    options = _make_parser().parse_args(arguments)
    try:
        with _show_progress(options.cases) as on_case:
            out = write_cases(
                options.out,
                site=options.site,
                cases=options.cases,
                seed=options.seed,
                size=options.size,
                on_case=on_case,
            )
    except ToyDataError as error:
        print(f"toy_data: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("toy_data: interrupted; nothing was written", file=sys.stderr)
        return 130
    print(out)
    return 0


def _make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m toy_data", description="Seeded toy cases with real anatomy.")
    commands = parser.add_subparsers(dest="command", required=True)
    cases = commands.add_parser("cases", help="write raw cases of a site", allow_abbrev=False)
    cases.add_argument("--site", type=int, required=True, help="number of the site, from 1; site 1 is the reference")
    cases.add_argument("--cases", type=int, required=True, help="how many cases")
    cases.add_argument("--seed", type=int, default=0, help="other seeds give other subjects (default: %(default)s)")
    cases.add_argument("--out", type=Path, required=True, help="folder to make; must not hold anything yet")
    cases.add_argument(
        "--size", choices=sorted(GRIDS), default="full", help="240x240x155 at 1 mm or 96x96x64 at 2.5 mm"
    )
    return parser


@contextmanager
def _show_progress(total: int) -> Iterator[Callable[[ToyCase], None]]:
    """Give a callback that shows progress on stderr: a bar on a terminal, else one line per case."""
    console = Console(stderr=True)
    if not console.is_terminal:
        done = 0

        def report(case: ToyCase) -> None:
            nonlocal done
            done += 1
            print(f"toy case {done}/{total}: {case.subject_id}", file=sys.stderr, flush=True)

        yield report
        return
    columns = (TextColumn("toy cases"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("toy cases", total=max(total, 1))
        yield lambda case: progress.advance(task)


if __name__ == "__main__":
    sys.exit(main())
