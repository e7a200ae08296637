"""Features of a voxel: each modality, robustly standardised inside the brain, at a few Gaussian scales.

Scales are in millimetres, so that one set of weights serves every voxel size. The features come one column at a
time: a full case (1.5 million brain voxels) never needs the whole table in memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Volume = NDArray[np.float32]
Mask = NDArray[np.bool_]

# Standardised intensities beyond this are noise spikes or vessels; clipping keeps them from spreading when smoothed.
CLIP = 6.0
# Interquartile range of the standard normal distribution: makes the unit of z a standard deviation.
NORMAL_IQR = 1.349


def compute_brain_mask(images: Mapping[str, Volume]) -> Mask:
    """Mark the voxels where any modality differs from 0; prepared cases are skull-stripped with zero background."""
    volumes = list(images.values())
    mask: Mask = volumes[0] != 0
    for volume in volumes[1:]:
        mask |= volume != 0
    return mask


def compute_bounding_box(mask: Mask) -> tuple[slice, slice, slice]:
    """Find the smallest box around a mask that is not empty."""
    box = ndimage.find_objects(mask.astype(np.uint8))[0]
    return box[0], box[1], box[2]


def compute_z_scores(volume: Volume, mask: Mask) -> Volume:
    """Standardise intensities by the median and interquartile range inside a mask; 0 outside it.

    A tumour moves the median and the quartiles little, mean and standard deviation much. An image that is constant
    inside the mask gives zeros.

    Returns
    -------
    ndarray, float32, same shape, clipped to +-`CLIP`
    """
    low, middle, high = np.percentile(volume[mask], [25.0, 50.0, 75.0])
    width = (high - low) / NORMAL_IQR
    if width <= 0:
        return np.zeros_like(volume)
    scores = (volume - np.float32(middle)) * np.float32(1.0 / width)
    np.clip(scores, -CLIP, CLIP, out=scores)
    scores[~mask] = 0
    return scores


def compute_feature_names(modalities: Sequence[str], scales_mm: Sequence[float]) -> list[str]:
    """Name the columns of `compute_features` in order, such as `flair@4` and its square `flair@4^2`."""
    bases = [f"{modality}@{scale_mm:g}" for scale_mm in scales_mm for modality in modalities]
    return [name for base in bases for name in (base, base + "^2")]


def compute_features(
    images: Mapping[str, Volume],
    mask: Mask,
    spacing_mm: tuple[float, float, float],
    modalities: Sequence[str],
    scales_mm: Sequence[float],
) -> Iterator[NDArray[np.float32]]:
    """Yield the feature columns of the voxels inside a mask.

    The order is that of `compute_feature_names`. Smoothing is a normalised convolution: background does not darken
    the rim of the brain.

    Parameters
    ----------
    images : mapping of str to ndarray, shape (x, y, z), float32
    mask : ndarray, shape (x, y, z), bool
        Brain; not empty.
    spacing_mm : three floats
        Voxel size.
    modalities, scales_mm : sequences
        As the weights file names them; scale 0 is the unsmoothed image.

    Yields
    ------
    ndarray, shape (voxels in mask,), float32
    """
    scores = {name: compute_z_scores(images[name], mask) for name in modalities}
    inside = mask.astype(np.float32)
    for scale_mm in scales_mm:
        weight = _smooth(inside, scale_mm, spacing_mm)[mask] if scale_mm else None
        for name in modalities:
            if weight is None:
                column = scores[name][mask]
            else:
                column = _smooth(scores[name], scale_mm, spacing_mm)[mask] / weight
            yield column
            yield column * column


def _smooth(volume: Volume, scale_mm: float, spacing_mm: tuple[float, float, float]) -> Volume:
    """Smooth with a Gaussian of a standard deviation in mm, cut off at 2.5 of them; outside counts as 0."""
    sigma = [scale_mm / spacing for spacing in spacing_mm]
    smoothed: Volume = ndimage.gaussian_filter(volume, sigma, mode="constant", truncate=2.5)
    return smoothed
