"""Reading a mask file: decompressed once, straight to its stored type, never beyond what its header announces.

Most of the time of an evaluation is decompression, so `.nii.gz` goes through libdeflate in one call into a buffer of
the announced size. That call refuses a stream that is longer (a gzip bomb) or shorter; only then the slow standard
library reads the stream again, bounded too, to tell a truncated file from a damaged one and to read streams of several
members, which libdeflate does not.
"""

import errno
import itertools
import math
import os
import stat
import zlib
from dataclasses import dataclass
from operator import mul
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from metrics_cube.errors import InvalidMask
from metrics_cube.header import HEADER_BYTES, Header, load_header

try:
    import deflate
except ModuleNotFoundError:  # Same result, ten times the time.
    deflate = None  # type: ignore[assignment]

GZIP_MAGIC = b"\x1f\x8b"
# Deflate cannot shrink data below 1:1032; a file larger than its content by more than this is not a mask.
_OVERHEAD_BYTES = 1 << 20
_START_BYTES = 4096


@dataclass(frozen=True)
class Mask:
    """A mask as stored.

    Attributes
    ----------
    header : Header
    voxels : ndarray, shape `header.shape`, Fortran order
        Stored values: byte order and scaling of the header still to be applied.
    """

    header: Header
    voxels: NDArray[np.generic]


def load_mask(
    path: Path,
    expected: Header | None = None,
    *,
    tolerance_mm: float = 0.01,
    max_voxels: int = 1 << 30,
    follow_links: bool = True,
) -> Mask:
    """Read one `.nii` or `.nii.gz` mask.

    Parameters
    ----------
    path : Path
    expected : Header, optional
        Grid that the mask must have; it is compared before the voxels are read.
    tolerance_mm : float
        Largest distance in mm between the places of any image corner on the two grids.
    max_voxels : int
        Largest image accepted.
    follow_links : bool
        False for files from strangers: a link could point at the reference.

    Raises
    ------
    InvalidMask
        With any code of `errors.REASONS` except ``missing``, ``ambiguous``, ``not_finite`` and ``not_integer``.
    """
    with _open(path, follow_links) as file:
        try:
            start = file.read(_START_BYTES)
            packed = start.startswith(GZIP_MAGIC)
            header = load_header(_inflate_start(start) if packed else start[:HEADER_BYTES])
            if header.voxels > max_voxels:
                raise InvalidMask("too_large", f"{header.voxels} voxels, limit {max_voxels}")
            if expected is not None:
                check_grid(header, expected, tolerance_mm)
            limit = header.end + _OVERHEAD_BYTES
            if os.fstat(file.fileno()).st_size > limit:
                raise InvalidMask("too_long", f"more than {limit} bytes on disk")
            file.seek(0)
            data = file.read(limit if packed else header.end)
        except OSError as error:
            raise InvalidMask("unreadable", f"errno {error.errno}") from error
    plain = _inflate(data, header.end) if packed else data
    if len(plain) < header.end:
        raise InvalidMask("truncated", f"{len(plain)} of {header.end} bytes")
    flat = np.frombuffer(plain, dtype=header.dtype, count=header.voxels, offset=header.offset)
    return Mask(header, flat.reshape(header.shape, order="F"))


def check_grid(header: Header, expected: Header, tolerance_mm: float) -> None:
    """Refuse a grid of another size or place than the expected one.

    Raises
    ------
    InvalidMask
        ``shape_differs``, or ``geometry_differs`` where a corner voxel lies more than `tolerance_mm` off.
    """
    if header.shape != expected.shape:
        found, wanted = ("x".join(str(n) for n in shape) for shape in (header.shape, expected.shape))
        raise InvalidMask("shape_differs", f"found {found}, expected {wanted}")
    if (header.affine, header.spacing_mm) == (expected.affine, expected.spacing_mm):
        return
    delta = [[a - b for a, b in zip(*rows, strict=True)] for rows in zip(header.affine, expected.affine, strict=True)]
    corners = itertools.product(*((0, n - 1) for n in header.shape))
    shift_mm = max(math.hypot(*(sum(map(mul, row, (*corner, 1))) for row in delta)) for corner in corners)
    if shift_mm > tolerance_mm:
        raise InvalidMask("geometry_differs", f"corners up to {shift_mm:.4g} mm apart, tolerance {tolerance_mm:g} mm")
    spacing_mm = max(abs(a - b) for a, b in zip(header.spacing_mm, expected.spacing_mm, strict=True))
    if spacing_mm > tolerance_mm:
        raise InvalidMask("geometry_differs", f"spacing differs by {spacing_mm:.4g} mm, tolerance {tolerance_mm:g} mm")


def _open(path: Path, follow_links: bool) -> BinaryIO:
    """Open a regular file; a pipe or device must not block or feed the reader."""
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | (0 if follow_links else os.O_NOFOLLOW)
    try:
        descriptor = os.open(path, flags)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):
            raise InvalidMask("not_a_file") from error
        raise InvalidMask("unreadable", f"errno {error.errno}") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise InvalidMask("not_a_file")
    return os.fdopen(descriptor, "rb", buffering=0)


def _inflate_start(data: bytes) -> bytes:
    """Decompress just enough for the header."""
    try:
        return zlib.decompressobj(wbits=31).decompress(data, HEADER_BYTES)
    except zlib.error as error:
        raise InvalidMask("corrupt", "at the start of the stream") from error


def _inflate(data: bytes, size: int) -> bytes | bytearray:
    """Decompress a gzip stream that must hold exactly `size` bytes."""
    if deflate is not None:
        try:
            plain: bytearray = deflate.gzip_decompress(data, size)
        except deflate.DeflateError:
            return _inflate_slowly(data, size)
        if len(plain) == size:
            return plain
    return _inflate_slowly(data, size)


def _inflate_slowly(data: bytes, size: int) -> bytearray:
    """Decompress member by member with bounded memory, and say what is wrong where it fails."""
    plain = bytearray()
    stream = zlib.decompressobj(wbits=31)
    while True:
        try:
            plain += stream.decompress(data, size + 1 - len(plain))
        except zlib.error as error:
            raise InvalidMask("corrupt", f"after {len(plain)} of {size} bytes") from error
        if len(plain) > size:
            raise InvalidMask("too_long", f"more than {size} bytes")
        if not stream.eof:
            raise InvalidMask("truncated", f"{len(plain)} of {size} bytes")
        data = stream.unused_data.lstrip(b"\0")  # gzip pads members with zeros
        if not data:
            return plain
        stream = zlib.decompressobj(wbits=31)
