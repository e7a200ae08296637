"""All metrics of one case: from two masks, or from a missing prediction, to one row of results.yaml."""

import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from metrics_cube import counts
from metrics_cube.conventions import CONVENTIONS
from metrics_cube.counts import Confusion
from metrics_cube.hausdorff import Hausdorff95, ScoredPair, Spacing
from metrics_cube.header import Header
from metrics_cube.labels import IDENTITY, compute_region_bits
from metrics_cube.lesions import LesionScores, compute_lesion_scores
from metrics_cube.mask_file import Mask
from metrics_cube.native import Kernel, PackedImage
from metrics_cube.parameters import Parameters
from metrics_cube.surfels import SurfelDistances, compute_surfel_distances
from metrics_cube.voxel_sets import VoxelSet, find_voxels

Row = dict[str, float | int]

_COUNTS = ("TP", "FP", "TN", "FN")
_RATIOS = {
    "Dice": counts.compute_dice,
    "Sensitivity": counts.compute_sensitivity,
    "Specificity": counts.compute_specificity,
    "Precision": counts.compute_precision,
    "RelativeVolumeDifference": counts.compute_relative_volume_difference,
}


class RegionImage(Protocol):
    """An image as the scores need it."""

    def compute_region(self, index: int) -> NDArray[np.bool_]:
        """The mask of one region, in the image's shape."""


def compute_region_image(mask: Mask, parameters: Parameters, kernel: Kernel | None) -> VoxelSet | PackedImage:
    """What is to be scored of a mask; the mask itself is not needed after that.

    Raises
    ------
    InvalidMask
        Where the voxels are no labels.
    """
    header, voxels, table = mask.header, mask.voxels, IDENTITY
    if voxels.dtype == np.uint8 and (header.slope, header.inter) == (1.0, 0.0):
        table = parameters.byte_table
    else:
        voxels = compute_region_bits(voxels, parameters.regions, header.slope, header.inter, kernel)
    labels = voxels.view(np.uint8)
    return find_voxels(labels, table) if kernel is None else kernel.pack(labels, table, len(parameters.regions))


@dataclass(frozen=True)
class RegionPair:
    """One region of reference and prediction, with what has been computed of it.

    Attributes
    ----------
    images : (RegionImage, RegionImage)
        Reference and prediction.
    index : int
        Which region it is.
    spacing_mm : tuple of float
        Along the array axes.
    confusion : Confusion
        Of the whole image.
    pooled_mm, directed_mm : float
        Hausdorff95 by definitions P and D; NaN where a mask is empty or nobody asked.
    """

    images: tuple[RegionImage, RegionImage]
    index: int
    spacing_mm: Spacing
    confusion: Confusion
    pooled_mm: float
    directed_mm: float

    def compute_masks(self) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """The region in reference and prediction."""
        return self.images[0].compute_region(self.index), self.images[1].compute_region(self.index)

    @functools.cached_property
    def surfels(self) -> SurfelDistances:
        """Distances by definition S."""
        return compute_surfel_distances(*self.compute_masks(), self.spacing_mm)

    @functools.cached_property
    def lesions(self) -> LesionScores:
        """Scores lesion by lesion."""
        return compute_lesion_scores(*self.compute_masks(), self.spacing_mm)


_DISTANCES: dict[str, Callable[[RegionPair], float]] = {
    "Hausdorff95": lambda pair: pair.pooled_mm,
    "Hausdorff95Directed": lambda pair: pair.directed_mm,
    "Hausdorff95Surfel": lambda pair: pair.surfels.compute_hausdorff95(),
    "LesionDice": lambda pair: pair.lesions.dice,
    "LesionHausdorff95": lambda pair: pair.lesions.hausdorff95_mm,
}


