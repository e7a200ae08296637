"""Hausdorff95 by definitions P and D: drawings, properties, MedPy, and the native kernel against scipy."""

import importlib
import itertools
import math
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from metrics_cube import build, kernel_sources
from metrics_cube.hausdorff import compute_hausdorff95, compute_surface
from metrics_cube.native import Kernel
from scipy import ndimage

from tests.cubes.metrics_masks import (
    ISOTROPIC,
    Mask,
    Spacing,
    build_kernel,
    draw,
    import_peer,
    iterate_pairs,
    make_volume,
    score_natively,
)


def compute_both_ways(reference: Mask, prediction: Mask, spacing_mm: Spacing = ISOTROPIC) -> tuple[float, float]:
    """P and D by scipy, after the kernel has given the very same."""
    expected = compute_hausdorff95(reference, prediction, spacing_mm)
    for order in "FC":
        assert score_natively(reference, prediction, spacing_mm, order)[1:] == (expected.pooled, expected.directed)
    return expected.pooled, expected.directed


def measure_plainly(a: Mask, b: Mask, spacing_mm: Spacing) -> list[float]:
    """All d(a, B) by the definition's words, one pair of voxels at a time."""

    def surface(mask: Mask) -> list[tuple[int, ...]]:
        padded = np.pad(mask, 1)
        steps = [step for axis in range(3) for step in (np.eye(3, dtype=int)[axis], -np.eye(3, dtype=int)[axis])]
        voxels = [tuple(int(i) for i in voxel) for voxel in np.argwhere(mask)]
        return [v for v in voxels if not all(padded[tuple(np.array(v) + 1 + step)] for step in steps)]

    def distance(p: tuple[int, ...], q: tuple[int, ...]) -> float:
        x, y, z = (((i - j) * edge) ** 2 for i, j, edge in zip(p, q, spacing_mm, strict=True))
        return math.sqrt(x + y + z)

    return [min(distance(p, q) for q in surface(b)) for p in surface(a)]


def test_two_voxels() -> None:
    """3 and 4 voxels apart on edges of 1 and 2 mm: sqrt(9 + 64)."""
    reference = draw("#....", ".....", ".....", ".....")
    prediction = draw(".....", ".....", ".....", "....#")
    assert compute_both_ways(reference, prediction) == (5.0, 5.0)
    assert compute_both_ways(reference, prediction, (1.0, 1.0, 2.0)) == (math.sqrt(73), math.sqrt(73))


def test_worked_example_of_the_documentation() -> None:
    """A bar of 10 voxels against a bar of 9 that begins with it and one voxel 11 further on.

    d(G, P): eight zeros, then 1 and 2. d(P, G): eight zeros, then 0 and 10 - the two lists are in the page.
    """
    reference = draw("##########..........")
    prediction = draw("########...........#")
    there = sorted(measure_plainly(reference, prediction, ISOTROPIC))
    back = sorted(measure_plainly(prediction, reference, ISOTROPIC))
    assert there == [0] * 8 + [1, 2]
    assert back == [0] * 8 + [10]
    # P: 19 distances, rank 0.95 * 18 = 17.1 between 2 and 10.
    assert compute_both_ways(reference, prediction)[0] == pytest.approx(2 + 0.1 * 8, abs=1e-12)
    # D: ranks 8.55 of the first list and 7.6 of the second.
    assert compute_both_ways(reference, prediction)[1] == pytest.approx(max(1.55, 0.6 * 10), abs=1e-12)


def test_pooled_forgives_an_island_that_directed_does_not() -> None:
    """An island of 8 % of one surface and 4 % of both is beyond 95 % of the pool only."""
    reference, prediction = np.zeros((4, 40, 60), bool), np.zeros((4, 40, 60), bool)
    reference[1, 2:27, 2:6] = prediction[1, 2:27, 2:6] = True
    prediction[1, 2:10, 55] = True
    pooled, directed = compute_both_ways(reference, prediction)
    assert pooled == 0
    assert directed == 50


def test_surface_is_the_6_neighbour_border_and_the_image_edge_counts() -> None:
    block = np.ones((3, 3, 3), bool)
    expected = np.ones((3, 3, 3), bool)
    expected[1, 1, 1] = False
    assert (compute_surface(block) == expected).all()
    # A hole that touches only by an edge leaves a voxel inside.
    holed = np.ones((5, 5, 5), bool)
    holed[1, 1, 2] = False
    assert not compute_surface(holed)[2, 2, 2]
    assert compute_surface(holed)[1, 2, 2]


