"""Definition S: distances between surface elements at voxel corners, weighted by their area (Nikolov et al. 2021).

A corner of the voxel grid is an element where its 2x2x2 voxels are mixed. Its area is that of the marching-cubes
surface in the cube between the eight voxel centres. HD95 of one direction is the first distance, in rising order, whose
cumulative share of the area reaches 0.95; of both directions the larger counts. The normalised surface distance (NSD,
surface Dice) is the share of both surfaces' area that lies within a tolerance of the other surface.
"""

import functools
import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from metrics_cube.hausdorff import FRACTION, Spacing, compute_bounding_box

Floats = NDArray[np.float64]
Corner = tuple[int, ...]
CORNERS: tuple[Corner, ...] = tuple(itertools.product((0, 1), repeat=3))
"""Voxels around a grid corner; the r-th one has bit r in a neighbourhood's code."""


@dataclass(frozen=True)
class SurfelDistances:
    """Distances in mm and areas in mm2 of the elements of both surfaces, each direction by rising distance."""

    reference_mm: Floats
    reference_mm2: Floats
    prediction_mm: Floats
    prediction_mm2: Floats

    def compute_hausdorff95(self) -> float:
        """HD95 by definition S in mm; both masks must have voxels."""
        directions = ((self.reference_mm, self.reference_mm2), (self.prediction_mm, self.prediction_mm2))
        return max(_compute_robust_maximum(distances, areas) for distances, areas in directions)

    def compute_nsd(self, tolerance_mm: float) -> float:
        """Normalised surface distance at a tolerance in mm; at least one mask must have voxels."""
        near = self.reference_mm2[self.reference_mm <= tolerance_mm].sum()
        near += self.prediction_mm2[self.prediction_mm <= tolerance_mm].sum()
        return float(near / (self.reference_mm2.sum() + self.prediction_mm2.sum()))


def _compute_robust_maximum(distances: Floats, areas: Floats) -> float:
    share = np.cumsum(areas) / np.sum(areas)
    return float(distances[min(int(np.searchsorted(share, FRACTION)), len(distances) - 1)])


def compute_surfel_distances(
    reference: NDArray[np.bool_], prediction: NDArray[np.bool_], spacing_mm: Spacing
) -> SurfelDistances:
    """Distances between the surface elements of two masks.

    Parameters
    ----------
    reference, prediction : ndarray of bool, 3-D, same shape, not both empty
    spacing_mm : tuple of float
        Along the array axes.

    Returns
    -------
    SurfelDistances
        Infinite where the other mask is empty.
    """
    from scipy.ndimage import distance_transform_edt  # costly to import, and no part of the default metrics

    box = compute_bounding_box(reference | prediction)
    areas = compute_surfel_areas(spacing_mm)
    codes = [_compute_codes(mask[box]) for mask in (reference, prediction)]
    # Neither empty (code 0) nor full (255), whatever the area.
    elements = [(code != 0) & (code != 255) for code in codes]
    fields = [
        distance_transform_edt(~some, sampling=spacing_mm) if some.any() else np.full(some.shape, np.inf)
        for some in elements
    ]
    ordered = []
    for own, other in ((0, 1), (1, 0)):
        distance, area = fields[other][elements[own]], areas[codes[own][elements[own]]]
        order = np.lexsort((area, distance))
        ordered += [distance[order], area[order]]
    return SurfelDistances(*ordered)


def _compute_codes(mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Neighbourhood code of every grid corner, the outside being background: one more than voxels along each axis."""
    padded = np.pad(mask, 1)
    codes = np.zeros([n + 1 for n in mask.shape], dtype=np.uint8)
    for bit, corner in enumerate(CORNERS):
        part = tuple(slice(start, start + n) for start, n in zip(corner, codes.shape, strict=True))
        codes |= padded[part].astype(np.uint8) << np.uint8(bit)
    return codes


def compute_surfel_areas(spacing_mm: Spacing) -> Floats:
    """Area in mm2 of the marching-cubes surface in each of the 256 neighbourhoods, shape (256,)."""
    a, b, c = spacing_mm
    table = np.zeros(256)
    for code, normals in enumerate(_compute_normals()):
        for x, y, z in normals:
            # The length of a triangle's normal is its area; a stretched axis stretches the other two components.
            table[code] += np.linalg.norm([x * b * c, y * a * c, z * a * b])
    return table


@functools.cache
def _compute_normals() -> tuple[tuple[Floats, ...], ...]:
    """Area-long normals of the triangles in each neighbourhood, on the unit grid.

    The surface cuts each cube edge between a voxel in and a voxel out at its middle. A neighbourhood with more than
    four voxels in is treated as its complement; on a face with two opposite voxels in, each is cut off by itself; a
    polygon that is not plane is divided into the triangles of the largest total area.
    """
    table = []
    for code in range(256):
        inside = {corner for bit, corner in enumerate(CORNERS) if code >> bit & 1}
        if len(inside) > 4:
            inside = set(CORNERS) - inside
        normals: list[Floats] = []
        for polygon in _trace_polygons(inside):
            options = [
                [np.cross(polygon[j] - polygon[i], polygon[k] - polygon[i]) / 2 for i, j, k in triangles]
                for triangles in _iterate_triangulations(0, len(polygon) - 1)
            ]
            normals += max(options, key=lambda option: round(sum(float(np.linalg.norm(n)) for n in option), 9))
        table.append(tuple(normals))
    return tuple(table)


Edge = frozenset[Corner]


def _trace_polygons(inside: set[Corner]) -> Iterator[list[Floats]]:
    """Closed polygons through the middles of the cut edges of a cube."""
    links: dict[Edge, list[Edge]] = {}
    for axis, side in itertools.product(range(3), (0, 1)):
        for start, end in _cut_face(inside, axis, side):
            links.setdefault(start, []).append(end)
            links.setdefault(end, []).append(start)
    while links:
        edge = min(links, key=sorted)
        loop = []
        while edge in links:
            loop.append(edge)
            edge = next((other for other in links.pop(edge) if other in links), edge)
        yield [np.mean([np.array(corner, dtype=float) for corner in cut], axis=0) for cut in loop]


def _cut_face(inside: set[Corner], axis: int, side: int) -> Iterator[tuple[Edge, Edge]]:
    """Pairs of edges joined by the surface across one face of the cube."""
    square = [(0, 0), (1, 0), (1, 1), (0, 1)]
    corners = [(*two[:axis], side, *two[axis:]) for two in square]
    edges = [frozenset((corners[i], corners[(i + 1) % 4])) for i in range(4)]
    cut = [i for i in range(4) if (corners[i] in inside) != (corners[(i + 1) % 4] in inside)]
    if len(cut) == 2:
        yield edges[cut[0]], edges[cut[1]]
    elif cut:
        yield from ((edges[i - 1], edges[i]) for i in range(4) if corners[i] in inside)


def _iterate_triangulations(first: int, last: int) -> Iterator[list[tuple[int, int, int]]]:
    """Every way to divide the polygon of the vertices first..last into triangles."""
    if last - first < 2:
        yield []
        return
    for middle in range(first + 1, last):
        for left in _iterate_triangulations(first, middle):
            for right in _iterate_triangulations(middle, last):
                yield [*left, *right, (first, middle, last)]
