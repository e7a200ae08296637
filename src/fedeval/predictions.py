"""Checking predictions: each one exists, is readable, lies on the reference's grid and holds allowed labels.

Predictions are hostile until proven otherwise: only regular files count, headers are compared before any voxel is read,
nothing is read or copied beyond what a mask on the reference's grid can hold, and only checked copies go on to the
metrics cube. Of nibabel only the header is used: its reader follows header extensions, whose announced size is not
bounded by the file.
"""

from __future__ import annotations

import logging
import math
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
from nibabel.volumeutils import apply_read_scaling
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

MAX_VOXEL_BYTES = 8
"""float64 and int64; nothing wider holds labels."""

_PIECE_BYTES = 1 << 16

_SILENT = logging.getLogger(f"{__name__}.header")
"""nibabel would quote a strange header on the terminal."""
_SILENT.addHandler(logging.NullHandler())
_SILENT.propagate = False

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
    "too_long": PredictionFormatError,
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
            copy = _copy_regular(found_dir / name, accepted_dir / name, _max_bytes(shape))
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


def _max_bytes(shape: Sequence[int]) -> int:
    """No mask of a shape is longer on disk; gzip adds less than a header's worth to what it cannot shrink."""
    return math.prod(shape) * MAX_VOXEL_BYTES + 2 * MAX_HEADER_BYTES


def _copy_regular(source: Path, target: Path, max_bytes: int) -> Path:
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
        if state.st_size > max_bytes:  # also a file with holes, which takes no space where the model wrote it
            found, most = state.st_size >> 20, max_bytes >> 20
            raise _Refused("too_long", f"a file of {found} MiB; expected a mask, at most {most} MiB for this case")
        with os.fdopen(os.dup(handle), "rb") as file, storing("keeping predictions", target.parent):
            _write_stream(file, target)
    finally:
        os.close(handle)
    return target


def _write_stream(file: BinaryIO, target: Path) -> None:
    with target.open("wb") as copy:
        shutil.copyfileobj(file, copy, 1 << 20)


class _PlainBytes:
    """The content of a file read forward, decompressed where it is gzip; never more in memory than was asked for."""

    def __init__(self, file: BinaryIO, max_members: int) -> None:
        self._file, self._members_left = file, max_members
        self._data = file.read(_PIECE_BYTES)
        self._packed = self._data.startswith(b"\x1f\x8b")
        self._member: Any = None

    def read(self, count: int) -> bytearray:
        """The next `count` bytes, fewer only at the end.

        Raises
        ------
        EOFError, zlib.error
            The stream ends early, or is damaged.
        """
        plain = bytearray()
        while len(plain) < count:
            if not self._data:
                self._data = self._file.read(_PIECE_BYTES)
            if not self._data:
                if self._member is not None:
                    raise EOFError("the stream ends early")
                break
            plain += self._take(count - len(plain))
        return plain

    def _take(self, count: int) -> bytes:
        """At most `count` bytes from the piece at hand; members of a gzip file follow each other."""
        if not self._packed:
            taken, self._data = self._data[:count], self._data[count:]
            return taken
        if self._member is None:
            self._data = self._data.lstrip(b"\0")  # gzip pads members with zeros
            if not self._data:
                return b""
            if not self._members_left:
                raise _Refused("not_a_nifti", "a gzip file of a great many parts; expected one")
            self._members_left -= 1
            self._member = zlib.decompressobj(wbits=31)
        plain: bytes = self._member.decompress(self._data, count)
        self._data = self._member.unconsumed_tail or self._member.unused_data
        if self._member.eof:
            self._member = None
        return plain


def _check_image(path: Path, shape: tuple[int, ...], affine: np.ndarray, labels: Sequence[int]) -> None:
    """Refuse what cannot be scored; the header decides before any voxel is read."""
    with path.open("rb") as file:
        # bgzip makes a member of each 64 KiB; a file of many empty ones would keep a reader busy for hours.
        content = _PlainBytes(file, 64 + _max_bytes(shape) // 16384)
        try:
            header, begun = _load_header(content)
            found_shape = _spatial(header.get_data_shape())
            found_affine = np.asarray(header.get_best_affine(), dtype=np.float64)
            dtype = header.get_data_dtype()
            offset = int(header["vox_offset"])
        except _UNREADABLE as err:
            raise _Refused("not_a_nifti", "not a readable NIfTI file; expected .nii.gz") from err
        if not begun <= offset <= MAX_HEADER_BYTES:
            raise _Refused("not_a_nifti", "voxels that begin beyond the header; expected them right after it")
        _check_grid(found_shape, found_affine, shape, affine)
        if dtype.kind not in "iuf" or dtype.itemsize > MAX_VOXEL_BYTES:
            raise _Refused("not_integer_labels", f"data type {dtype}; expected whole numbers")
        try:
            voxels = _load_voxels(content, offset - begun, math.prod(shape), header)
            more = content.read(1)
        except _UNREADABLE as err:
            found = f"voxels cannot be read ({type(err).__name__})"
            raise _Refused("truncated", f"{found}; expected a complete file") from err
    if more:
        raise _Refused("too_long", "more bytes than the header announces; expected nothing after the last voxel")
    _check_labels(voxels, labels)


def _load_header(content: _PlainBytes) -> tuple[Any, int]:
    """The header, of either version and byte order, and how many bytes of the file it took."""
    head = content.read(4)
    kinds: dict[int, Any] = {348: nib.Nifti1Header, 540: nib.Nifti2Header}
    size = next((size for size in kinds if size in (int.from_bytes(head, order) for order in ("little", "big"))), 0)
    if not size:
        raise HeaderDataError("neither NIfTI-1 nor NIfTI-2")
    header = kinds[size](bytes(head + content.read(size - 4)), check=False)
    header.check_fix(logger=_SILENT)
    if header["magic"].item() != kinds[size].single_magic.rstrip(b"\0"):
        raise HeaderDataError("voxels are in another file")
    return header, size


def _load_voxels(content: _PlainBytes, skip: int, count: int, header: Any) -> np.ndarray:
    """Voxel values, one axis; numbers are scaled where the header asks for it."""
    content.read(skip)
    dtype: np.dtype[Any] = header.get_data_dtype()
    voxels: np.ndarray = np.frombuffer(content.read(count * dtype.itemsize), dtype=dtype, count=count)
    slope, inter = header.get_slope_inter()
    if slope is None or (slope, inter) == (1, 0):
        return voxels
    return np.asarray(apply_read_scaling(voxels, slope, inter))


def _check_grid(
    found_shape: tuple[int, ...], found_affine: np.ndarray, shape: tuple[int, ...], affine: np.ndarray
) -> None:
    if found_shape != shape:
        raise _Refused("wrong_shape", f"{_times(found_shape)}; expected {_times(shape)}")
    distance = _corner_distance_mm(found_affine, affine, shape)
    if not distance <= GRID_TOLERANCE_MM:
        raise _Refused(
            "wrong_affine", f"a corner lies {distance:.3g} mm from the reference's; expected the input's affine"
        )


def _check_labels(voxels: np.ndarray, labels: Sequence[int]) -> None:
    if voxels.dtype.kind == "f" and not np.isfinite(voxels).all():
        raise _Refused("not_integer_labels", "values that are not finite; expected whole numbers")
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
