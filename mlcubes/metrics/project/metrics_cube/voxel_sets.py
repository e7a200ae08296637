"""An image reduced to the voxels that belong to any region: what the scores work on without the native kernel."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Places = NDArray[np.int64]


@dataclass(frozen=True)
class VoxelSet:
    """The voxels of an image that belong to any region.

    Attributes
    ----------
    shape : tuple of int
        Of the image.
    places : ndarray of int64, shape (3, n)
        Indices along the array axes.
    bits : ndarray of uint8, shape (n,)
        Bit r is set where the voxel belongs to region r; never 0.
    """

    shape: tuple[int, int, int]
    places: Places
    bits: NDArray[np.uint8]

    def compute_region(self, index: int) -> NDArray[np.bool_]:
        """The mask of one region, in the image's shape."""
        mask = np.zeros(self.shape, dtype=bool)
        mask[tuple(self.places[:, self.bits >> index & 1 == 1])] = True
        return mask


def find_voxels(voxels: NDArray[np.uint8], table: NDArray[np.uint8]) -> VoxelSet:
    """List the voxels of an image that belong to any region.

    Parameters
    ----------
    voxels : ndarray of uint8, 3-D
    table : ndarray of uint8, shape (256,)
        Region bits of each value; that of 0 is 0.
    """
    x, y, z = voxels.shape
    fortran = voxels.flags.f_contiguous
    volume = voxels.transpose() if fortran else np.ascontiguousarray(voxels)
    # Most rows hold nothing; the largest value of a row says so faster than any other question.
    rows = volume.reshape(-1, volume.shape[-1])
    full = np.flatnonzero(rows.max(axis=1)) if rows.size else np.empty(0, dtype=np.int64)
    found, inner = np.nonzero(rows[full])
    bits = table[rows[full[found], inner]]
    member = bits != 0
    outer, middle = np.divmod(full[found[member]], volume.shape[1])
    axes = [outer, middle, inner[member]]
    return VoxelSet((x, y, z), np.array(axes[::-1] if fortran else axes, dtype=np.int64), bits[member])
