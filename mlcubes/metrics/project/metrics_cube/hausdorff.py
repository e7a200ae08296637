"""Hausdorff95 in the definitions P (pooled) and D (directed), with numpy and scipy.

Surface S_A: voxels of A with a background 6-neighbour, outside the image being background. d(a, B): distance in mm
from a to the nearest voxel of S_B. With Q95 the linear interpolation at rank 0.95 (n - 1):

* P, MedPy's and so CaPTk's and FeTS 2022's: ``Q95 of all d(a, B) and d(b, A) in one list``;
* D, of Metrics Reloaded: ``max(Q95 of d(a, B), Q95 of d(b, A))``.

Exact to the last bit: a distance is ``sqrt((i s_0)^2 + (j s_1)^2 + (k s_2)^2)`` in double precision, summed from the
left in array-axis order, and the least such value over S_B. Voxels that have an element of the other surface in a small
ball around them are looked up there, nearest places first. Only where the wanted rank is beyond, a k-d tree finds the
rest, and it only proposes: wherever rounding could decide the rank, the candidates are computed anew by the formula.
The native kernel gives the same bits (kernel/).
"""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metrics_cube.counts import Confusion
from metrics_cube.voxel_sets import Places, VoxelSet, find_voxels

Spacing = tuple[float, float, float]
FRACTION = 0.95
# Half the edge of the ball's box in voxels, and so the empty margin around what is scored.
_REACH = 3
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
    table = np.zeros(256, dtype=np.uint8)
    table[1] = 1
    sets = [find_voxels(mask.view(np.uint8), table) for mask in (reference, prediction)]
    return ScoredPair(sets[0], sets[1], spacing_mm).compute_hausdorff95(0, directed)


