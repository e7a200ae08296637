"""Which files belong to which case."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from metrics_cube.errors import BadReferenceError, SetupError
from metrics_cube.parameters import Parameters
from metrics_cube.results import format_text

ENDINGS = (".nii.gz", ".nii")


@dataclass(frozen=True)
class CaseFiles:
    """One case: its id, its reference, and every file that could be its prediction (none, one, or too many)."""

    case: str
    reference: Path
    predictions: tuple[Path, ...]


def find_cases(predictions: Path, labels: Path, parameters: Parameters) -> tuple[list[CaseFiles], list[str]]:
    """List the cases: what the references say.

    Parameters
    ----------
    predictions : Path
        Folder of ``<case><prediction_suffix>.nii.gz`` or ``.nii``.
    labels : Path
        Folder of ``<case><reference_suffix>.nii.gz`` or ``.nii``, flat or each in a folder ``<case>``.

    Returns
    -------
    cases : list of CaseFiles
        Sorted by case id.
    not_scored : list of str
        What is there without being a case, each with the reason: predictions without a reference, folders of labels
        without one.

    Raises
    ------
    SetupError
        If a folder is missing or there is no reference at all.
    BadReferenceError
        If a case has more than one reference.
    """
    for name, folder in (("predictions", predictions), ("labels", labels)):
        if not folder.is_dir():
            raise SetupError(f"{name}: found no such folder; next: give the folder that holds the masks as --{name}")
        if not os.access(folder, os.R_OK | os.X_OK):
            raise SetupError(f"{name}: the folder cannot be read; next: grant read access to this user")
    references: dict[str, Path] = {}
    for case, path in _find_references(labels, parameters.reference_suffix):
        if case in references:
            raise BadReferenceError(f"case {case!r} has more than one reference; next: leave one file in labels")
        references[case] = path
    if not references:
        raise SetupError(
            f"labels: found {len(list(labels.iterdir()))} entries and no reference, expected "
            f"<case>{parameters.reference_suffix}.nii.gz, flat or in a folder <case>; next: check the labels folder"
        )
    found: dict[str, list[Path]] = {}
    for case, path in _find_masks(predictions, parameters.prediction_suffix):
        found.setdefault(case, []).append(path)
    cases = [CaseFiles(case, references[case], tuple(found.get(case, ()))) for case in sorted(references)]
    strangers = [f"prediction {format_text(case)}: no reference" for case in sorted(found.keys() - references.keys())]
    bare = sorted(path.name for path in labels.iterdir() if path.is_dir() and path.name not in references)
    return cases, strangers + [f"folder {format_text(name)} in labels: holds no reference" for name in bare]


def _find_references(labels: Path, suffix: str) -> Iterator[tuple[str, Path]]:
    yield from _find_masks(labels, suffix)
    for folder in sorted(path.name for path in labels.iterdir() if path.is_dir()):
        for ending in ENDINGS:
            path = labels / folder / f"{folder}{suffix}{ending}"
            if path.exists() or path.is_symlink():
                yield folder, path


def _find_masks(folder: Path, suffix: str) -> Iterator[tuple[str, Path]]:
    """Case id and path of every file named like a mask; a hidden file is nobody's case."""
    for name in sorted(path.name for path in folder.iterdir()):
        for ending in ENDINGS:
            tail = suffix + ending
            if name.endswith(tail) and len(name) > len(tail) and not name.startswith("."):
                yield name.removesuffix(tail), folder / name
