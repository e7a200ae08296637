"""What toy cases are: grid, anatomy, tumour, contrast, scanner."""

import functools
from collections.abc import Mapping

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import label

from toy_data import GRIDS, MODALITIES, ToyCase, ToyDataError, compute_case_names, compute_site_profile, make_case
from toy_data.anatomy import compute_window
from toy_data.appearance import _compute_thick_slices, compute_noise
from toy_data.atlas import load_atlas
from toy_data.exact import RandomStream, compute_field

SOME_CASES = [(1, 0), (1, 1), (1, 2), (3, 4), (6, 1)]


@functools.cache
def get_case(site: int, index: int) -> ToyCase:
    return make_case(site, index, 0, "ci")


@pytest.fixture(params=SOME_CASES, ids=str)
def case(request: pytest.FixtureRequest) -> ToyCase:
    site, index = request.param
    return get_case(site, index)


def get_brain(case: ToyCase) -> NDArray[np.bool_]:
    return case.images["t1"] > 0


def compute_means(case: ToyCase) -> Mapping[str, Mapping[int, float]]:
    brain = get_brain(case)
    return {
        modality: {part: float(image[brain & (case.segmentation == part)].mean()) for part in (0, 1, 2, 4)}
        for modality, image in case.images.items()
    }


def test_full_grid_is_the_brats_grid() -> None:
    full = GRIDS["full"]
    assert (full.shape, full.spacing_mm) == ((240, 240, 155), 1.0)
    np.testing.assert_array_equal(full.affine, [[-1, 0, 0, 0], [0, -1, 0, 239], [0, 0, 1, 0], [0, 0, 0, 1]])


def test_ci_grid_spans_the_same_field_of_view() -> None:
    full, ci = GRIDS["full"], GRIDS["ci"]
    assert (ci.shape, ci.spacing_mm) == ((96, 96, 64), 2.5)
    for grid, margin_mm in ((full, 0.0), (ci, 2.5)):  # 64 x 2.5 mm is 2.5 mm longer at both ends than 155 mm
        low = grid.affine @ (-0.5, -0.5, -0.5, 1)
        high = grid.affine @ (*(n - 0.5 for n in grid.shape), 1)
        np.testing.assert_allclose(low[:3], (0.5, 239.5, -0.5 - margin_mm))
        np.testing.assert_allclose(high[:3], (-239.5, -0.5, 154.5 + margin_mm))


def test_arrays_have_the_promised_types(case: ToyCase) -> None:
    assert tuple(case.images) == MODALITIES
    for image in case.images.values():
        assert image.dtype == np.int16 and image.shape == (96, 96, 64)
        assert len(np.unique(image)) <= 101
    assert case.segmentation.dtype == np.uint8 and case.segmentation.shape == (96, 96, 64)
    assert case.spacing_mm == (2.5, 2.5, 2.5)
    np.testing.assert_array_equal(case.affine, GRIDS["ci"].affine)


def test_brain_is_stripped_whole_and_of_human_size(case: ToyCase) -> None:
    brain = get_brain(case)
    for image in case.images.values():
        np.testing.assert_array_equal(image != 0, brain)
        assert image.min() == 0
    parts, _ = label(brain)
    assert np.bincount(parts.ravel())[1:].max() >= 0.999 * brain.sum()
    assert 1100 <= brain.sum() * 2.5**3 / 1000 <= 1900
    for axis in (0, 1):
        edges = np.moveaxis(brain, axis, 0)[[0, -1]]
        assert not edges.any()


def test_tumour_has_all_parts_inside_the_brain() -> None:
    for site, index in [(site, index) for site in (1, 2, 5) for index in range(6)]:
        case = get_case(site, index)
        assert set(np.unique(case.segmentation)) == {0, 1, 2, 4}
        assert not (case.segmentation[~get_brain(case)]).any()
        _, parts = label(case.segmentation > 0, structure=np.ones((3, 3, 3)))
        assert parts == 1


