"""What every engine offers, and the values it takes and returns."""

from __future__ import annotations

import codecs
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from fedeval.cube import CubeManifest
from fedeval.invocation import Invocation
from fedeval.limits import Limits
from fedeval.log import LOGGER, show_safe
from fedeval.store import storing

TICK_S = 0.05
"""How often a running task is looked at."""

LAST_LINES = 12

_END_BYTES = 1 << 15

_VISIBLE = {
    code: ascii(chr(code))[1:-1]
    for code in (*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
    if chr(code) not in "\n\t"
}
"""What a terminal would act upon, or use to reorder text, as the escape that is shown instead."""


@dataclass(frozen=True)
class ImageRecord:
    """The code that runs, by digest.

    Attributes
    ----------
    reference : str
        Name as the manifest gives it, or the folder's name for the process engine.
    digest : str
        ``sha256:...`` of the image, or of the code and its libraries.
    source : str
        ``built``, ``present``, ``pulled`` or ``checkout``.
    """

    reference: str
    digest: str
    source: str


@dataclass(frozen=True)
class Breach:
    """A limit that ended a task.

    Attributes
    ----------
    name : str
        ``time``, ``memory``, ``gpu_memory``, ``output_size`` or ``output_files``.
    measured, limit : float
        What was found and what is allowed; `measured` is the last value seen before the end.
    unit : str
        ``s``, ``MiB`` or ``files``.
    """

    name: str
    measured: float
    limit: float
    unit: str

    def __str__(self) -> str:
        return f"limit {self.name}: {self.measured:g} {self.unit} of {self.limit:g} {self.unit}"


@dataclass(frozen=True)
class TaskCall:
    """One task to run.

    Attributes
    ----------
    manifest : CubeManifest
        The cube.
    image : ImageRecord
        What `Engine.get_image` returned for it.
    invocation : Invocation
        Arguments and paths.
    limits : Limits
        Hard limits of the container.
    budget_s : float
        Wall clock from the start of the container to its end.
    log_file : Path
        Gets the container's output, at most `Limits.log_mb`.
    on_tick : callable
        Called about every `TICK_S` while the task runs; a returned breach ends the task.
    """

    manifest: CubeManifest
    image: ImageRecord
    invocation: Invocation
    limits: Limits
    budget_s: float
    log_file: Path
    on_tick: Callable[[], Breach | None] = lambda: None


@dataclass(frozen=True)
class TaskOutcome:
    """How a task ended, by the engine's own state.

    Attributes
    ----------
    exit_code : int
        Of the first process of the task.
    ended_by : Breach or None
        The limit that ended it; None when it ended by itself.
    start_up_s : float
        From the call to the start of the task's first process.
    wall_s : float
        From there to its end.
    peak_memory_mb : float or None
        Highest memory seen, where the engine can tell.
    last_lines : tuple of str
        End of the output, safe to show.
    peak_gpu_mb : float or None
        Highest GPU memory seen on one device; None where no GPU was watched.
    """

    exit_code: int
    ended_by: Breach | None
    start_up_s: float
    wall_s: float
    peak_memory_mb: float | None
    last_lines: tuple[str, ...]
    peak_gpu_mb: float | None = None

    @property
    def ok(self) -> bool:
        """Whether the task ended by itself with exit code 0."""
        return self.exit_code == 0 and self.ended_by is None


class Engine(Protocol):
    """Runs tasks. A context manager: on every way out nothing that it started is left running."""

    name: str
    version: str
    not_enforced: tuple[str, ...]

    def get_image(self, manifest: CubeManifest, build: bool, on_line: Callable[[str], None]) -> ImageRecord:
        """Get or make what runs for a cube; `on_line` gets progress lines."""
        ...

    def run(self, call: TaskCall) -> TaskOutcome:
        """Run one task to its end or to the first limit."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def time_breach(call: TaskCall, started: float) -> Breach | None:
    """The breach of the wall-clock budget, `started` being `time.monotonic()` at the start of the task."""
    elapsed = time.monotonic() - started
    return Breach("time", round(elapsed, 3), call.budget_s, "s") if elapsed > call.budget_s else None


@dataclass
class LogTail:
    """Writes a task's output to its log file, capped, and remembers the last lines.

    The output is a stranger's: in the file, too, control characters stand as ``\\xNN``, so that looking at it on a
    terminal does nothing but show it; a carriage return (progress bars) begins a new line.
    """

    path: Path
    max_bytes: int
    _written: int = 0
    _end: bytes = b""

    def __post_init__(self) -> None:
        with storing("writing the log of a task", self.path.parent):
            self._file = self.path.open("wb", buffering=0)
        self._decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")

    def feed(self, chunk: bytes) -> None:
        """Take more output; past the cap it is only looked at for the last lines, never kept."""
        if self._written < self.max_bytes:
            self._keep(self._decoder.decode(chunk))
        self._end = (self._end + chunk)[-_END_BYTES:]

    def _keep(self, text: str) -> None:
        shown = text.replace("\r\n", "\n").replace("\r", "\n").translate(_VISIBLE).encode("utf-8", "backslashreplace")
        kept = shown[: self.max_bytes - self._written]
        try:
            self._file.write(kept)
            self._written += len(kept)
            if self._written >= self.max_bytes:
                self._file.write(b"\n[output above the limit was not kept]\n")
        except OSError as err:  # a full disk costs the log, not the task, which would block if nobody took its output
            self._written = self.max_bytes
            LOGGER.warning("the log of a task ends early: %s", err.strerror)

    def close(self) -> tuple[str, ...]:
        """Close the file; the last lines, safe to show."""
        self._file.close()
        lines = [line for line in re.split(rb"[\r\n]+", self._end) if line.strip()]
        return tuple(show_safe(line[-2000:].decode("utf-8", "replace").strip(), 300) for line in lines[-LAST_LINES:])


def base_environment(scratch_home: str) -> Mapping[str, str]:
    """Environment of a task: nothing of the host's, and what programs without a passwd entry need."""
    return {"HOME": scratch_home, "USER": "fedeval", "LANG": "C.UTF-8", "PYTHONUNBUFFERED": "1"}
