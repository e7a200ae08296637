"""The model cube's method: features, nested regions, clean-up."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from model_cube.cases import MODALITIES, load_case
from model_cube.features import compute_brain_mask, compute_feature_names, compute_features, compute_z_scores
from model_cube.parameters import Parameters
from model_cube.segmentation import Model, compute_labels, compute_largest_component
from numpy.typing import NDArray

from tests.cubes.model_cases import write_case


def make_model(parameters: Parameters | None = None) -> Model:
    """A model whose whole tumour is where smoothed flair is above 2 standard deviations, all of it oedema."""
    names = compute_feature_names(MODALITIES, [2.0])
    weights = np.zeros((3, len(names)), np.float32)
    weights[0, names.index("flair@2")] = 1.0
    return Model(MODALITIES, (2.0,), weights, np.array([-2, -1, -1], np.float32), parameters or Parameters(True, 0.0))


def test_z_scores_ignore_a_tumour_and_the_background() -> None:
    generator = np.random.default_rng(3)
    volume = np.zeros((30, 30, 30), np.float32)
    mask = np.zeros(volume.shape, bool)
    mask[5:25, 5:25, 5:25] = True
    volume[mask] = generator.normal(300, 20, mask.sum())
    scores = compute_z_scores(volume, mask)
    assert np.all(scores[~mask] == 0)
    assert np.median(scores[mask]) == pytest.approx(0, abs=1e-3)
    assert scores[mask].std() == pytest.approx(1, abs=0.03)
    volume[5:10, 5:10, 5:25] = 3000
    with_tumour = compute_z_scores(volume, mask)
    assert np.abs(with_tumour - scores)[12:25, 12:25, 12:25].max() < 0.4
    assert with_tumour.max() == 6


def test_z_scores_do_not_depend_on_gain_and_offset() -> None:
    volume = np.random.default_rng(4).normal(50, 9, (9, 9, 9)).astype(np.float32)
    mask = np.ones(volume.shape, bool)
    assert np.allclose(compute_z_scores(volume, mask), compute_z_scores(volume * 3 + 40, mask), atol=1e-3)


def test_constant_image_has_zero_scores() -> None:
    mask = np.ones((4, 4, 4), bool)
    assert not compute_z_scores(np.full((4, 4, 4), 9, np.float32), mask).any()


def test_features_follow_their_names_and_are_flat_in_a_flat_brain() -> None:
    """In a brain of constant score smoothing must not show the rim: that is what the normalisation is for."""
    images = {name: np.zeros((24, 24, 24), np.float32) for name in MODALITIES}
    mask = np.zeros((24, 24, 24), bool)
    mask[4:20, 4:20, 4:20] = True
    ramp = np.tile(np.arange(24, dtype=np.float32), (24, 24, 1))
    for number, volume in enumerate(images.values()):
        volume[mask] = 50 + (number + 1) * ramp[mask]
    columns = list(compute_features(images, mask, (1.0, 1.0, 1.0), MODALITIES, [0.0, 2.0]))
    names = compute_feature_names(MODALITIES, [0.0, 2.0])
    assert len(columns) == len(names) == 16
    assert names[0:3] == ["t1@0", "t1@0^2", "t1ce@0"] and names[8] == "t1@2"
    assert all(column.shape == (16**3,) and column.dtype == np.float32 for column in columns)
    assert np.allclose(columns[1], columns[0] ** 2)
    middle_plane = np.nonzero(mask)[2] == 12
    smooth = columns[8]
    assert np.ptp(smooth[middle_plane]) < 1e-4


def test_scales_are_in_millimetres() -> None:
    """The same anatomy on a coarser grid gives the same features."""
    fine = np.random.default_rng(5).normal(size=(12, 12, 12)).astype(np.float32).repeat(4, 0).repeat(4, 1).repeat(4, 2)
    fine += 10
    coarse = fine[1::2, 1::2, 1::2]
    columns = [
        next(iter(compute_features({"t1": volume}, np.ones(volume.shape, bool), (size,) * 3, ["t1"], [6.0])))
        for volume, size in ((fine, 1.0), (coarse, 2.0))
    ]
    fine_smooth, coarse_smooth = columns[0].reshape(fine.shape), columns[1].reshape(coarse.shape)
    difference = np.abs(fine_smooth[1::2, 1::2, 1::2] - coarse_smooth)[5:-5, 5:-5, 5:-5]
    assert difference.max() < 0.05 * np.ptp(coarse_smooth)


def test_brain_is_where_any_modality_differs_from_zero() -> None:
    first, second = np.zeros((2, 1, 1), np.float32), np.array([0, -3], np.float32).reshape(2, 1, 1)
    assert compute_brain_mask({"a": first, "b": second}).ravel().tolist() == [False, True]


def test_largest_component_is_kept_and_filled() -> None:
    mask = np.zeros((10, 10, 10), bool)
    mask[0:2, 0:2, 0:2] = True
    mask[4:9, 4:9, 4:9] = True
    mask[6, 6, 6] = False
    kept = compute_largest_component(mask)
    assert kept[6, 6, 6] and not kept[0, 0, 0] and kept.sum() == 125
    assert not compute_largest_component(np.zeros((3, 3, 3), bool)).any()


def make_scores(*values: float) -> NDArray[np.float32]:
    """Scores of one voxel."""
    return np.array(values, np.float32)[:, None]


@pytest.mark.parametrize(
    ("scores", "label"),
    [((-1, 1, 1), 0), ((1, -1, 1), 2), ((1, 1, -1), 1), ((1, 1, 1), 4), ((0, 1, 1), 0), ((1, 0, 1), 2)],
)
def test_regions_are_nested(scores: tuple[float, ...], label: int) -> None:
    brain = np.ones((1, 1, 1), bool)
    labels = compute_labels(make_scores(*scores), brain, (1.0, 1.0, 1.0), Parameters(True, 0.0))
    assert labels.dtype == np.uint8 and labels.item() == label


def test_small_tumour_is_noise_and_volume_is_in_mm3() -> None:
    brain = np.ones((4, 1, 1), bool)
    scores = np.array([[1, 1, 1, -1], [-1] * 4, [-1] * 4], np.float32)
    for spacing, expected in ((2.0, 3), (1.0, 0)):
        labels = compute_labels(scores, brain, (spacing,) * 3, Parameters(True, 20.0))
        assert np.count_nonzero(labels) == expected


def test_component_clean_up_can_be_switched_off() -> None:
    brain = np.ones((5, 1, 1), bool)
    scores = np.array([[1, -1, 1, 1, -1], [-1] * 5, [-1] * 5], np.float32)
    counts = [
        np.count_nonzero(compute_labels(scores, brain, (1.0, 1.0, 1.0), Parameters(keep, 0.0)))
        for keep in (True, False)
    ]
    assert counts == [2, 3]


def test_segment_finds_the_ball(tmp_path: Path) -> None:
    write_case(tmp_path, "case")
    case = load_case(tmp_path, "case")
    labels = make_model().segment(case.images, case.spacing_mm)
    assert labels[10, 12, 9] == 2 and labels[5, 5, 5] == 0 and not labels[:3].any()
    assert 150 < np.count_nonzero(labels) < 450  # the ball has 251 voxels


def test_empty_brain_gives_an_empty_prediction() -> None:
    images = {name: np.zeros((5, 6, 7), np.float32) for name in MODALITIES}
    labels = make_model().segment(images, (1.0, 1.0, 1.0))
    assert labels.shape == (5, 6, 7) and labels.dtype == np.uint8 and not labels.any()
