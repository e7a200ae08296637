"""From stored voxel values to regions.

A region is a set of labels. Every voxel becomes one byte whose bit r says "in region r"; labels of no region are
background, as in CaPTk. So an image of any type is looked at once, and at most eight regions can be scored together.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from metrics_cube.errors import InvalidMask
from metrics_cube.native import Kernel

MAX_REGIONS = 8
Regions = Mapping[str, Sequence[int]]
Bits = NDArray[np.uint8]

IDENTITY: Bits = np.arange(256, dtype=np.uint8)
"""The table of an image that holds region bits already."""


def compute_region_bits(
    voxels: NDArray[np.generic],
    regions: Regions,
    slope: float = 1.0,
    inter: float = 0.0,
    kernel: Kernel | None = None,
) -> Bits:
    """Membership of every voxel in every region.

    Parameters
    ----------
    voxels : ndarray of any integer or float type and byte order, any shape
        Stored values.
    regions : mapping of region name to labels, at most 8
    slope, inter : float
        A stored value v stands for the label ``v * slope + inter``.
    kernel : Kernel, optional
        Makes it faster, with the same result.

    Returns
    -------
    ndarray of uint8, same shape and memory order
        Bit r is set where the label belongs to the r-th region.

    Raises
    ------
    InvalidMask
        ``not_finite`` or ``not_integer``.
    """
    if kernel is not None and voxels.dtype.itemsize <= 8:
        return kernel.classify(voxels, group_by_label(regions), slope, inter)
    labels = voxels
    if (slope, inter) != (1.0, 0.0):
        labels = voxels.astype(np.float64) * slope + inter
    if labels.dtype.kind == "f":
        _check_whole(labels)
    bits = np.zeros_like(labels, dtype=np.uint8)
    for label, members in group_by_label(regions).items():
        bits[labels == label] = members
    return bits


def compute_byte_table(regions: Regions) -> Bits:
    """Region bits of each of the 256 values of a byte."""
    table = np.zeros(256, dtype=np.uint8)
    for label, members in group_by_label(regions).items():
        if 0 <= label < 256:
            table[label] = members
    return table


def group_by_label(regions: Regions) -> dict[int, int]:
    """Region bits of each label that is in any region."""
    members: dict[int, int] = {}
    for index, labels in enumerate(regions.values()):
        for label in labels:
            members[label] = members.get(label, 0) | 1 << index
    return members


def _check_whole(voxels: NDArray[np.generic]) -> None:
    """Refuse values that are no labels: NaN, infinity, fractions."""
    if not np.isfinite(voxels).all():
        raise InvalidMask("not_finite")
    if not np.array_equal(np.rint(voxels), voxels):
        raise InvalidMask("not_integer")
