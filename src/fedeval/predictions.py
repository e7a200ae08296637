"""Checking predictions: each one exists, is readable, lies on the reference's grid and holds allowed labels.

Predictions are hostile until proven otherwise: only regular files count, headers are compared before any voxel is read,
and only checked copies go on to the metrics cube.
"""

from __future__ import annotations

import os
import shutil
import stat
import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError

from fedeval.benchmark import Benchmark
from fedeval.errors import (
    InputError,
    PredictionError,
    PredictionFormatError,
    PredictionGridError,
    PredictionLabelsError,
    PredictionMissingError,
    PredictionShapeError,
)
from fedeval.log import show_safe
from fedeval.store import storing

GRID_TOLERANCE_MM = 1e-2
"""How far a corner of the prediction's grid may lie from the reference's."""

MAX_HEADER_BYTES = 1 << 20
"""Voxels that begin later would make the reader decompress what nobody looks at."""

_UNREADABLE = (
    ImageFileError, HeaderDataError, WrapStructError, OSError, EOFError, ValueError, TypeError, ArithmeticError,
    LookupError, AttributeError, MemoryError, struct.error, zlib.error,
)  # fmt: skip
"""What nibabel and the decompressor raise on broken and hostile files."""

REASONS: dict[str, type[PredictionError]] = {
    "missing": PredictionMissingError,
    "not_a_regular_file": PredictionFormatError,
    "not_a_nifti": PredictionFormatError,
    "truncated": PredictionFormatError,
    "wrong_shape": PredictionShapeError,
    "wrong_affine": PredictionGridError,
    "not_integer_labels": PredictionLabelsError,
    "unknown_label": PredictionLabelsError,
}
"""Closed vocabulary of reasons, with the error each one ends a test with."""


@dataclass(frozen=True)
class PredictionCheck:
    """What is known of one case's prediction.

    Attributes
    ----------
    case : str
        Case id.
    reason : str or None
        None when it can be scored, else a key of `REASONS`.
    detail : str
        Found against expected, safe to show.
    """

    case: str
    reason: str | None = None
    detail: str = ""

    @property
    def status(self) -> str:
        """``ok``, ``missing`` or ``invalid``."""
        return "ok" if self.reason is None else "missing" if self.reason == "missing" else "invalid"


class _Refused(Exception):
    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason)
        self.reason, self.detail = reason, detail


def check_predictions(
    found_dir: Path, labels_dir: Path, cases: Sequence[str], benchmark: Benchmark, accepted_dir: Path,
    on_case: Callable[[int], None] = lambda done: None,
) -> tuple[PredictionCheck, ...]:  # fmt: skip
    """Check every case's prediction and copy what can be scored.

    Parameters
    ----------
    found_dir : Path
        What the model wrote; nothing runs there any more.
    labels_dir : Path
        References.
    cases : sequence of str
        Expected case ids.
    benchmark : Benchmark
        File names and labels.
    accepted_dir : Path
        Gets a copy of each prediction that can be scored.
    on_case : callable
        Called with the number of cases done.

    Returns
    -------
    tuple of PredictionCheck
        In the order of `cases`.

    Raises
    ------
    InputError
        A reference cannot be read: a fault of the site, never a score.
    """
    with storing("keeping predictions", accepted_dir):
        accepted_dir.mkdir(parents=True, exist_ok=True)
    checks = []
    for done, case in enumerate(cases, 1):
        reference = labels_dir / benchmark.reference_file.format(case=case)
        name = benchmark.prediction_file.format(case=case)
        try:
            shape, affine = _load_grid(reference)
        except _UNREADABLE as err:
            raise InputError(
                f"the reference of case {show_safe(case, 80)} cannot be read", type(err).__name__,
                "run sanity_check on the prepared data",
            ) from err  # fmt: skip
        try:
            copy = _copy_regular(found_dir / name, accepted_dir / name)
            try:
                _check_image(copy, shape, affine, benchmark.labels)
            except _Refused:
                copy.unlink()
                raise
            checks.append(PredictionCheck(case))
        except _Refused as refused:
            checks.append(PredictionCheck(case, refused.reason, refused.detail))
        on_case(done)
    return tuple(checks)


def _load_grid(path: Path) -> tuple[tuple[int, ...], np.ndarray]:
    """Shape (trailing axes of length 1 dropped) and affine, from the header alone."""
    image: Any = nib.load(path)
    return _spatial(image.shape), np.asarray(image.affine, dtype=np.float64)


