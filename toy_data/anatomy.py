"""One subject's brain: the atlas, deformed, on the voxels of a grid."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from toy_data.atlas import Atlas
from toy_data.exact import FloatArray, RandomStream, compute_field
from toy_data.grid import Grid

Streams = Callable[[str], RandomStream]
"""Gives the stream of random numbers for a named purpose of the case."""

_GRID_CENTRE_MM = (120.0, 120.0, 77.0)
_ATLAS_CENTRE = (98.0, 117.0, 77.0)
_REACH_MM = (84.0, 106.0, 90.0)
"""No brain reaches farther from the grid's centre along each axis."""

_POSITION_STEPS_PER_MM = 64.0
_BRAIN_T1_THRESHOLD = 45.0


@dataclass(frozen=True)
class Window:
    """The part of a grid that can hold brain.

    Attributes
    ----------
    slices : tuple of slice
        Where the window lies in the grid, or in the window that it is a part of.
    axes_mm : tuple of ndarray of float64
        Positions of its voxel centres along each axis, in mm.
    """

    slices: tuple[slice, slice, slice]
    axes_mm: tuple[FloatArray, FloatArray, FloatArray]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along each axis."""
        return (self.axes_mm[0].size, self.axes_mm[1].size, self.axes_mm[2].size)

    def crop(self, slices: tuple[slice, slice, slice]) -> "Window":
        """Return a part of this window."""
        x, y, z = (axis[part] for axis, part in zip(self.axes_mm, slices, strict=True))
        return Window(slices, (x, y, z))

    def split(self, planes: int) -> list["Window"]:
        """Return this window as slabs of at most `planes` voxels along the first axis."""
        starts = range(0, self.shape[0], planes)
        rest = slice(0, self.shape[1]), slice(0, self.shape[2])
        return [self.crop((slice(start, min(start + planes, self.shape[0])), *rest)) for start in starts]


@dataclass(frozen=True)
class Tissue:
    """Tissue on a window's voxels, each array of the window's shape.

    Attributes
    ----------
    brain : ndarray of bool
        Inside the skull-stripped brain.
    white, grey, fluid : ndarray of float64
        Fractions 0 .. 1; they sum to about 1 inside the brain.
    detail : ndarray of float64
        T1 intensity of the atlas that the fractions do not explain, in its own levels of 255.
    """

    brain: NDArray[np.bool_]
    white: FloatArray
    grey: FloatArray
    fluid: FloatArray
    detail: FloatArray


def compute_window(grid: Grid) -> Window:
    """Compute the part of a grid that can hold brain."""
    whole = Window(
        (slice(0, grid.shape[0]), slice(0, grid.shape[1]), slice(0, grid.shape[2])),
        (grid.axis_mm(0), grid.axis_mm(1), grid.axis_mm(2)),
    )
    x, y, z = (
        compute_extent(np.abs(axis - centre) <= reach)
        for axis, centre, reach in zip(whole.axes_mm, _GRID_CENTRE_MM, _REACH_MM, strict=True)
    )
    return whole.crop((x, y, z))


def compute_extent(inside: NDArray[np.bool_]) -> slice:
    """Compute the smallest slice that holds every true value of a vector."""
    found = np.nonzero(inside)[0]
    return slice(int(found[0]), int(found[-1]) + 1)


def compute_atlas_positions(window: Window, streams: Streams) -> list[FloatArray]:
    """Compute where each voxel of the subject's brain lies in the atlas.

    Size, proportions, tilt and a left-right difference per subject, then smooth random displacement at two scales.

    Returns
    -------
    list of three ndarray of float64, the window's shape
        Atlas voxel index (1 mm) along each axis.
    """
    shape = streams("head shape")
    # Atlas millimetres per subject millimetre: the average MNI brain is larger than most.
    size = shape.uniform(1.03, 1.10)
    stretch = [size * shape.uniform(0.975, 1.025) for _ in range(3)]
    tilt = [shape.uniform(-0.05, 0.05) for _ in range(3)]
    wider_side = shape.uniform(-0.035, 0.035)
    x, y, z = (
        (axis - centre).reshape([-1 if i == k else 1 for i in range(3)])
        for k, (axis, centre) in enumerate(zip(window.axes_mm, _GRID_CENTRE_MM, strict=True))
    )
    # The grid's first two axes run left and back, the atlas's right and forward.
    linear = (
        -(stretch[0] * x + tilt[0] * y + tilt[1] * z + wider_side * np.abs(x)),
        -(stretch[1] * y - tilt[0] * x + tilt[2] * z),
        stretch[2] * z - tilt[1] * x - tilt[2] * y,
    )
    coarse, fine = streams("coarse displacement"), streams("fine displacement")
    return [
        part
        + centre
        + 3.2 * compute_field(coarse, window.axes_mm, 34.0)
        + 0.9 * compute_field(fine, window.axes_mm, 12.0)
        for part, centre in zip(linear, _ATLAS_CENTRE, strict=True)
    ]


def compute_tissue(atlas: Atlas, positions: list[FloatArray]) -> Tissue:
    """Sample the atlas at `positions` (atlas voxel indices) and tell the tissues apart."""
    from scipy.ndimage import map_coordinates

    # Multiples of 1/64 keep linear interpolation of integers exact (see `toy_data.exact`).
    rounded = np.stack([np.rint(position * _POSITION_STEPS_PER_MM) for position in positions])
    rounded /= _POSITION_STEPS_PER_MM
    t1, grey, white = (
        map_coordinates(values, rounded, output=np.float64, order=1, mode="constant", cval=0.0, prefilter=False)
        for values in (atlas.t1, atlas.gm, atlas.wm)
    )
    white /= 255.0
    grey /= 255.0
    fluid = np.maximum(0.0, 1.0 - white - grey)
    detail = t1 - (223.0 * white + 165.0 * grey + 66.0 * fluid)
    return Tissue(t1 >= _BRAIN_T1_THRESHOLD, white, grey, fluid, detail)
