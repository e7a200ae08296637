"""Reading NIfTI files that may be broken or hostile."""

import contextlib
import gzip
import io
import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import nibabel as nib
import numpy as np
import numpy.typing as npt
from nibabel.spatialimages import HeaderDataError

from data_prep_cube.folders import OutsideError, open_inside

HEADER_BYTES = 348
_Header: Any = nib.Nifti1Header  # nibabel leaves these calls without types
MAX_OFFSET_BYTES = 16 << 20  # header extensions before the voxels
MAX_VOLUME_BYTES = 2 << 30  # the bound where no shape is expected; a full case has 18 MB at int16
MAX_SURPLUS_BYTES = 1 << 20  # some tools pad their files
DAMAGED = (EOFError, zlib.error, gzip.BadGzipFile)


class VolumeError(Exception):
    """A file that is no usable volume: ``problem``, ``expected`` and ``found`` make up one finding."""

    def __init__(self, problem: str, expected: str, found: str) -> None:
        super().__init__(problem)
        self.problem, self.expected, self.found = problem, expected, found


@dataclass(frozen=True)
class Grid:
    """Where the voxels of a volume lie.

    ``shape`` in voxels and ``spacing_mm`` along i, j, k as in the file; ``affine`` is float64 (4, 4), voxel to mm.
    """

    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    affine: npt.NDArray[np.float64]


@dataclass(frozen=True)
class Volume:
    """Voxels, shape (i, j, k), scaled as the header says, in the file's dtype if there is no scaling."""

    voxels: npt.NDArray[Any]
    grid: Grid


@contextlib.contextmanager
def open_stream(root: Path, path: Path) -> Iterator[BinaryIO]:
    """Open a NIfTI file below ``root`` for reading, unpacked if its name ends in ``.gz``."""
    with open_inside(root, path) as file:
        if not path.name.endswith(".gz"):
            yield file
            return
        with gzip.GzipFile(fileobj=file, mode="rb") as unpacked:
            yield unpacked  # type: ignore[misc]


def load_volume(root: Path, path: Path, expected_shape: tuple[int, int, int] | None) -> Volume:
    """Read one volume completely, after its header has been found to be plausible.

    Nothing is allocated on the word of a header that does not fit the expected shape.

    Parameters
    ----------
    root
        Folder that the file must not leave by links.
    path
        The ``.nii.gz`` or ``.nii`` file.
    expected_shape
        Shape in voxels, or None for any up to 2 GiB.

    Raises
    ------
    VolumeError
        If the file is damaged, no NIfTI-1 file, or of another shape.
    """
    try:
        with open_stream(root, path) as stream:
            header = read_header(stream)
            grid = check_header(header, expected_shape)
            return Volume(_read_voxels(stream, header, grid.shape), grid)
    except OutsideError as error:
        raise VolumeError("no ordinary file", "a file inside the folder", "a link out of it, or a device") from error
    except DAMAGED as error:
        raise VolumeError("damaged", "a complete gzip file", "cut off or corrupt") from error
    except OSError as error:
        raise VolumeError("cannot be read", "a readable file", "refused by the system") from error


def read_header(stream: BinaryIO) -> Any:
    """Read the header at the start of a stream; returns a `nibabel.Nifti1Header` whose fields are unchecked."""
    raw = stream.read(HEADER_BYTES)
    if len(raw) < HEADER_BYTES or not _Header.may_contain_header(raw) or raw[344:348] != b"n+1\0":
        raise VolumeError("no NIfTI file", "a single-file NIfTI-1", "something else")
    return _Header(binaryblock=raw, check=False)


def check_header(header: Any, expected_shape: tuple[int, int, int] | None) -> Grid:
    """Check shape, data type, offset and geometry of an unchecked header, and return the geometry."""
    shape = _check_shape(header, expected_shape)
    try:
        kind = header.get_data_dtype()
    except (HeaderDataError, KeyError) as error:
        raise VolumeError("data type", "integers or floats", "an unknown code") from error
    if kind.kind not in "iuf" or kind.itemsize > 8:
        raise VolumeError("data type", "integers or floats of at most 64 bits", str(kind))
    if math.prod(shape) * kind.itemsize > MAX_VOLUME_BYTES:
        raise VolumeError("size", "at most 2 GiB of voxels", f"{math.prod(shape) * kind.itemsize / 2**30:.3g} GiB")
    offset = float(header["vox_offset"])
    if not HEADER_BYTES + 4 <= offset <= MAX_OFFSET_BYTES:  # false for NaN too
        raise VolumeError("header", "voxels that start after the header", "an impossible offset")
    return Grid(shape, *_check_geometry(header))


