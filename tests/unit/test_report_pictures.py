"""Pictures of the report: right slice, right way round, right outline, and nothing raised for bad files."""

from __future__ import annotations

import base64
import gzip
import io
import os
import re
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pytest
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform
from PIL import Image

from fedeval.report.outlines import MAX_EDGES, trace_outline
from fedeval.report.pictures import CasePicture, compute_crop, compute_zoom, draw_case, encode_png

REGIONS = {"WT": (1, 2, 4), "TC": (1, 4), "ET": (4,)}
# Right, anterior and superior run with the axes here; sizes differ so that a swap shows.
SHAPE = (24, 30, 16)
SPACING = (1.0, 2.0, 5.0)


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path, Path]:
    made = tuple(tmp_path / name for name in ("data", "labels", "predictions"))
    for folder in made:
        folder.mkdir()
    return made  # type: ignore[return-value]


def reference_mask() -> npt.NDArray[np.uint8]:
    """RAS+: oedema with an enhancing core in slices 9 to 11, largest in slice 10, right and anterior."""
    mask = np.zeros(SHAPE, np.uint8)
    mask[14:20, 18:24, 9:12] = 2
    mask[13:21, 17:25, 10] = 2
    mask[16:18, 20:22, 10] = 4
    return mask


def scan_volume() -> npt.NDArray[np.int16]:
    """RAS+: a grey block with one bright corner, right and anterior."""
    scan = np.zeros(SHAPE, np.int16)
    scan[2:22, 2:28, 1:15] = 100
    scan[18:22, 24:28, 1:15] = 1000
    return scan


def save(path: Path, array: npt.NDArray[np.generic], codes: str = "RAS", shift: float = 0.0) -> None:
    """Save an RAS+ array with its voxel axes stored along `codes`; `shift` moves it in space."""
    affine = np.diag([*SPACING, 1.0])
    affine[:3, 3] = (-11.0 + shift, -7.0, 3.0)
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(array, affine)  # type: ignore[no-untyped-call]
    turn = ornt_transform(io_orientation(affine), axcodes2ornt(tuple(codes)))  # type: ignore[no-untyped-call]
    nib.save(image.as_reoriented(turn), path)  # type: ignore[no-untyped-call]


def save_case(folders: tuple[Path, Path, Path], codes: str = "RAS", case: str = "a") -> None:
    data, labels, predictions = folders
    for modality in ("flair", "t1ce"):
        save(data / case / f"{case}_brain_{modality}.nii.gz", scan_volume(), codes)
    save(labels / f"{case}_final_seg.nii.gz", reference_mask(), codes)
    save(predictions / f"{case}.nii.gz", np.roll(reference_mask(), 1, axis=0), codes)


def draw(folders: tuple[Path, Path, Path], case: str = "a") -> CasePicture:
    picture = draw_case(case, *folders, REGIONS)
    assert isinstance(picture, CasePicture), picture
    return picture


def decode(uri: str) -> npt.NDArray[np.uint8]:
    assert uri.startswith("data:image/png;base64,")
    picture = Image.open(io.BytesIO(base64.b64decode(uri.split(",", 1)[1])))
    assert picture.mode == "L"
    return np.asarray(picture)


