"""Predictions are hostile until proven otherwise: each way to be unusable has its reason; none reaches the metrics."""

import gzip
import os
import struct
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from fedeval.benchmark import resolve_benchmark
from fedeval.errors import InputError
from fedeval.predictions import REASONS, PredictionCheck, check_predictions

SHAPE = (12, 10, 8)
AFFINE = np.diag([-1.0, -1.0, 1.0, 1.0])
AFFINE[:3, 3] = (0, 239, 0)
MASK = np.zeros(SHAPE, np.uint8)
MASK[4:8, 3:7, 2:5] = 2
MASK[5:7, 4:6, 3:4] = 4


def save(path: Path, voxels: np.ndarray, affine: np.ndarray = AFFINE, kind: type = nib.Nifti1Image) -> None:
    nib.save(kind(voxels, affine), path)


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path, Path]:
    found, labels, accepted = (tmp_path / name for name in ("found", "labels", "accepted"))
    found.mkdir()
    labels.mkdir()
    save(labels / "c_final_seg.nii.gz", MASK)
    return found, labels, accepted


def check(folders: tuple[Path, Path, Path]) -> PredictionCheck:
    found, labels, accepted = folders
    (result,) = check_predictions(found, labels, ["c"], resolve_benchmark("1"), accepted)
    assert [path.name for path in accepted.iterdir()] == (["c.nii.gz"] if result.status == "ok" else [])
    return result


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.float32, np.float64])
def test_whole_numbers_of_any_type_are_accepted(folders: tuple[Path, Path, Path], dtype: type) -> None:
    save(folders[0] / "c.nii.gz", MASK.astype(dtype))
    assert check(folders).status == "ok"


def test_nifti2_big_endian_and_one_volume_4d_are_accepted(folders: tuple[Path, Path, Path]) -> None:
    path = folders[0] / "c.nii.gz"
    save(path, MASK, kind=nib.Nifti2Image)
    assert check(folders).status == "ok"
    save(path, MASK[..., None])
    assert check(folders).status == "ok"
    header = nib.Nifti1Header(endianness=">")
    nib.save(nib.Nifti1Image(MASK.astype(">i2"), AFFINE, header), path)
    assert check(folders).status == "ok"


def rewrite(path: Path, change: object) -> None:
    data = bytearray(gzip.decompress(path.read_bytes()))
    change(data)  # type: ignore[operator]
    path.write_bytes(gzip.compress(bytes(data)))


def lose_affine(data: bytearray) -> None:
    struct.pack_into("<12f", data, 280, *[float("nan")] * 12)


def begin_late(data: bytearray) -> None:
    struct.pack_into("<f", data, 108, 3e9)


def claim_terabytes(data: bytearray) -> None:
    struct.pack_into("<8h", data, 40, 3, 32767, 32767, 32767, 1, 1, 1, 1)


@pytest.mark.parametrize(
    ("reason", "make"),
    [
        ("missing", lambda path: None),
        ("not_a_nifti", lambda path: path.write_text("hello")),
        ("not_a_nifti", lambda path: path.write_bytes(gzip.compress(b"\x00" * 400))),
        ("not_a_nifti", lambda path: path.write_bytes(b"")),
        ("not_a_nifti", lambda path: path.write_bytes(b"\x1f\x8b" + b"\x00" * 50)),
        ("wrong_shape", lambda path: save(path, MASK[:-1])),
        ("wrong_shape", lambda path: save(path, np.stack([MASK, MASK], -1))),
        ("wrong_shape", lambda path: (save(path, MASK), rewrite(path, claim_terabytes))),
        ("wrong_affine", lambda path: save(path, MASK, np.eye(4))),
        ("wrong_affine", lambda path: save(path, MASK, AFFINE + 0.02 * np.eye(4)[:, [3, 0, 1, 2]])),
        ("wrong_affine", lambda path: (save(path, MASK), rewrite(path, lose_affine))),
        ("not_a_nifti", lambda path: (save(path, MASK), rewrite(path, begin_late))),
        ("truncated", lambda path: (save(path, MASK), path.write_bytes(path.read_bytes()[:-20]))),
        ("truncated", lambda path: (save(path, MASK), rewrite(path, lambda data: data.__delitem__(slice(-100, None))))),
        ("not_integer_labels", lambda path: save(path, MASK * np.float32(0.25))),
        ("not_integer_labels", lambda path: save(path, np.where(MASK > 0, np.float32(np.nan), np.float32(0)))),
        ("unknown_label", lambda path: save(path, MASK + np.uint8(1))),
        ("unknown_label", lambda path: save(path, -MASK.astype(np.int16))),
        ("not_a_regular_file", lambda path: path.symlink_to("/etc/passwd")),
        ("not_a_regular_file", lambda path: path.mkdir()),
        ("not_a_regular_file", lambda path: os.mkfifo(path)),
    ],
)
def test_every_fault_has_its_reason(folders: tuple[Path, Path, Path], reason: str, make: object) -> None:
    with np.errstate(all="ignore"):
        make(folders[0] / "c.nii.gz")  # type: ignore[operator]
    found = check(folders)
    assert found.reason == reason
    assert found.detail and "passwd" not in found.detail


def test_a_link_to_the_reference_is_refused(folders: tuple[Path, Path, Path]) -> None:
    reference = folders[1] / "c_final_seg.nii.gz"
    os.link(reference, folders[0] / "c.nii.gz")
    assert check(folders).reason == "not_a_regular_file"
    (folders[0] / "c.nii.gz").unlink()
    (folders[0] / "c.nii.gz").symlink_to(reference)
    assert check(folders).reason == "not_a_regular_file"


def test_an_unreadable_reference_is_no_score(folders: tuple[Path, Path, Path]) -> None:
    (folders[1] / "c_final_seg.nii.gz").write_bytes(b"broken")
    save(folders[0] / "c.nii.gz", MASK)
    with pytest.raises(InputError, match="reference of case c cannot be read"):
        check(folders)


def test_every_reason_has_an_error_with_an_exit_code_of_a_prediction() -> None:
    assert {error.exit_code for error in REASONS.values()} == {40, 41, 42, 43, 44}
