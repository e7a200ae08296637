"""How tissue and tumour look in each modality, and what the scanner adds."""

import decimal
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from toy_data.anatomy import Streams, Tissue, Window
from toy_data.exact import BELL_STD, FloatArray, IntArray, compute_binomial, compute_field
from toy_data.grid import Grid
from toy_data.sites import SiteProfile
from toy_data.tumour import ENHANCING, NECROSIS, OEDEMA

# Mean levels (of 255) of white matter, grey matter, fluid, oedema, enhancing tumour, necrosis.
_LEVELS = {
    "t1": (132.0, 97.0, 36.0, 96.0, 100.0, 58.0),
    "t1ce": (128.0, 98.0, 40.0, 94.0, 195.0, 62.0),
    "t2": (72.0, 98.0, 190.0, 150.0, 128.0, 172.0),
    "flair": (82.0, 106.0, 32.0, 168.0, 142.0, 104.0),
}
_DETAIL_GAIN = {"t1": 0.60, "t1ce": 0.55, "t2": -0.40, "flair": -0.15}
_PARTS = (OEDEMA, ENHANCING, NECROSIS)
_STORED_LEVELS = 100
"""Grey levels that a scan can hold: few, so that files compress well."""
# [1, 2, 1] along three axes raises the standard deviation of white noise by sqrt(6) ** 3.
_NOISE_STD = BELL_STD * 14.697


@dataclass(frozen=True)
class TumourLook:
    """What the images need to know of the tumour, on a part of a window.

    Attributes
    ----------
    slices : tuple of slice
        Where that part lies in the window.
    weights : tuple of ndarray of float64
        Share of oedema, enhancing tumour and necrosis in each voxel (0 .. 1), soft at the edges.
    texture : ndarray of float64
        Smooth field, about standard normal, that makes each part of the tumour uneven.
    """

    slices: tuple[slice, slice, slice]
    weights: tuple[FloatArray, ...]
    texture: FloatArray

    def crop(self, slab: slice) -> "TumourLook":
        """Return what lies in a slab of the window along the first axis; nothing may be left."""
        mine = self.slices[0]
        start, stop = max(mine.start, slab.start), max(mine.start, slab.start, min(mine.stop, slab.stop))
        part = slice(start - mine.start, stop - mine.start)
        slices = (slice(start - slab.start, stop - slab.start), *self.slices[1:])
        return TumourLook(slices, tuple(weight[part] for weight in self.weights), self.texture[part])


def compute_tumour_look(labels: NDArray[np.uint8], part: Window, grid: Grid, streams: Streams) -> TumourLook:
    """Compute the look of a tumour from its `labels` on the window `part`."""
    margin = grid.smoothing
    scale = 64.0**margin
    weights = tuple(
        compute_binomial(np.pad((labels == label).astype(np.int32), margin), margin) / scale for label in _PARTS
    )
    return TumourLook(part.slices, weights, compute_field(streams("tumour texture"), part.axes_mm, 9.0))


def compute_signal(modality: str, tissue: Tissue, tumour: TumourLook, window: Window, streams: Streams) -> FloatArray:
    """Compute the noise-free image of a modality in levels of 255, the window's shape."""
    stream = streams(f"{modality} levels")
    levels = [level * stream.uniform(0.95, 1.05) for level in _LEVELS[modality]]
    signal = levels[0] * tissue.white
    signal += levels[1] * tissue.grey
    signal += levels[2] * tissue.fluid
    signal += _DETAIL_GAIN[modality] * tissue.detail
    if modality == "t1ce":
        vessels = np.clip(compute_field(streams("vessels"), window.axes_mm, 5.0) - 1.2, 0.0, 1.0)
        vessels *= np.minimum(1.0, 3.0 * tissue.fluid)
        signal += 75.0 * vessels
    healthy = signal[tumour.slices].copy()
    for level, weight in zip(levels[3:], tumour.weights, strict=True):
        signal[tumour.slices] += weight * (level * (1.0 + 0.06 * tumour.texture) - healthy)
    return signal


