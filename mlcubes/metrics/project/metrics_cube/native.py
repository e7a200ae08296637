"""The native kernel, loaded with ctypes; `load_kernel` gives None where it is not built."""

import ctypes
import functools
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from metrics_cube.counts import Confusion
from metrics_cube.errors import InvalidMask
from metrics_cube.kernel_sources import LIBRARY, compute_source_digest

_Pair = ctypes.c_void_p * 2
_Triple = ctypes.c_int64 * 3
_CLASSIFY_ERRORS = {2: "not_finite", 3: "not_integer"}


@dataclass(frozen=True)
class PackedImage:
    """An image reduced to the rows that hold a region, one bit a voxel.

    Attributes
    ----------
    shape : tuple of int
        Of the image, in array-axis order.
    fortran : bool
        Whether rows run along the first array axis (else the last).
    regions : int
    numbers : ndarray of int32, shape (rows,)
        Which row of the image each one is; the entry of the first, which is empty, means nothing.
    bits : ndarray of uint64, shape (rows, regions, words)
        Lowest bit first.
    """

    shape: tuple[int, int, int]
    fortran: bool
    regions: int
    numbers: NDArray[np.int32]
    bits: NDArray[np.uint64]

    def compute_region(self, index: int) -> NDArray[np.bool_]:
        """The mask of one region, in the image's shape."""
        inner, *outer = self.shape if self.fortran else self.shape[::-1]
        rows: NDArray[np.bool_] = np.zeros((outer[0] * outer[1], inner), dtype=bool)
        unpacked = np.unpackbits(self.bits[1:, index].view(np.uint8), axis=-1, bitorder="little")
        rows[self.numbers[1:]] = unpacked[:, :inner]
        volume = rows.reshape(outer[1], outer[0], inner)
        return volume.transpose() if self.fortran else volume


class Kernel:
    """The functions of one built library; they release the interpreter lock while they work."""

    def __init__(self, path: Path) -> None:
        library = ctypes.CDLL(str(path))
        library.metrics_digest.restype = ctypes.c_char_p
        library.metrics_pack.restype = ctypes.c_int64
        self.digest = library.metrics_digest().decode()
        self._pack = library.metrics_pack
        self._score = library.metrics_score
        self._classify = library.metrics_classify

    def pack(self, voxels: NDArray[np.uint8], table: NDArray[np.uint8], regions: int) -> PackedImage:
        """Reduce an image to what `score` needs.

        Parameters
        ----------
        voxels : ndarray of uint8, 3-D, C- or Fortran-contiguous
        table : ndarray of uint8, shape (256,)
            Region bits of each value; that of 0 is 0.
        regions : int
            Number of regions, at most 8.
        """
        x, y, z = voxels.shape
        fortran = voxels.flags.f_contiguous
        if not fortran:
            voxels = np.ascontiguousarray(voxels)
        inner, middle, outer = (x, y, z) if fortran else (z, y, x)
        numbers = np.empty(middle * outer + 1, dtype=np.int32)
        bits = np.empty((middle * outer + 1, regions, (inner + 63) // 64), dtype=np.uint64)
        rows = self._pack(
            ctypes.c_void_p(voxels.ctypes.data),
            ctypes.c_void_p(table.ctypes.data),
            regions,
            _Triple(inner, middle, outer),
            ctypes.c_void_p(numbers.ctypes.data),
            ctypes.c_void_p(bits.ctypes.data),
        )
        return PackedImage((x, y, z), fortran, regions, numbers[:rows], bits[:rows])

    def score(
        self,
        reference: PackedImage,
        prediction: PackedImage,
        spacing_mm: tuple[float, float, float],
        definitions: int = 1,
    ) -> tuple[list[Confusion], list[tuple[float, float]]]:
        """Counts and Hausdorff95 of every region of two images.

        Parameters
        ----------
        reference, prediction : PackedImage
            Of the same shape, memory order and regions.
        spacing_mm : tuple of float
            Along the array axes.
        definitions : int
            0: counts only; 1: also definition P; 2: also definition D.

        Returns
        -------
        confusions : list of Confusion
        distances : list of (float, float)
            P and D in mm; NaN where a mask is empty or the definition not asked for.

        Raises
        ------
        MemoryError
        """
        images = (reference, prediction)
        if (reference.shape, reference.fortran, reference.regions) != (
            prediction.shape,
            prediction.fortran,
            prediction.regions,
        ):
            raise ValueError("the kernel needs two images of the same shape, memory order and regions")
        regions, order = reference.regions, 1 if reference.fortran else -1
        counted = (ctypes.c_int64 * (3 * regions))()
        distances = (ctypes.c_double * (2 * regions))(*[math.nan] * (2 * regions))
        failed = self._score(
            _Pair(*(image.bits.ctypes.data for image in images)),
            _Pair(*(image.numbers.ctypes.data for image in images)),
            (ctypes.c_int64 * 2)(*(len(image.numbers) for image in images)),
            regions,
            _Triple(*reference.shape[::order]),
            (ctypes.c_double * 3)(*spacing_mm[::order]),
            int(reference.fortran),
            definitions,
            counted,
            distances,
        )
        if failed:
            raise MemoryError("not enough memory for the distances of a case")
        size = math.prod(reference.shape)
        confusions = []
        for both, in_reference, in_prediction in zip(counted[::3], counted[1::3], counted[2::3], strict=True):
            fp, fn = in_prediction - both, in_reference - both
            confusions.append(Confusion(tp=both, fp=fp, tn=size - both - fp - fn, fn=fn))
        return confusions, list(zip(distances[::2], distances[1::2], strict=True))

    def classify(
        self, voxels: NDArray[np.generic], members: dict[int, int], slope: float, inter: float
    ) -> NDArray[np.uint8]:
        """Region bits of every voxel of an image of any stored type; see `labels.compute_region_bits`.

        Raises
        ------
        InvalidMask
            ``not_finite`` or ``not_integer``.
        """
        order: Literal["F", "C"] = "F" if voxels.flags.f_contiguous else "C"
        stored = np.asarray(voxels, order=order)
        bits: NDArray[np.uint8] = np.zeros(stored.shape, dtype=np.uint8, order=order)
        status = self._classify(
            ctypes.c_void_p(stored.ctypes.data),
            ord(stored.dtype.kind),
            stored.dtype.itemsize,
            int(not stored.dtype.isnative),
            ctypes.c_int64(stored.size),
            ctypes.c_double(slope),
            ctypes.c_double(inter),
            (ctypes.c_double * len(members))(*members),
            (ctypes.c_uint8 * len(members))(*members.values()),
            len(members),
            ctypes.c_void_p(bits.ctypes.data),
        )
        if status:
            raise InvalidMask(_CLASSIFY_ERRORS[status])
        return bits


@functools.cache
def load_kernel() -> Kernel | None:
    """The built kernel; None where there is none, where it does not load, or where its sources have changed since."""
    if not LIBRARY.exists():
        return None
    try:
        kernel = Kernel(LIBRARY)
    except (OSError, AttributeError):
        return None
    return kernel if kernel.digest == compute_source_digest() else None
