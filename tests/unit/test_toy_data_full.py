"""One case at full size: pinned, small enough on disk, the same subject as at CI size."""

from pathlib import Path

import numpy as np
import pytest

from toy_data import ToyCase, make_case
from toy_data.writing import _write_case

PIN = {
    "t1": "378b7c278bad74466606fa97c8ea58ce04b0e088b1ca7311517908def886242e",
    "t1ce": "c2b3b6056865d4b3f005460c797f18f5f1dce8426da64c80077e20f323853b26",
    "t2": "c3ad0be95d02b2e4d79dd3651b4b2e68de9125663f0e311073997907fdac4bfb",
    "flair": "c583411db0eba8b9274f227a18b40b0c9f9b5e12df568b515a33fd87251f635f",
    "seg": "a972e9e9e1a72c194ad5930ba6adb191b01f63f8e7ee4a0c9832942e9a95bbc2",
}


@pytest.fixture(scope="module")
def full() -> ToyCase:
    return make_case(6, 1, 0, "full")


def test_voxels_are_pinned(full: ToyCase) -> None:
    assert full.compute_checksums() == PIN


def test_files_take_at_most_six_megabytes(full: ToyCase, tmp_path: Path) -> None:
    _write_case(tmp_path, full)
    files = sorted(tmp_path.rglob("*.nii.gz"))
    assert len(files) == 5
    assert sum(path.stat().st_size for path in files) <= 6_000_000


def test_full_case_is_skull_stripped(full: ToyCase) -> None:
    assert full.spacing_mm == (1.0, 1.0, 1.0)
    brain = full.images["t1"] > 0
    for image in full.images.values():
        assert image.shape == (240, 240, 155) and image.dtype == np.int16 and len(np.unique(image)) <= 101
        np.testing.assert_array_equal(image != 0, brain)
    assert not full.segmentation[~brain].any()


def test_both_sizes_show_the_same_subject(full: ToyCase) -> None:
    ci = make_case(6, 1, 0, "ci")
    assert ci.names == full.names
    for part in (1, 2, 4):
        ci_mm3 = np.count_nonzero(ci.segmentation == part) * 2.5**3
        assert ci_mm3 == pytest.approx(np.count_nonzero(full.segmentation == part), rel=0.12)
    ci_centre, full_centre = (
        (case.affine @ (*np.argwhere(case.segmentation > 0).mean(axis=0), 1.0))[:3] for case in (ci, full)
    )
    np.testing.assert_allclose(ci_centre, full_centre, atol=0.5)