def draw_noise(modality: str, grid: Grid, window: Window, streams: Streams) -> IntArray:
    """Draw uncorrelated noise for a window and one voxel more on every side."""
    x, y, z = window.shape
    return streams(f"{modality} noise {grid.name}").bell((x + 2, y + 2, z + 2))


def compute_noise(drawn: IntArray) -> FloatArray:
    """Correlate the noise of neighbouring voxels; standard deviation 1, each axis shorter by two."""
    return compute_binomial(drawn) / _NOISE_STD


@dataclass(frozen=True)
class Scanner:
    """What one modality's images go through at a site, on one grid.

    Attributes
    ----------
    noise, bias : float
        See `toy_data.SiteProfile`.
    slab : int
        Voxels along the third axis that one acquired slice covers.
    curve : ndarray of int16, shape (101,)
        Stored value of each grey level.
    """

    noise: float
    bias: float
    slab: int
    curve: NDArray[np.int16]


def make_scanner(modality: str, profile: SiteProfile, grid: Grid) -> Scanner:
    """Make the scanner of a site for one modality and grid."""
    slab = max(1, round(profile.slice_thickness_mm[modality] / grid.spacing_mm))
    return Scanner(profile.noise, profile.bias, slab, _compute_curve(profile.gain[modality], profile.gamma[modality]))


def compute_scan(
    signal: FloatArray, brain: NDArray[np.bool_], noise: FloatArray, bias: FloatArray, scanner: Scanner
) -> NDArray[np.int16]:
    """Turn a signal into the image that a scanner stores: bias, noise, thick slices, intensity curve, int16.

    Parameters
    ----------
    signal : ndarray of float64
        Noise-free image in levels of 255.
    brain : ndarray of bool
        Outside, the image is 0.
    noise, bias : ndarray of float64
        Random fields with standard deviation about 1.
    scanner : Scanner
    """
    image = signal * (1.0 + scanner.bias * np.clip(bias, -3.0, 3.0))
    image += scanner.noise * noise
    if scanner.slab > 1:
        image = _compute_thick_slices(image, brain, scanner.slab)
    level = np.clip(np.rint(image * (_STORED_LEVELS / 255.0)), 1.0, float(_STORED_LEVELS)).astype(np.int64)
    stored: NDArray[np.int16] = np.where(brain, scanner.curve[level], np.int16(0))
    return stored


def compute_bias(modality: str, window: Window, streams: Streams) -> FloatArray:
    """Compute the smooth field that a modality's coil sensitivity leaves; standard deviation about 1."""
    return compute_field(streams(f"{modality} bias"), window.axes_mm, 75.0)


def _compute_thick_slices(image: FloatArray, brain: NDArray[np.bool_], thickness: int) -> FloatArray:
    """Average `thickness` neighbouring slices inside the brain, then interpolate between the slabs."""
    depth = image.shape[2]
    padding = ((0, 0), (0, 0), (0, -depth % thickness))
    sums, counts = (
        np.pad(values, padding).reshape(*image.shape[:2], -1, thickness).sum(axis=3)
        for values in (np.rint(np.where(brain, image, 0.0) * 8.0), brain.astype(np.float64))
    )
    position = (np.arange(depth) + 0.5) / thickness - 0.5
    below = np.clip(np.floor(position).astype(np.int64), 0, sums.shape[2] - 1)
    above = np.minimum(below + 1, sums.shape[2] - 1)
    share = np.clip(position - below, 0.0, 1.0)
    total = (1.0 - share) * sums[:, :, below] + share * sums[:, :, above]
    weight = (1.0 - share) * counts[:, :, below] + share * counts[:, :, above]
    average: FloatArray = total / (8.0 * np.maximum(weight, 1e-3))
    return average


def _compute_curve(gain: float, gamma: float) -> NDArray[np.int16]:
    """Stored value of each level. Decimal arithmetic: its powers are rounded correctly on every machine."""
    with decimal.localcontext(decimal.Context(prec=20)):
        exponent = decimal.Decimal(str(gamma))
        scale = decimal.Decimal(str(gain))
        values = [
            max(1, round(scale * (decimal.Decimal(level) / _STORED_LEVELS) ** exponent))
            for level in range(_STORED_LEVELS + 1)
        ]
    return np.array(values, dtype=np.int16)
