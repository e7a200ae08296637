"""All metrics of one case: from two label images, or from a missing prediction, to one row of results.yaml."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from metrics_cube import counts
from metrics_cube.conventions import CONVENTIONS
from metrics_cube.counts import Confusion
from metrics_cube.hausdorff import Hausdorff95, Spacing, compute_hausdorff95
from metrics_cube.header import Header
from metrics_cube.labels import compute_region_bits
from metrics_cube.mask_file import Mask
from metrics_cube.parameters import Parameters

Row = dict[str, float | int]

_RATIOS = {
    "Dice": counts.compute_dice,
    "Sensitivity": counts.compute_sensitivity,
    "Specificity": counts.compute_specificity,
    "Precision": counts.compute_precision,
    "RelativeVolumeDifference": counts.compute_relative_volume_difference,
}


@dataclass(frozen=True)
class RegionScore:
    """Counts of one region and, where both masks have voxels, its distances."""

    confusion: Confusion
    hausdorff95: Hausdorff95 | None


def compute_bits(mask: Mask, parameters: Parameters) -> NDArray[np.uint8]:
    """Region membership of every voxel of a mask (`labels.compute_region_bits`).

    Raises
    ------
    InvalidMask
        Where the voxels are no labels.
    """
    return compute_region_bits(mask.voxels, parameters.regions, mask.header.slope, mask.header.inter)


def compute_case(
    reference: NDArray[np.uint8], prediction: NDArray[np.uint8], header: Header, parameters: Parameters
) -> Row:
    """Score one prediction.

    Parameters
    ----------
    reference, prediction : ndarray of uint8, same 3-D shape
        Region membership bits.
    header : Header
        Of the reference: its spacing measures the distances.
    parameters : Parameters

    Returns
    -------
    dict
        ``<metric>_<region>`` to its value, metric by metric in the parameters' order.
    """
    scores = compute_region_scores(reference, prediction, len(parameters.regions), header.spacing_mm)
    row: Row = {}
    for metric in parameters.metrics:
        for region, score in zip(parameters.regions, scores, strict=True):
            row[f"{metric}_{region}"] = compute_metric(metric, score, header)
    return row


def compute_region_scores(
    reference: NDArray[np.uint8], prediction: NDArray[np.uint8], regions: int, spacing_mm: Spacing
) -> list[RegionScore]:
    """Counts and Hausdorff95 of every region from the membership bits of two images."""
    scores = []
    for index in range(regions):
        g, p = ((bits >> index & 1).astype(bool) for bits in (reference, prediction))
        confusion = counts.compute_confusion(g, p)
        distances = compute_hausdorff95(g, p, spacing_mm) if confusion.state == "both_present" else None
        scores.append(RegionScore(confusion, distances))
    return scores


def compute_metric(metric: str, score: RegionScore, header: Header) -> float | int:
    """One metric of one region, with the convention's value where a mask is empty."""
    confusion = score.confusion
    if metric in ("TP", "FP", "TN", "FN"):
        return int(getattr(confusion, metric.lower()))
    convention = CONVENTIONS.get(confusion.state, {}).get(metric, "formula")
    if convention != "formula":
        return compute_convention(convention, header)
    if metric in _RATIOS:
        return _RATIOS[metric](confusion)
    assert score.hausdorff95 is not None
    return score.hausdorff95.pooled if metric == "Hausdorff95" else score.hausdorff95.directed


def compute_penalty(parameters: Parameters, header: Header) -> Row:
    """The penalty row: what a missing or unusable prediction of an image of this grid scores."""
    row: Row = {}
    for metric in parameters.metrics:
        value = compute_convention(CONVENTIONS["penalty"][metric], header)
        for region in parameters.regions:
            row[f"{metric}_{region}"] = int(value) if metric in ("TP", "FP", "TN", "FN") else value
    return row


def compute_convention(value: float | str, header: Header) -> float:
    """Number behind an entry of `conventions.CONVENTIONS` for an image of this grid."""
    if value == "diagonal_mm":
        return math.sqrt(sum((n * edge) ** 2 for n, edge in zip(header.shape, header.spacing_mm, strict=True)))
    if value == "voxels":
        return header.voxels
    return math.nan if value == "nan" else float(value)
