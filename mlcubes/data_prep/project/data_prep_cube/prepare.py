"""Task ``prepare``: raw subjects to prepared cases."""

import contextlib
import filecmp
import gzip
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from data_prep_cube.aliases import ALIAS_FILE, assign_aliases, load_aliases, write_aliases
from data_prep_cube.errors import FindingsError, InputError, output_error
from data_prep_cube.findings import Finding, findings_text
from data_prep_cube.folders import (
    OutsideError,
    check_apart,
    check_input_folder,
    list_folders,
    make_output_folder,
    open_inside,
)
from data_prep_cube.layout import MODALITIES, PARTS, RAW_SUFFIXES, REFERENCE, image_name, raw_names, reference_name
from data_prep_cube.parameters import Parameters
from data_prep_cube.progress import show_progress
from data_prep_cube.subjects import select_subjects
from data_prep_cube.volumes import DAMAGED, Target, VolumeError, open_stream, write_anonymous

PART_PREFIX = ".part-"


@dataclass(frozen=True)
class PrepareFolders:
    """The five folders of the task; ``metadata_path`` stays at the site and may be absent."""

    data_path: Path
    labels_path: Path
    output_path: Path
    output_labels_path: Path
    metadata_path: Path | None


@dataclass(frozen=True)
class Source:
    """One raw file: where it is, and the input folder that it must not leave."""

    root: Path
    path: Path


@dataclass(frozen=True)
class CaseSources:
    """The five raw files of one case; `files` has one entry for each of `PARTS`."""

    case: str
    files: dict[str, Source]


@dataclass(frozen=True)
class PrepareResult:
    """Case ids that were written, and those found complete from an earlier run."""

    written: tuple[str, ...]
    kept: tuple[str, ...]


def run_prepare(folders: PrepareFolders, parameters: Parameters) -> PrepareResult:
    """Select subjects and write each of them whole, in the prepared layout.

    Raises
    ------
    InputError
        If folders or parameters cannot be used; nothing has been written.
    FindingsError
        If a selected subject is incomplete (nothing has been written), or a file is too damaged to be anonymised
        (the other cases have been written).
    OutputError
        If writing fails; the cases finished so far are complete and are kept by the next run.
    """
    _check_folders(folders, parameters)
    subjects = select_subjects(folders.data_path, parameters)
    _make_folders(folders, parameters)
    names = _name_cases(subjects, folders, parameters)
    _check_no_others(set(names.values()), folders)
    cases = _find_sources(names, folders)
    written: list[str] = []
    kept: list[str] = []
    findings: list[Finding] = []
    for sources in show_progress("prepare", cases, lambda item: item.case):
        if _is_complete(sources, folders, parameters):
            kept.append(sources.case)
            continue
        finding = _write_case(sources, folders, parameters)
        if finding is None:
            written.append(sources.case)
        else:
            findings.append(finding)
    if findings:
        raise FindingsError(
            f"{len(findings)} of {len(cases)} cases cannot be anonymised:\n{findings_text(findings)}\n",
            "replace the damaged files and run again; the complete cases are kept",
        )
    return PrepareResult(tuple(written), tuple(kept))


def _check_folders(folders: PrepareFolders, parameters: Parameters) -> None:
    inputs = {"data_path": folders.data_path, "labels_path": folders.labels_path}
    for name, path in inputs.items():
        check_input_folder(name, path)
    outputs = {"output_path": folders.output_path, "output_labels_path": folders.output_labels_path}
    if folders.metadata_path is not None:
        outputs["metadata_path"] = folders.metadata_path
    elif parameters.anonymize_subjects:
        raise InputError(
            "anonymize_subjects needs a place for the alias map that neither the model nor the metrics get to see",
            "add --metadata_path=FOLDER, a folder that stays at this site",
        )
    check_apart(outputs, inputs)


def _make_folders(folders: PrepareFolders, parameters: Parameters) -> None:
    make_output_folder("output_path", folders.output_path)
    make_output_folder("output_labels_path", folders.output_labels_path)
    if folders.metadata_path is not None and parameters.anonymize_subjects:
        make_output_folder("metadata_path", folders.metadata_path)
    for folder in (folders.output_path, folders.output_labels_path):
        for entry in sorted(folder.glob(f"{PART_PREFIX}*")):  # what a killed run left behind
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()


def _name_cases(subjects: list[str], folders: PrepareFolders, parameters: Parameters) -> dict[str, str]:
    if not parameters.anonymize_subjects or folders.metadata_path is None:
        return {subject: subject for subject in subjects}
    known = load_aliases(folders.metadata_path)
    if not known and list_folders(folders.output_path):
        raise InputError(
            f"output_path holds cases, but metadata_path has no {ALIAS_FILE} that says whose they are",
            "restore the alias map, or empty output_path and output_labels_path",
        )
    aliases = assign_aliases(subjects, known)
    # Before the first case: whatever is reported below under an alias can then be looked up by the site.
    write_aliases(folders.metadata_path, aliases)
    return {subject: aliases[subject] for subject in subjects}


def _check_no_others(cases: set[str], folders: PrepareFolders) -> None:
    references = [path.name for path in folders.output_labels_path.iterdir() if not path.name.startswith(".")]
    foreign = [name for name in list_folders(folders.output_path) if name not in cases]
    wanted = {reference_name(case) for case in cases}
    foreign += [name for name in references if name not in wanted]
    if foreign:
        raise InputError(
            f"output_path and output_labels_path hold {len(foreign)} entries of other cases than the selected ones",
            "empty both folders, or give new ones: everything in them would be evaluated",
        )


