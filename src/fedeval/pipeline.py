"""A test of one submission: the steps, in order."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fedeval.benchmark import TRUSTED, Benchmark, resolve_benchmark
from fedeval.cube import CubeManifest, load_cube
from fedeval.dataset import Dataset, load_dataset, prepare_dataset, stage_toy_data
from fedeval.engine.base import Engine, ImageRecord
from fedeval.engine.docker_engine import DockerEngine, Emulation
from fedeval.engine.gpu_limit import has_gpu
from fedeval.engine.image_build import LOCAL_BASE
from fedeval.engine.process_engine import ProcessEngine
from fedeval.engine.singularity_engine import SingularityEngine
from fedeval.errors import (
    EngineDownError,
    EngineForbiddenError,
    EngineMissingError,
    FedevalError,
    GpuMissingError,
    UnsafeManifestError,
)
from fedeval.inference import InferenceMode, infer, inference_error
from fedeval.log import open_run_log
from fedeval.options import Options
from fedeval.results import RunFiles, build_record, write_results
from fedeval.scoring import evaluate
from fedeval.store import Store, digest_of, digest_tree
from fedeval.task import Session
from fedeval.view import RunView
from fedeval.work import WorkFolder, open_work

REQUIRED_TASKS: dict[str, dict[str, tuple[str, ...]]] = {
    "data_prep": {
        "prepare": ("data_path", "labels_path", "parameters_file", "output_path", "output_labels_path"),
        "sanity_check": ("data_path", "labels_path"),
        "statistics": ("data_path", "labels_path", "output_path"),
    },
    "model": {"infer": ("data_path", "output_path")},
    "metrics": {"evaluate": ("predictions", "labels", "output_path")},
}
"""Tasks and parameters that the runner uses; a cube must declare them."""


@dataclass(frozen=True)
class TestRequest:
    """What the person asked for; None means the benchmark's own."""

    benchmark: str
    model: Path | None = None
    data_prep: Path | None = None
    metrics: Path | None = None
    dataset: Path | None = None
    build: bool = True
    mode: InferenceMode = field(default_factory=InferenceMode)

    __test__ = False  # the name is for people, not for pytest


@dataclass(frozen=True)
class TestOutcome:
    """A finished test: its record, where its files are, and the error it ends with, if any."""

    record: Mapping[str, Any]
    results: Mapping[str, Mapping[str, Any]]
    benchmark: Benchmark
    files: RunFiles
    log: Path
    error: FedevalError | None

    __test__ = False


def run_test(request: TestRequest, options: Options, view: RunView) -> TestOutcome:
    """Run data_prep, the model and metrics on the benchmark's toy cases, or on a prepared dataset.

    Raises
    ------
    FedevalError
        Whatever ended the run before there were results. A submission that fails later still gets its results; its
        error is in the outcome.
    """
    started = time.monotonic()
    benchmark = resolve_benchmark(request.benchmark)
    cubes = load_cubes(request, benchmark)
    store = Store(options.storage)
    log = open_run_log(store.logs, f"test-{benchmark.name}", options.log_level)
    with choose_engine(options, view) as engine:
        session = Session(engine, store, view, log.with_suffix(""), options.cleanup, options.require_gpu)
        images = get_images(session, cubes, request.build)
        dataset = get_dataset(session, benchmark, cubes, images, request, options)
        key = run_key(options, engine, benchmark, cubes, images, dataset, request.mode)
        with open_work(store, key, options.resume, view.note, session.stop) as work:
            return score_submission(session, benchmark, cubes, images, dataset, request.mode, key, work, started, log)


def run_key(
    options: Options, engine: Engine, benchmark: Benchmark, cubes: Mapping[str, CubeManifest],
    images: Mapping[str, ImageRecord], dataset: Dataset, mode: InferenceMode,
) -> str:  # fmt: skip
    """Address of a run: everything its results depend on.

    Also how it was run: what a test in one way found is no result of a run in another.
    """
    how = [engine.name, options.as_singularity, options.tmp, mode.per_case, mode.go_on]
    code = [
        [images[role].digest, repr(cubes[role].task(task)), _own_inputs(cubes[role], task)]
        for role, task in (("model", "infer"), ("metrics", "evaluate"))
    ]
    return digest_of("run", benchmark.digest, code, dataset.digest, benchmark.limits["infer"].to_dict(), how)


def _own_inputs(cube: CubeManifest, task: str) -> list[tuple[str, str]]:
    """Digests of what a cube's workspace gives its task (parameters, weights): they are not in the image."""
    found = []
    for spec in cube.task(task).parameters:
        path = cube.workspace / spec.default
        given = spec.is_output or spec.name in ("data_path", "predictions", "labels")
        if given or not path.exists() or not path.resolve().is_relative_to(cube.workspace.resolve()):
            continue
        if path.is_file():
            with path.open("rb") as file:
                found.append((spec.name, hashlib.file_digest(file, "sha256").hexdigest()))
        else:
            found.append((spec.name, digest_tree(path)))
    return found


