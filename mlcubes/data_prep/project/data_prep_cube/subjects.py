"""Which subjects of a site take part."""

import csv
import io
from pathlib import Path

import numpy as np

from data_prep_cube.errors import FindingsError, InputError
from data_prep_cube.folders import OutsideError, is_usable_id, list_folders, open_inside
from data_prep_cube.layout import RAW_SUFFIXES
from data_prep_cube.parameters import Parameters

ID_COLUMNS = ("data_uid", "subject_id", "subject", "case", "id")
MAX_SPLIT_BYTES = 16 << 20


def list_subjects(data_path: Path) -> list[str]:
    """Sorted ids of the subjects: folders that hold at least one NIfTI file.

    Other folders (scripts, split files, notes) are no subjects.

    Raises
    ------
    InputError
        If there is no subject, or a folder name cannot be a case id.
    """
    _check_links(data_path)
    subjects = [
        name
        for name in list_folders(data_path)
        if any(entry.name.endswith(RAW_SUFFIXES) for entry in (data_path / name).iterdir())
    ]
    if not subjects:
        raise InputError(
            "data_path holds no subject, expected folders <subject>/ with <subject>_t1.nii.gz and so on",
            "give the folder that holds the subjects' folders",
        )
    unusable = sum(not is_usable_id(name) for name in subjects)
    if unusable:
        raise InputError(
            f"{unusable} of {len(subjects)} subject folders have a name that cannot be a case id "
            "(control characters, not UTF-8, or over 180 bytes)",
            "rename them together with their files",
        )
    return subjects


def _check_links(data_path: Path) -> None:
    """Refuse links out of the folder: followed they would widen what is read, passed over they would lose subjects."""
    root = data_path.resolve()
    links = [entry for entry in data_path.iterdir() if entry.is_symlink() and not entry.name.startswith(".")]
    outside = sum(not link.exists() or (link.is_dir() and not link.resolve().is_relative_to(root)) for link in links)
    if outside:
        raise InputError(
            f"data_path holds {outside} links that lead out of it or nowhere, expected the subjects' own folders",
            "copy the folders to which they point",
        )


def select_subjects(data_path: Path, parameters: Parameters) -> list[str]:
    """Choose the subjects that are prepared.

    Without a list all subjects are taken, or ``max_val_size`` of them. With a list (``validation_subjects`` or
    ``val_split_file``) its subjects are always taken, also when there are more of them than ``max_val_size``; if
    there are fewer, others are added up to it. Without ``max_val_size`` a list stands for itself.

    Returns
    -------
    list of str
        Sorted ids. The sample depends on the seed and on the set of ids only: it is drawn from a sorted list, and a
        larger ``max_val_size`` keeps every subject of a smaller one.

    Raises
    ------
    InputError, FindingsError
        If there are no subjects, or listed ones are missing.
    """
    subjects = list_subjects(data_path)
    listed = _load_listed(data_path, parameters)
    if listed is None:
        return sample_subjects(subjects, parameters.max_val_size, parameters.seed)
    _check_present(listed, subjects, parameters)
    chosen = set(listed)
    others = [subject for subject in subjects if subject not in chosen]
    room = max(0, (parameters.max_val_size or 0) - len(chosen))
    return sorted(chosen | set(sample_subjects(others, room, parameters.seed)))


def sample_subjects(subjects: list[str], size: int | None, seed: int) -> list[str]:
    """Draw ``size`` of the ids without replacement; None, or more than there are, takes all. Returns sorted ids."""
    ordered = sorted(subjects)
    if size is None or size >= len(ordered):
        return ordered
    order = np.random.default_rng(seed).permutation(len(ordered))
    return sorted(ordered[index] for index in order[:size])


def _load_listed(data_path: Path, parameters: Parameters) -> list[str] | None:
    if parameters.validation_subjects is not None:
        return list(parameters.validation_subjects)
    if parameters.val_split_file is None:
        return None
    path = data_path / parameters.val_split_file
    if not path.is_file():
        if not parameters.val_split_file_required:
            return None
        raise InputError(
            "val_split_file does not exist below data_path",
            "correct it in parameters_file, or set val_split_file_required: false for sites without one",
        )
    return load_split_file(data_path, path)


def load_split_file(data_path: Path, path: Path) -> list[str]:
    """Read subject ids from a CSV file.

    The ids stand in the column whose header is one of `ID_COLUMNS` (capitals do not matter), else in the first
    column of every line. Empty lines and repeated ids are passed over.

    Raises
    ------
    InputError
        If the file cannot be read, leaves ``data_path``, or names nobody.
    """
    step = "correct val_split_file: a CSV in UTF-8, one subject a line, inside data_path"
    try:
        with open_inside(data_path, path) as file:
            text = file.read(MAX_SPLIT_BYTES).decode("utf-8-sig")
        rows = [row for row in csv.reader(io.StringIO(text, newline="")) if any(cell.strip() for cell in row)]
    except OutsideError as error:
        raise InputError("val_split_file leads out of data_path", step) from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError("val_split_file cannot be read as CSV", step) from error
    column = 0
    header = [cell.strip().lower() for cell in rows[0]] if rows else []
    named = [header.index(name) for name in ID_COLUMNS if name in header]
    if named:
        column, rows = named[0], rows[1:]
    ids = [row[column].strip() for row in rows if len(row) > column and row[column].strip()]
    if not ids:
        raise InputError("val_split_file names no subject", step)
    return list(dict.fromkeys(ids))


def _check_present(listed: list[str], subjects: list[str], parameters: Parameters) -> None:
    known = set(subjects)
    missing = [number for number, subject in enumerate(listed, start=1) if subject not in known]
    if missing:
        source = "validation_subjects" if parameters.validation_subjects is not None else "val_split_file"
        places = ", ".join(map(str, missing[:20])) + (", ..." if len(missing) > 20 else "")
        # Positions, not ids: what a site's list names may be what anonymize_subjects is there to hide.
        raise FindingsError(
            f"{len(missing)} of {len(listed)} subjects in {source} have no folder with images in data_path "
            f"(entries {places} of the list)",
            "add their folders or take them from the list",
        )
