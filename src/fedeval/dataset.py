"""The data side of a run: toy cases, prepare, sanity_check and statistics; kept by digest, made once."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from fedeval.benchmark import CHECKOUT, Benchmark
from fedeval.cube import CubeManifest
from fedeval.engine.base import ImageRecord
from fedeval.errors import DataFindingsError, InputError, PreparationError, UsageError
from fedeval.invocation import check_input
from fedeval.log import show_safe
from fedeval.store import check_space, digest_of, digest_tree, storing, write_text
from fedeval.strict_yaml import load_mapping
from fedeval.task import Session, TaskRecord, fail_task, run_task

_COMPLETE = "dataset.json"


@dataclass(frozen=True)
class RawData:
    """Data before preparation: folders of images and references, and the data_prep parameters that belong to them."""

    name: str
    digest: str
    data: Path
    labels: Path
    subjects: int
    parameters: Mapping[str, Any]


@dataclass(frozen=True)
class Dataset:
    """Prepared data.

    Attributes
    ----------
    name : str
        Folder name below results.
    digest : str
        ``sha256:...`` of the content of `data` and `labels`.
    data, labels : Path
        Prepared cases and references.
    cases : tuple of str
        Case ids, sorted.
    statistics : Mapping or None
        What the cube's statistics task wrote.
    prepared_now : bool
        False when an earlier preparation by the same image was taken.
    tasks : tuple of TaskRecord
        What ran for it in this run.
    """

    name: str
    digest: str
    data: Path
    labels: Path
    cases: tuple[str, ...]
    statistics: Mapping[str, Any] | None
    prepared_now: bool
    tasks: tuple[TaskRecord, ...]


def stage_toy_data(session: Session, benchmark: Benchmark, size: str | None) -> RawData:
    """Make the benchmark's toy cases, or take them from the storage.

    Raises
    ------
    InputError
        The generator failed; its last line is in the message.
    """
    toy = benchmark.toy_data
    size = size or toy.size
    if size not in toy.parameters:
        raise UsageError(f"benchmark {benchmark.name} has no toy cases of size {size!r}", ", ".join(toy.parameters))
    version = digest_tree_of_code(CHECKOUT / "toy_data")
    key = digest_of("toy", version, toy.site, toy.cases, toy.seed, size)
    final = session.store.root / "data" / f"toy-{key[:16]}"
    if not (final / "toy_data.yaml").is_file():
        with session.view.step(f"toy data: {toy.cases} cases, size {size}"), session.store.scratch("toy") as scratch:
            made = scratch / "raw"
            _generate(toy.site, toy.cases, toy.seed, size, made)
            session.store.publish(made, final, keep_existing=True)
    return RawData(f"toy-site{toy.site}-{size}", key, final / "data", final / "labels", toy.cases, toy.parameters[size])


def _generate(site: int, cases: int, seed: int, size: str, out: Path) -> None:
    command = [sys.executable, "-m", "toy_data", "cases"]
    for option, value in {"site": site, "cases": cases, "seed": seed, "size": size, "out": out}.items():
        command += [f"--{option}", str(value)]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode:
        check_space(out.parent, 64 << 20 if "No space left" in done.stderr else 1 << 20)
        last = done.stderr.strip().splitlines()[-1:] or ["no output"]
        raise InputError(
            "toy data cannot be made", f"python -m toy_data ended with {done.returncode}: {show_safe(last[0], 200)}",
            "install the extra: pip install 'fedeval[toy]', or run scripts/setup",
        )  # fmt: skip
    with storing("opening toy data to the containers", out):
        for path in [out, *out.rglob("*")]:
            path.chmod(0o755 if path.is_dir() else 0o644)


def digest_tree_of_code(folder: Path) -> str:
    """Digest of the Python files of a folder, so that a changed generator makes new data."""
    return digest_of([[path.name, path.read_text(encoding="utf-8")] for path in sorted(folder.glob("*.py"))])


def prepare_dataset(
    session: Session, benchmark: Benchmark, cube: CubeManifest, image: ImageRecord, raw: RawData
) -> Dataset:
    """Run prepare, sanity_check and statistics; the result is kept, keyed by image, raw data and parameters.

    Raises
    ------
    PreparationError
        A task of the cube failed.
    DataFindingsError
        The prepared data have findings.
    """
    parameters = _parameters(cube, raw.parameters)
    key = digest_of("prepared", image.digest, raw.digest, parameters)
    final = session.store.root / "data" / f"{raw.name}-{key[:16]}"
    if (final / _COMPLETE).is_file():
        session.view.note(f"  prepared data taken from the storage ({final.name})")
        return _load_checked(session, final)
    with session.store.scratch("prepare", keep=not session.cleanup) as scratch:
        file = scratch / "parameters" / "parameters.yaml"
        with storing("writing parameters", scratch):
            file.parent.mkdir()
            write_text(file, yaml.safe_dump(parameters, sort_keys=True))
            file.chmod(0o644)
        made = scratch / "dataset"
        paths = {"data_path": raw.data, "labels_path": raw.labels, "parameters_file": file}
        outputs = {"output_path": made / "data", "output_labels_path": made / "labels"}
        if "metadata_path" in cube.task("prepare").parameter_names():  # the alias map stays here, at the site
            outputs["metadata_path"] = made / "metadata"
        limits = benchmark.limits["data_prep"]
        prepared = run_task(session, "data_prep", cube, image, "prepare", {**paths, **outputs}, limits, raw.subjects)
        if not prepared.outcome.ok:
            raise fail_task(PreparationError, "data_prep", "prepare", prepared, "correct the data or the parameters")
        cases = list_cases(made / "data", "data_prep left no case")
        checks = check_dataset(session, benchmark, cube, image, made / "data", made / "labels", file, scratch)
        dataset = {"name": raw.name, "cases": cases, "image": image.digest, "raw": raw.digest,
                   "digest": digest_dataset(made), "statistics": checks.statistics}  # fmt: skip
        write_text(made / _COMPLETE, json.dumps(dataset, indent=1))
        session.store.publish(made, final, keep_existing=True)
    return _load(final, prepared_now=True, tasks=(prepared.record, *checks.tasks))


@dataclass(frozen=True)
class DatasetChecks:
    """Outcome of sanity_check and statistics."""

    statistics: Mapping[str, Any] | None
    tasks: tuple[TaskRecord, ...]


def check_dataset(
    session: Session, benchmark: Benchmark, cube: CubeManifest, image: ImageRecord, data: Path, labels: Path,
    parameters: Path | None, scratch: Path,
) -> DatasetChecks:  # fmt: skip
    """Run sanity_check and statistics on prepared data.

    Raises
    ------
    DataFindingsError
        sanity_check has findings; its last lines are in the message.
    PreparationError
        statistics failed.
    """
    limits = benchmark.limits["data_prep"]
    cases = len(list_cases(data, "the dataset has no case"))
    paths = {"data_path": data, "labels_path": labels}
    if parameters is not None:
        paths["parameters_file"] = parameters
    checked = run_task(session, "data_prep", cube, image, "sanity_check", paths, limits, cases)
    if not checked.outcome.ok:
        raise fail_task(DataFindingsError, "data_prep", "sanity_check", checked, "mend the data named in the log")
    target = scratch / "statistics" / "statistics.yaml"
    counted = run_task(session, "data_prep", cube, image, "statistics", {**paths, "output_path": target}, limits, cases)
    if not counted.outcome.ok:
        raise fail_task(PreparationError, "data_prep", "statistics", counted, "see the log")
    statistics = load_mapping(target, PreparationError, "statistics.yaml") if target.is_file() else None
    return DatasetChecks(statistics, (checked.record, counted.record))


def load_dataset(
    session: Session, benchmark: Benchmark, cube: CubeManifest, image: ImageRecord, folder: Path
) -> Dataset:
    """Take a dataset that was prepared before (``-d``): a folder with ``data/`` and ``labels/``.

    Raises
    ------
    InputError
        The folder does not hold prepared data.
    """
    for part in ("data", "labels"):
        check_input(folder / part, f"prepared dataset: folder {part}/")
    if (folder / _COMPLETE).is_file():
        return _load_checked(session, folder)
    with session.store.scratch("dataset", keep=not session.cleanup) as scratch:
        checks = check_dataset(session, benchmark, cube, image, folder / "data", folder / "labels", None, scratch)
    cases = list_cases(folder / "data", "the dataset has no case")
    digest = digest_dataset(folder)
    return Dataset(f"dataset-{digest[7:15]}", digest, folder / "data", folder / "labels", tuple(cases),
                   checks.statistics, False, checks.tasks)  # fmt: skip


def list_cases(data: Path, what: str) -> list[str]:
    """Case ids of a prepared data folder, sorted.

    Raises
    ------
    InputError
        There is none.
    """
    cases = sorted(entry.name for entry in data.iterdir() if entry.is_dir()) if data.is_dir() else []
    if not cases:
        raise InputError(
            what, "zero cases; expected at least one folder per case", "check the raw data and its folders"
        )
    return cases


def digest_dataset(folder: Path) -> str:
    """``sha256:...`` of the prepared images and references."""
    return f"sha256:{digest_of(digest_tree(folder / 'data'), digest_tree(folder / 'labels'))}"


def check_unchanged(session: Session, dataset: Dataset) -> None:
    """Read all prepared data again, and refuse what is not what it was.

    Raises
    ------
    InputError
        A file is missing, unreadable, cut short or changed: a fault of the site, never of a submission.
    """
    folder = dataset.data.parent
    with session.view.step("check the prepared data"):
        try:
            gone = sorted(set(dataset.cases) - set(list_cases(dataset.data, "the dataset has no case")))
            found = digest_dataset(folder) if not gone else ""
        except OSError as err:
            raise InputError(
                f"the dataset at {folder} cannot be read", f"{err.strerror}; expected files that can be read",
                "restore it from a copy, or prepare the data again",
            ) from err  # fmt: skip
    if found != dataset.digest:
        what = f"{len(gone)} of {len(dataset.cases)} cases are gone" if gone else f"digest {found[:19]}"
        raise InputError(
            f"the dataset at {folder} is not what was prepared", f"{what}; expected digest {dataset.digest[:19]}",
            "restore it from a copy; or remove the folder and prepare the data again",
        )  # fmt: skip


def _load_checked(session: Session, folder: Path) -> Dataset:
    """A dataset of an earlier run, compared with what was prepared then."""
    dataset = _load(folder, prepared_now=False, tasks=())
    check_unchanged(session, dataset)
    return dataset


def _load(folder: Path, prepared_now: bool, tasks: tuple[TaskRecord, ...]) -> Dataset:
    try:
        found = json.loads((folder / _COMPLETE).read_text(encoding="utf-8"))
        name, digest, statistics = str(found["name"]), str(found["digest"]), found["statistics"]
        cases = tuple(map(str, found["cases"]))
    except (OSError, ValueError, KeyError, TypeError) as err:
        raise InputError(
            f"the dataset at {folder} is damaged", f"{_COMPLETE}: {type(err).__name__}; expected what was prepared",
            "restore it from a copy; or remove the folder and prepare the data again",
        ) from err  # fmt: skip
    return Dataset(
        f"{name}-{digest[7:15]}", digest, folder / "data", folder / "labels", cases, statistics, prepared_now, tasks
    )


def _parameters(cube: CubeManifest, changes: Mapping[str, Any]) -> dict[str, Any]:
    """The cube's own parameters with the benchmark's over them."""
    spec = {parameter.name: parameter for parameter in cube.task("prepare").parameters}.get("parameters_file")
    own = cube.workspace / spec.default if spec is not None and not spec.is_null else None
    base = load_mapping(own, PreparationError, "parameters of data_prep") if own and own.is_file() else {}
    return {**base, **changes}