@pytest.mark.parametrize("codes", ["RAS", "LPS", "ASR", "SLP", "PIL", "IRA"])
def test_anterior_is_up_and_the_right_side_is_left(folders: tuple[Path, Path, Path], codes: str) -> None:
    save_case(folders, codes)
    picture = draw(folders)
    grey = decode(picture.panels[0].image)
    rows, columns = (size // 2 for size in grey.shape)
    quarters = {
        "top left": grey[:rows, :columns], "top right": grey[:rows, columns:],
        "bottom left": grey[rows:, :columns], "bottom right": grey[rows:, columns:],
    }  # fmt: skip
    assert max(quarters, key=lambda name: int(quarters[name].max())) == "top left"
    assert picture.caption == "Axial slice 11 of 16, counted from the feet: the largest tumour area of the reference"


@pytest.mark.parametrize("codes", ["RAS", "LPS", "ASR", "SLP"])
def test_every_orientation_gives_the_same_picture(folders: tuple[Path, Path, Path], codes: str) -> None:
    save_case(folders, "LPS", "plain")
    save_case(folders, codes, "turned")
    assert draw(folders, "turned") == draw(folders, "plain")


def test_proportions_are_those_of_the_patient(folders: tuple[Path, Path, Path]) -> None:
    save_case(folders)
    picture = draw(folders)
    overview = picture.panels[0]
    # The block and a margin of 2 voxels: the whole 24 x 30 plane, 1 mm and 2 mm a voxel.
    assert (overview.width, overview.height) == (24.0, 60.0)
    assert (picture.scale_x, picture.scale_y) == (0.5, 1.0)
    rows, columns = decode(overview.image).shape
    assert rows / columns == pytest.approx(60 / 24)


def test_one_zoomed_view_a_region_on_the_modality_that_shows_it(folders: tuple[Path, Path, Path]) -> None:
    save_case(folders)
    views = [(panel.region, panel.title) for panel in draw(folders).panels]
    assert views == [("", "FLAIR"), ("WT", "FLAIR"), ("TC", "T1ce"), ("ET", "T1ce")]


def test_outlines_lie_where_the_masks_are(folders: tuple[Path, Path, Path]) -> None:
    save_case(folders)
    overview = draw(folders).panels[0]
    assert [(line.region, line.source) for line in overview.outlines] == [("WT", "reference"), ("WT", "prediction")]
    drawn = [fill(line.path, (30, 24)) for line in overview.outlines]
    # Seen on screen: rows from anterior to posterior, columns from the right side to the left.
    expected = np.isin(reference_mask()[:, :, 10], (1, 2, 4)).T[::-1, ::-1]
    np.testing.assert_array_equal(drawn[0], expected)
    np.testing.assert_array_equal(drawn[1], np.roll(expected, -1, axis=1))


def test_empty_reference_falls_back_to_the_prediction_and_then_to_the_middle(
    folders: tuple[Path, Path, Path],
) -> None:
    save_case(folders)
    save(folders[1] / "a_final_seg.nii.gz", np.zeros(SHAPE, np.uint8))
    picture = draw(folders)
    assert "slice 11 of 16" in picture.caption and "the reference shows no tumour" in picture.caption
    assert [line.source for line in picture.panels[0].outlines] == ["prediction"]
    save(folders[2] / "a.nii.gz", np.zeros(SHAPE, np.uint8))
    picture = draw(folders)
    assert "slice 9 of 16" in picture.caption and "neither reference nor prediction" in picture.caption
    assert picture.zoom is None and not any(panel.outlines for panel in picture.panels)


def lying_header(path: Path) -> None:
    header = nib.Nifti1Header()  # type: ignore[no-untyped-call]
    header.set_data_dtype(np.uint8)  # type: ignore[no-untyped-call]
    header.set_data_shape((30000, 30000, 30000))  # type: ignore[no-untyped-call]
    header["vox_offset"] = 352
    path.write_bytes(gzip.compress(header.binaryblock + b"\0" * 100))


def far_voxels(path: Path) -> None:
    save(path, reference_mask())
    raw = bytearray(gzip.decompress(path.read_bytes()))
    raw[108:112] = np.float32(2**21).tobytes()
    path.write_bytes(gzip.compress(bytes(raw[:352]) + b"\0" * (2**21 - 352) + bytes(raw[352:])))


def become_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def become_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


BROKEN: dict[str, Callable[[Path], object]] = {
    "missing": lambda path: path.unlink(),
    "empty": lambda path: path.write_bytes(b""),
    "not gzip": lambda path: path.write_bytes(b"#!/bin/sh\necho owned\n" * 50),
    "not a NIfTI": lambda path: path.write_bytes(gzip.compress(b"\0" * 5000)),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "corrupt": lambda path: path.write_bytes(path.read_bytes()[:60] + b"\xff" * 40 + path.read_bytes()[100:]),
    "claims 27 TB": lying_header,
    "voxels far away": far_voxels,
    "folder": become_folder,
    "pipe": become_pipe,
    "other shape": lambda path: save(path, reference_mask()[:, :, :-1]),
    "four axes": lambda path: save(path, reference_mask()[..., np.newaxis]),
    "other place": lambda path: save(path, reference_mask(), shift=1.0),
}


@pytest.mark.parametrize("fault", sorted(BROKEN))
def test_a_prediction_that_cannot_be_drawn_becomes_a_note(folders: tuple[Path, Path, Path], fault: str) -> None:
    save_case(folders)
    BROKEN[fault](folders[2] / "a.nii.gz")
    picture = draw(folders)
    assert picture.notes == ("no prediction is drawn: none is there that lies on the grid of the reference",)
    assert [line.source for line in picture.panels[0].outlines] == ["reference"]


@pytest.mark.parametrize("fault", sorted(BROKEN))
def test_a_scan_that_cannot_be_drawn_becomes_a_note(folders: tuple[Path, Path, Path], fault: str) -> None:
    save_case(folders)
    BROKEN[fault](folders[0] / "a" / "a_brain_t1ce.nii.gz")
    picture = draw(folders)
    assert picture.notes == ("T1ce is not drawn: missing, unreadable or on another grid",)
    assert [panel.title for panel in picture.panels] == ["FLAIR", "FLAIR"]


@pytest.mark.parametrize("fault", sorted(set(BROKEN) - {"other shape", "other place"}))
def test_a_reference_that_cannot_be_read_leaves_no_picture(folders: tuple[Path, Path, Path], fault: str) -> None:
    save_case(folders)
    BROKEN[fault](folders[1] / "a_final_seg.nii.gz")
    assert draw_case("a", *folders, REGIONS) == "no picture: the reference is missing or cannot be read"


def test_a_prediction_that_is_a_link_is_not_followed(folders: tuple[Path, Path, Path]) -> None:
    save_case(folders)
    (folders[2] / "a.nii.gz").unlink()
    (folders[2] / "a.nii.gz").symlink_to(folders[1] / "a_final_seg.nii.gz")
    assert len(draw(folders).panels[0].outlines) == 1


def test_volumes_beyond_the_limit_are_not_read(
    folders: tuple[Path, Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    save_case(folders)
    monkeypatch.setattr("fedeval.report.pictures.MAX_VOXELS", int(np.prod(SHAPE)) - 1)
    assert draw_case("a", *folders, REGIONS) == "no picture: the reference is missing or cannot be read"


@pytest.mark.parametrize("case", ["", ".", "..", "../a", "/etc/passwd", "a/../a", "a\0b"])
def test_a_case_id_that_is_a_path_is_refused(folders: tuple[Path, Path, Path], case: str) -> None:
    save_case(folders)
    assert draw_case(case, *folders, REGIONS) == "no picture: the case id is not a plain file name"


def test_scans_with_nan_or_without_tissue_are_drawn(folders: tuple[Path, Path, Path]) -> None:
    save_case(folders)
    save(folders[0] / "a" / "a_brain_flair.nii.gz", np.full(SHAPE, np.nan, np.float32))
    save(folders[0] / "a" / "a_brain_t1ce.nii.gz", np.zeros(SHAPE, np.int16))
    assert {int(decode(panel.image).max()) for panel in draw(folders).panels} == {0}


def fill(path: str, shape: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Voxels whose centre is inside the path, by the even-odd rule."""
    inside = np.zeros(shape, bool)
    rows, columns = np.mgrid[: shape[0], : shape[1]] * 2 + 1
    for part in re.findall(r"M(\S+) (\S+?)l([^z]*)z", path):
        steps = np.array(part[2].split(), int).reshape(-1, 2)
        points = np.vstack([(int(part[0]), int(part[1])), steps]).cumsum(axis=0)
        for (x0, y0), (x1, y1) in zip(points, np.roll(points, -1, axis=0), strict=True):
            if y0 != y1:
                crosses = (y0 > rows) != (y1 > rows)
                inside ^= crosses & (columns < x0 + (rows - y0) * (x1 - x0) / (y1 - y0))
    return inside


def test_outline_of_one_voxel_is_a_diamond() -> None:
    assert trace_outline(np.array([[True]])) == "M1 0l1 1 -1 1 -1 -1z"


def test_outline_of_nothing_is_empty() -> None:
    assert trace_outline(np.zeros((4, 5), bool)) == ""


def test_straight_edges_are_one_step() -> None:
    assert trace_outline(np.ones((1, 4), bool)) == "M1 0l6 0 1 1 -1 1 -6 0 -1 -1z"


@pytest.mark.parametrize("seed", range(12))
def test_outlines_enclose_exactly_the_mask(seed: int) -> None:
    rng = np.random.default_rng(seed)
    mask = rng.random((9, 13)) < rng.uniform(0.1, 0.9)
    np.testing.assert_array_equal(fill(trace_outline(mask) or "", (9, 13)), mask)


@pytest.mark.parametrize("mask", [np.eye(2, dtype=bool), ~np.eye(2, dtype=bool)])
def test_voxels_that_touch_at_a_corner_have_an_outline_each(mask: npt.NDArray[np.bool_]) -> None:
    assert (trace_outline(mask) or "").count("z") == 2


def test_noise_is_not_outlined_but_noted(folders: tuple[Path, Path, Path]) -> None:
    checkers = np.indices((120, 120)).sum(axis=0) % 2 == 0
    assert 4 * checkers.sum() > MAX_EDGES and trace_outline(checkers) is None
    shape = (120, 120, 3)
    save(folders[1] / "a_final_seg.nii.gz", np.ones(shape, np.uint8))
    save(folders[2] / "a.nii.gz", np.repeat(checkers[..., np.newaxis], 3, axis=2).astype(np.uint8))
    save(folders[0] / "a" / "a_brain_flair.nii.gz", np.ones(shape, np.int16))
    notes = draw(folders).notes
    assert "prediction of WT is not outlined: it falls into too many small pieces" in notes


def test_crop_keeps_a_margin_inside_the_plane() -> None:
    shown = np.zeros((100, 50), bool)
    shown[0:10, 20:30] = True
    assert compute_crop(shown) == (slice(0, 15), slice(18, 32))
    assert compute_crop(np.zeros((4, 6), bool)) == (slice(0, 4), slice(0, 6))


@pytest.mark.parametrize("seed", range(8))
def test_zoom_holds_the_target_and_stays_inside(seed: int) -> None:
    rng = np.random.default_rng(seed)
    target = np.zeros((200, 160), bool)
    top, left = rng.integers(20, 170), rng.integers(20, 130)
    target[top : top + rng.integers(1, 30), left : left + rng.integers(1, 30)] = True
    whole = (slice(15, 200), slice(10, 160))
    rows, columns = compute_zoom(target, whole, (1.0, 1.0))
    assert target[rows, columns].sum() == target.sum()
    assert 15 <= rows.start < rows.stop <= 200 and 10 <= columns.start < columns.stop <= 160
    assert (rows.stop - rows.start) / (columns.stop - columns.start) == pytest.approx(185 / 150, abs=0.03)


def test_window_is_that_of_the_whole_slice() -> None:
    scan = np.zeros((20, 20))
    scan[2:18, 2:18] = np.linspace(100, 200, 256).reshape(16, 16)
    grey = decode(encode_png(scan, (slice(2, 6), slice(2, 18)), 1))
    assert grey.shape == (4, 16) and grey.max() < 120
