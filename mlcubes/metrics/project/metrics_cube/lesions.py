"""Lesion-wise Dice and HD95 of BraTS 2023 with the rules of its adult-glioma (GLI) task (Moawad et al. 2023).

1. The reference is dilated three times over 18 neighbours; parts of it whose dilations meet are one lesion.
2. A lesion's counterpart are all 26-connected components of the prediction that touch the lesion's own dilation.
   Dice and HD95 (definition S) of the two are the lesion's scores; without a counterpart they are 0 and 374 mm.
3. Lesions of at most 50 mm3 are dropped. Predicted components that are nobody's counterpart are false positives and
   score 0 and 374 mm.
4. The result is the mean over kept lesions and false positives; with neither, 1 and 0 mm.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from metrics_cube.counts import compute_confusion, compute_dice
from metrics_cube.hausdorff import Spacing, compute_bounding_box
from metrics_cube.surfels import compute_surfel_distances

DILATIONS: Final = 3
LEAST_MM3: Final = 50.0
MISS_MM: Final = 374.0


@dataclass(frozen=True)
class LesionScores:
    """Means over kept lesions and false positives, and how many there were of each."""

    dice: float
    hausdorff95_mm: float
    kept: int
    dropped: int
    false_positives: int


def compute_lesion_scores(
    reference: NDArray[np.bool_], prediction: NDArray[np.bool_], spacing_mm: Spacing
) -> LesionScores:
    """Score lesion by lesion.

    Parameters
    ----------
    reference, prediction : ndarray of bool, 3-D, same shape; may be empty
    spacing_mm : tuple of float
        Along the array axes.
    """
    from scipy import ndimage  # costly to import, and no part of the default metrics

    if not (reference.any() or prediction.any()):
        return LesionScores(1.0, 0.0, 0, 0, 0)
    box = compute_bounding_box(reference | prediction)
    # Room for the dilation, but none beyond the image's border, where it would have no room either.
    reach = tuple(slice(max(s.start - DILATIONS, 0), s.stop + DILATIONS) for s in box)
    reference, prediction = reference[reach], prediction[reach]
    near, touching = ndimage.generate_binary_structure(3, 2), ndimage.generate_binary_structure(3, 3)
    grown = ndimage.binary_dilation(reference, near, iterations=DILATIONS)
    lesions = np.where(reference, ndimage.label(grown, touching)[0], 0)
    components, n_components = ndimage.label(prediction, touching)
    matched: set[int] = set()
    kept: list[tuple[float, float]] = []
    dropped = 0
    for number in np.unique(lesions[lesions > 0]):
        lesion = lesions == number
        around = ndimage.binary_dilation(lesion, near, iterations=DILATIONS)
        partners = np.unique(components[around & prediction])
        matched.update(int(partner) for partner in partners)
        if np.count_nonzero(lesion) * spacing_mm[0] * spacing_mm[1] * spacing_mm[2] <= LEAST_MM3:
            dropped += 1
        else:
            kept.append(_score_lesion(lesion, np.isin(components, partners) & prediction, spacing_mm))
    missed = n_components - len(matched)
    count = len(kept) + missed
    if count == 0:
        return LesionScores(1.0, 0.0, 0, dropped, 0)
    dice = sum(score for score, _ in kept) / count
    distance = (sum(distance for _, distance in kept) + MISS_MM * missed) / count
    return LesionScores(dice, distance, len(kept), dropped, missed)


def _score_lesion(
    lesion: NDArray[np.bool_], counterpart: NDArray[np.bool_], spacing_mm: Spacing
) -> tuple[float, float]:
    if not counterpart.any():
        return 0.0, MISS_MM
    dice = compute_dice(compute_confusion(lesion, counterpart))
    return dice, compute_surfel_distances(lesion, counterpart, spacing_mm).compute_hausdorff95()
