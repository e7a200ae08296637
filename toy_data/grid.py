"""The voxel grids of toy cases."""

from dataclasses import dataclass

import numpy as np

from toy_data.errors import ToyDataError
from toy_data.exact import FloatArray


@dataclass(frozen=True)
class Grid:
    """A voxel grid in the BraTS frame: the first axis runs to the left, the second to the back, the third up.

    Attributes
    ----------
    name : str
        ``full`` or ``ci``.
    shape : tuple of int
        Voxels along each axis.
    spacing_mm : float
        Edge of the cubic voxels, in mm.
    start_mm : tuple of float
        Centre of voxel (0, 0, 0), in mm along the array axes, from the centre of the full grid's first voxel.
    smoothing : int
        Passes of the [1, 2, 1] filter that soften the edges of the tumour's parts.
    """

    name: str
    shape: tuple[int, int, int]
    spacing_mm: float
    start_mm: tuple[float, float, float]
    smoothing: int

    @property
    def affine(self) -> FloatArray:
        """Voxel index to RAS+ position in mm, shape (4, 4)."""
        affine = np.diag([-self.spacing_mm, -self.spacing_mm, self.spacing_mm, 1.0])
        affine[:3, 3] = (-self.start_mm[0], 239.0 - self.start_mm[1], self.start_mm[2])
        return affine

    def axis_mm(self, axis: int) -> FloatArray:
        """Positions of the voxel centres along one array axis, in mm."""
        return self.start_mm[axis] + self.spacing_mm * np.arange(self.shape[axis], dtype=np.float64)


GRIDS = {
    "full": Grid("full", (240, 240, 155), 1.0, (0.0, 0.0, 0.0), smoothing=2),
    # 96 x 2.5 mm spans the same 240 mm; 64 x 2.5 mm = 160 mm lies evenly around the 155 mm. Outer faces coincide
    # along x and y, so the first centre is at -0.5 + 2.5 / 2 mm.
    "ci": Grid("ci", (96, 96, 64), 2.5, (0.75, 0.75, -1.75), smoothing=1),
}


def check_size(size: str) -> Grid:
    """Return the grid called `size`.

    Raises
    ------
    ToyDataError
        If there is no such grid.
    """
    if size not in GRIDS:
        raise ToyDataError(f"unknown size {size!r}: expected one of {', '.join(sorted(GRIDS))}; choose one with --size")
    return GRIDS[size]
