"""Lesion-wise scores of BraTS 2023: drawings, and the rules in their own words on random masks."""

import itertools

import numpy as np
import pytest
from metrics_cube.lesions import compute_lesion_scores
from metrics_cube.surfels import compute_surfel_distances

from tests.cubes.metrics_masks import ISOTROPIC, Mask, Spacing, iterate_pairs, make_volume

SHAPE = (40, 24, 24)


def make_mask(*boxes: tuple[int, int, int, int]) -> Mask:
    """Cubes given by their corner and edge."""
    mask = np.zeros(SHAPE, bool)
    for x, y, z, edge in boxes:
        mask[x : x + edge, y : y + edge, z : z + edge] = True
    return mask


def test_a_found_lesion_a_missed_one_and_a_false_positive() -> None:
    """Dice 1, 0 and 0; HD95 0, 374 and 374: means over three."""
    reference = make_mask((2, 2, 2, 5), (2, 15, 15, 5))
    prediction = make_mask((2, 2, 2, 5), (30, 2, 2, 4))
    scores = compute_lesion_scores(reference, prediction, ISOTROPIC)
    assert (scores.kept, scores.dropped, scores.false_positives) == (2, 0, 1)
    assert scores.dice == pytest.approx(1 / 3)
    assert scores.hausdorff95_mm == pytest.approx(2 * 374 / 3)


def test_near_parts_of_the_reference_are_one_lesion() -> None:
    """Dilations by three voxels meet across a gap of six, not of seven."""
    prediction = make_mask((2, 2, 2, 5))
    one = compute_lesion_scores(make_mask((2, 2, 2, 5), (13, 2, 2, 5)), prediction, ISOTROPIC)
    two = compute_lesion_scores(make_mask((2, 2, 2, 5), (14, 2, 2, 5)), prediction, ISOTROPIC)
    assert (one.kept, two.kept) == (1, 2)
    assert one.dice == pytest.approx(2 * 125 / (250 + 125))
    assert two.dice == pytest.approx(0.5)


def test_small_lesions_are_dropped_with_what_found_them() -> None:
    """27 voxels are below 50 mm3 at 1 mm and above it at 2 mm: neither miss nor false positive, or a full lesion."""
    reference, prediction = make_mask((2, 2, 2, 5), (20, 10, 10, 3)), make_mask((2, 2, 2, 5), (20, 10, 10, 2))
    small = compute_lesion_scores(reference, prediction, ISOTROPIC)
    assert (small.dice, small.hausdorff95_mm) == (1, 0)
    assert (small.kept, small.dropped, small.false_positives) == (1, 1, 0)
    large = compute_lesion_scores(reference, prediction, (2.0, 2.0, 2.0))
    assert (large.kept, large.dropped) == (2, 0)
    assert large.dice == pytest.approx((1 + 2 * 8 / 35) / 2)


def test_exactly_50_cubic_millimetres_are_dropped() -> None:
    reference = np.zeros(SHAPE, bool)
    reference[2:7, 2:7, 2:4] = True
    assert compute_lesion_scores(reference, reference, ISOTROPIC).kept == 0
    reference[2, 2, 4] = True
    assert compute_lesion_scores(reference, reference, ISOTROPIC).kept == 1


def test_empty_masks() -> None:
    empty, full = make_mask(), make_mask((2, 2, 2, 5))
    assert compute_lesion_scores(empty, empty, ISOTROPIC).dice == 1
    assert compute_lesion_scores(empty, empty, ISOTROPIC).hausdorff95_mm == 0
    for pair in ((full, empty), (empty, full)):
        scores = compute_lesion_scores(*pair, ISOTROPIC)
        assert (scores.dice, scores.hausdorff95_mm) == (0, 374)


def label_plainly(mask: Mask, reach: int) -> list[set[tuple[int, ...]]]:
    """Components of voxels at most one step apart, `reach` axes of which may differ, found by flooding."""
    rest = {tuple(int(i) for i in voxel) for voxel in np.argwhere(mask)}
    steps = [step for step in itertools.product((-1, 0, 1), repeat=3) if 0 < sum(map(abs, step)) <= reach]
    components = []
    while rest:
        front, component = [min(rest)], set()
        while front:
            voxel = front.pop()
            if voxel in rest:
                rest.remove(voxel)
                component.add(voxel)
                front += [tuple(a + b for a, b in zip(voxel, step, strict=True)) for step in steps]
        components.append(component)
    return components


def dilate_plainly(voxels: set[tuple[int, ...]], shape: tuple[int, ...]) -> set[tuple[int, ...]]:
    steps = [step for step in itertools.product((-1, 0, 1), repeat=3) if sum(map(abs, step)) <= 2]
    for _ in range(3):
        grown = {tuple(a + b for a, b in zip(voxel, step, strict=True)) for voxel in voxels for step in steps}
        voxels = {voxel for voxel in grown if all(0 <= i < n for i, n in zip(voxel, shape, strict=True))}
    return voxels


def score_plainly(reference: Mask, prediction: Mask, spacing_mm: Spacing) -> tuple[float, float]:
    """The rules, sentence by sentence, on sets of voxels."""

    def to_mask(voxels: set[tuple[int, ...]]) -> Mask:
        mask = np.zeros(reference.shape, bool)
        for voxel in voxels:
            mask[voxel] = True
        return mask

    truth = {tuple(int(i) for i in voxel) for voxel in np.argwhere(reference)}
    grown = label_plainly(to_mask(dilate_plainly(truth, reference.shape)), 3) if truth else []
    components = label_plainly(prediction, 3)
    scores, matched = [], set()
    for lesion in [component & truth for component in grown]:
        around = dilate_plainly(lesion, reference.shape)
        partners = [i for i, component in enumerate(components) if component & around]
        matched.update(partners)
        if len(lesion) * spacing_mm[0] * spacing_mm[1] * spacing_mm[2] <= 50:
            continue
        found = set().union(*(components[i] for i in partners)) if partners else set()
        if not found:
            scores.append((0.0, 374.0))
            continue
        dice = 2 * len(lesion & found) / (len(lesion) + len(found))
        surfels = compute_surfel_distances(to_mask(lesion), to_mask(found), spacing_mm)
        scores.append((dice, surfels.compute_hausdorff95()))
    scores += [(0.0, 374.0)] * (len(components) - len(matched))
    if not scores:
        return 1.0, 0.0
    return sum(dice for dice, _ in scores) / len(scores), sum(mm for _, mm in scores) / len(scores)


def test_random_masks_against_the_rules_in_words() -> None:
    rng = np.random.default_rng([11, 31])
    for _, _, spacing in iterate_pairs(31, 14, largest=4):
        shape = (20, 11, 8)
        reference = make_volume(rng, shape) & (rng.random(shape) < 0.3)
        prediction = (reference & (rng.random(shape) < 0.8)) | (make_volume(rng, shape) & (rng.random(shape) < 0.02))
        scores = compute_lesion_scores(reference, prediction, spacing)
        assert (scores.dice, scores.hausdorff95_mm) == pytest.approx(score_plainly(reference, prediction, spacing))
