"""Running the model: what is finished is kept, whatever ends the container; a killed run continues."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fedeval.benchmark import Benchmark
from fedeval.casewatch import CaseWatch
from fedeval.cube import CubeManifest
from fedeval.dataset import Dataset, check_unchanged
from fedeval.engine.base import ImageRecord
from fedeval.errors import (
    FedevalError,
    GpuMemoryLimitError,
    InputError,
    MemoryLimitError,
    ModelError,
    OutputLimitError,
    PredictionFormatError,
    TimeLimitError,
)
from fedeval.log import show_safe
from fedeval.predictions import REASONS, PredictionCheck, check_predictions
from fedeval.store import check_space
from fedeval.task import Session, TaskRun, fail_task, run_task
from fedeval.work import CaseRecord, Journal, WorkFolder

_STATE_OF_LIMIT = {"time": "timeout", "memory": "out_of_memory", "gpu_memory": "out_of_gpu_memory"}
_UNFINISHED = {"crashed", *_STATE_OF_LIMIT.values()}
_GIVE_UP_AFTER = 3
"""Cases that failed alone in their container, before a submission that never finished one is given up."""

_SPARE_BYTES = 64 << 20


@dataclass(frozen=True)
class InferenceMode:
    """How containers are used.

    Attributes
    ----------
    per_case : bool
        One container a case, each with the per-case limit, instead of one for all.
    go_on : bool
        A batch that ends early by a crash is continued with the remaining cases in a fresh container.
    """

    per_case: bool = False
    go_on: bool = False


@dataclass(frozen=True)
class Inference:
    """What the model left: checked predictions and how each case ended.

    Attributes
    ----------
    runs : tuple of TaskRun
        One a container, in order; empty when an interrupted run had finished all cases.
    cases : tuple of CaseRecord
        In the order of the dataset.
    accepted : Path
        Predictions that can be scored.
    loading_s : float or None
        From the start of the first container until it opened a case.
    limit_case : str or None
        The case at work when a limit ended a container.
    """

    runs: tuple[TaskRun, ...]
    cases: tuple[CaseRecord, ...]
    accepted: Path
    loading_s: float | None
    limit_case: str | None


@dataclass
class _State:
    """Grows from attempt to attempt; frozen into an `Inference` at the end."""

    journal: Journal
    remaining: list[str]
    budget_s: float
    runs: list[TaskRun] = field(default_factory=list)
    loading_s: float | None = None
    limit_case: str | None = None
    suspect: str | None = None
    failed_alone: int = 0


def infer(
    session: Session, benchmark: Benchmark, cube: CubeManifest, image: ImageRecord, dataset: Dataset, work: WorkFolder,
    mode: InferenceMode,
) -> Inference:  # fmt: skip
    """Run task infer until every case has its final state.

    Labels are never among the mounts. A model that fails or is stopped keeps what it had finished.
    """
    journal = work.load_journal()
    if journal.resumed:
        _recover(session, benchmark, dataset, work, journal)
    remaining = [case for case in dataset.cases if case not in journal.cases]
    limits = benchmark.limits["infer"]
    state = _State(journal, remaining, limits.budget_s(len(remaining)))
    while state.remaining:
        _run_attempt(session, benchmark, cube, image, dataset, work, mode, state, _next_cases(state, mode))
        work.save_journal(journal)
    cases = tuple(journal.cases[case] for case in dataset.cases)
    if any(case.status != "ok" for case in cases):
        _check_not_ours(session, dataset, work, journal)
    return Inference(tuple(state.runs), cases, work.accepted, state.loading_s, state.limit_case)


def _next_cases(state: _State, mode: InferenceMode) -> list[str]:
    """What the next container does: one case, the suspect of a crash alone, or all that remain."""
    if mode.per_case:
        return state.remaining[:1]
    return list(state.remaining) if state.suspect is None else [state.suspect]


def _check_not_ours(session: Session, dataset: Dataset, work: WorkFolder, journal: Journal) -> None:
    """Before a submission is blamed: the data must still be what they were. Else nothing that it did counts."""
    try:
        check_unchanged(session, dataset)
    except InputError:
        journal.cases.clear()
        work.save_journal(journal)
        raise


def _run_attempt(
    session: Session, benchmark: Benchmark, cube: CubeManifest, image: ImageRecord, dataset: Dataset, work: WorkFolder,
    mode: InferenceMode, state: _State, cases: list[str],
) -> None:  # fmt: skip
    """One container over `cases`; afterwards at least one case more has its final state."""
    limits = benchmark.limits["infer"]
    needed = limits.output_mb << 20
    check_space(work.folder, needed + (_SPARE_BYTES if needed > _SPARE_BYTES else 0))
    budget = limits.budget_s(1) if mode.per_case else max(state.budget_s, 0.0)
    state.journal.latest_end = time.time() + budget + 1
    state.journal.walls = {}
    work.save_journal(state.journal)
    names = {case: benchmark.prediction_file.format(case=case) for case in cases}
    work.begin_attempt(dataset.data, cases, names.values())

    def remember(walls: dict[str, float]) -> None:
        state.journal.walls = walls
        work.save_journal(state.journal)

    watch = CaseWatch(work.inputs, work.found, names, limits, remember)
    paths = {"data_path": work.inputs, "output_path": work.found}
    try:
        number = len(state.runs) + 1
        run = run_task(session, "model", cube, image, "infer", paths, limits, len(cases), watch.watch, budget, number)
    finally:
        watch.close()
    check_space(work.folder, 1 << 20)
    watch.check_space_back()
    state.runs.append(run)
    state.budget_s -= run.outcome.wall_s
    if len(state.runs) == 1:
        state.loading_s = watch.loading_s(run.outcome.start_up_s)
    with session.view.step("check predictions", len(cases)) as advance:
        checks = check_predictions(work.found, dataset.labels, cases, benchmark, work.accepted, advance)
        work.keep_accepted(names.values())
    _settle(state, run, checks, watch, mode)


def _settle(
    state: _State, run: TaskRun, checks: Sequence[PredictionCheck], watch: CaseWatch, mode: InferenceMode
) -> None:
    """Give the attempted cases their final states, or leave them to the next attempt."""
    walls = watch.wall_times_s()
    left = [] if run.outcome.ok else [check for check in checks if _is_unfinished(check, watch)]
    running = watch.running_case([check.case for check in left])
    for check in checks:
        if check not in left:
            state.journal.cases[check.case] = _record(check, None, walls.get(check.case))
    if run.outcome.ended_by is not None and state.limit_case is None:
        state.limit_case = running
    for check in _find_blamed(state, run, checks, left, mode):
        wall_s = watch.unfinished_wall_s([check.case for check in left]) if check.case == running else None
        state.journal.cases[check.case] = _record(check, run, wall_s)
    state.remaining = [case for case in state.remaining if case not in state.journal.cases]
    # After a crash the case at work goes alone: then it is known whether it is to blame, and for itself alone.
    state.suspect = running if running in state.remaining and len(checks) > 1 else None


def _is_unfinished(check: PredictionCheck, watch: CaseWatch) -> bool:
    """Whether a prediction is not there, or only the beginning of it, which may be less than a header."""
    begun = check.reason == "not_a_nifti" and check.case in watch.written_last()
    return begun or check.reason in ("missing", "truncated")


def _find_blamed(
    state: _State, run: TaskRun, checks: Sequence[PredictionCheck], left: Sequence[PredictionCheck], mode: InferenceMode
) -> list[PredictionCheck]:  # fmt: skip
    """The unfinished cases that are not tried again."""
    if mode.per_case or not left:
        return list(left)
    late = run.outcome.ended_by is not None and run.outcome.ended_by.name == "time"
    alone = len(checks) == 1
    state.failed_alone += alone
    never = all(record.status in _UNFINISHED for record in state.journal.cases.values())
    if mode.go_on and not late and not (alone and never and state.failed_alone >= _GIVE_UP_AFTER):
        return list(left) if alone else []
    tried = {check.case for check in checks}
    return [*left, *(PredictionCheck(case, "missing") for case in state.remaining if case not in tried)]


def _record(check: PredictionCheck, run: TaskRun | None, wall_s: float | None) -> CaseRecord:
    """The state of a case; `run` is the container that is to blame for an unfinished one."""
    if run is None:
        return CaseRecord(check.case, check.status, check.reason, check.detail, wall_s)
    breach = run.outcome.ended_by
    if breach is not None:
        return CaseRecord(check.case, _STATE_OF_LIMIT.get(breach.name, "crashed"), breach.name, str(breach), wall_s)
    return CaseRecord(check.case, "crashed", f"exit code {run.outcome.exit_code}", check.detail, wall_s)


def _recover(session: Session, benchmark: Benchmark, dataset: Dataset, work: WorkFolder, journal: Journal) -> None:
    """Take what an interrupted attempt had finished in time; what is incomplete is done again."""
    journal.cases = {
        case: record for case, record in journal.cases.items()
        if record.status != "ok" or (work.accepted / benchmark.prediction_file.format(case=case)).is_file()
    }  # fmt: skip
    cases = [case for case in dataset.cases if case not in journal.cases and _in_time(work, benchmark, journal, case)]
    checks = check_predictions(work.found, dataset.labels, cases, benchmark, work.accepted) if cases else ()
    work.keep_accepted(benchmark.prediction_file.format(case=case) for case in cases)
    for check in checks:
        if check.reason is None:
            journal.cases[check.case] = _record(check, None, journal.walls.get(check.case))
    work.save_journal(journal)
    session.view.note(
        f"  continuing an interrupted run: {len(journal.cases)} of {len(dataset.cases)} cases are complete"
    )


def _in_time(work: WorkFolder, benchmark: Benchmark, journal: Journal, case: str) -> bool:
    """Whether a prediction was written before the deadline that the interrupted attempt had."""
    try:
        written = (work.found / benchmark.prediction_file.format(case=case)).lstat().st_mtime
    except OSError:
        return False
    return journal.latest_end is None or written <= journal.latest_end


_LIMIT_ERRORS: dict[str, tuple[type[FedevalError], str]] = {
    "time": (TimeLimitError, "make it faster"),
    "memory": (MemoryLimitError, "use less memory"),
    "gpu_memory": (GpuMemoryLimitError, "use less memory on the GPU"),
}


def inference_error(inference: Inference, final: Sequence[CaseRecord]) -> FedevalError | None:
    """The one error a test of this submission ends with: how a container ended, else the first case without a score."""
    done = sum(case.status == "ok" for case in final)
    kept = f"{done} of {len(final)} cases are scored, the others got the official penalty"
    if done == len(final) and (not inference.runs or inference.runs[-1].outcome.ok):
        return None
    for run in inference.runs:
        if (breach := run.outcome.ended_by) is not None:
            error, mend = _LIMIT_ERRORS.get(breach.name, (OutputLimitError, "write less"))
            at = f" at case {show_safe(inference.limit_case, 80)}" if inference.limit_case else ""
            return fail_task(error, "model", f"infer{at}", run, f"{mend}; {kept}")
        if run.outcome.exit_code:
            return fail_task(ModelError, "model", "infer", run, f"mend the submission; {kept}")
    for case in final:
        if case.status != "ok":
            error = REASONS.get(case.reason or "", PredictionFormatError)
            return error(
                f"model, task infer: prediction of case {show_safe(case.case, 80)} cannot be scored ({case.reason})",
                case.detail,
                f"mend the submission; {kept}",
            )
    return None