def test_tumour_parts_are_nested(case: ToyCase) -> None:
    centre = np.argwhere(case.segmentation == 1).mean(axis=0)
    necrosis, enhancing, oedema = (
        np.linalg.norm(np.argwhere(case.segmentation == part) - centre, axis=1).mean() for part in (1, 4, 2)
    )
    assert necrosis < enhancing < oedema


def test_tumour_is_irregular(case: ToyCase) -> None:
    whole = case.segmentation > 0
    surface = sum(int(np.count_nonzero(np.diff(whole, axis=axis))) for axis in range(3))
    ball_radius = (3 * whole.sum() / (4 * np.pi)) ** (1 / 3)
    ball_surface = 1.5 * 4 * np.pi * ball_radius**2  # a digital ball shows 1.5 times its surface as voxel faces
    assert surface > 1.1 * ball_surface


def test_tumours_come_in_all_sizes() -> None:
    volumes_ml = [np.count_nonzero(get_case(1, index).segmentation) * 2.5**3 / 1000 for index in range(6)]
    assert min(volumes_ml) < 25 and max(volumes_ml) > 80


def test_tumours_start_in_white_matter_of_the_cerebrum() -> None:
    atlas = load_atlas()
    starts = atlas.deep_white
    assert len(starts) > 1000
    assert atlas.wm[tuple(starts.T)].mean() > 0.85 * 255
    assert (starts[:, 0] < 98).any() and (starts[:, 0] > 98).any()


def test_contrast_is_typical(case: ToyCase) -> None:
    means = compute_means(case)
    assert means["flair"][2] > 1.35 * means["flair"][0]  # oedema shines in FLAIR
    assert means["t2"][2] > 1.2 * means["t2"][0] and means["t2"][1] > means["t2"][2]
    assert means["t1ce"][4] > 1.3 * means["t1ce"][0]  # the rim takes up contrast agent
    assert means["t1ce"][1] < means["t1ce"][4] and means["t1"][1] < means["t1"][0]


def test_healthy_tissue_contrast_is_typical() -> None:
    """White over grey over fluid in T1, the reverse in T2: read off the ranks within the brain."""
    case = get_case(1, 2)
    healthy = get_brain(case) & (case.segmentation == 0)
    t1, t2 = case.images["t1"][healthy].astype(float), case.images["t2"][healthy].astype(float)
    low, high = np.percentile(t1, [10, 90])
    assert t2[t1 < low].mean() > 1.3 * t2[t1 > high].mean()


def test_subjects_differ_and_are_not_symmetric() -> None:
    brains = [get_brain(get_case(1, index)) for index in range(3)]
    for other in brains[1:]:
        assert np.count_nonzero(brains[0] ^ other) > 0.03 * np.count_nonzero(brains[0])
    for brain in brains:
        width = np.nonzero(brain.any(axis=(1, 2)))[0]
        middle = brain[width[0] : width[-1] + 1]
        assert np.count_nonzero(middle ^ middle[::-1]) > 0.03 * np.count_nonzero(middle)


def test_field_does_not_depend_on_the_grid() -> None:
    coarse, fine = (
        compute_field(RandomStream((9,)), [np.arange(0.0, stop, step) for stop in (240.0, 240.0, 160.0)], 12.0)
        for step in (5.0, 2.5)
    )
    np.testing.assert_array_equal(coarse, fine[::2, ::2, ::2])
    assert abs(fine.mean()) < 0.1 and 0.8 < fine.std() < 1.25


def test_noise_is_correlated_with_unit_deviation() -> None:
    noise = compute_noise(RandomStream((3,)).bell((62, 62, 62)))
    assert noise.std() == pytest.approx(1.0, abs=0.02) and abs(noise.mean()) < 0.02
    for axis in range(3):
        values = np.moveaxis(noise, axis, 0)
        neighbours = np.corrcoef(values[:-1].ravel(), values[1:].ravel())[0, 1]
        assert neighbours == pytest.approx(4 / 6, abs=0.03)  # [1, 2, 1] with itself, one apart: 4 / 6