def test_empty_masks_have_no_distance() -> None:
    with pytest.raises(ValueError, match="empty"):
        compute_hausdorff95(np.zeros((2, 2, 2), bool), np.ones((2, 2, 2), bool), ISOTROPIC)


def test_against_the_definition_one_pair_at_a_time() -> None:
    for g, p, spacing in iterate_pairs(2, 120, largest=7):
        if not (g.any() and p.any()):
            continue
        there, back = measure_plainly(g, p, spacing), measure_plainly(p, g, spacing)
        pooled, directed = compute_both_ways(g, p, spacing)
        assert pooled == np.percentile(there + back, 95)
        assert directed == max(np.percentile(there, 95), np.percentile(back, 95))


def test_bit_for_bit_as_medpy() -> None:
    """More than 1000 volumes: noise, blobs, boxes at the border, single voxels, isotropic and not."""
    medpy: Any = import_peer("medpy.metric.binary", importlib.import_module)
    compared = 0
    for g, p, spacing in iterate_pairs(3, 1600):
        if not (g.any() and p.any()):
            continue
        compared += 1
        expected = float(medpy.hd95(p, g, voxelspacing=spacing))
        assert compute_hausdorff95(g, p, spacing, directed=False).pooled == expected
        assert score_natively(g, p, spacing)[1] == expected
    assert compared >= 1000


def test_kernel_gives_the_bits_of_scipy_on_thousands_of_volumes() -> None:
    """Both memory orders; sizes around the kernel's words, rings and tiles; spacings far from each other."""
    for g, p, spacing in iterate_pairs(4, 1500, largest=16):
        if g.any() and p.any():
            compute_both_ways(g, p, spacing)
    rng = np.random.default_rng([11, 5])
    sizes = [(150, 9, 9), (9, 150, 9), (9, 9, 150), (64, 33, 31), (1, 65, 63), (130, 2, 3)]
    for shape, _ in itertools.product(sizes, range(25)):
        g, p = make_volume(rng, shape), make_volume(rng, shape)
        a, b, c = (float(edge) for edge in 10 ** rng.uniform(-1.5, 1.5, 3))
        if g.any() and p.any():
            compute_both_ways(g, p, (a, b, c))


GUESSES = {
    "nothing": ("0", "INFINITY"),
    "all below": ("1e9", "1e9"),
    "all above": ("0", "0"),
    "a little too high": ("select_rank(sample, size, last < size ? last : size - 1)", "INFINITY"),
    "much too low": ("select_rank(sample, size, first > 0 ? first / 2 : 0)", "select_rank(sample, size, size / 2)"),
}