def _find_sources(names: dict[str, str], folders: PrepareFolders) -> list[CaseSources]:
    cases: list[CaseSources] = []
    findings: list[Finding] = []
    for subject, case in names.items():
        files: dict[str, Source] = {}
        for part in PARTS:
            source = _find_source(subject, part, folders)
            if source is None:
                expected = " or ".join(raw_names("<subject>", part)[:: len(RAW_SUFFIXES)])
                findings.append(Finding(case, part, "missing", expected, "no such file"))
            elif (problem := _find_problem(source)) is not None:
                findings.append(Finding(case, part, *problem))
            else:
                files[part] = source
        cases.append(CaseSources(case, files))
    if findings:
        incomplete = len({finding.case for finding in findings})
        raise FindingsError(
            f"{incomplete} of {len(cases)} selected subjects are incomplete, nothing was prepared:\n"
            f"{findings_text(findings)}\n",
            "add the files, or take these subjects out of data_path",
        )
    return cases


def _find_source(subject: str, part: str, folders: PrepareFolders) -> Source | None:
    roots = [(folders.data_path, folders.data_path / subject)]
    if part == REFERENCE:
        roots = [(folders.labels_path, folders.labels_path / subject), (folders.labels_path, folders.labels_path)]
    for root, folder in roots:
        for name in raw_names(subject, part):
            path = folder / name
            if path.exists() or path.is_symlink():
                return Source(root, path)
    return None


def _find_problem(source: Source) -> tuple[str, str, str] | None:
    try:
        open_inside(source.root, source.path).close()
    except OutsideError:
        return "no ordinary file", "a file inside the folder", "a link out of it, or a device"
    except OSError as error:
        return "cannot be read", "a readable file", os.strerror(error.errno or 0)
    return None


def _targets(case: str, folders: PrepareFolders) -> dict[str, Path]:
    images = {part: folders.output_path / case / image_name(case, part) for part in MODALITIES}
    return images | {REFERENCE: folders.output_labels_path / reference_name(case)}


def _is_complete(sources: CaseSources, folders: PrepareFolders, parameters: Parameters) -> bool:
    """Say whether an earlier run finished this case, and its files still are what the sources give today.

    Content is compared, not time: a file that came back from a backup is older than what it replaces.
    """
    return all(
        target.is_file() and _is_current(sources.files[part], target, parameters)
        for part, target in _targets(sources.case, folders).items()
    )


def _is_current(source: Source, target: Path, parameters: Parameters) -> bool:
    if _is_copied(source, parameters):
        return filecmp.cmp(source.path, target, shallow=False)
    try:
        with gzip.open(target, "rb") as prepared:
            _convert(source, _Comparison(prepared), parameters)
            return prepared.read(1) == b""
    except (_DifferenceError, VolumeError, OSError, *DAMAGED):
        return False


class _DifferenceError(Exception):
    pass


class _Comparison:
    """Takes what would be written, and raises as soon as it differs from a stream."""

    def __init__(self, stream: gzip.GzipFile) -> None:
        self._stream = stream

    def write(self, content: bytes, /) -> int:
        if self._stream.read(len(content)) != content:
            raise _DifferenceError
        return len(content)


def _write_case(sources: CaseSources, folders: PrepareFolders, parameters: Parameters) -> Finding | None:
    """Write under temporary names, then rename: the reference first, the folder of images last.

    Returns what is wrong with a source that cannot be anonymised; nothing of that case is written then.
    """
    targets = _targets(sources.case, folders)
    final = folders.output_path / sources.case
    part_images = folders.output_path / f"{PART_PREFIX}{sources.case}"
    part_reference = folders.output_labels_path / f"{PART_PREFIX}{sources.case}"
    part = ""
    try:
        try:
            part_images.mkdir()
            for part in PARTS:
                target = part_reference if part == REFERENCE else part_images / targets[part].name
                _write_file(sources.files[part], target, parameters)
            if final.exists():
                shutil.rmtree(final)
            part_reference.replace(targets[REFERENCE])
            part_images.replace(final)
        finally:
            with contextlib.suppress(OSError):
                shutil.rmtree(part_images, ignore_errors=True)
                part_reference.unlink(missing_ok=True)
    except VolumeError as error:
        return Finding(sources.case, part, error.problem, error.expected, error.found)
    except OSError as error:
        raise output_error("output_labels_path" if part == REFERENCE else "output_path", error) from error
    return None


def _is_copied(source: Source, parameters: Parameters) -> bool:
    # With aliases nothing is copied: gzip's header may hold the original file name and NIfTI's header the person's.
    return source.path.name.endswith(".gz") and not parameters.anonymize_subjects


def _write_file(source: Source, target: Path, parameters: Parameters) -> None:
    """Write one prepared file: a copy of a packed source, else the source packed anew."""
    with target.open("xb") as file:
        if _is_copied(source, parameters):
            with open_inside(source.root, source.path) as stream:
                shutil.copyfileobj(stream, file)
        else:
            # No name and no time in gzip's header: the same input gives the same bytes.
            with gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=file, mtime=0) as packed:
                _convert(source, packed, parameters)
        file.flush()
        os.fsync(file.fileno())


def _convert(source: Source, target: Target, parameters: Parameters) -> None:
    """Write the unpacked content of a source, without traces of the person if there are aliases."""
    try:
        with open_stream(source.root, source.path) as stream:
            if parameters.anonymize_subjects:
                write_anonymous(stream, target)
            else:
                shutil.copyfileobj(stream, target)
    except DAMAGED as error:
        raise VolumeError("damaged", "a complete gzip file", "cut off or corrupt") from error
