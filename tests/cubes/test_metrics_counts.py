"""Counts and their ratios: by hand, against plain numpy, and the conventions as the table has them."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from metrics_cube.conventions import CONVENTIONS
from metrics_cube.counts import (
    Confusion,
    compute_confusion,
    compute_dice,
    compute_precision,
    compute_relative_volume_difference,
    compute_sensitivity,
    compute_specificity,
)
from metrics_cube.native import Kernel
from metrics_cube.parameters import EXTRA_METRICS, FETS_METRICS, Parameters
from metrics_cube.scores import RegionImage, compute_case, compute_penalty
from metrics_cube.voxel_sets import find_voxels

from tests.cubes.metrics_masks import Mask, choose_kernel, draw, iterate_pairs, make_header, score_natively

REFERENCE = draw("""
    .##.
    .##.
    ....""")
PREDICTION = draw("""
    ..##
    ..#.
    ..#.""")


def test_counts_and_ratios_of_a_drawing() -> None:
    """Four voxels against four, two in common, twelve in all."""
    confusion = compute_confusion(REFERENCE, PREDICTION)
    assert confusion == Confusion(tp=2, fp=2, tn=6, fn=2)
    assert compute_dice(confusion) == 0.5
    assert compute_sensitivity(confusion) == 0.5
    assert compute_specificity(confusion) == 0.75
    assert compute_precision(confusion) == 0.5
    assert compute_relative_volume_difference(confusion) == 0.0
    grown = compute_confusion(REFERENCE, REFERENCE | PREDICTION)
    assert compute_relative_volume_difference(grown) == 0.5
    assert compute_relative_volume_difference(compute_confusion(REFERENCE | PREDICTION, REFERENCE)) == -2 / 6


def test_counts_of_random_volumes_against_plain_numpy() -> None:
    for g, p, spacing in iterate_pairs(1, 300):
        flat_g, flat_p = g.ravel().astype(int), p.ravel().astype(int)
        expected = tuple(
            int(np.sum(a * b))
            for a, b in ((flat_g, flat_p), (1 - flat_g, flat_p), (1 - flat_g, 1 - flat_p), (flat_g, 1 - flat_p))
        )
        c = compute_confusion(g, p)
        assert (c.tp, c.fp, c.tn, c.fn) == expected
        assert score_natively(g, p, spacing)[0] == expected


@settings(max_examples=50, deadline=None, database=None)
@given(st.integers(0, 2**60 - 1), st.integers(0, 2**60 - 1))
def test_properties_of_the_ratios(g_bits: int, p_bits: int) -> None:
    g, p = (np.array([bits >> i & 1 for i in range(60)], dtype=bool).reshape(3, 4, 5) for bits in (g_bits, p_bits))
    there, back = compute_confusion(g, p), compute_confusion(p, g)
    assert there.tp + there.fp + there.tn + there.fn == 60
    dice = compute_dice(there)
    assert dice == compute_dice(back) or (math.isnan(dice) and not (g_bits or p_bits))
    if g_bits and p_bits:
        assert compute_sensitivity(there) == compute_precision(back)
        assert 0 <= dice <= 1
        # One more correct voxel never hurts.
        missed = np.flatnonzero((g & ~p).ravel())
        if len(missed):
            better = p.copy()
            better.ravel()[missed[0]] = True
            assert compute_dice(compute_confusion(g, better)) > dice


EMPTY = np.zeros((240, 240, 155), dtype=bool)
ONE = EMPTY.copy()
ONE[100, 100, 100] = True
DIAGONAL = 373.12866414
TABLE = {
    # The table of docs/metrics.md: Dice, HD95, sensitivity, specificity, precision.
    "both empty": (EMPTY, EMPTY, (1.0, 0.0, 1.0, 1.0, math.nan)),
    "only reference empty": (EMPTY, ONE, (0.0, DIAGONAL, 0.0, 8927999 / 8928000, 0.0)),
    "only prediction empty": (ONE, EMPTY, (0.0, DIAGONAL, 0.0, 1.0, math.nan)),
    "both present": (ONE, ONE, (1.0, 0.0, 1.0, 1.0, 1.0)),
}


@pytest.mark.parametrize("way", ["scipy", "native"])
@pytest.mark.parametrize("name", TABLE)
def test_conventions_on_the_grid_of_fets(name: str, way: str) -> None:
    kernel = choose_kernel(way)
    reference, prediction, expected = TABLE[name]
    parameters = Parameters(regions={"ET": (1,)}, metrics=("Dice", "Hausdorff95", *FETS_METRICS[2:5]))
    row = compute_case(*make_images(reference, prediction, kernel), make_header((240, 240, 155)), parameters, kernel)
    assert list(row.values()) == pytest.approx(list(expected), abs=1e-8, nan_ok=True)


def make_images(reference: Mask, prediction: Mask, kernel: Kernel | None) -> tuple[RegionImage, RegionImage]:
    table = np.zeros(256, np.uint8)
    table[1] = 1
    labels = [np.asarray(mask, np.uint8, order="F") for mask in (reference, prediction)]
    if kernel is None:
        return find_voxels(labels[0], table), find_voxels(labels[1], table)
    return kernel.pack(labels[0], table, 1), kernel.pack(labels[1], table, 1)


def test_penalty_row_is_that_of_the_fets_container() -> None:
    row = compute_penalty(Parameters(), make_header((240, 240, 155)))
    for region in ("WT", "TC", "ET"):
        assert row[f"Dice_{region}"] == row[f"Sensitivity_{region}"] == row[f"Specificity_{region}"] == 0
        assert row[f"Precision_{region}"] == row[f"TP_{region}"] == row[f"FP_{region}"] == row[f"TN_{region}"] == 0
        assert row[f"Hausdorff95_{region}"] == 374
        assert row[f"FN_{region}"] == 8_928_000
        assert isinstance(row[f"FN_{region}"], int)


def test_every_metric_has_every_convention() -> None:
    measured = set(FETS_METRICS + EXTRA_METRICS) - {"TP", "FP", "TN", "FN"}
    for name in ("both_empty", "reference_empty", "prediction_empty"):
        assert set(CONVENTIONS[name]) == measured
    assert set(CONVENTIONS["penalty"]) == measured | {"TP", "FP", "TN", "FN"}
    words = {value for table in CONVENTIONS.values() for value in table.values() if isinstance(value, str)}
    assert words <= {"diagonal_mm", "voxels", "nan", "formula"}


@pytest.mark.parametrize("way", ["scipy", "native"])
@pytest.mark.parametrize("state", ["both_empty", "reference_empty", "prediction_empty"])
def test_extra_metrics_of_empty_masks(state: str, way: str) -> None:
    kernel = choose_kernel(way)
    full, empty = np.zeros((9, 9, 9), bool), np.zeros((9, 9, 9), bool)
    full[2:6, 2:6, 2:6] = True
    reference = full if state == "prediction_empty" else empty
    prediction = full if state == "reference_empty" else empty
    parameters = Parameters(regions={"A": (1,)}, metrics=EXTRA_METRICS)
    header = make_header((9, 9, 9), (1.0, 2.0, 3.0))
    row = compute_case(*make_images(reference, prediction, kernel), header, parameters, kernel)
    diagonal = math.sqrt(81 + 18**2 + 27**2)
    expected = {
        "both_empty": [0, 0, 1, 0, 1, 0],
        "reference_empty": [diagonal, 374, 0, math.nan, 0, 374],
        "prediction_empty": [diagonal, 374, 0, -1, 0, 374],
    }
    assert list(row.values()) == pytest.approx(expected[state], nan_ok=True)