@pytest.mark.parametrize("name", GUESSES)
def test_a_wrong_guess_of_the_kernel_costs_time_only(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel samples to guess where the rank is; here the guess is replaced by worse ones."""
    build_kernel()  # skips where there is no compiler
    sources = tmp_path / "kernel"
    shutil.copytree(kernel_sources.SOURCES, sources)
    text = (sources / "ranks.h").read_text()
    for index, guess in enumerate(GUESSES[name]):
        text, found = re.subn(rf"bracket\[{index}\] = \w+ [<>] \w+ \? .*;", f"bracket[{index}] = {guess};", text)
        assert found == 1
    (sources / "ranks.h").write_text(text)
    monkeypatch.setattr(build, "SOURCES", sources)
    monkeypatch.setattr(build, "FLAGS", (*build.FLAGS, "-w"))
    kernel = Kernel(build.run_build(tmp_path / "spoilt.so"))
    monkeypatch.setattr("tests.cubes.metrics_masks.build_kernel", lambda: kernel)
    for g, p, spacing in iterate_pairs(6, 60):
        if g.any() and p.any():
            compute_both_ways(g, p, spacing)
    rng = np.random.default_rng([11, 8])
    for _ in range(12):
        # A tumour against some noise far away: most points only get bounds.
        field = ndimage.gaussian_filter(rng.normal(size=(64, 33, 31)), 2)
        far = np.zeros(field.shape, bool)
        far[:12, :9, :8] = rng.random((12, 9, 8)) < 0.2
        far[0, 0, 0] = True
        a, b, c = (float(edge) for edge in 10 ** rng.uniform(-1.5, 1.5, 3))
        compute_both_ways(field > np.quantile(field, 0.8), far, (a, b, c))


def test_large_blobs_with_far_islands() -> None:
    """Surfaces of thousands of voxels, so that sampling, bounds and tiles of the kernel all have work."""
    rng = np.random.default_rng([11, 7])
    for far in (0, 1, 12, 60):
        shape = (110, 70, 90)
        axes = np.ogrid[:110, :70, :90]
        ball = sum((axis - centre) ** 2 for axis, centre in zip(axes, (35, 35, 40), strict=True))
        g = ball < 22**2 + rng.normal(0, 60, shape)
        p = ball < 21**2 + rng.normal(0, 120, shape)
        p[70 : 70 + far, 5:9, 3:15] = True
        compute_both_ways(g, p, (1.0, 1.0, 1.0))
        compute_both_ways(g, p, (0.9, 1.1, 2.5))


BOXES = st.tuples(*[st.integers(0, 7)] * 6).map(
    lambda t: tuple(slice(min(a, b), max(a, b) + 1) for a, b in zip(t[:3], t[3:], strict=True))
)


def fill(boxes: list[tuple[slice, ...]]) -> Mask:
    mask = np.zeros((8, 8, 8), bool)
    for box in boxes:
        mask[box] = True
    return mask


@settings(max_examples=60, deadline=None, database=None)
@given(
    st.lists(BOXES, min_size=1, max_size=3),
    st.lists(BOXES, min_size=1, max_size=3),
    st.integers(0, 5),
    st.sampled_from([0.5, 2, 4]),
)
def test_properties(first: list[tuple[slice, ...]], second: list[tuple[slice, ...]], shift: int, scale: float) -> None:
    g, p = fill(first), fill(second)
    pooled, directed = compute_both_ways(g, p)
    # Symmetry; a mask against itself.
    assert compute_both_ways(p, g) == (pooled, directed)
    assert compute_both_ways(g, g) == (0, 0)
    # Translation: into a larger image, where no border becomes another surface.
    moved = [np.pad(mask, ((shift, 3), (0, shift), (2, shift))) for mask in (g, p)]
    assert compute_both_ways(moved[0], moved[1]) == (pooled, directed)
    # Scaling by spacing, exact for powers of two.
    assert compute_both_ways(g, p, (scale, scale, scale)) == (pooled * scale, directed * scale)
    # Axis order: the same numbers with axes and spacings exchanged.
    spacing = (1.0, 2.0, 4.0)
    turned = [mask.transpose(2, 0, 1) for mask in (g, p)]
    assert compute_both_ways(turned[0], turned[1], (4.0, 1.0, 2.0)) == compute_both_ways(g, p, spacing)
    # No quantile exceeds the classical Hausdorff distance.
    fields = [ndimage.distance_transform_edt(~compute_surface(mask)) for mask in (g, p)]
    worst = max(fields[1][compute_surface(g)].max(), fields[0][compute_surface(p)].max())
    assert 0 <= pooled <= worst
    assert 0 <= directed <= worst


@settings(max_examples=40, deadline=None, database=None)
@given(st.integers(1, 20), st.integers(1, 20))
def test_a_voxel_further_away_is_further_away(near: int, far: int) -> None:
    """Monotony: moving the only predicted voxel away never lowers the distance."""
    near, far = sorted((near, far))
    reference = draw("##" + "." * 30)
    predictions = [draw("." * (1 + n) + "#" + "." * (30 - n)) for n in (near, far)]
    first, second = (compute_both_ways(reference, prediction) for prediction in predictions)
    assert first[0] <= second[0]
    assert first[1] <= second[1]


def test_kernel_refuses_images_that_do_not_match() -> None:
    kernel = build_kernel()
    table = np.arange(256, dtype=np.uint8)
    packed = [kernel.pack(np.ones((3, 4, 5), np.uint8, order=order), table, 1) for order in ("F", "C")]
    with pytest.raises(ValueError, match="memory order"):
        kernel.score(packed[0], packed[1], ISOTROPIC)