def compute_surface(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Voxels of a 3-D mask that have a background 6-neighbour; outside the array is background."""
    padded = np.pad(mask, 1)
    middle = slice(1, -1)
    inside = mask.copy()
    for axis in range(3):
        for side in (slice(None, -2), slice(2, None)):
            inside &= padded[tuple(side if other == axis else middle for other in range(3))]
    return mask & ~inside


def compute_bounding_box(mask: NDArray[np.bool_]) -> tuple[slice, ...]:
    """Smallest box that holds every True voxel of a non-empty mask."""
    box = []
    for axis in range(mask.ndim):
        hit = np.flatnonzero(mask.any(axis=tuple(other for other in range(mask.ndim) if other != axis)))
        box.append(slice(int(hit[0]), int(hit[-1]) + 1))
    return tuple(box)


class ScoredPair:
    """Reference and prediction inside the box around both, with a margin, as flat arrays of region bits.

    Parameters
    ----------
    reference, prediction : VoxelSet
        Of the same image shape.
    spacing_mm : tuple of float
        Along the array axes.
    """

    def __init__(self, reference: VoxelSet, prediction: VoxelSet, spacing_mm: Spacing) -> None:
        self.size = math.prod(reference.shape)
        self.spacing = np.asarray(spacing_mm)
        places = np.concatenate([reference.places, prediction.places], axis=1)
        low = places.min(axis=1, initial=2**31 - 1)
        self.box = np.maximum(places.max(axis=1, initial=-1) - low + 1, 0) + 2 * _REACH
        self.strides = np.array([self.box[1] * self.box[2], self.box[2], 1])
        self.flat = [self.strides @ (part.places - low[:, None] + _REACH) for part in (reference, prediction)]
        self.bits = [reference.bits, prediction.bits]
        self.masks = [self._spread(flat, bits) for flat, bits in zip(self.flat, self.bits, strict=True)]
        self.edges = [
            bits & ~np.bitwise_and.reduce([mask[flat + step] for stride in self.strides for step in (stride, -stride)])
            for flat, bits, mask in zip(self.flat, self.bits, self.masks, strict=True)
        ]
        self.surfaces = [self._spread(flat, edge) for flat, edge in zip(self.flat, self.edges, strict=True)]

    def _spread(self, flat: Places, bits: NDArray[np.uint8]) -> NDArray[np.uint8]:
        spread = np.zeros(int(np.prod(self.box)), dtype=np.uint8)
        spread[flat] = bits
        return spread

    def compute_confusion(self, region: int) -> Confusion:
        """Counts of one region over the whole image."""
        bit = np.uint8(1 << region)
        in_reference, in_prediction = (int(np.count_nonzero(bits & bit)) for bits in self.bits)
        both = int(np.count_nonzero(self.bits[0] & self.masks[1][self.flat[0]] & bit))
        fp, fn = in_prediction - both, in_reference - both
        return Confusion(tp=both, fp=fp, tn=self.size - both - fp - fn, fn=fn)

    def compute_hausdorff95(self, region: int, directed: bool = True) -> Hausdorff95:
        """Both definitions for one region, neither of whose masks is empty."""
        sides = [_Side(self, region, 0), _Side(self, region, 1)]
        return Hausdorff95(
            pooled=_compute_quantile(sides),
            directed=max(_compute_quantile(sides[:1]), _compute_quantile(sides[1:])) if directed else math.nan,
        )

    @functools.cached_property
    def shells(self) -> list[tuple[float, Places]]:
        """Squared distance and flat steps of the places in the ball, nearest first; together no place is left out."""
        steps = np.array(np.meshgrid(*[np.arange(-_REACH, _REACH + 1)] * 3, indexing="ij")).reshape(3, -1)
        squares = _compute_squares(steps, self.spacing)
        limit = (_REACH * float(self.spacing.min())) ** 2
        values = np.unique(squares[(squares > 0) & (squares <= limit)])
        flat = self.strides @ steps
        return [(float(value), flat[squares == value]) for value in values]


def _compute_squares(steps: NDArray[Any], spacing: NDArray[np.float64]) -> NDArray[np.float64]:
    """Squared lengths of index steps, shape (3, n): the one formula for every distance."""
    lengths = steps * spacing[:, None]
    squares: NDArray[np.float64] = (lengths[0] * lengths[0] + lengths[1] * lengths[1]) + lengths[2] * lengths[2]
    return squares


class _Side:
    """Distances from the surface voxels of one mask to the surface of the other."""

    def __init__(self, pair: ScoredPair, region: int, which: int) -> None:
        bit = np.uint8(1 << region)
        self.pair, self.bit, self.target = pair, bit, 1 - which
        edge = pair.flat[which][(pair.edges[which] & bit) != 0]
        lone = (pair.surfaces[self.target][edge] & bit) == 0
        self.count = len(edge)
        self.shared = self.count - int(np.count_nonzero(lone))
        self.near: list[NDArray[np.float64]] = []
        self.far = edge[lone]
        self._look_around()

    def _look_around(self) -> None:
        """Take out of `far` what has an element of the target in the ball."""
        surface = self.pair.surfaces[self.target]
        for square, steps in self.pair.shells:
            if not len(self.far):
                return
            hit = (surface[self.far[:, None] + steps] & self.bit).any(axis=1)
            self.near.append(np.full(np.count_nonzero(hit), math.sqrt(square)))
            self.far = self.far[~hit]

    @functools.cached_property
    def exact(self) -> NDArray[np.float64]:
        """Distances found in the ball."""
        return np.concatenate([*self.near, np.empty(0)])

    @functools.cached_property
    def targets(self) -> Places:
        """Places of the target's surface voxels, shape (n, 3)."""
        pair = self.pair
        return np.transpose(
            np.unravel_index(pair.flat[self.target][(pair.edges[self.target] & self.bit) != 0], tuple(pair.box))
        )

    @functools.cached_property
    def points(self) -> Places:
        """Places of the voxels beyond the ball, shape (n, 3)."""
        return np.transpose(np.unravel_index(self.far, tuple(self.pair.box)))

    @functools.cached_property
    def tree(self) -> Any:
        """The target's surface voxels in mm, to be searched."""
        from scipy.spatial import cKDTree  # costs 0.6 s to import, and the native kernel does without

        return cKDTree(self.targets * self.pair.spacing, balanced_tree=False, compact_nodes=False)

    @functools.cached_property
    def approximate(self) -> NDArray[np.float64]:
        """Distances of the voxels beyond the ball, exact but for rounding."""
        if not len(self.far):
            return np.empty(0)
        return np.asarray(self.tree.query(self.points * self.pair.spacing)[0])

    def compute_between(self, low: float, high: float) -> NDArray[np.float64]:
        """Exact distances, unordered, of the voxels whose known distance is in [low, high]."""
        sure = self.exact[(self.exact >= low) & (self.exact <= high)]
        chosen = self.points[(self.approximate >= low) & (self.approximate <= high)]
        if not len(chosen):
            return sure
        found = np.empty(len(chosen))
        candidates = self.tree.query_ball_point(chosen * self.pair.spacing, high * (1 + _CLOSE))
        for i, (point, nearby) in enumerate(zip(chosen, candidates, strict=True)):
            steps = np.transpose(self.targets[nearby] - point)
            found[i] = math.sqrt(_compute_squares(steps, self.pair.spacing).min())
        return np.concatenate([sure, found])


def _compute_quantile(sides: Sequence[_Side]) -> float:
    """Q95 of the distances of all sides in one list."""
    count = sum(side.count for side in sides)
    shared = sum(side.shared for side in sides)
    rank, weight = compute_rank(count)
    first = _find_exact(sides, rank - shared)
    second = _find_exact(sides, min(rank + 1, count - 1) - shared)
    return interpolate(first, second, weight)


def _find_exact(sides: Sequence[_Side], rank: int) -> float:
    """Exact value of the given rank among the distances above zero (a negative rank is a shared voxel)."""
    if rank < 0:
        return 0.0
    near = np.concatenate([side.exact for side in sides])
    if rank < len(near):
        return float(np.partition(near, rank)[rank])
    known = np.concatenate([near, *(side.approximate for side in sides)])
    value = float(np.partition(known, rank)[rank])
    low, high = value * (1 - _CLOSE), value * (1 + _CLOSE)
    below = int(np.count_nonzero(known < low))
    group = np.sort(np.concatenate([side.compute_between(low, high) for side in sides]))
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