def test_thick_slices_are_averages_joined_by_lines() -> None:
    image = np.arange(8.0).reshape(1, 1, 8)
    brain = np.ones((1, 1, 8), dtype=bool)
    # Slabs of two: means 0.5, 2.5, 4.5, 6.5 at 0.5, 2.5, 4.5, 6.5; a line through them, flat beyond the ends.
    expected = [0.5, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 6.5]
    np.testing.assert_allclose(_compute_thick_slices(image, brain, 2)[0, 0], expected)


def test_thick_slices_ignore_what_is_outside_the_brain() -> None:
    image = np.full((1, 1, 6), 40.0)
    brain = np.array([[[False, False, True, True, True, False]]])
    np.testing.assert_allclose(_compute_thick_slices(image, brain, 4)[brain], 40.0)


def test_sites_differ_as_scanners_do() -> None:
    profiles = {site: compute_site_profile(site) for site in range(1, 31)}
    assert set(profiles[1].slice_thickness_mm.values()) == {1.0} and set(profiles[1].gamma.values()) == {1.0}
    others = [profile for site, profile in profiles.items() if site != 1]
    assert {max(profile.slice_thickness_mm.values()) for profile in others} == {1.0, 3.0, 4.0, 5.0}
    for name in ("noise", "bias"):
        values = [getattr(profile, name) for profile in others]
        assert max(values) > 1.5 * min(values)
    for name in ("gain", "gamma"):
        values = [getattr(profile, name)["t1"] for profile in others]
        assert max(values) > 1.25 * min(values)
    assert profiles[7] == compute_site_profile(7)


def test_gain_shows_in_the_images() -> None:
    ratio = get_case(3, 4).images["t1ce"].max() / get_case(1, 1).images["t1ce"].max()
    gains = compute_site_profile(3).gain["t1ce"] / compute_site_profile(1).gain["t1ce"]
    assert ratio == pytest.approx(gains, rel=0.4)


def test_window_holds_every_brain() -> None:
    """No brain voxel lies on a face of the window along x and y: nothing is cut off."""
    window = compute_window(GRIDS["ci"])
    for index in range(6):
        brain = get_brain(get_case(1, index))[window.slices]
        assert not (brain[[0, -1]].any() or brain[:, [0, -1]].any())


def test_slabs_fit_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """The voxels do not depend on how the work is cut; slabs begin and end before, in and after the tumour."""
    whole = get_case(3, 4)
    monkeypatch.setattr("toy_data.case._SLAB_PLANES", 7)
    assert make_case(3, 4, 0, "ci").compute_checksums() == whole.compute_checksums()


def test_names_vary_as_sites_do() -> None:
    names = [compute_case_names(4, index) for index in range(30)]
    ids = [name.subject_id for name in names]
    assert len(set(ids)) == 30
    for start in range(28):
        three = names[start : start + 3]
        assert any(" " in name.subject_id for name in three) and any("-" in name.subject_id for name in three)
        assert {"_brain_t1" in name.images["t1"] for name in three} == {True, False}
        assert {name.segmentation.endswith("_final_seg.nii.gz") for name in three} == {True, False}
    for name in names:
        assert name.segmentation.startswith(f"{name.subject_id}_")
        for modality, file_name in name.images.items():
            assert file_name.startswith(f"{name.subject_id}_") and file_name.endswith(f"_{modality}.nii.gz")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((1, 0, 0, "huge"), "unknown size 'huge': expected one of ci, full"),
        ((0, 0, 0, "ci"), "site 0 does not exist"),
        ((10_000, 0, 0, "ci"), "site 10000 does not exist"),
        ((1, -1, 0, "ci"), "must not be negative"),
        ((1, 0, -1, "ci"), "must not be negative"),
    ],
)
def test_impossible_cases_are_refused(arguments: tuple[int, int, int, str], message: str) -> None:
    with pytest.raises(ToyDataError, match=message):
        make_case(*arguments)
