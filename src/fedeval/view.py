"""The live view of a run on stderr: step, cases done of all, elapsed and limit."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from fedeval.log import LOGGER


class RunView:
    """Shows the steps of a run: live on a terminal, else a plain line at the end of each.

    Parameters
    ----------
    quiet : bool
        Nothing on stderr but warnings; for ``--json``.
    live : bool
        A bar on a terminal; not for several runs at once.
    """

    def __init__(self, quiet: bool = False, live: bool = True) -> None:
        self.console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._quiet = quiet
        self._progress: Progress | None = None
        if live and self.console.is_terminal and not quiet:
            self._progress = Progress(
                SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn(bar_width=24),
                TextColumn("{task.fields[count]}"), TimeElapsedColumn(),
                TextColumn("{task.fields[limit]}", markup=False),
                console=self.console, refresh_per_second=8,
            )  # fmt: skip

    @contextlib.contextmanager
    def step(
        self, title: str, total: int | None = None, limit_s: float | None = None
    ) -> Iterator[Callable[[int], None]]:
        """Show a step while it runs; yields a function that takes the number of cases done."""
        LOGGER.info("step %s begins", title)
        limit = f"limit {limit_s:.0f} s" if limit_s else ""
        started = time.monotonic()
        if self._progress is None:
            yield lambda done: None
        else:
            with self._progress:
                task = self._progress.add_task(title, total=total, limit=limit, count="")
                progress = self._progress

                def advance(done: int) -> None:
                    progress.update(task, completed=done, count=f"{done}/{total} cases" if total else "")

                yield advance
                progress.remove_task(task)
        elapsed = time.monotonic() - started
        LOGGER.info("step %s ended after %.2f s", title, elapsed)
        if not self._quiet:
            tail = f"  ({limit})" if limit else ""
            self.console.print(f"  {title:<44} {elapsed:7.1f} s{tail}", markup=False)

    def note(self, text: str) -> None:
        """One line for the person; already safe to show."""
        LOGGER.info(text)
        if not self._quiet:
            self.console.print(text, markup=False)

    def detail(self, text: str) -> None:
        """A line for the log alone."""
        LOGGER.info(text)

    def warn(self, text: str) -> None:
        """A warning; shown in every mode."""
        LOGGER.warning(text)
        print(f"warning: {text}", file=sys.stderr)
