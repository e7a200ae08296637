"""Hausdorff95 in the definitions P (pooled) and D (directed), with scipy.

Surface S_A: voxels of A with a background 6-neighbour, outside the image being background. d(a, B): distance in mm
from a to the nearest voxel of S_B. With Q95 the linear interpolation at rank 0.95 (n - 1):

* P, MedPy's and so CaPTk's and FeTS 2022's: ``Q95 of all d(a, B) and d(b, A) in one list``;
* D, of Metrics Reloaded: ``max(Q95 of d(a, B), Q95 of d(b, A))``.

Exact to the last bit: a distance is ``sqrt((i s_0)^2 + (j s_1)^2 + (k s_2)^2)`` in double precision, summed from the
left in array-axis order, and the least such value over S_B. The k-d tree only proposes: wherever rounding could decide
the wanted rank, the candidates are computed anew by this formula. The native kernel gives the same bits (kernel/).
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Spacing = tuple[float, float, float]
FRACTION = 0.95
# Relative distance below which two results of the tree are told apart by the exact formula only.
_CLOSE = 1e-9


@dataclass(frozen=True)
class Hausdorff95:
    """Both definitions for one pair of masks, in mm."""

    pooled: float
    directed: float


def compute_hausdorff95(
    reference: NDArray[np.bool_], prediction: NDArray[np.bool_], spacing_mm: Spacing, *, directed: bool = True
) -> Hausdorff95:
    """95th-percentile surface distances of two masks.

    Parameters
    ----------
    reference, prediction : ndarray of bool, 3-D, same shape, neither empty
    spacing_mm : tuple of float
        Voxel edge lengths along the array axes.
    directed : bool
        Whether definition D is wanted too; it is NaN otherwise.

    Raises
    ------
    ValueError
        If a mask is empty: the value there is a convention (`conventions`), not a formula.
    """
    if not (reference.any() and prediction.any()):
        raise ValueError("Hausdorff95 of an empty mask is a convention, not a distance")
    crop = compute_bounding_box(reference | prediction)
    surface_g, surface_p = compute_surface(reference[crop]), compute_surface(prediction[crop])
    there = _Directed(surface_g, surface_p, spacing_mm)
    back = _Directed(surface_p, surface_g, spacing_mm)
    return Hausdorff95(
        pooled=_compute_quantile([there, back]),
        directed=max(_compute_quantile([there]), _compute_quantile([back])) if directed else math.nan,
    )


def compute_surface(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Voxels of a 3-D mask that have a background 6-neighbour; outside the array is background."""
    inside = mask.copy()
    for axis in range(mask.ndim):
        ahead, behind = [slice(None)] * mask.ndim, [slice(None)] * mask.ndim
        ahead[axis], behind[axis] = slice(1, None), slice(None, -1)
        inside[tuple(ahead)] &= mask[tuple(behind)]
        inside[tuple(behind)] &= mask[tuple(ahead)]
        edge = [slice(None)] * mask.ndim
        for end in (0, -1):
            edge[axis] = end  # type: ignore[call-overload]
            inside[tuple(edge)] = False
    return mask & ~inside


def compute_bounding_box(mask: NDArray[np.bool_]) -> tuple[slice, ...]:
    """Smallest box that holds every True voxel of a non-empty mask."""
    box = []
    for axis in range(mask.ndim):
        hit = np.flatnonzero(mask.any(axis=tuple(other for other in range(mask.ndim) if other != axis)))
        box.append(slice(int(hit[0]), int(hit[-1]) + 1))
    return tuple(box)


class _Directed:
    """Distances from every surface voxel of one mask to the surface of another."""

    def __init__(self, start: NDArray[np.bool_], target: NDArray[np.bool_], spacing_mm: Spacing) -> None:
        from scipy.spatial import cKDTree  # costs 0.6 s to import, and the native kernel does without

        self.spacing = np.asarray(spacing_mm)
        self.shared = int(np.count_nonzero(start & target))
        self.points = np.argwhere(start & ~target)
        self.targets = np.argwhere(target)
        self.tree = cKDTree(self.targets * self.spacing, balanced_tree=False, compact_nodes=False)
        self.near = self.tree.query(self.points * self.spacing)[0] if len(self.points) else np.empty(0)

    @property
    def count(self) -> int:
        """Number of distances, the zeros of shared voxels included."""
        return self.shared + len(self.points)

    def compute_exact(self, low: float, high: float) -> NDArray[np.float64]:
        """Exact distances of the points whose approximate distance is in [low, high]."""
        chosen = self.points[(self.near >= low) & (self.near <= high)]
        exact = np.empty(len(chosen))
        candidates = self.tree.query_ball_point(chosen * self.spacing, high * (1 + _CLOSE))
        for i, (point, nearby) in enumerate(zip(chosen, candidates, strict=True)):
            steps = (self.targets[nearby] - point) * self.spacing
            squares = steps * steps
            exact[i] = math.sqrt((squares[:, 0] + squares[:, 1] + squares[:, 2]).min())
        return exact


def _compute_quantile(sides: list[_Directed]) -> float:
    """Q95 of the distances of all sides in one list."""
    count = sum(side.count for side in sides)
    shared = sum(side.shared for side in sides)
    rank, weight = compute_rank(count)
    near = np.concatenate([side.near for side in sides])
    first = _find_exact(sides, near, rank - shared)
    second = _find_exact(sides, near, min(rank + 1, count - 1) - shared)
    return interpolate(first, second, weight)


def _find_exact(sides: list[_Directed], near: NDArray[np.float64], rank: int) -> float:
    """Exact value of the given rank among the distances above zero (a negative rank is a shared voxel)."""
    if rank < 0:
        return 0.0
    value = float(np.partition(near, rank)[rank])
    low, high = value * (1 - _CLOSE), value * (1 + _CLOSE)
    below = int(np.count_nonzero(near < low))
    group = np.sort(np.concatenate([side.compute_exact(low, high) for side in sides]))
    return float(group[rank - below])


def compute_rank(count: int) -> tuple[int, float]:
    """Lower rank and weight of the upper one, for `FRACTION` by linear interpolation (numpy's default)."""
    position = (count - 1) * FRACTION
    rank = int(position)
    return rank, position - rank


def interpolate(first: float, second: float, weight: float) -> float:
    """Value between two neighbours in rank; the nearer end is the base, as in numpy."""
    step = second - first
    return second - step * (1 - weight) if weight >= 0.5 else first + step * weight
