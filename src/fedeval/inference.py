"""Running the model: one batch container, every case with its own wall time, what was finished is kept."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fedeval.benchmark import Benchmark
from fedeval.cube import CubeManifest
from fedeval.dataset import Dataset
from fedeval.engine.base import ImageRecord
from fedeval.errors import (
    FedevalError,
    MemoryLimitError,
    ModelError,
    OutputLimitError,
    PredictionFormatError,
    TimeLimitError,
)
from fedeval.limits import Limits
from fedeval.log import show_safe
from fedeval.predictions import REASONS, PredictionCheck, check_predictions
from fedeval.task import Session, TaskRun, fail_task, run_task

_SIZE_CHECK_S = 1.0
_STATE_OF_LIMIT = {"timeout": "timeout", "memory": "out_of_memory"}


@dataclass(frozen=True)
class CaseRecord:
    """State of one case.

    Attributes
    ----------
    case : str
        Case id.
    status : str
        ``ok``, ``missing``, ``invalid``, ``timeout``, ``crashed`` or ``out_of_memory``.
    reason : str or None
        Key of `fedeval.predictions.REASONS`, or the limit that ended the run.
    detail : str
        Found against expected, safe to show.
    wall_s : float or None
        From the end of the case before (or the start of the container) until the prediction was complete.
    """

    case: str
    status: str
    reason: str | None
    detail: str
    wall_s: float | None


@dataclass(frozen=True)
class Inference:
    """What the model left: checked predictions and how each case ended."""

    run: TaskRun
    checks: tuple[PredictionCheck, ...]
    cases: tuple[CaseRecord, ...]
    accepted: Path


class CaseClock:
    """Watches the output folder of a running model.

    Parameters
    ----------
    folder : Path
        Where predictions appear.
    names : sequence of str
        Expected file names.
    limits : Limits
        For the size and number of files.
    """

    def __init__(self, folder: Path, names: Sequence[str], limits: Limits) -> None:
        self._folder, self._names, self._limits = folder, names, limits
        self._sizes: dict[str, int] = {}
        self._started = self._last_count = time.monotonic()
        self._finished: dict[str, float] = {}

    def watch(self, advance: Callable[[int], None]) -> Callable[[], str | None]:
        """Start the clock; the function to call on every tick, which names a breached limit."""
        self._started = time.monotonic()

        def tick() -> str | None:
            now = time.monotonic()
            for name in self._names:
                with contextlib.suppress(OSError):
                    size = (self._folder / name).lstat().st_size
                    if self._sizes.get(name) != size:
                        self._sizes[name], self._finished[name] = size, now
            advance(len(self._finished))
            if now - self._last_count >= _SIZE_CHECK_S:
                self._last_count = now
                return self._breach()
            return None

        return tick

    def _breach(self) -> str | None:
        size, files = measure_tree(self._folder)
        if size > self._limits.output_mb << 20:
            return f"output size ({size >> 20} MiB of {self._limits.output_mb} MiB)"
        if files > self._limits.output_files:
            return f"output files ({files} of {self._limits.output_files})"
        return None

    def wall_times_s(self) -> dict[str, float]:
        """File name -> seconds since the file before it was complete."""
        times, before = {}, self._started
        for name, end in sorted(self._finished.items(), key=lambda item: item[1]):
            times[name] = round(end - before, 2)
            before = end
        return times


def measure_tree(folder: Path) -> tuple[int, int]:
    """Bytes on disk and number of entries below a folder; links are not followed."""
    size = files = 0
    for root, names, entries in os.walk(folder, followlinks=False):
        for name in [*names, *entries]:
            with contextlib.suppress(OSError):
                size += os.lstat(os.path.join(root, name)).st_blocks * 512  # noqa: PTH118
                files += 1
    return size, files


def infer(
    session: Session, benchmark: Benchmark, cube: CubeManifest, image: ImageRecord, dataset: Dataset, scratch: Path
) -> Inference:
    """Run task infer on an empty output folder and check what it left.

    Labels are never among the mounts. A model that fails or is stopped keeps what it had finished.
    """
    found, accepted = scratch / "found", scratch / "predictions"
    limits = benchmark.limits["infer"]
    names = [benchmark.prediction_file.format(case=case) for case in dataset.cases]
    clock = CaseClock(found, names, limits)
    paths = {"data_path": dataset.data, "output_path": found}
    run = run_task(session, "model", cube, image, "infer", paths, limits, len(names), clock.watch)
    with session.view.step("check predictions", len(names)) as advance:
        checks = check_predictions(found, dataset.labels, dataset.cases, benchmark, accepted, advance)
    times = clock.wall_times_s()
    cases = tuple(_case_record(check, run, times.get(name)) for check, name in zip(checks, names, strict=True))
    return Inference(run, checks, cases, accepted)


def _case_record(check: PredictionCheck, run: TaskRun, wall_s: float | None) -> CaseRecord:
    """The state of a case: a prediction that can be scored counts, however the container ended."""
    status, reason = check.status, check.reason
    unfinished = check.reason in ("missing", "truncated")
    if unfinished and run.outcome.ended_by:
        status, reason = _STATE_OF_LIMIT.get(run.outcome.ended_by, "crashed"), run.outcome.ended_by
    elif unfinished and run.outcome.exit_code:
        status, reason = "crashed", f"exit code {run.outcome.exit_code}"
    return CaseRecord(check.case, status, reason, check.detail, wall_s)


_LIMIT_ERRORS: dict[str, tuple[type[FedevalError], str]] = {
    "timeout": (TimeLimitError, "make it faster"),
    "memory": (MemoryLimitError, "use less memory"),
}


def inference_error(inference: Inference, final: Sequence[CaseRecord]) -> FedevalError | None:
    """The one error a test of this submission ends with: how it ended, else the first case that cannot be scored."""
    outcome = inference.run.outcome
    done = sum(case.status == "ok" for case in final)
    kept = f"{done} of {len(final)} cases are scored, the others got the official penalty"
    if outcome.ended_by:
        error, mend = _LIMIT_ERRORS.get(outcome.ended_by, (OutputLimitError, "write less"))
        return fail_task(error, "model", "infer", inference.run, f"{mend}; {kept}")
    if outcome.exit_code:
        return fail_task(ModelError, "model", "infer", inference.run, f"mend the submission; {kept}")
    for case in final:
        if case.status != "ok":
            error = REASONS.get(case.reason or "", PredictionFormatError)
            return error(
                f"model, task infer: prediction of case {show_safe(case.case, 80)} cannot be scored ({case.reason})",
                case.detail,
                f"mend the submission; {kept}",
            )
    return None
