"""Outlines of masks as SVG path data."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

MAX_EDGES = 12_000  # an outline with more voxel edges is noise, and would swell the page

_Corner = tuple[int, int]


class DataText(str):
    """Text made here from numbers only (a path, a data URI): safe in an attribute, never cut or escaped."""


def trace_outline(mask: npt.NDArray[np.bool_]) -> DataText | None:
    """Outline of a mask through the middles of its boundary voxel edges.

    Parameters
    ----------
    mask : ndarray, bool, shape (rows, columns)

    Returns
    -------
    str or None
        SVG path data in half voxels from the corner of the first voxel, x to the right, y down; one closed part per
        outline or hole; empty for an empty mask. None if there are more than `MAX_EDGES` boundary edges.
    """
    edges = _boundary_edges(mask)
    if sum(map(len, edges.values())) > MAX_EDGES:
        return None
    parts = []
    for start in sorted(edges):
        while edges[start]:
            parts.append(_path_part(_follow(edges, start)))
    return DataText("".join(parts))


def _boundary_edges(mask: npt.NDArray[np.bool_]) -> dict[_Corner, list[_Corner]]:
    """Boundary edges as corner -> next corners, (row, column), the mask always on the right hand."""
    padded = np.pad(mask, 1)
    edges: dict[_Corner, list[_Corner]] = {}
    # Neighbour that must be background, then the corners where the edge starts and ends.
    sides = (((-1, 0), (0, 0), (0, 1)), ((0, 1), (0, 1), (1, 1)), ((1, 0), (1, 1), (1, 0)), ((0, -1), (1, 0), (0, 0)))
    for (down, right), start, end in sides:
        outside = ~np.roll(padded, (-down, -right), axis=(0, 1))
        for row, column in np.argwhere(padded & outside).tolist():
            row, column = row - 1, column - 1
            corner = (row + start[0], column + start[1])
            edges.setdefault(corner, []).append((row + end[0], column + end[1]))
    return edges


def _follow(edges: dict[_Corner, list[_Corner]], start: _Corner) -> list[_Corner]:
    """Take one closed outline out of `edges`; where two meet it turns right and stays with its own voxel."""
    corners, here = [start], edges[start].pop()
    while here != start:
        before = corners[-1]
        corners.append(here)
        right_turn = (here[0] + (here[1] - before[1]), here[1] - (here[0] - before[0]))
        choices = edges[here]
        here = choices.pop(choices.index(right_turn) if right_turn in choices else 0)
    return corners


def _path_part(corners: list[_Corner]) -> str:
    """Closed path through the middles of the edges, relative and without points on straight stretches."""
    following = corners[1:] + corners[:1]
    middles = [(a[1] + b[1], a[0] + b[0]) for a, b in zip(corners, following, strict=True)]
    steps = [(b[0] - a[0], b[1] - a[1]) for a, b in zip(middles, middles[1:] + middles[:1], strict=True)]
    merged: list[_Corner] = []
    for step, last in zip(steps[:-1], [(0, 0), *steps[:-2]], strict=True):
        if step == last:
            merged[-1] = (merged[-1][0] + step[0], merged[-1][1] + step[1])
        else:
            merged.append(step)
    return f"M{middles[0][0]} {middles[0][1]}l" + " ".join(f"{x} {y}" for x, y in merged) + "z"
