"""The work folder of an unfinished run: what is complete is kept there until the results are published.

A run is addressed by the digests of benchmark, image and dataset, so the same command after a power cut finds it.
One runner works in it at a time; a second one waits.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fedeval.errors import InputError, InterruptedRunError
from fedeval.log import LOGGER, show_safe
from fedeval.store import Store, storing, write_text
from fedeval.trees import remove_tree

_ABANDONED_S = 30 * 86400


@dataclass(frozen=True)
class CaseRecord:
    """State of one case.

    Attributes
    ----------
    case : str
        Case id.
    status : str
        ``ok``, ``missing``, ``invalid``, ``timeout``, ``crashed``, ``out_of_memory`` or ``out_of_gpu_memory``.
    reason : str or None
        Key of `fedeval.predictions.REASONS`, the limit that ended the run, or the exit code.
    detail : str
        Found against expected, safe to show.
    wall_s : float or None
        From the end of the case before (or its opening) until the prediction was complete.
    """

    case: str
    status: str
    reason: str | None
    detail: str
    wall_s: float | None


@dataclass
class Journal:
    """What survives a killed runner: final cases, and the attempt that was running."""

    cases: dict[str, CaseRecord] = field(default_factory=dict)
    walls: dict[str, float] = field(default_factory=dict)
    latest_end: float | None = None
    resumed: bool = False


class WorkFolder:
    """A locked folder below the storage; see `open_work`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.accepted = folder / "accepted"
        self.found = folder / "found"
        self.inputs = folder / "inputs"
        self._file = folder / "journal.json"

    def load_journal(self) -> Journal:
        """The journal of an interrupted run; an empty one when there is none or it cannot be read."""
        try:
            content: dict[str, Any] = json.loads(self._file.read_text(encoding="utf-8"))
            cases = {case: CaseRecord(**record) for case, record in content["cases"].items()}
            return Journal(cases, dict(content["walls"]), content["latest_end"], resumed=True)
        except FileNotFoundError:
            return Journal()
        except (OSError, ValueError, KeyError, TypeError) as err:
            LOGGER.warning("the journal of an interrupted run cannot be read (%s): starting anew", type(err).__name__)
            return Journal()

    def save_journal(self, journal: Journal) -> None:
        """Write the journal, all or nothing."""
        cases = {case: asdict(record) for case, record in journal.cases.items()}
        write_text(self._file, json.dumps({"cases": cases, "walls": journal.walls, "latest_end": journal.latest_end}))

    def keep_accepted(self, names: Iterable[str]) -> None:
        """Bring accepted predictions to the disk, before the journal says that they are there."""
        with storing("keeping predictions", self.accepted):
            for path in (*(self.accepted / name for name in names), self.accepted):
                if path.exists():
                    handle = os.open(path, os.O_RDONLY)
                    try:
                        os.fsync(handle)
                    finally:
                        os.close(handle)

    def begin_attempt(self, data: Path, cases: Sequence[str], predictions: Iterable[str]) -> None:
        """Make empty `found` and `inputs` with the cases to do: hard links, or copies across file systems.

        What an interrupted attempt may have left half copied of their `predictions` goes.
        """
        with storing("preparing folders of the model", self.folder):
            for folder in (self.found, self.inputs):
                remove_tree(folder)
                folder.mkdir()
                folder.chmod(0o755)
            for case in cases:
                if not (data / case).is_dir():
                    raise InputError(
                        f"the prepared data of case {show_safe(case, 80)} are gone", "no folder; expected its images",
                        "restore the dataset from a copy; the same command continues",
                    )  # fmt: skip
                link_tree(data / case, self.inputs / case)
            self.accepted.mkdir(exist_ok=True)
            for name in predictions:
                (self.accepted / name).unlink(missing_ok=True)


def link_tree(source: Path, target: Path) -> None:
    """The same files under another folder, for a reader; sockets and pipes are left out.

    Raises
    ------
    InputError
        There is a symbolic link: what it points to is not in sight of the reader, who would fail and take the blame.
    """
    target.mkdir()
    target.chmod(0o755)
    for entry in sorted(source.iterdir()):
        if entry.is_symlink():
            raise InputError(
                "the prepared data hold a symbolic link", "a link; expected the files themselves",
                "copy the files in its place: cp --recursive --dereference",
            )  # fmt: skip
        if not (entry.is_dir() or entry.is_file()):  # a socket would lead out of the container
            continue
        if entry.is_dir():
            link_tree(entry, target / entry.name)
            continue
        try:
            os.link(entry, target / entry.name)
        except OSError:
            shutil.copyfile(entry, target / entry.name)


@contextlib.contextmanager
def open_work(
    store: Store, key: str, resume: bool, note: Callable[[str], None], stop: threading.Event
) -> Iterator[WorkFolder]:
    """The work folder of a run, locked; it goes when the block ends well, and stays when it does not.

    Parameters
    ----------
    key : str
        Address of the run.
    resume : bool
        Whether what an interrupted run left is taken.
    note : callable
        Told when another runner has to be waited for.
    stop : threading.Event
        Ends the waiting.

    Raises
    ------
    InterruptedRunError
        Told to stop while waiting.
    """
    folder = store.root / "predictions" / f".work-{key[:24]}"
    with storing("opening the work folder", folder):
        _remove_abandoned(folder.parent)
        lock = _lock(folder, note, stop)
    try:
        if not resume:
            _empty(folder)
        work = WorkFolder(folder)
        yield work
        _empty(folder)
        remove_tree(folder)
    finally:
        os.close(lock)


def _remove_abandoned(predictions: Path) -> None:
    """Remove work that nobody came back to: its submission was changed, or given up."""
    for folder in sorted(predictions.glob(".work-*")):
        if time.time() - folder.stat().st_mtime < _ABANDONED_S:
            continue
        handle = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                remove_tree(folder)
        finally:
            os.close(handle)


def _empty(folder: Path) -> None:
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            remove_tree(entry)
        elif entry.name != "lock":
            entry.unlink()


def _lock(folder: Path, note: Callable[[str], None], stop: threading.Event) -> int:
    """An exclusive lock on ``folder/lock``; the file must still be there once it is held."""
    told = False
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            handle = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        except FileNotFoundError:  # the one who was here has just removed it
            continue
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(handle), (folder / "lock").stat()):
                    return handle
            os.close(handle)
        except BlockingIOError:
            os.close(handle)
            if not told:
                note("  another runner works on the same run: waiting for it")
                told = True
            if stop.wait(0.2):
                raise InterruptedRunError("stopped", "", "the same command continues") from None
