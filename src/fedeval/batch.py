"""``medperf run``: a list of submissions on one prepared dataset, unattended.

One bad submission never stops the others. Faults of the platform are retried, faults of a participant never are.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedeval import errors
from fedeval.benchmark import TRUSTED, Benchmark, resolve_benchmark
from fedeval.cube import CubeManifest, load_cube
from fedeval.dataset import Dataset
from fedeval.engine.base import Engine, ImageRecord
from fedeval.errors import (
    EngineDownError,
    EngineFaultError,
    EngineForbiddenError,
    EngineMissingError,
    FedevalError,
    GpuMissingError,
    InputError,
    InterruptedRunError,
    MetricsError,
    StorageError,
    UsageError,
)
from fedeval.inference import InferenceMode
from fedeval.log import LOGGER, open_run_log, show_safe
from fedeval.options import Options
from fedeval.pipeline import (
    REQUIRED_TASKS,
    TestRequest,
    check_image_names,
    choose_engine,
    get_dataset,
    get_images,
    load_cubes,
    run_key,
    score_submission,
)
from fedeval.results import result_place
from fedeval.store import Store, folder_name
from fedeval.task import Session
from fedeval.view import RunView
from fedeval.work import open_work

RETRIED = (EngineFaultError, EngineDownError)
"""Faults of the platform that may pass; others of the platform (a full disk, a failing metrics cube) do not."""

PLATFORM_FAULTS = (
    *RETRIED, EngineMissingError, EngineForbiddenError, GpuMissingError, StorageError, MetricsError, InputError,
)  # fmt: skip


@dataclass(frozen=True)
class RunRequest:
    """What ``medperf run`` was asked for.

    Attributes
    ----------
    benchmark : str
        Number or file.
    submissions : tuple of Path
        Model cubes, in order.
    dataset : Path or None
        Prepared dataset; the benchmark's toy cases without it.
    slots : int
        Submissions at the same time; slot n uses GPU n.
    retries : int
        How often a platform fault is tried again.
    retry_wait_s : float
        Pause before that.
    build : bool or None
        Build images whose Dockerfile is beside the cube; None: only those of this checkout, because a build runs a
        stranger's commands with a network and without limits.
    mode : InferenceMode
        Containers; by default a crash does not end the remaining cases.
    """

    benchmark: str
    submissions: tuple[Path, ...]
    dataset: Path | None = None
    slots: int = 1
    retries: int = 2
    retry_wait_s: float = 5.0
    build: bool | None = None
    mode: InferenceMode = dataclasses.field(default_factory=lambda: InferenceMode(go_on=True))


@dataclass(frozen=True)
class SubmissionOutcome:
    """How one submission of the list ended.

    Attributes
    ----------
    submission : str
        Path as given, safe to show.
    status : str
        ``ok``, ``partial``, ``failed`` (the participant's fault) or ``not_run`` (the platform's).
    attempts : int
        Tries; 0 when complete results of an earlier run were taken.
    error : FedevalError or None
        What it ended with.
    record : Mapping or None
        run.json, where there are results.
    folder : Path or None
        Where the results are.
    """

    submission: str
    status: str
    attempts: int
    error: FedevalError | None
    record: Mapping[str, Any] | None
    folder: Path | None


@dataclass(frozen=True)
class _Queue:
    """What all submissions of one call share."""

    request: RunRequest
    options: Options
    benchmark: Benchmark
    cubes: Mapping[str, CubeManifest]
    images: Mapping[str, ImageRecord]
    dataset: Dataset
    session: Session
    log: Path


def run_submissions(request: RunRequest, options: Options, view: RunView) -> tuple[SubmissionOutcome, ...]:
    """Run every submission; outcomes in the order of the list.

    Raises
    ------
    FedevalError
        What concerns all of them: the benchmark, the dataset, the engine, the storage.
    """
    if not request.submissions:
        raise UsageError("no submissions", "neither -m nor --submissions", "give model cubes with -m, or a list file")
    benchmark = resolve_benchmark(request.benchmark)
    cubes = load_cubes(TestRequest(request.benchmark), benchmark)
    store = Store(options.storage)
    log = open_run_log(store.logs, f"run-{benchmark.name}", options.log_level)
    with choose_engine(options, view) as engine:
        session = Session(engine, store, view, log.with_suffix(""), options.cleanup, options.require_gpu)
        own = {role: cubes[role] for role in ("data_prep", "metrics")}
        images = get_images(session, own, request.build is not False)
        shared = TestRequest(request.benchmark, dataset=request.dataset)
        dataset = get_dataset(session, benchmark, own, images, shared, options)
        return _run_all(_Queue(request, options, benchmark, own, images, dataset, session, log))


def _run_all(queue: _Queue) -> tuple[SubmissionOutcome, ...]:
    """Hand the submissions to the slots; a stop ends all of them."""
    slots = list(range(queue.request.slots))
    waiting = list(enumerate(queue.request.submissions))
    done: dict[int, SubmissionOutcome] = {}
    running: dict[Future[SubmissionOutcome], tuple[int, int]] = {}
    with ThreadPoolExecutor(queue.request.slots) as pool:
        try:
            while waiting or running:
                while waiting and slots:
                    (number, path), slot = waiting.pop(0), slots.pop(0)
                    running[pool.submit(_run_one, queue, number, path, slot)] = (number, slot)
                ended, _ = wait(running, timeout=0.2, return_when=FIRST_COMPLETED)
                for future in ended:
                    number, slot = running.pop(future)
                    done[number] = _collect(future, queue.request.submissions[number])
                    slots.append(slot)
        except BaseException:
            queue.session.stop.set()
            raise
    return tuple(done[number] for number in sorted(done))


def _collect(future: Future[SubmissionOutcome], path: Path) -> SubmissionOutcome:
    """How a submission ended; a fault of this program costs the submission its result, never the others theirs."""
    error = future.exception()
    if error is None:
        return future.result()
    if isinstance(error, FedevalError) or not isinstance(error, Exception):
        raise error
    LOGGER.error("fault of the program with %s", show_safe(str(path), 200), exc_info=error)
    told = FedevalError(
        "a fault of this program, neither of the submission nor of this machine", type(error).__name__,
        "report it with the log file under the storage's logs",
    )  # fmt: skip
    return SubmissionOutcome(show_safe(str(path), 200), "not_run", 1, told, None, None)


def _run_one(queue: _Queue, number: int, path: Path, slot: int) -> SubmissionOutcome:
    """One submission, with retries of platform faults."""
    name = show_safe(str(path), 200)
    queue.session.view.note(f"submission {name}")
    for attempt in range(1, queue.request.retries + 2):
        try:
            with _own_engine(queue, slot) as engine:
                return _try_once(queue, number, path, name, attempt, engine)
        except RETRIED as err:
            LOGGER.error("attempt %d of %s: %s", attempt, name, err)
            if attempt > queue.request.retries:
                return SubmissionOutcome(name, "not_run", attempt, err, None, None)
            queue.session.view.warn(f"{err.what}: a fault of the platform, trying {name} again")
            if queue.session.stop.wait(queue.request.retry_wait_s):
                raise InterruptedRunError("stopped", "", "the same command continues") from err
        except InterruptedRunError:
            raise
        except FedevalError as err:
            LOGGER.error("%s: %s", name, err)
            status = "not_run" if isinstance(err, PLATFORM_FAULTS) else "failed"
            return SubmissionOutcome(name, status, attempt, err, None, None)
    raise AssertionError("unreachable")


def _own_engine(queue: _Queue, slot: int) -> Engine:
    """An engine a slot, on the GPU of the slot's number."""
    return choose_engine(
        dataclasses.replace(queue.options, platform=queue.options.platform or queue.session.engine.name),
        queue.session.view, slot if queue.request.slots > 1 else None,
    )  # fmt: skip


