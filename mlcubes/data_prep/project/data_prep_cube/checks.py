"""Task ``sanity_check``: what must hold for a prepared case before a model sees it."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from data_prep_cube.errors import InputError
from data_prep_cube.findings import DATASET, Finding
from data_prep_cube.folders import check_input_folder, is_usable_id, list_folders
from data_prep_cube.layout import MODALITIES, PARTS, REFERENCE, image_name, prepared_path, reference_name
from data_prep_cube.parameters import Parameters
from data_prep_cube.progress import show_progress
from data_prep_cube.volumes import Grid, Volume, VolumeError, load_volume

MAX_LISTED_LABELS = 5


@dataclass(frozen=True)
class CheckedCase:
    """One prepared case: its findings, and its reference if that could be read."""

    case: str
    findings: tuple[Finding, ...]
    reference: Volume | None


def list_cases(data_path: Path, labels_path: Path) -> list[str]:
    """Sorted ids of the prepared cases.

    Raises
    ------
    InputError
        If a folder is missing or empty, or there is no case.
    """
    check_input_folder("data_path", data_path)
    check_input_folder("labels_path", labels_path)
    cases = list_folders(data_path)
    if not cases:
        raise InputError("data_path holds no case, expected folders <case>/", "give the output_path of prepare")
    if not all(map(is_usable_id, cases)):
        raise InputError("data_path holds folders whose names cannot be case ids", "prepare the data again")
    return cases


def run_sanity_check(data_path: Path, labels_path: Path, parameters: Parameters) -> tuple[int, list[Finding]]:
    """Check everything and collect every finding.

    Returns
    -------
    tuple
        Number of cases, and the findings in the order of the cases; no findings means clean.
    """
    cases = list_cases(data_path, labels_path)
    findings = check_dataset(data_path, labels_path, cases)
    for checked in check_cases("sanity_check", data_path, labels_path, cases, parameters):
        findings += checked.findings
    return len(cases), findings


def check_cases(
    task: str, data_path: Path, labels_path: Path, cases: list[str], parameters: Parameters
) -> Iterator[CheckedCase]:
    """Check one case after the other, with progress; one image is in memory at a time."""
    for case in show_progress(task, cases, str):
        yield check_case(data_path, labels_path, case, parameters)


def check_dataset(data_path: Path, labels_path: Path, cases: list[str]) -> list[Finding]:
    """Find files that do not belong into prepared folders; a reference beside images would be seen by the model."""
    findings: list[Finding] = []
    for case in cases:
        wanted = {image_name(case, modality) for modality in MODALITIES}
        extra = _count_extra(data_path / case, wanted)
        if extra:
            findings.append(Finding(case, "", "unexpected files", "the four images only", f"{extra} more"))
    extra = _count_extra(data_path, set(cases))
    if extra:
        findings.append(Finding(DATASET, "", "unexpected files", "folders of cases only", f"{extra} more"))
    if labels_path.resolve() != data_path.resolve():
        extra = _count_extra(labels_path, {reference_name(case) for case in cases} | set(cases))
        if extra:
            findings.append(Finding(DATASET, REFERENCE, "unexpected files", "one reference a case", f"{extra} more"))
    return findings


def _count_extra(folder: Path, wanted: set[str]) -> int:
    return sum(entry.name not in wanted and not entry.name.startswith(".") for entry in folder.iterdir())


def check_case(data_path: Path, labels_path: Path, case: str, parameters: Parameters) -> CheckedCase:
    """Check one case: every file present and readable, one common grid, finite, not empty, allowed labels."""
    findings: list[Finding] = []
    reference: Volume | None = None
    anchor: tuple[str, Grid] | None = None
    for part in PARTS:
        path = prepared_path(data_path, labels_path, case, part)
        try:
            if not path.exists() and not path.is_symlink():
                name = reference_name("<case>") if part == REFERENCE else image_name("<case>", part)
                raise VolumeError("missing", name, "no such file")
            root = labels_path if part == REFERENCE else data_path
            volume = load_volume(root, path, parameters.expected_shape)
        except VolumeError as error:
            findings.append(Finding(case, part, error.problem, error.expected, error.found))
            continue
        problems = _check_spacing(volume.grid, parameters)
        if anchor is None:
            anchor = (part, volume.grid)
        else:
            problems += compare_grids(anchor, volume.grid, parameters.geometry_tolerance)
        problems += _check_reference(volume.voxels, parameters) if part == REFERENCE else _check_image(volume.voxels)
        findings += [Finding(case, part, *problem) for problem in problems]
        reference = volume if part == REFERENCE else None
    return CheckedCase(case, tuple(findings), reference)


Problem = tuple[str, str, str]


def _numbers(values: Any) -> str:
    return " ".join(f"{float(value):g}" for value in np.ravel(values))


def _check_spacing(grid: Grid, parameters: Parameters) -> list[Problem]:
    expected = parameters.expected_spacing_mm
    if expected is None or np.allclose(grid.spacing_mm, expected, rtol=0, atol=parameters.geometry_tolerance):
        return []
    return [("spacing", f"{_numbers(expected)} mm", f"{_numbers(grid.spacing_mm)} mm")]


def compare_grids(anchor: tuple[str, Grid], grid: Grid, tolerance: float) -> list[Problem]:
    """Compare a grid with that of the first readable file of the case; `tolerance` is absolute, in mm and cosines."""
    name, first = anchor
    if grid.shape != first.shape:
        return [("size", f"as {name}: {'x'.join(map(str, first.shape))}", "x".join(map(str, grid.shape)))]
    problems: list[Problem] = []
    if not np.allclose(grid.spacing_mm, first.spacing_mm, rtol=0, atol=tolerance):
        problems.append(("spacing", f"as {name}: {_numbers(first.spacing_mm)}", _numbers(grid.spacing_mm)))
    if not np.allclose(grid.affine[:3, 3], first.affine[:3, 3], rtol=0, atol=tolerance):
        problems.append(("origin", f"as {name}: {_numbers(first.affine[:3, 3])}", _numbers(grid.affine[:3, 3])))
    if not np.allclose(_directions(grid), _directions(first), rtol=0, atol=tolerance):
        problems.append(("direction", f"as {name}: {_numbers(_directions(first))}", _numbers(_directions(grid))))
    return problems


def _directions(grid: Grid) -> npt.NDArray[np.float64]:
    axes = grid.affine[:3, :3]
    unit: npt.NDArray[np.float64] = axes / np.linalg.norm(axes, axis=0)
    return unit


def _check_image(voxels: npt.NDArray[Any]) -> list[Problem]:
    if voxels.dtype.kind == "f":
        bad = int(voxels.size - np.count_nonzero(np.isfinite(voxels)))
        if bad:
            return [("not finite", "numbers only", f"{bad} voxels of NaN or infinity")]
    return [] if voxels.any() else [("empty", "brain tissue", "every voxel is 0")]


def _check_reference(voxels: npt.NDArray[Any], parameters: Parameters) -> list[Problem]:
    if voxels.dtype.kind == "f" and not np.isfinite(voxels).all():
        return [("not finite", "labels", "NaN or infinity")]
    unknown = np.setdiff1d(np.unique(voxels), parameters.allowed_labels)
    if unknown.size:
        listable = unknown.size <= MAX_LISTED_LABELS and bool(np.all(unknown == np.round(unknown)))
        # A long list is no mask but an image, whose values are nobody's business.
        found = _numbers(unknown) if listable else f"{unknown.size} other values (an image in place of a mask?)"
        return [("labels", _numbers(parameters.allowed_labels), found)]
    if not voxels.any() and not parameters.allow_empty_reference:
        return [("empty", "at least one tumour voxel", "every voxel is 0")]
    return []
