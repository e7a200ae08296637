"""Small files that announce or hold far more than a mask: refused within the memory that a mask needs."""

import gzip
import struct
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from fedeval.benchmark import resolve_benchmark
from fedeval.predictions import PredictionCheck, check_predictions

SHAPE = (40, 40, 40)
MASK = np.zeros(SHAPE, np.uint8)
MASK[9:14, 9:14, 9:14] = 4
AFFINE = np.diag([-1.0, -1.0, 1.0, 1.0])


def make_header(change: Callable[[bytearray], None] = lambda head: None) -> bytearray:
    """The 352 bytes before the voxels."""
    image = nib.Nifti1Image(MASK, AFFINE)
    head = bytearray(image.to_bytes()[:352])
    change(head)
    return head


def pack_bomb(start: bytes, mebibytes: int) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    begun = packer.compress(start) + packer.flush(zlib.Z_FULL_FLUSH)
    zeros = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    return begun + zeros * mebibytes


def set_extension(head: bytearray) -> None:
    head[348] = 1
    struct.pack_into("<f", head, 108, 384.0)


def claim(*lengths: int) -> Callable[[bytearray], None]:
    return lambda head: struct.pack_into("<8h", head, 40, len(lengths), *lengths, *[1] * (7 - len(lengths)))


BOMBS = {
    "zeros after the mask": ("too_long", lambda: pack_bomb(bytes(make_header()) + MASK.tobytes("F"), 900)),
    "extension of 2 GB": (
        "too_long", lambda: pack_bomb(bytes(make_header(set_extension)) + struct.pack("<ii", (1 << 31) - 16, 6), 900),
    ),
    "DICOM extension": (
        "truncated", lambda: gzip.compress(bytes(make_header(set_extension)) + struct.pack("<ii", 1 << 20, 2) + b"DICM")
    ),
    "281 TB": ("wrong_shape", lambda: pack_bomb(bytes(make_header(claim(32767, 32767, 32767))), 900)),
    "voxels after 3 GB": (
        "not_a_nifti", lambda: pack_bomb(bytes(make_header(lambda head: struct.pack_into("<f", head, 108, 3e9))), 900)
    ),
    "empty members": ("not_a_nifti", lambda: gzip.compress(bytes(make_header())) + gzip.compress(b"") * 50000),
    "one byte too many": ("too_long", lambda: gzip.compress(bytes(make_header()) + MASK.tobytes("F") + b"\0")),
    "complex numbers": (
        "not_integer_labels",
        lambda: pack_bomb(bytes(make_header(lambda head: struct.pack_into("<hh", head, 70, 1792, 128))), 900),
    ),
    "damaged checksum": (
        "truncated", lambda: gzip.compress(bytes(make_header()) + MASK.tobytes("F"))[:-8] + bytes(8)
    ),
    "a magic that clears the screen": (
        "not_a_nifti", lambda: gzip.compress(bytes(make_header())[:344] + b"\x1b[2J" + bytes(4) + MASK.tobytes("F"))
    ),
    "a pair's header": (
        "not_a_nifti", lambda: gzip.compress(bytes(make_header())[:344] + b"ni1\0" + bytes(4) + MASK.tobytes("F"))
    ),
}  # fmt: skip


@pytest.fixture
def check(tmp_path: Path) -> Callable[[], PredictionCheck]:
    for name in ("found", "labels"):
        (tmp_path / name).mkdir()
    nib.save(nib.Nifti1Image(MASK, AFFINE), tmp_path / "labels" / "c_final_seg.nii.gz")

    def run() -> PredictionCheck:
        folders = (tmp_path / "found", tmp_path / "labels")
        (found,) = check_predictions(*folders, ["c"], resolve_benchmark("1"), tmp_path / "accepted")
        kept = [path.name for path in (tmp_path / "accepted").iterdir()]
        assert kept == (["c.nii.gz"] if found.reason is None else [])
        return found

    return run


@pytest.mark.parametrize("name", BOMBS)
def test_bombs(
    tmp_path: Path, check: Callable[[], PredictionCheck], name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    reason, make = BOMBS[name]
    content = make()
    assert len(content) < 2 << 20
    (tmp_path / "found" / "c.nii.gz").write_bytes(content)
    tracemalloc.start()
    try:
        found = check()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found.reason == reason, found
    assert peak < 16 << 20
    assert capfd.readouterr() == ("", "")


def test_a_file_of_holes_is_not_copied(tmp_path: Path, check: Callable[[], PredictionCheck]) -> None:
    with (tmp_path / "found" / "c.nii.gz").open("wb") as file:
        file.truncate(1 << 42)
    found = check()
    assert found.reason == "too_long" and "4194304 MiB" in found.detail


def test_what_writers_do_is_accepted(tmp_path: Path, check: Callable[[], PredictionCheck]) -> None:
    """Extensions, bgzip's members of 64 KiB, padding between members, no compression at all."""
    image = nib.Nifti1Image(MASK, AFFINE)
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"made by hand"))
    plain = image.to_bytes()
    members = b"".join(gzip.compress(plain[i : i + 65280]) + bytes(3) for i in range(0, len(plain), 65280))
    for content in (plain, gzip.compress(plain), members + gzip.compress(b"")):
        (tmp_path / "found" / "c.nii.gz").write_bytes(content)
        assert check().reason is None


@pytest.mark.parametrize(
    ("dtype", "slope", "inter"), [(np.uint8, 2.0, 0.0), (np.int16, 0.5, 1.0), (np.uint8, 1.0, -1.0)]
)
def test_scaled_voxels_are_those_of_nibabel(
    tmp_path: Path, check: Callable[[], PredictionCheck], dtype: type, slope: float, inter: float
) -> None:
    stored: Any = np.asarray(np.round((MASK - inter) / slope), dtype=dtype)
    image = nib.Nifti1Image(stored, AFFINE)
    image.header.set_slope_inter(slope, inter)
    data = bytearray(image.to_bytes())
    struct.pack_into("<ff", data, 112, slope, inter)
    (tmp_path / "found" / "c.nii.gz").write_bytes(gzip.compress(bytes(data)))
    assert np.array_equal(nib.Nifti1Image.from_filename(tmp_path / "found" / "c.nii.gz").get_fdata(), MASK)
    assert check().reason is None
    struct.pack_into("<ff", data, 112, slope, inter + 0.25)
    (tmp_path / "found" / "c.nii.gz").write_bytes(gzip.compress(bytes(data)))
    assert check().reason == "not_integer_labels"
