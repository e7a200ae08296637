"""Watching a model at work: which case it opened, which prediction is complete, how much it wrote."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from fedeval.engine.base import Breach
from fedeval.limits import Limits
from fedeval.log import LOGGER
from fedeval.output_watch import OutputWatch

with contextlib.suppress(ImportError):  # Linux only
    from inotify_simple import INotify, flags


class CaseWatch:
    """Sees a case's input folder being opened (inotify) and its prediction appear.

    Parameters
    ----------
    inputs : Path
        Folder with one folder a case, of this attempt alone, so that no other reader is seen.
    outputs : Path
        Where predictions appear.
    names : mapping of str to str
        Case id -> file name of its prediction.
    limits : Limits
        For the size and number of files.
    on_complete : callable
        Called when a prediction appeared or grew, with what `wall_times_s` returns.
    """

    def __init__(
        self, inputs: Path, outputs: Path, names: dict[str, str], limits: Limits,
        on_complete: Callable[[dict[str, float]], None] = lambda walls: None,
    ) -> None:  # fmt: skip
        self._outputs, self._names, self._on_complete = outputs, names, on_complete
        self._sizes: dict[str, int] = {}
        self._finished: dict[str, float] = {}
        self._opened: dict[str, float] = {}
        self._started = self._ended = time.monotonic()
        self._output_watch = OutputWatch([outputs], limits)
        self._inotify, self._watched = _watch_folders(inputs, list(names))

    def close(self) -> None:
        """Stop the clock and give the watches back."""
        self._ended = time.monotonic()
        if self._inotify is not None:
            self._inotify.close()
            self._inotify = None

    def watch(self, advance: Callable[[int], None]) -> Callable[[], Breach | None]:
        """Start the clock; the function to call on every tick, which returns a breached limit."""
        self._started = time.monotonic()

        def tick() -> Breach | None:
            now = time.monotonic()
            self._look_at_inputs(now)
            if self._look_at_outputs(now):
                self._on_complete(self.wall_times_s())
            advance(len(self._finished))
            return self._output_watch.look(now)

        return tick

    def _look_at_inputs(self, now: float) -> None:
        if self._inotify is None:
            return
        for event in self._inotify.read(timeout=0):
            case = self._watched.get(event.wd)
            if case is not None and not event.mask & flags.ISDIR:  # the runner itself lists the folders
                self._opened.setdefault(case, now)

    def _look_at_outputs(self, now: float) -> bool:
        changed = False
        for case, name in self._names.items():
            with contextlib.suppress(OSError):
                size = (self._outputs / name).lstat().st_size
                if self._sizes.get(case) != size:
                    self._sizes[case], self._finished[case], changed = size, now, True
        return changed

    def check_space_back(self) -> None:
        """See `OutputWatch.check_space_back`."""
        self._output_watch.check_space_back()

    def loading_s(self, start_up_s: float) -> float | None:
        """From the start of the task's first process until the first case was opened; None when that was not seen."""
        if not self._opened:
            return None
        return round(max(min(self._opened.values()) - self._started - start_up_s, 0.0), 3)

    def running_case(self, unfinished: Sequence[str]) -> str | None:
        """The case at work at the end, of those without a complete prediction.

        The first that was opened after the case that was finished last: models read ahead. Without any opened: the
        first.
        """
        order = list(self._opened)
        done = [case for case in self._finished if case in self._opened and case not in unfinished]
        latest = max(done, key=lambda case: (self._finished[case], order.index(case)), default=None)
        behind = order if latest is None else order[order.index(latest) + 1 :]
        return next((case for case in [*behind, *order, *unfinished] if case in unfinished), None)

    def written_last(self) -> set[str]:
        """Cases whose prediction was seen to change last: it may be but the beginning of a file."""
        latest = max(self._finished.values(), default=0.0)
        return {case for case, end in self._finished.items() if end == latest}

    def unfinished_wall_s(self, unfinished: Sequence[str]) -> float:
        """Seconds that the case at work had had when the container ended: since the last complete prediction."""
        ends = [end for case, end in self._finished.items() if case not in unfinished]
        begun = max(ends, default=min(self._opened.values(), default=self._started))
        return round(max(self._ended - begun, 0.0), 3)

    def wall_times_s(self) -> dict[str, float]:
        """Case -> seconds from the end of the case before, or for the first from its opening, until it was complete."""
        first_open = min(self._opened.values(), default=self._started)
        times, before = {}, first_open
        for case, end in sorted(self._finished.items(), key=lambda item: item[1]):
            times[case] = round(max(end - before, 0.0), 3)
            before = end
        return times


def _watch_folders(inputs: Path, cases: Sequence[str]) -> tuple[INotify | None, dict[int, str]]:
    """Watches on the folders of all cases; none where the system has no more to give."""
    try:
        inotify = INotify()
    except (NameError, OSError) as err:
        LOGGER.warning("no inotify: loading time is not known (%s)", type(err).__name__)
        return None, {}
    watched = {}
    try:
        for case in cases:
            watched[inotify.add_watch(str(inputs / case), flags.OPEN)] = case
    except OSError as err:
        LOGGER.warning("too few inotify watches: loading time is not known (%s)", err.strerror)
        inotify.close()
        return None, {}
    with contextlib.suppress(OSError):
        inotify.read(timeout=0)
    return inotify, watched
