"""The part of a NIfTI header that masks need: grid, voxel type, scaling, position.

Rules follow the NIfTI-1 and NIfTI-2 standards and agree with nibabel on which affine holds (sform if coded, else
qform, else spacing alone); nibabel itself is not imported because its start-up costs more than a whole case.
"""

import functools
import math
import struct
from dataclasses import dataclass

from metrics_cube.errors import InvalidMask

Affine = tuple[tuple[float, float, float, float], ...]
"""First three rows of the voxel-to-world matrix, in mm."""

MAX_OFFSET = 1 << 24
"""Largest byte at which voxels may start: header extensions are small, and a stranger must not make us read more."""

HEADER_BYTES = 540
"""Enough of a file to hold either header."""

TYPE_CODES = {
    2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8",
}  # fmt: skip
"""NIfTI datatype code -> numpy type without byte order; other codes cannot hold labels."""


@dataclass(frozen=True)
class Header:
    """What one mask file says of itself.

    Attributes
    ----------
    shape : tuple of int
        Number of voxels along the three array axes, first axis fastest in the file.
    spacing_mm : tuple of float
        Voxel edge lengths along the same axes.
    affine : Affine
        Voxel indices to world, mm.
    dtype : str
        numpy type string with byte order.
    offset : int
        Byte at which the voxels start.
    slope, inter : float
        Stored value v means ``v * slope + inter``; 1 and 0 where the header asks for no scaling.
    """

    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    affine: Affine
    dtype: str
    offset: int
    slope: float
    inter: float

    @property
    def voxels(self) -> int:
        """Number of voxels."""
        return math.prod(self.shape)

    @property
    def end(self) -> int:
        """Byte just after the last voxel."""
        return self.offset + self.voxels * int(self.dtype[2:])


# Per version: byte offset and struct format of each field, by the standards' tables.
_FIELDS_1 = {
    "dim": (40, "8h"), "datatype": (70, "h"), "pixdim": (76, "8f"), "vox_offset": (108, "f"),
    "scale": (112, "2f"), "forms": (252, "2h"), "quatern": (256, "6f"), "srow": (280, "12f"),
}  # fmt: skip
_FIELDS_2 = {
    "dim": (16, "8q"), "datatype": (12, "h"), "pixdim": (104, "8d"), "vox_offset": (168, "q"),
    "scale": (176, "2d"), "forms": (344, "2i"), "quatern": (352, "6d"), "srow": (400, "12d"),
}  # fmt: skip


@functools.lru_cache(maxsize=64)
def load_header(data: bytes) -> Header:
    """Read and check the header at the start of a file; the files of a study often share one.

    Parameters
    ----------
    data : bytes
        The first `HEADER_BYTES` bytes of the decompressed file, fewer where the file is shorter.

    Raises
    ------
    InvalidMask
        With the codes ``not_nifti``, ``truncated``, ``header_invalid``, ``type_unsupported`` or ``not_3d``.
    """
    order, fields, size = _find_version(data)
    values = {name: struct.unpack_from(order + fmt, data, at) for name, (at, fmt) in fields.items()}
    shape = _check_shape(values["dim"])
    code = values["datatype"][0]
    if code not in TYPE_CODES:
        raise InvalidMask("type_unsupported", f"NIfTI datatype code {code}")
    offset = values["vox_offset"][0]
    if not math.isfinite(offset) or offset != int(offset) or not size <= offset <= MAX_OFFSET:
        raise InvalidMask("header_invalid", "vox_offset")
    slope, inter = values["scale"]
    if not math.isfinite(slope) or slope == 0:
        slope, inter = 1.0, 0.0
    if not math.isfinite(inter):
        raise InvalidMask("header_invalid", "scl_inter")
    spacing = tuple(abs(edge) for edge in values["pixdim"][1:4])
    # A missing third dimension leaves its spacing free; the standard then asks for nothing.
    spacing = tuple(1.0 if n == 1 and s == 0 else s for n, s in zip(shape, spacing, strict=True))
    if not all(math.isfinite(edge) and edge > 0 for edge in spacing):
        raise InvalidMask("header_invalid", "pixdim")
    affine = _compute_affine(values, shape, spacing)
    if not all(math.isfinite(entry) for row in affine for entry in row):
        raise InvalidMask("header_invalid", "affine")
    return Header(
        shape, (spacing[0], spacing[1], spacing[2]), affine, order + TYPE_CODES[code], int(offset), slope, inter
    )


