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
        Where the window lies in the grid.
    axes_mm : tuple of ndarray of float64
        Positions of its voxel centres along each axis, in mm.
    """

    slices: tuple[slice, slice, slice]
    axes_mm: tuple[FloatArray, FloatArray, FloatArray]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along each axis."""
        return (self.axes_mm[0].size, self.axes_mm[1].size, self.axes_mm[2].size)

    def crop(self, mask: NDArray[np.bool_], margin: int) -> "Window":
        """Return the smallest window around a mask and `margin` voxels more; its slices count from this window."""
        slices, axes = [], []
        for axis in range(3):
            others = tuple(other for other in range(3) if other != axis)
            inside = np.nonzero(mask.any(axis=others))[0]
            part = slice(max(0, int(inside[0]) - margin), min(mask.shape[axis], int(inside[-1]) + 1 + margin))
            slices.append(part)
            axes.append(self.axes_mm[axis][part])
        return Window((slices[0], slices[1], slices[2]), (axes[0], axes[1], axes[2]))


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

    def crop(self, slices: tuple[slice, slice, slice]) -> "Tissue":
        """Return the tissue in a part of the window."""
        return Tissue(
            self.brain[slices], self.white[slices], self.grey[slices], self.fluid[slices], self.detail[slices]
        )


def compute_window(grid: Grid) -> Window:
    """Compute the part of a grid that can hold brain."""
    slices, axes = [], []
    for axis in range(3):
        positions = grid.axis_mm(axis)
        inside = np.nonzero(np.abs(positions - _GRID_CENTRE_MM[axis]) <= _REACH_MM[axis])[0]
        window = slice(int(inside[0]), int(inside[-1]) + 1)
        slices.append(window)
        axes.append(positions[window])
    return Window((slices[0], slices[1], slices[2]), (axes[0], axes[1], axes[2]))


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
