"""Definition S and the normalised surface distance: drawings and DeepMind's surface-distance."""

import importlib
import math
from typing import Any

import numpy as np
import pytest
from metrics_cube.surfels import CORNERS, compute_surfel_areas, compute_surfel_distances

from tests.cubes.metrics_masks import ISOTROPIC, Spacing, draw, import_peer, iterate_pairs

CUBE_OF_8 = draw("##", "##")


@pytest.fixture(scope="module")
def peer() -> Any:
    """DeepMind's package."""
    return import_peer("surface_distance.metrics", importlib.import_module)


def test_areas_of_neighbourhoods_by_hand() -> None:
    """A cut-off corner is a triangle with sides sqrt(1/2); a half-filled cube is cut by a square."""
    areas = compute_surfel_areas(ISOTROPIC)
    corner = math.sqrt(3) / 8
    half = sum(1 << bit for bit, voxel in enumerate(CORNERS) if voxel[0] == 0)
    assert areas[0] == areas[255] == 0
    assert areas[1] == areas[254] == pytest.approx(corner)
    assert areas[half] == pytest.approx(1.0)
    opposite = 1 << CORNERS.index((0, 0, 0)) | 1 << CORNERS.index((1, 1, 1))
    assert areas[opposite] == pytest.approx(2 * corner)
    assert compute_surfel_areas((2.0, 3.0, 5.0))[half] == pytest.approx(15.0)


def test_areas_of_a_single_voxel_and_of_a_long_bar() -> None:
    """A voxel is an octahedron of eight corners; a bar's side approaches its perimeter of the diamond's cut."""
    voxel = compute_surfel_distances(draw("#"), draw("#"), ISOTROPIC)
    assert voxel.reference_mm2.sum() == pytest.approx(math.sqrt(3))
    bars = [compute_surfel_distances(draw("#" * n), draw("#" * n), ISOTROPIC).reference_mm2.sum() for n in (20, 30)]
    assert bars[1] - bars[0] == pytest.approx(10 * 4 * math.sqrt(0.5))


def test_nsd_of_a_drawing() -> None:
    """Two equal voxels three apart: the facing halves of the octahedra are 2 mm apart, the rest 3 mm."""
    distances = compute_surfel_distances(draw("#..."), draw("...#"), ISOTROPIC)
    assert distances.compute_nsd(1.9) == 0
    assert distances.compute_nsd(2.0) == pytest.approx(0.5)
    assert distances.compute_nsd(3.0) == 1
    assert distances.compute_hausdorff95() == 3
    assert compute_surfel_distances(CUBE_OF_8, CUBE_OF_8, ISOTROPIC).compute_nsd(0.0) == 1


def test_areas_of_all_neighbourhoods_as_surface_distance(peer: Any) -> None:
    tables: Any = import_peer("surface_distance.lookup_tables", importlib.import_module)
    kernel = np.asarray(tables.ENCODE_NEIGHBOURHOOD_3D_KERNEL)
    codes = [sum(int(kernel[voxel]) for bit, voxel in enumerate(CORNERS) if code >> bit & 1) for code in range(256)]
    for spacing in ((1.0, 1.0, 1.0), (0.5, 2.0, 1.0), (0.37, 1.9, 4.4)):
        expected = np.asarray(tables.create_table_neighbour_code_to_surface_area(spacing))[codes]
        assert compute_surfel_areas(spacing) == pytest.approx(expected, rel=1e-12)


@pytest.mark.filterwarnings("ignore:Please import:DeprecationWarning")
def test_as_surface_distance_on_random_volumes(peer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """More than 1000 volumes, empty masks, single voxels, borders and unequal spacings among them."""
    monkeypatch.setattr(np, "Inf", np.inf, raising=False)  # the peer's name for it went with numpy 1
    compared = empty = 0
    for g, p, spacing in iterate_pairs(21, 1400, largest=14):
        if not (g.any() or p.any()):
            continue
        compared += 1
        empty += not (g.any() and p.any())
        expected = peer.compute_surface_distances(g, p, spacing)
        found = compute_surfel_distances(g, p, spacing)
        assert found.compute_nsd(1.0) == pytest.approx(peer.compute_surface_dice_at_tolerance(expected, 1.0), abs=1e-12)
        if g.any() and p.any():
            assert found.compute_hausdorff95() == peer.compute_robust_hausdorff(expected, 95)
    assert compared >= 1000
    assert empty >= 50


@pytest.mark.parametrize("scale", [0.5, 2.0])
def test_symmetry_and_scaling(scale: float) -> None:
    for g, p, spacing in iterate_pairs(22, 40, largest=10):
        if not (g.any() and p.any()):
            continue
        there, back = compute_surfel_distances(g, p, spacing), compute_surfel_distances(p, g, spacing)
        assert there.compute_hausdorff95() == back.compute_hausdorff95()
        wider: Spacing = (spacing[0] * scale, spacing[1] * scale, spacing[2] * scale)
        assert compute_surfel_distances(g, p, wider).compute_hausdorff95() == pytest.approx(
            scale * there.compute_hausdorff95()
        )
        tolerances = [there.compute_nsd(tolerance) for tolerance in (0.0, 0.5, 1.0, 5.0, 1e3)]
        assert tolerances == sorted(tolerances)
        assert tolerances[-1] == pytest.approx(1.0)
