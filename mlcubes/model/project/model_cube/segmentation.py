"""The method: three nested logistic regressions. A participant replaces this module.

The rest of the cube needs two names of it: `load_model` and `Model.segment`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from model_cube.cases import MODALITIES
from model_cube.errors import InputError
from model_cube.features import (
    Mask,
    Volume,
    compute_bounding_box,
    compute_brain_mask,
    compute_feature_names,
    compute_features,
)
from model_cube.parameters import Parameters

WEIGHTS_PATH = Path(__file__).with_name("weights.json")
# Outer to inner: whole tumour among brain, tumour core within it, enhancing tumour within the core.
REGIONS = ("WT", "TC", "ET")
# The label of the voxels that reach a region but not the next one.
REGION_LABELS = {"WT": 2, "TC": 1, "ET": 4}
FORMAT = 1


@dataclass(frozen=True)
class Model:
    """Weights and parameters, ready to segment.

    Attributes
    ----------
    modalities, scales_mm : tuples
        Which features the weights belong to, see `compute_features`.
    weights : ndarray, shape (3, features), float32
        One row per region of `REGIONS`.
    biases : ndarray, shape (3,), float32
        A voxel belongs to a region if weights . features + bias > 0 and it belongs to the region around it.
    parameters : Parameters
    """

    modalities: tuple[str, ...]
    scales_mm: tuple[float, ...]
    weights: NDArray[np.float32]
    biases: NDArray[np.float32]
    parameters: Parameters

    def segment(self, images: Mapping[str, Volume], spacing_mm: tuple[float, float, float]) -> NDArray[np.uint8]:
        """Segment one case.

        Parameters
        ----------
        images : mapping of str to ndarray, shape (x, y, z), float32
            The modalities t1, t1ce, t2, flair on one grid, background 0.
        spacing_mm : three floats
            Voxel size.

        Returns
        -------
        ndarray, shape (x, y, z), uint8
            Labels 0 background, 1 necrosis, 2 oedema, 4 enhancing tumour; all 0 if nothing is found.
        """
        brain = compute_brain_mask(images)
        labels = np.zeros(brain.shape, np.uint8)
        if not brain.any():
            return labels
        box = compute_bounding_box(brain)
        images = {name: volume[box] for name, volume in images.items()}
        scores = compute_region_scores(self, images, brain[box], spacing_mm)
        labels[box] = compute_labels(scores, brain[box], spacing_mm, self.parameters)
        return labels


def compute_region_scores(
    model: Model, images: Mapping[str, Volume], brain: Mask, spacing_mm: tuple[float, float, float]
) -> NDArray[np.float32]:
    """Compute the three log-odds of every brain voxel, shape (3, voxels).

    The sum runs column by column instead of as one matrix product: it needs little memory, and its order, so its last
    bit, does not depend on the machine.
    """
    scores = np.repeat(model.biases[:, None], np.count_nonzero(brain), axis=1)
    columns = compute_features(images, brain, spacing_mm, model.modalities, model.scales_mm)
    for column, weights in zip(columns, model.weights.T, strict=True):
        for score, weight in zip(scores, weights, strict=True):
            score += weight * column
    return scores


def compute_labels(
    scores: NDArray[np.float32], brain: Mask, spacing_mm: tuple[float, float, float], parameters: Parameters
) -> NDArray[np.uint8]:
    """Turn log-odds into labels: threshold, clean the whole tumour, nest the regions.

    Parameters
    ----------
    scores : ndarray, shape (3, voxels in brain), float32
    brain : ndarray, shape (x, y, z), bool
    """
    positive = np.zeros((len(REGIONS), *brain.shape), bool)
    positive[:, brain] = scores > 0
    voxel_mm3 = float(np.prod(spacing_mm))
    region = positive[0]
    if parameters.largest_component:
        region = compute_largest_component(region)
    if np.count_nonzero(region) * voxel_mm3 < parameters.min_volume_mm3:
        region = np.zeros_like(region)
    labels = np.zeros(brain.shape, np.uint8)
    for name, inner in zip(REGIONS, [*positive[1:], None], strict=True):
        labels[region] = REGION_LABELS[name]
        if inner is not None:
            region = region & inner
    return labels


def compute_largest_component(mask: Mask) -> Mask:
    """Keep the largest piece of a mask, connected by faces, and fill its holes; an empty mask stays empty.

    Of two pieces of equal size the one that comes first in array order is kept.
    """
    pieces, count = ndimage.label(mask)
    if count == 0:
        return mask
    sizes = np.bincount(pieces.ravel())[1:]
    filled: Mask = ndimage.binary_fill_holes(pieces == 1 + int(np.argmax(sizes)))
    return filled


def load_model(weights_path: Path, parameters: Parameters) -> Model:
    """Read a weights file, or the file `weights.json` of a folder.

    The file is JSON: unlike a pickle, loading it cannot run anything.

    Raises
    ------
    InputError
        If the file is missing, not JSON or not a weights file of this format.
    """
    path = weights_path / "weights.json" if weights_path.is_dir() else weights_path
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise InputError(f"infer: checkpoint_path {path} is not readable as JSON: {error}") from error
    try:
        return _check_content(content, parameters)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"infer: checkpoint_path {path} is not a weights file of format {FORMAT} ({error!r}); "
            "next: write one with project/train.py"
        ) from error


def _check_content(content: dict[str, Any], parameters: Parameters) -> Model:
    """Build a model from a weights file's content; KeyError, TypeError or ValueError says what is wrong with it."""
    if content["format"] != FORMAT:
        raise ValueError(f"expected format {FORMAT}, found {content['format']!r}")
    modalities, scales_mm = tuple(content["modalities"]), tuple(float(scale) for scale in content["scales_mm"])
    if not set(modalities) <= set(MODALITIES) or not all(0 <= scale < 100 for scale in scales_mm):
        raise ValueError(f"expected modalities of {MODALITIES} and scales below 100 mm")
    regions = [content["regions"][name] for name in REGIONS]
    weights = np.array([region["weights"] for region in regions], np.float32)
    biases = np.array([region["bias"] for region in regions], np.float32)
    expected = (len(REGIONS), len(compute_feature_names(modalities, scales_mm)))
    if weights.shape != expected or biases.shape != expected[:1]:
        raise ValueError(f"expected weights of shape {expected}, found {weights.shape}")
    if not (np.isfinite(weights).all() and np.isfinite(biases).all()):
        raise ValueError("expected finite weights")
    return Model(modalities, scales_mm, weights, biases, parameters)
