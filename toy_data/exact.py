"""Random numbers, smooth fields and filters with the same bits on every machine.

Floating-point results may differ between machines where the order of a sum, a fused multiply-add or a
vectorised ``exp`` comes in. Three rules keep those away, so that checksums of the voxels can be pinned:

1. random numbers are raw 64-bit words of PCG64, the stream that NumPy promises never to change (NEP 19; the
   methods of ``Generator`` carry no such promise);
2. what goes through BLAS, SciPy or a sum holds integers (or multiples of a power of two) small enough for float64
   to carry every partial sum exactly, whatever its order;
3. everything else is one elementwise IEEE operation at a time: ``+ - * /``, comparison, rounding. No
   ``exp``, ``log``, ``pow``, ``sin``, no mean of non-integers.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int32]

WEIGHT_ONE = 1024.0
"""Spline weights are integers out of this."""

BELL_MEAN = 1020
BELL_STD = 209.02
"""Mean and standard deviation of the sum of eight uniform bytes (Irwin-Hall): 8 * 255/2, sqrt(8 * (256**2 - 1)/12)."""

_FIELD_START_MM = -16.0
_FIELD_EXTENT_MM = (272.0, 272.0, 192.0)
_FIELD_SCALE = 2.0**-36
"""Brings a field's standard deviation to about 1. A power of two, so that scaling stays exact: the coefficients have
`BELL_STD`, the three sets of weights 1024 each, and a cubic B-spline in three dimensions leaves about 0.33 of it."""


class RandomStream:
    """Reproducible random numbers for one purpose.

    Parameters
    ----------
    key : sequence of int
        Non-negative numbers that name the stream, such as seed, site, case and purpose.
    """

    def __init__(self, key: Sequence[int]) -> None:
        self._bits = np.random.default_rng(list(key)).bit_generator

    def words(self, count: int) -> NDArray[np.uint64]:
        """Return `count` raw 64-bit words."""
        return np.asarray(self._bits.random_raw(count), dtype=np.uint64)

    def uniform(self, low: float, high: float) -> float:
        """Return one number in [low, high)."""
        fraction = (int(self.words(1)[0]) >> 11) * 2.0**-53
        return low + (high - low) * fraction

    def choose(self, count: int) -> int:
        """Return one integer in 0 .. count - 1."""
        return int(self.words(1)[0]) % count

    def bell(self, shape: tuple[int, ...]) -> IntArray:
        """Return integers with a bell-shaped distribution: mean 0, standard deviation `BELL_STD`.

        Each is the sum of the eight bytes of one word, less its mean.
        """
        words = self.words(int(np.prod(shape)))
        pairs = (words & np.uint64(0x00FF00FF00FF00FF)) + ((words >> np.uint64(8)) & np.uint64(0x00FF00FF00FF00FF))
        totals = (pairs * np.uint64(0x0001000100010001)) >> np.uint64(48)
        return (totals.astype(np.int32) - np.int32(BELL_MEAN)).reshape(shape)


def compute_field(stream: RandomStream, axes_mm: Sequence[FloatArray], knot_mm: float) -> FloatArray:
    """Compute a smooth random field: a cubic B-spline through random coefficients on a regular lattice.

    The lattice is fixed in space and drawn from the stream as a whole, so that grids of different spacing see
    the same field.

    Parameters
    ----------
    stream : RandomStream
        Source of the coefficients.
    axes_mm : sequence of three ndarray of float64
        Positions of the grid's voxel centres along each axis, in mm.
    knot_mm : float
        Distance of the lattice points: about the size of the field's blobs.

    Returns
    -------
    ndarray of float64, shape (len(x), len(y), len(z))
        Mean about 0, standard deviation about 1.
    """
    counts = tuple(int(extent // knot_mm) + 4 for extent in _FIELD_EXTENT_MM)
    coefficients = stream.bell(counts).astype(np.float64)
    along_x, along_y, along_z = (
        _compute_spline_weights(axis, knot_mm, count) for axis, count in zip(axes_mm, counts, strict=True)
    )
    # Integers below 2**10 * (2**10)**3 = 2**40: each product and partial sum is exact.
    # Without BLAS, whose threads cost more than they bring on such small factors.
    part = np.einsum("im,mno->ino", along_x, coefficients)
    part = np.einsum("jn,ino->ijo", along_y, part)
    total: FloatArray = np.einsum("ijo,ko->ijk", part, along_z * _FIELD_SCALE)
    return total


def _compute_spline_weights(axis_mm: FloatArray, knot_mm: float, count: int) -> FloatArray:
    position = (axis_mm - _FIELD_START_MM) / knot_mm
    base = np.floor(position)
    f = position - base
    g = 1.0 - f
    quarter = (g * g * g, 4.0 - 6.0 * f * f + 3.0 * f * f * f, 4.0 - 6.0 * g * g + 3.0 * g * g * g, f * f * f)
    weights = np.zeros((axis_mm.size, count))
    rows = np.arange(axis_mm.size)
    for offset, values in enumerate(quarter):
        weights[rows, base.astype(np.int64) + offset] = np.rint(values * (WEIGHT_ONE / 6.0))
    return weights


def compute_binomial(values: IntArray, passes: int = 1) -> IntArray:
    """Filter with [1, 2, 1] along each axis, `passes` times, without dividing.

    Parameters
    ----------
    values : ndarray of int32, three axes
    passes : int
        Number of passes; each multiplies constants by 64 and takes one voxel off every face.

    Returns
    -------
    ndarray of int32
        Each axis shorter by ``2 * passes``.
    """
    for _ in range(passes):
        for axis in range(3):
            for _ in range(2):
                length = values.shape[axis]
                values = _slice(values, axis, 1, length) + _slice(values, axis, 0, length - 1)
    return values


def _slice(values: IntArray, axis: int, start: int, stop: int) -> IntArray:
    index = [slice(None)] * values.ndim
    index[axis] = slice(start, stop)
    return values[tuple(index)]
