"""Running one task of one cube, and the record of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fedeval.cube import CubeManifest
from fedeval.diagnosis import diagnose
from fedeval.engine.base import Breach, Engine, ImageRecord, TaskCall, TaskOutcome
from fedeval.errors import FedevalError, InterruptedRunError
from fedeval.invocation import build_invocation
from fedeval.limits import Limits
from fedeval.log import LOGGER
from fedeval.output_watch import OutputWatch
from fedeval.store import Store, check_space, storing
from fedeval.view import RunView

_LITTLE_BYTES = 64 << 20


@dataclass(frozen=True)
class Session:
    """What all steps of one run share.

    Attributes
    ----------
    engine : Engine
        Runs the tasks.
    store : Store
        Where things are kept.
    view : RunView
        What the person sees.
    log_dir : Path
        Gets one log file a task.
    cleanup : bool
        Whether scratch folders are removed.
    require_gpu : bool
        Whether a cube that asks for a GPU is refused where there is none.
    stop : threading.Event
        Set to end everything that runs.
    """

    engine: Engine
    store: Store
    view: RunView
    log_dir: Path
    cleanup: bool
    require_gpu: bool = False
    stop: threading.Event = field(default_factory=threading.Event)

    def stoppable(self, on_tick: Callable[[], Breach | None]) -> Callable[[], Breach | None]:
        """`on_tick`, which also ends the task when the session is told to stop."""

        def tick() -> Breach | None:
            if self.stop.is_set():
                raise InterruptedRunError("stopped", "", "the same command continues")
            return on_tick()

        return tick


@dataclass(frozen=True)
class TaskRecord:
    """One line of ``tasks`` in run.json; see `TaskOutcome` for units."""

    cube: str
    task: str
    start_up_s: float
    wall_s: float
    exit_code: int
    ended_by: Breach | None
    peak_memory_mb: float | None
    peak_gpu_mb: float | None

    def to_dict(self) -> dict[str, Any]:
        """Plain mapping."""
        return asdict(self)


@dataclass(frozen=True)
class TaskRun:
    """Outcome, record and log file of a task."""

    outcome: TaskOutcome
    record: TaskRecord
    log_file: Path


def run_task(
    session: Session, role: str, cube: CubeManifest, image: ImageRecord, task: str, given: Mapping[str, Path],
    limits: Limits, cases: int, watch: Callable[[Callable[[int], None]], Callable[[], Breach | None]] | None = None,
    budget_s: float | None = None, attempt: int = 1,
) -> TaskRun:  # fmt: skip
    """Run a task with the paths in `given`; its end is returned, whatever it is.

    Parameters
    ----------
    role : str
        ``data_prep``, ``model`` or ``metrics``; for messages and the record.
    cases : int
        Decides the wall-clock budget, unless `budget_s` does.
    watch : callable, optional
        Gets the view's function for "cases done" and returns what is called while the task runs
        (`TaskCall.on_tick`).
    budget_s : float, optional
        Wall-clock budget; by the limits and `cases` when not given.
    attempt : int
        Above 1 the log file gets the number.

    Raises
    ------
    DiskFullError
        It failed, and the disk of the storage is full.
    """
    budget = limits.budget_s(cases) if budget_s is None else budget_s
    log_file = session.log_dir / f"{role}-{task}{'' if attempt == 1 else f'-{attempt}'}.log"
    with session.store.scratch(f"{role}-{task}", keep=not session.cleanup) as scratch:
        with storing("preparing folders of a task", scratch):
            session.log_dir.mkdir(parents=True, exist_ok=True)
            invocation = build_invocation(cube, task, given, scratch, role)
        LOGGER.info("%s %s: %s", role, task, " ".join(invocation.arguments))
        with session.view.step(f"{role}: {task}", cases if watch else None, budget) as advance:
            outputs = OutputWatch(invocation.output_dirs, limits)
            case_tick = watch(advance) if watch else lambda: None
            # All folders that may be written, also those of outputs that only the manifest knows.
            on_tick = session.stoppable(lambda: case_tick() or outputs.look(time.monotonic()))
            call = TaskCall(cube, image, invocation, limits, budget, log_file, on_tick)
            outcome = session.engine.run(call)
    _check_disk(session.store, outcome)
    record = TaskRecord(
        role, task, outcome.start_up_s, outcome.wall_s, outcome.exit_code, outcome.ended_by, outcome.peak_memory_mb,
        outcome.peak_gpu_mb,
    )  # fmt: skip
    return TaskRun(outcome, record, log_file)


def _check_disk(store: Store, outcome: TaskOutcome) -> None:
    """A task that failed where the disk is full did not fail by itself; what it wrote last may be gone again.

    Raises
    ------
    DiskFullError
        So it is.
    """
    if outcome.ok or outcome.ended_by is not None:
        return
    said_so = any("No space left on device" in line for line in outcome.last_lines)
    check_space(store.root, _LITTLE_BYTES if said_so else 1 << 20)


def fail_task(error: type[FedevalError], role: str, task: str, run: TaskRun, next_step: str) -> FedevalError:
    """The error for a task that failed: why it ended, its last lines, where its log is."""
    outcome = run.outcome
    ended = f"ended by {outcome.ended_by}" if outcome.ended_by else f"exit code {outcome.exit_code}"
    lines = "".join(f"\n    | {line}" for line in outcome.last_lines)
    known = diagnose(outcome)
    cause = f"\n  cause: {known.cause}; {known.mend}" if known else ""
    return error(
        f"{role}, task {task} failed",
        f"{ended}; expected 0; last lines:{lines or ' none'}{cause}",
        f"{next_step} (whole log: {run.log_file})",
    )