def compute_case(
    reference: RegionImage,
    prediction: RegionImage,
    header: Header,
    parameters: Parameters,
    kernel: Kernel | None = None,
) -> Row:
    """Score one prediction.

    Parameters
    ----------
    reference, prediction : RegionImage
        On the same grid: both a `PackedImage` where a kernel is given, else both a `VoxelSet`.
    header : Header
        Of the reference: its spacing measures the distances.
    parameters : Parameters
    kernel : Kernel, optional
        Makes it faster, with the same result.

    Returns
    -------
    dict
        ``<metric>_<region>`` to its value, metric by metric in the parameters' order.
    """
    pairs = list(_compute_pairs((reference, prediction), header.spacing_mm, parameters, kernel))
    row: Row = {}
    for metric in parameters.metrics:
        for name, tolerance_mm in name_metric(metric, parameters):
            for region, pair in zip(parameters.regions, pairs, strict=True):
                row[f"{name}_{region}"] = compute_metric(metric, pair, header, tolerance_mm)
    return row


def _compute_pairs(
    images: tuple[RegionImage, RegionImage], spacing_mm: Spacing, parameters: Parameters, kernel: Kernel | None
) -> Iterator[RegionPair]:
    """Counts and Hausdorff95 of every region, natively where it can be done."""
    directed = "Hausdorff95Directed" in parameters.metrics
    definitions = 2 if directed else int("Hausdorff95" in parameters.metrics)
    first, second = images
    if kernel is not None and isinstance(first, PackedImage) and isinstance(second, PackedImage):
        confusions, distances = kernel.score(first, second, spacing_mm, definitions)
        for index, (confusion, (pooled, direct)) in enumerate(zip(confusions, distances, strict=True)):
            yield RegionPair(images, index, spacing_mm, confusion, pooled, direct)
        return
    assert isinstance(first, VoxelSet) and isinstance(second, VoxelSet)
    pair = ScoredPair(first, second, spacing_mm)
    for index in range(len(parameters.regions)):
        confusion = pair.compute_confusion(index)
        distance = Hausdorff95(math.nan, math.nan)
        if definitions and confusion.state == "both_present":
            distance = pair.compute_hausdorff95(index, directed)
        yield RegionPair(images, index, spacing_mm, confusion, distance.pooled, distance.directed)


def name_metric(metric: str, parameters: Parameters) -> list[tuple[str, float]]:
    """Names under which a metric stands in the results, with the tolerance of each (0 where it has none)."""
    if metric == "NSD":
        return [(f"NSD{tolerance:g}mm", tolerance) for tolerance in parameters.nsd_tolerances_mm]
    return [(metric, 0.0)]


def compute_metric(metric: str, pair: RegionPair, header: Header, tolerance_mm: float = 0.0) -> float | int:
    """One metric of one region, with the convention's value where a mask is empty."""
    confusion = pair.confusion
    if metric in _COUNTS:
        return int(getattr(confusion, metric.lower()))
    convention = CONVENTIONS.get(confusion.state, {}).get(metric, "formula")
    if convention != "formula":
        return compute_convention(convention, header)
    if metric in _RATIOS:
        return _RATIOS[metric](confusion)
    return pair.surfels.compute_nsd(tolerance_mm) if metric == "NSD" else _DISTANCES[metric](pair)


def compute_penalty(parameters: Parameters, header: Header) -> Row:
    """The penalty row: what a missing or unusable prediction of an image of this grid scores."""
    row: Row = {}
    for metric in parameters.metrics:
        value = compute_convention(CONVENTIONS["penalty"][metric], header)
        for name, _ in name_metric(metric, parameters):
            for region in parameters.regions:
                row[f"{name}_{region}"] = int(value) if metric in _COUNTS else value
    return row


def compute_convention(value: float | str, header: Header) -> float:
    """Number behind an entry of `conventions.CONVENTIONS` for an image of this grid."""
    if value == "diagonal_mm":
        return math.sqrt(sum((n * edge) ** 2 for n, edge in zip(header.shape, header.spacing_mm, strict=True)))
    if value == "voxels":
        return header.voxels
    return math.nan if value == "nan" else float(value)
