"""Reads prepared cases and writes predictions. The file contract of benchmark 1 lives here."""

from __future__ import annotations

import os
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from model_cube.errors import CaseError, InputError

MODALITIES = ("t1", "t1ce", "t2", "flair")
LABELS = (0, 1, 2, 4)


@dataclass(frozen=True)
class Case:
    """One subject's images, all on the same grid.

    Attributes
    ----------
    case_id : str
        Name of the case's folder.
    images : dict of str to ndarray, shape (x, y, z), float32
        One volume per modality of `MODALITIES`; the background is 0 and every voxel is finite.
    spacing_mm : tuple of three floats
        Voxel size along the three axes.
    header : nibabel.Nifti1Header
        Header of the t1 image: grid, codes and units of the prediction.
    image_class : type
        nibabel's class of the t1 image, NIfTI-1 or NIfTI-2.
    affine : ndarray, shape (4, 4)
        Voxel to world transform of the t1 image.
    """

    case_id: str
    images: dict[str, NDArray[np.float32]]
    spacing_mm: tuple[float, float, float]
    header: Any  # nibabel's headers are not annotated
    image_class: type[nib.Nifti1Image]
    affine: NDArray[np.float64]


def load_case_ids(data_path: Path) -> list[str]:
    """List the cases below a prepared data folder in sorted order; files and hidden folders are ignored.

    Raises
    ------
    InputError
        If the folder is missing, cannot be read or holds no case.
    """
    try:
        case_ids = sorted(entry.name for entry in data_path.iterdir() if entry.is_dir() and entry.name[0] != ".")
    except OSError as error:
        raise InputError(
            f"infer: data_path cannot be listed ({error.strerror}): {data_path}; expected a folder with one folder "
            "per case; next: give the output_path of data_prep's prepare task"
        ) from error
    if not case_ids:
        raise InputError(
            f"infer: no case in {data_path}; expected folders <case>/<case>_brain_{{{','.join(MODALITIES)}}}.nii.gz, "
            "found none; next: check data_path (mlcube creates a folder that is missing)"
        )
    return case_ids


def load_case(data_path: Path, case_id: str) -> Case:
    """Read the four images of one case.

    Raises
    ------
    CaseError
        If an image is missing, unreadable, not three-dimensional or on another grid than t1.
    """
    images: dict[str, NDArray[np.float32]] = {}
    reference: nib.Nifti1Image | None = None
    for modality in MODALITIES:
        name = f"{case_id}_brain_{modality}.nii.gz"
        image, voxels = _load_image(data_path / case_id / name, name)
        reference = reference or image
        if voxels.ndim != 3 or voxels.shape != reference.shape:
            raise CaseError(f"{name}: expected a 3-D volume of t1's shape {reference.shape}, found {voxels.shape}")
        images[modality] = voxels
    assert reference is not None
    spacing_mm = compute_spacing_mm(reference.affine)
    if not all(np.isfinite(size) and size > 0 for size in spacing_mm):
        raise CaseError(f"{case_id}_brain_t1.nii.gz: expected positive voxel sizes, found {spacing_mm}")
    return Case(case_id, images, spacing_mm, reference.header, type(reference), reference.affine)


def compute_spacing_mm(affine: NDArray[np.float64]) -> tuple[float, float, float]:
    """Compute the voxel size along the three axes from a voxel to world transform in mm, shape (4, 4)."""
    x, y, z = np.sqrt((affine[:3, :3] ** 2).sum(axis=0))
    return float(x), float(y), float(z)


def _load_image(path: Path, name: str) -> tuple[nib.Nifti1Image, NDArray[np.float32]]:
    """Read one NIfTI file; every way in which it can be broken becomes one CaseError."""
    try:
        image = nib.load(path)
        if not isinstance(image, nib.Nifti1Image):
            raise CaseError(f"{name}: expected NIfTI-1 or NIfTI-2, found {type(image).__name__}")
        voxels = image.get_fdata(dtype=np.float32, caching="unchanged")
    except FileNotFoundError as error:
        raise CaseError(f"{name}: file not found") from error
    # A damaged gzip stream or header shows as any of these; ImageFileError and HeaderDataError are plain Exceptions.
    except (
        OSError,
        EOFError,
        ValueError,
        zlib.error,
        nib.filebasedimages.ImageFileError,
        nib.spatialimages.HeaderDataError,
    ) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__
        raise CaseError(f"{name}: not readable as NIfTI ({reason})") from error
    return image, np.nan_to_num(voxels, copy=False, nan=0.0, posinf=0.0, neginf=0.0)


def write_prediction(output_path: Path, case: Case, labels: NDArray[np.uint8]) -> Path:
    """Write `<case>.nii.gz` with the grid and header of the case's t1 image.

    The file appears under its final name only when it is complete: it is written beside it under a hidden name,
    flushed to disk and renamed.

    Parameters
    ----------
    labels : ndarray, shape (x, y, z), uint8
        Values of `LABELS` only, on the grid of the case.
    """
    header = case.header.copy()
    header.set_data_dtype(np.uint8)
    header.set_slope_inter(1, 0)
    header["cal_min"], header["cal_max"] = 0, 0
    header.extensions.clear()  # they describe the acquisition, and may hold a patient's data
    target = output_path / f"{case.case_id}.nii.gz"
    partial = output_path / f".{case.case_id}.partial.nii.gz"
    try:
        nib.save(case.image_class(labels, case.affine, header), partial)
        with partial.open("rb") as written:
            os.fsync(written.fileno())
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
    return target