def _spatial(shape: Sequence[int]) -> tuple[int, ...]:
    found = tuple(int(length) for length in shape)
    while len(found) > 3 and found[-1] == 1:
        found = found[:-1]
    return found


def _copy_regular(source: Path, target: Path) -> Path:
    """Copy a regular file that has one name; links, devices and pipes are refused without following them."""
    try:
        handle = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError as err:
        raise _Refused("missing", f"no file {show_safe(source.name, 120)} in output_path") from err
    except OSError as err:
        raise _Refused("not_a_regular_file", "a link or a file that cannot be opened; expected a regular file") from err
    try:
        state = os.fstat(handle)
        if not stat.S_ISREG(state.st_mode) or state.st_nlink != 1:
            raise _Refused("not_a_regular_file", "a folder, device or linked file; expected a regular file of its own")
        with os.fdopen(os.dup(handle), "rb") as file, storing("keeping predictions", target.parent):
            _write_stream(file, target)
    finally:
        os.close(handle)
    return target


def _write_stream(file: BinaryIO, target: Path) -> None:
    with target.open("wb") as copy:
        shutil.copyfileobj(file, copy, 1 << 20)


def _check_image(path: Path, shape: tuple[int, ...], affine: np.ndarray, labels: Sequence[int]) -> None:
    """Refuse what cannot be scored; the header decides before any voxel is read."""
    try:
        image = nib.Nifti1Image.from_filename(path) if _is_nifti1(path) else nib.Nifti2Image.from_filename(path)
        found_shape, found_affine = _spatial(image.shape), np.asarray(image.affine, dtype=np.float64)
    except _UNREADABLE as err:
        raise _Refused("not_a_nifti", "not a readable NIfTI file; expected .nii.gz") from err
    if getattr(image.dataobj, "offset", 0) > MAX_HEADER_BYTES:
        raise _Refused("not_a_nifti", "voxels that begin beyond the header; expected them right after it")
    if found_shape != shape:
        raise _Refused("wrong_shape", f"{_times(found_shape)}; expected {_times(shape)}")
    distance = _corner_distance_mm(found_affine, affine, shape)
    if not distance <= GRID_TOLERANCE_MM:
        raise _Refused(
            "wrong_affine", f"a corner lies {distance:.3g} mm from the reference's; expected the input's affine"
        )
    try:
        voxels = np.asanyarray(image.dataobj)
    except _UNREADABLE as err:
        raise _Refused("truncated", f"voxels cannot be read ({type(err).__name__}); expected a complete file") from err
    _check_labels(voxels, labels)


def _is_nifti1(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(2)
    opened = nib.openers.ImageOpener(str(path), "rb") if head == b"\x1f\x8b" else path.open("rb")
    with opened as file:
        return bytes(file.read(4)) in (b"\x5c\x01\x00\x00", b"\x00\x00\x01\x5c")


def _check_labels(voxels: np.ndarray, labels: Sequence[int]) -> None:
    if voxels.dtype.kind == "f" and not np.isfinite(voxels).all():
        raise _Refused("not_integer_labels", "values that are not finite; expected whole numbers")
    if voxels.dtype.kind not in "iuf":
        raise _Refused("not_integer_labels", f"data type {voxels.dtype}; expected whole numbers")
    if voxels.dtype.kind == "f" and not np.array_equal(voxels, np.rint(voxels)):
        raise _Refused(
            "not_integer_labels", "fractions, e.g. probabilities; expected whole numbers: save the label map"
        )
    if voxels.dtype == np.uint8:
        found = np.flatnonzero(np.bincount(voxels.ravel(order="K"), minlength=256))
    else:
        found = np.unique(voxels)
    if strange := sorted(set(found.tolist()) - set(labels)):
        shown = ", ".join(f"{value:g}" for value in strange[:5])
        raise _Refused("unknown_label", f"{shown}; expected {', '.join(map(str, labels))}")


def _corner_distance_mm(found: np.ndarray, expected: np.ndarray, shape: tuple[int, ...]) -> float:
    corners = np.array(np.meshgrid(*[(0, length - 1) for length in shape[:3]])).reshape(3, -1)
    moved = (found - expected)[:3, :3] @ corners + (found - expected)[:3, 3:]
    return float(np.sqrt((moved**2).sum(axis=0)).max())


def _times(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape)) or "no axes"
