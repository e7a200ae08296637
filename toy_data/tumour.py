"""An irregular nested tumour in the white matter, and how it pushes the brain aside."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from toy_data.anatomy import Streams, Window, compute_atlas_positions, compute_extent, compute_tissue
from toy_data.atlas import Atlas
from toy_data.exact import FloatArray, compute_field

NECROSIS, OEDEMA, ENHANCING = 1, 2, 4
"""Labels of the BraTS convention."""

_MAX_LUMP = 1.9
"""No part of the tumour reaches farther, in squared distance, than this times its squared mean radius."""

_COARSE_STEP_MM = 5.0


@dataclass(frozen=True)
class TumourPlan:
    """Where a tumour lies and how large it is, in atlas millimetres.

    Attributes
    ----------
    centre : tuple of float
        Atlas voxel index.
    axis_factors : tuple of float
        Squared stretch of each axis of the ellipsoid.
    necrosis_mm, core_mm, oedema_mm : float
        Mean radii of the nested parts, before irregularity.
    push : float
        Share of its distance from the centre by which tissue near the tumour was pushed outward.
    """

    centre: tuple[float, float, float]
    axis_factors: tuple[float, float, float]
    necrosis_mm: float
    core_mm: float
    oedema_mm: float
    push: float


def compute_tumour_plan(atlas: Atlas, streams: Streams, size_class: int) -> TumourPlan:
    """Draw place and size of a tumour; `size_class` 0 is small, 1 medium, 2 large."""
    stream = streams("tumour plan")
    place = atlas.deep_white[stream.choose(len(atlas.deep_white))]
    low, high = ((10.0, 13.0), (13.0, 18.0), (18.0, 24.0))[size_class]
    core_mm = stream.uniform(low, high)
    return TumourPlan(
        centre=(float(place[0]), float(place[1]), float(place[2])),
        axis_factors=(stream.uniform(0.75, 1.35), stream.uniform(0.75, 1.35), stream.uniform(0.75, 1.35)),
        necrosis_mm=core_mm * stream.uniform(0.60, 0.78),
        core_mm=core_mm,
        oedema_mm=core_mm * stream.uniform(1.25, 1.6) + stream.uniform(5.0, 10.0),
        push=stream.uniform(0.10, 0.25),
    )


def compute_squared_distance(plan: TumourPlan, positions: list[FloatArray]) -> FloatArray:
    """Squared distance (mm2) of each voxel from the tumour's centre, in the ellipsoid's measure."""
    total = np.zeros_like(positions[0])
    for position, centre, factor in zip(positions, plan.centre, plan.axis_factors, strict=True):
        offset = position - centre
        total += factor * (offset * offset)
    return total


def compute_pushed_positions(plan: TumourPlan, positions: list[FloatArray]) -> list[FloatArray]:
    """Move atlas positions towards the tumour's centre, so that tissue appears pushed away from it."""
    reach_mm = 2.0 * plan.oedema_mm
    fade = np.maximum(0.0, 1.0 - compute_squared_distance(plan, positions) / (reach_mm * reach_mm))
    pull = plan.push * fade * fade
    return [position - pull * (position - centre) for position, centre in zip(positions, plan.centre, strict=True)]


def compute_tumour_window(plan: TumourPlan, window: Window, streams: Streams) -> Window:
    """Compute the part of a window that the tumour can reach, from every few voxels' positions."""
    step = max(1, int(_COARSE_STEP_MM / (window.axes_mm[0][1] - window.axes_mm[0][0])))
    every = slice(None, None, step)
    squared_mm2 = compute_squared_distance(plan, compute_atlas_positions(window.crop((every, every, every)), streams))
    reached = squared_mm2 <= _MAX_LUMP * max(plan.oedema_mm, plan.core_mm) ** 2
    x, y, z = (
        _widen(compute_extent(np.asarray(reached.any(axis=others))), step, size)
        for others, size in zip(((1, 2), (0, 2), (0, 1)), window.shape, strict=True)
    )
    return window.crop((x, y, z))


def _widen(extent: slice, step: int, size: int) -> slice:
    """Turn an extent in steps into one in voxels, two steps wider at both ends."""
    return slice(max(0, (extent.start - 2) * step), min(size, (extent.stop + 2) * step))


def compute_labels(atlas: Atlas, plan: TumourPlan, window: Window, streams: Streams) -> NDArray[np.uint8]:
    """Compute the tumour's label of each voxel of a window that holds all of it.

    The core is a lumpy ellipsoid, necrosis its irregular inside with patches in the rim; oedema spreads through white
    matter, stops at grey matter and never enters fluid. Only what hangs together with the core is kept.

    Returns
    -------
    ndarray of uint8, the window's shape
        0, 1 (necrosis), 2 (oedema) or 4 (enhancing).
    """
    positions = compute_atlas_positions(window, streams)
    squared_mm2 = compute_squared_distance(plan, positions)
    tissue = compute_tissue(atlas, compute_pushed_positions(plan, positions))
    outline, inside, spread = (streams(name) for name in ("core outline", "necrosis outline", "oedema outline"))
    lumps = 1.0 + 0.30 * compute_field(outline, window.axes_mm, 16.0)
    lumps = np.clip(lumps + 0.15 * compute_field(outline, window.axes_mm, 8.0), 0.45, _MAX_LUMP)
    core = (squared_mm2 <= plan.core_mm * plan.core_mm * lumps) & tissue.brain
    holes = compute_field(inside, window.axes_mm, 10.0)
    hollow = lumps * np.clip(1.0 + 0.35 * holes, 0.4, 1.6)
    necrosis = core & (squared_mm2 <= plan.necrosis_mm * plan.necrosis_mm * hollow)
    necrosis |= core & (holes > 1.9)
    fingers = 1.0 + 0.35 * compute_field(spread, window.axes_mm, 22.0)
    fingers = np.clip(fingers, 0.4, _MAX_LUMP) * np.minimum(1.0, 0.30 + 0.85 * tissue.white)
    oedema = (squared_mm2 <= plan.oedema_mm * plan.oedema_mm * fingers) & tissue.brain & (tissue.fluid < 0.5)
    whole = _keep_part_around(core | oedema, squared_mm2)
    labels = np.zeros(whole.shape, dtype=np.uint8)
    labels[whole] = OEDEMA
    labels[whole & core] = ENHANCING
    labels[whole & necrosis] = NECROSIS
    return labels


def _keep_part_around(mask: NDArray[np.bool_], squared_mm2: FloatArray) -> NDArray[np.bool_]:
    from scipy.ndimage import label

    parts, _ = label(mask)
    seed = np.unravel_index(int(np.argmin(squared_mm2)), mask.shape)
    kept: NDArray[np.bool_] = parts == parts[seed] if mask[seed] else mask
    return kept