def _check_shape(header: Any, expected: tuple[int, int, int] | None) -> tuple[int, int, int]:
    # Straight from the field: get_data_shape() has rules of its own for negative entries.
    sizes = [int(size) for size in header["dim"]]
    count = min(max(sizes[0], 0), 7)
    found = "x".join(map(str, sizes[1 : 1 + count])) or "nothing"
    if sizes[0] != 3 or min(sizes[1:4]) < 1:
        raise VolumeError("size", "three dimensions", found)
    shape = (sizes[1], sizes[2], sizes[3])
    if expected is not None and shape != expected:
        raise VolumeError("size", "x".join(map(str, expected)), found)
    return shape


def _check_geometry(header: Any) -> tuple[tuple[float, float, float], npt.NDArray[np.float64]]:
    spacing = tuple(float(size) for size in header["pixdim"][1:4])
    if not all(math.isfinite(size) and size > 0 for size in spacing):
        raise VolumeError("spacing", "positive numbers of mm", "zero, negative or not finite")
    try:
        affine = np.asarray(header.get_best_affine(), dtype=np.float64)
    except (HeaderDataError, ValueError) as error:
        raise VolumeError("direction", "a valid orientation", "a broken quaternion") from error
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise VolumeError("direction", "a valid orientation", "a matrix that is singular or not finite")
    return (spacing[0], spacing[1], spacing[2]), affine


def _read_voxels(stream: BinaryIO, header: Any, shape: tuple[int, int, int]) -> npt.NDArray[Any]:
    kind = header.get_data_dtype()
    before = int(header["vox_offset"]) - HEADER_BYTES
    size = math.prod(shape) * kind.itemsize
    if len(stream.read(before)) < before:
        raise VolumeError("damaged", f"{size} bytes of voxels", "none")
    raw = stream.read(size)
    if len(raw) < size:
        raise VolumeError("damaged", f"{size} bytes of voxels", f"{len(raw)}")
    # To the end, so that gzip's check sum is compared; a bomb behind the voxels is left unread.
    if len(stream.read(MAX_SURPLUS_BYTES + 1)) > MAX_SURPLUS_BYTES:
        raise VolumeError("size", f"{size} bytes of voxels", "over 1 MiB more")
    voxels: npt.NDArray[Any] = np.frombuffer(raw, dtype=kind).reshape(shape, order="F")
    slope, intercept = _scaling(header)
    if (slope, intercept) == (1.0, 0.0):
        return voxels
    with np.errstate(all="ignore"):  # an overflow gives infinity, which the checks report
        return voxels * slope + intercept


def _scaling(header: Any) -> tuple[float, float]:
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    if slope == 0 or math.isnan(slope):  # NIfTI-1: a slope of zero means none; nibabel writes NaN for none
        return 1.0, 0.0
    if not math.isfinite(slope) or not math.isfinite(intercept):
        raise VolumeError("header", "finite scaling", "a scaling that is not finite")
    return slope, intercept


class Target(Protocol):
    """Anything that bytes can be written to."""

    def write(self, content: bytes, /) -> int:
        """Take some bytes and return their number."""
        ...


def write_anonymous(stream: BinaryIO, target: Target) -> None:
    """Copy a volume to an uncompressed stream without anything a header may say about the person.

    Free text fields are blanked and header extensions dropped; geometry, scaling and voxels stay as they are.

    Raises
    ------
    VolumeError
        If the header is no plausible NIfTI header, or voxels are missing.
    """
    header = read_header(stream)
    grid = check_header(header, None)
    before = int(header["vox_offset"]) - HEADER_BYTES
    size = math.prod(grid.shape) * header.get_data_dtype().itemsize
    stream.read(before)
    for field in ("descrip", "aux_file", "intent_name", "db_name", "data_type"):
        header[field] = b""
    header["vox_offset"] = HEADER_BYTES + 4
    target.write(header.binaryblock + bytes(4))
    left = size
    while left and (chunk := stream.read(min(left, io.DEFAULT_BUFFER_SIZE * 64))):
        target.write(chunk)
        left -= len(chunk)
    if left:
        raise VolumeError("damaged", f"{size} bytes of voxels", f"{size - left}")