def _find_version(data: bytes) -> tuple[str, dict[str, tuple[int, str]], int]:
    """Byte order, field table and header size, from sizeof_hdr and the magic string."""
    if len(data) < 4:
        raise InvalidMask("truncated", f"{len(data)} bytes")
    for order in "<>":
        size = struct.unpack_from(order + "i", data)[0]
        fields, magic_at, magic = (_FIELDS_1, 344, b"n+1\0") if size == 348 else (_FIELDS_2, 4, b"n+2\0\r\n\x1a\n")
        if size not in (348, 540):
            continue
        if len(data) < size:
            raise InvalidMask("truncated", f"{len(data)} bytes of a {size}-byte header")
        if data[magic_at : magic_at + len(magic)] == magic:
            return order, fields, size
    raise InvalidMask("not_nifti")


def _check_shape(dim: tuple[int, ...]) -> tuple[int, int, int]:
    """Size of the one volume in the file; axes beyond the third must have length 1."""
    if not 1 <= dim[0] <= 7:
        raise InvalidMask("header_invalid", f"dim[0] is {dim[0]}")
    sizes = [*dim[1 : dim[0] + 1], 1, 1]
    if min(sizes) < 1:
        raise InvalidMask("header_invalid", "a dimension below 1")
    if math.prod(sizes[3:]) != 1:
        raise InvalidMask("not_3d", "found " + "x".join(str(n) for n in dim[1 : dim[0] + 1]))
    return sizes[0], sizes[1], sizes[2]


def _compute_affine(
    values: dict[str, tuple[float, ...]], shape: tuple[int, int, int], spacing: tuple[float, ...]
) -> Affine:
    """Voxel-to-world rows: sform, else qform, else the scaled and centred grid with x to the left."""
    qform_code, sform_code = values["forms"]
    if sform_code > 0:
        rows = values["srow"]
        return tuple((rows[i], rows[i + 1], rows[i + 2], rows[i + 3]) for i in (0, 4, 8))
    if qform_code > 0:
        return _compute_qform(values["quatern"], spacing, -1.0 if values["pixdim"][0] == -1 else 1.0)
    signed = (-spacing[0], spacing[1], spacing[2])
    origin = [-(n - 1) / 2 * s for n, s in zip(shape, signed, strict=True)]
    return (
        (signed[0], 0.0, 0.0, origin[0]),
        (0.0, signed[1], 0.0, origin[1]),
        (0.0, 0.0, signed[2], origin[2]),
    )


def _compute_qform(quatern: tuple[float, ...], spacing: tuple[float, ...], qfac: float) -> Affine:
    """Rows of the rotation in the header's quaternion, times spacing, plus its offset (NIfTI-1 standard, method 2)."""
    b, c, d = quatern[:3]
    square = 1.0 - (b * b + c * c + d * d)
    if not math.isfinite(square) or square < -1e-5:
        raise InvalidMask("header_invalid", "quaternion longer than 1")
    a = math.sqrt(max(square, 0.0))
    if a < 1e-7:  # A half turn: normalise what float32 left of the vector part.
        norm = math.sqrt(b * b + c * c + d * d)
        a, b, c, d = 0.0, b / norm, c / norm, d / norm
    rotation = (
        (a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)),
        (2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)),
        (2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c),
    )
    scale = (spacing[0], spacing[1], spacing[2] * qfac)
    return tuple(
        (row[0] * scale[0], row[1] * scale[1], row[2] * scale[2], quatern[3 + i]) for i, row in enumerate(rotation)
    )
