"""Progress of long work on stderr: a bar where somebody watches, a line every few seconds otherwise."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any

_SECONDS_BETWEEN_LINES = 5.0


class SiteProgress:
    """Called with (sites done, sites in all); quick work stays silent. A context manager, so a bar is taken down."""

    def __init__(self) -> None:
        self.last = time.monotonic()
        self.bar: Any = None
        self.task: Any = None

    def __enter__(self) -> SiteProgress:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self.bar is not None:
            self.bar.stop()

    def __call__(self, done: int, total: int) -> None:
        if self.bar is not None:
            self.bar.update(self.task, completed=done)
            return
        now = time.monotonic()
        if now - self.last < _SECONDS_BETWEEN_LINES:
            return
        self.last = now
        if not (sys.stderr.isatty() and self._start_bar(done, total)):
            print(f"{done} of {total} sites", file=sys.stderr)

    def _start_bar(self, done: int, total: int) -> bool:
        try:
            from rich.console import Console
            from rich.progress import Progress
        except ImportError:
            return False
        self.bar = Progress(console=Console(stderr=True), transient=True)
        self.bar.start()
        self.task = self.bar.add_task("sites", total=total, completed=done)
        return True