def _try_once(
    queue: _Queue, number: int, path: Path, name: str, attempt: int, engine: Engine
) -> SubmissionOutcome:  # fmt: skip
    started = time.monotonic()
    model = _load_model(path)
    check_image_names({**queue.cubes, "model": model})
    # The number keeps the logs of submissions apart that have the same name: most cubes are called "model".
    folder = queue.session.log_dir / folder_name(f"{number + 1:02d}-{model.name}-{attempt}")
    session = dataclasses.replace(queue.session, engine=engine, log_dir=folder)
    build = queue.request.build
    if build is None:
        build = model.build_context.is_relative_to(TRUSTED)
    images = {**queue.images, **get_images(session, {"model": model}, build)}
    cubes, mode = {**queue.cubes, "model": model}, queue.request.mode
    key = run_key(queue.options, engine, queue.benchmark, cubes, images, queue.dataset, mode)
    with open_work(session.store, key, queue.options.resume, session.view.note, session.stop) as work:
        # Only now: another runner that had to be waited for has just finished it.
        if queue.options.resume and (known := _known_result(queue, name, model, images, key)):
            return known
        outcome = score_submission(
            session, queue.benchmark, cubes, images, queue.dataset, mode, key, work, started, queue.log
        )
    status = str(outcome.record["outcome"]["status"])
    return SubmissionOutcome(name, status, attempt, outcome.error, outcome.record, outcome.files.folder)


def _load_model(path: Path) -> CubeManifest:
    try:
        model = load_cube(path)
    except InputError as err:  # a wrong path in the list is no fault of the platform
        raise UsageError(err.what, err.found, err.next_step) from err
    for task, parameters in REQUIRED_TASKS["model"].items():
        model.check_task(task, parameters)
    return model


def _known_result(
    queue: _Queue, name: str, model: CubeManifest, images: Mapping[str, ImageRecord], key: str
) -> SubmissionOutcome | None:
    """Complete results of the same run; nothing complete is repeated."""
    below = result_place(queue.benchmark, model.name, images["model"].digest, queue.dataset)
    place = queue.session.store.root / "results" / below
    try:
        record = json.loads((place / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if record.get("key") != key or not (place / "results.yaml").is_file():
        return None
    queue.session.view.note(f"  complete results of an earlier run taken ({place.name})")
    status, error = record["outcome"]["status"], record["outcome"]["error"]
    known = None
    if error is not None:
        kind = getattr(errors, error["name"], FedevalError)
        known = kind(error["message"], "", error["next"])
    return SubmissionOutcome(name, status, 0, known, record, place)


def load_list(path: Path) -> tuple[Path, ...]:
    """Submissions of a list file: one path a line, relative to the file; empty lines and ``#`` comments are skipped.

    Raises
    ------
    InputError
        The file cannot be read or holds no path.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as err:
        raise InputError(f"the list {path} cannot be read", type(err).__name__, "check the path") from err
    found = tuple(path.parent / line.strip() for line in lines if line.strip() and not line.strip().startswith("#"))
    if not found:
        raise InputError(f"the list {path} is empty", "no path", "write one model cube a line")
    return found