def score_submission(
    session: Session, benchmark: Benchmark, cubes: Mapping[str, CubeManifest], images: Mapping[str, ImageRecord],
    dataset: Dataset, mode: InferenceMode, key: str, work: WorkFolder, started: float, log: Path,
) -> TestOutcome:  # fmt: skip
    """Run the model and metrics on prepared data and write what came of it.

    Everything complete is kept in the work folder until the results have their final place, so that the same command
    after a power cut continues.
    """
    with session.store.scratch("scores") as scratch:
        inference = infer(session, benchmark, cubes["model"], images["model"], dataset, work, mode)
        scores = evaluate(session, benchmark, cubes["metrics"], images["metrics"], dataset, inference, scratch)
        error = inference_error(inference, scores.cases)
        names = {role: cube.name for role, cube in cubes.items()}
        total_s = time.monotonic() - started
        record = build_record(benchmark, session.engine, images, names, dataset, inference, scores, error, total_s, key)
        with session.view.step("write results and report"):
            files = write_results(session.store, benchmark, record, dataset, inference, scores)
    return TestOutcome(record, scores.results, benchmark, files, log, error)


def load_cubes(request: TestRequest, benchmark: Benchmark) -> dict[str, CubeManifest]:
    """Read and check the three manifests, before anything runs."""
    paths = {
        "data_prep": request.data_prep or benchmark.cubes["data_prep"],
        "model": request.model or benchmark.cubes["reference_model"],
        "metrics": request.metrics or benchmark.cubes["metrics"],
    }
    cubes = {role: load_cube(path) for role, path in paths.items()}
    check_image_names(cubes)
    for role, tasks in REQUIRED_TASKS.items():
        for task, parameters in tasks.items():
            cubes[role].check_task(task, parameters)
    return cubes


def check_image_names(cubes: Mapping[str, CubeManifest]) -> None:
    """Refuse a model whose image has the name of another cube's or of the local base: a build would take it over.

    Raises
    ------
    UnsafeManifestError
        With the name.
    """
    taken = {LOCAL_BASE: "the local base image"}
    taken |= {cube.image: f"cube {role}" for role, cube in cubes.items() if role != "model"}
    model = cubes.get("model")
    if model is not None and model.image in taken:
        raise UnsafeManifestError(
            f"cube {model.name}: docker.image has a name that is taken", f"{model.image}, {taken[model.image]}",
            "give your image a name of its own",
        )  # fmt: skip


def choose_engine(options: Options, view: RunView, gpu: int | None = None) -> Engine:
    """The engine that was asked for; else docker where one answers, else process with a clear warning."""
    if options.as_singularity:
        return DockerEngine(Emulation(int((options.tmp or "64m").removesuffix("m"))), gpu)
    if options.platform == "docker":
        return DockerEngine(gpu=gpu)
    if options.platform == "singularity":
        return SingularityEngine(options.storage / "cubes")
    if options.platform is None:
        try:
            return DockerEngine(gpu=gpu)
        except (EngineMissingError, EngineDownError, EngineForbiddenError) as err:
            view.warn(
                f"{err.what}: running WITHOUT containers (--platform=process). The numbers are the same; "
                "isolation and most limits are not enforced."
            )
    return ProcessEngine(TRUSTED, options.storage, options.allow_foreign)


def get_images(session: Session, cubes: Mapping[str, CubeManifest], build: bool) -> dict[str, ImageRecord]:
    """Get or make what runs for each cube; digests are recorded."""
    images = {}
    for role, cube in cubes.items():
        check_gpu(session, cube)
        with session.view.step(f"{role}: get image"):
            images[role] = session.engine.get_image(cube, build, session.view.detail)
    return images


def check_gpu(session: Session, cube: CubeManifest) -> None:
    """Warn about a cube that asks for a GPU where there is none; with ``--require-gpu`` refuse.

    Raises
    ------
    GpuMissingError
        Only where a GPU is required.
    """
    if not cube.accelerator_count or has_gpu():
        return
    if session.require_gpu:
        raise GpuMissingError(
            f"cube {cube.name} asks for {cube.accelerator_count} GPU", "no NVIDIA GPU; expected one (--require-gpu)",
            "use a machine with a GPU and its driver, or leave --require-gpu out",
        )  # fmt: skip
    session.view.warn(f"cube {cube.name} asks for a GPU and there is none: it runs on the CPU")


def get_dataset(
    session: Session, benchmark: Benchmark, cubes: Mapping[str, CubeManifest], images: Mapping[str, ImageRecord],
    request: TestRequest, options: Options,
) -> Dataset:  # fmt: skip
    """The prepared dataset that was given, or the benchmark's toy cases, prepared."""
    cube, image = cubes["data_prep"], images["data_prep"]
    if request.dataset is not None:
        return load_dataset(session, benchmark, cube, image, request.dataset.absolute())
    raw = stage_toy_data(session, benchmark, options.toy_size)
    return prepare_dataset(session, benchmark, cube, image, raw)
