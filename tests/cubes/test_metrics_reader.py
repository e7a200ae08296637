"""The mask reader: what it reads it reads as nibabel does, and it refuses the rest with a reason."""

import errno
import gzip
import os
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from metrics_cube import mask_file
from metrics_cube.errors import REASONS, InvalidMask
from metrics_cube.header import load_header
from metrics_cube.labels import compute_byte_table, compute_region_bits
from metrics_cube.mask_file import load_mask

from tests.cubes.metrics_files import AFFINE, ROOT, make_labels, write_mask
from tests.cubes.metrics_masks import choose_kernel, make_header

REGIONS = {"WT": (1, 2, 4), "TC": (1, 4), "ET": (4,)}
TYPES = ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8"]
LABELS = make_labels(1)
EXPECTED = compute_byte_table(REGIONS)[LABELS]
Change = Callable[[bytearray], None]


def read_bits(path: Path, way: str = "native") -> Any:
    """Region bits of a file by the whole way that the cube takes."""
    mask = load_mask(path)
    return compute_region_bits(mask.voxels, REGIONS, mask.header.slope, mask.header.inter, choose_kernel(way))


def load_by_nibabel(path: Path) -> Any:
    """The peer."""
    return nib.load(path)


def get_reason(path: Path, **options: Any) -> str:
    """Why a file is refused."""
    with pytest.raises(InvalidMask) as caught:
        load_mask(path, **options)
    assert caught.value.code in REASONS
    assert str(path.parent) not in str(caught.value)
    return caught.value.code


def write_changed(path: Path, change: Change) -> Path:
    """The standard mask with some bytes of its header or voxels changed, not compressed."""
    source = write_mask(path.with_name("source.nii"), LABELS)
    content = bytearray(source.read_bytes())
    change(content)
    path.write_bytes(content)
    return path


def put(offset: int, dtype: str, *values: float) -> Change:
    """A change that writes numbers at an offset."""
    return lambda content: content.__setitem__(
        slice(offset, offset + len(values) * np.dtype(dtype).itemsize), np.array(values, dtype).tobytes()
    )


@pytest.mark.parametrize("way", ["scipy", "native"])
@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("kind", TYPES)
def test_every_type_in_both_byte_orders(kind: str, order: str, way: str, tmp_path: Path) -> None:
    for ending, image_class in ((".nii.gz", nib.Nifti1Image), (".nii", nib.Nifti2Image)):
        header = image_class.header_class(endianness=order)
        header.set_data_dtype(np.dtype(kind))
        image = image_class(LABELS.astype(kind), AFFINE, header)
        nib.save(image, tmp_path / f"m{ending}")
        mask = load_mask(tmp_path / f"m{ending}")
        assert mask.voxels.dtype == np.dtype(order + kind)
        assert np.array_equal(mask.voxels, LABELS)
        assert np.array_equal(read_bits(tmp_path / f"m{ending}", way), EXPECTED)


@pytest.mark.parametrize("way", ["scipy", "native"])
def test_scaling_is_applied(way: str, tmp_path: Path) -> None:
    """Stored v stands for v * 0.5 - 1: a stored 2 is background, a stored 10 the label 4."""
    image = nib.Nifti1Image((LABELS.astype(np.int16) + 1) * 2, AFFINE)
    image.header.set_slope_inter(0.5, -1)
    path = tmp_path / "m.nii.gz"
    nib.save(image, path)
    content = bytearray(gzip.decompress(path.read_bytes()))
    content[112:120] = np.array([0.5, -1], "<f4").tobytes()
    content[352:] = ((LABELS.astype("<i2") + 1) * 2).tobytes(order="F")
    path.write_bytes(gzip.compress(bytes(content)))
    assert np.array_equal(load_by_nibabel(path).get_fdata(), LABELS)
    assert np.array_equal(read_bits(path, way), EXPECTED)


@pytest.mark.parametrize("slope", [0.0, np.nan, np.inf, 1.0])
def test_slopes_that_mean_no_scaling(slope: float, tmp_path: Path) -> None:
    path = write_changed(tmp_path / "m.nii", put(112, "<f4", slope, 0 if slope == 1 else 7))
    assert np.array_equal(read_bits(path), EXPECTED)


def test_four_dimensions_with_one_volume(tmp_path: Path) -> None:
    path = write_mask(tmp_path / "m.nii.gz", LABELS[..., None])
    assert np.array_equal(read_bits(path), EXPECTED)
    assert get_reason(write_mask(tmp_path / "two.nii.gz", np.stack([LABELS, LABELS], axis=-1))) == "not_3d"


def test_streams_of_several_members_and_padding(tmp_path: Path) -> None:
    """bgzip and pigz split a stream; tapes pad with zeros."""
    plain = write_mask(tmp_path / "m.nii", LABELS).read_bytes()
    members = b"".join(gzip.compress(plain[i : i + 5000]) for i in range(0, len(plain), 5000))
    for name, content in {"members": members, "padded": gzip.compress(plain) + b"\0" * 512}.items():
        path = tmp_path / f"{name}.nii.gz"
        path.write_bytes(content)
        assert np.array_equal(read_bits(path), EXPECTED)


def test_without_libdeflate_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_mask(tmp_path / "m.nii.gz", LABELS)
    monkeypatch.setattr(mask_file, "deflate", None)
    assert np.array_equal(read_bits(path), EXPECTED)


@pytest.mark.parametrize("way", ["scipy", "native"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("value", "code"),
    [(0.5, "not_integer"), (np.nan, "not_finite"), (np.inf, "not_finite"), (-0.0, None), (1e30, None)],
)
def test_voxels_that_are_no_labels(
    value: float, code: str | None, dtype: type[np.floating[Any]], way: str, tmp_path: Path
) -> None:
    voxels = np.zeros(LABELS.shape, dtype)
    voxels[3, 4, 5], voxels[20, 19, 15] = value, 4
    path = write_mask(tmp_path / "m.nii.gz", voxels)
    if code is None:
        assert np.count_nonzero(read_bits(path, way)) == 1
        return
    with pytest.raises(InvalidMask) as caught:
        read_bits(path, way)
    assert caught.value.code == code
    assert str(caught.value) == code, "no voxel value in the text"


@pytest.mark.parametrize("way", ["scipy", "native"])
def test_a_nan_beside_a_fraction_is_not_finite_in_either_order(way: str, tmp_path: Path) -> None:
    for first, second in ((0.5, np.nan), (np.nan, 0.5)):
        voxels = np.zeros(LABELS.shape, np.float32)
        voxels[0, 0, 0], voxels[9, 9, 9] = first, second
        with pytest.raises(InvalidMask, match="not_finite"):
            read_bits(write_mask(tmp_path / "m.nii", voxels), way)


@pytest.mark.parametrize("way", ["scipy", "native"])
def test_labels_of_no_region_and_out_of_a_byte_are_background(way: str, tmp_path: Path) -> None:
    voxels = np.array([0, 3, -1, 256 + 4, 4, 1, 2, 70000], np.int32).reshape(2, 2, 2)
    bits = read_bits(write_mask(tmp_path / "m.nii", voxels), way)
    assert bits.ravel().tolist() == [0, 0, 0, 0, 7, 3, 1, 0]


BROKEN: dict[str, tuple[Change, str]] = {
    "no magic": (put(344, "u1", 0, 0, 0, 0), "not_nifti"),
    "two files": (put(344, "u1", *b"ni1\0"), "not_nifti"),
    "size of header": (put(0, "<i4", 347), "not_nifti"),
    "dimensions": (put(40, "<i2", 0), "header_invalid"),
    "negative size": (put(42, "<i2", -24), "header_invalid"),
    "complex": (put(70, "<i2", 32), "type_unsupported"),
    "colour": (put(70, "<i2", 128), "type_unsupported"),
    "unknown type": (put(70, "<i2", 999), "type_unsupported"),
    "spacing of zero": (put(80, "<f4", 0), "header_invalid"),
    "spacing of nan": (put(84, "<f4", np.nan), "header_invalid"),
    "position of nan": (put(280, "<f4", np.nan), "header_invalid"),
    "voxels inside the header": (put(108, "<f4", 100), "header_invalid"),
    "voxels at half a byte": (put(108, "<f4", 352.5), "header_invalid"),
    "voxels after a gigabyte": (put(108, "<f4", 2.0**30), "header_invalid"),
    "voxels nowhere": (put(108, "<f4", np.nan), "header_invalid"),
    "cut in the voxels": (lambda content: content.__delitem__(slice(-1, None)), "truncated"),
    "cut in the header": (lambda content: content.__delitem__(slice(200, None)), "truncated"),
    "cut at once": (lambda content: content.__delitem__(slice(3, None)), "truncated"),
    "larger than announced": (lambda content: content.extend(bytes(2 << 20)), "too_long"),
    "another format": (lambda content: content.__setitem__(slice(None), b"<html>" * 99), "not_nifti"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files_are_refused_with_a_reason(name: str, tmp_path: Path) -> None:
    change, code = BROKEN[name]
    path = write_changed(tmp_path / "m.nii", change)
    assert get_reason(path) == code
    if code != "too_long":
        packed = tmp_path / "m.nii.gz"
        packed.write_bytes(gzip.compress(path.read_bytes()))
        assert get_reason(packed) == code


def test_damaged_streams_are_refused_with_a_reason(tmp_path: Path) -> None:
    whole = write_mask(tmp_path / "m.nii.gz", LABELS).read_bytes()
    middle = len(whole) // 2
    damaged = bytearray(whole)
    damaged[middle : middle + 40] = bytes(40)
    checksum = bytearray(whole)
    checksum[-6] ^= 1
    contents = {
        "truncated": whole[:middle],
        "truncated2": whole[:30],
        "corrupt": bytes(damaged),
        "corrupt2": bytes(checksum),
        "corrupt3": b"\x1f\x8b" + bytes(100),
        "truncated3": b"\x1f\x8b",
    }
    for name, content in contents.items():
        path = tmp_path / f"{name}.nii.gz"
        path.write_bytes(content)
        assert get_reason(path) == name.rstrip("23"), name


def test_a_gzip_bomb_costs_neither_memory_nor_time(tmp_path: Path) -> None:
    """A valid header, then half a GB of zeros in half a MB; and a header that announces 500 GB."""
    header = write_mask(tmp_path / "m.nii", LABELS).read_bytes()[:352]
    packer = zlib.compressobj(9, wbits=31)
    zeros = packer.compress(header) + b"".join(packer.compress(bytes(1 << 24)) for _ in range(30)) + packer.flush()
    bomb = tmp_path / "bomb.nii.gz"
    bomb.write_bytes(zeros)
    liar = tmp_path / "liar.nii.gz"
    content = bytearray(gzip.decompress(write_mask(tmp_path / "s.nii.gz", LABELS).read_bytes()))
    content[42:48] = np.array([8000, 8000, 8000], "<i2").tobytes()
    liar.write_bytes(gzip.compress(bytes(content)))
    program = (
        "import sys; from pathlib import Path; from metrics_cube.mask_file import load_mask\n"
        "from metrics_cube.errors import InvalidMask\n"
        "for name in sys.argv[1:]:\n"
        "    try: load_mask(Path(name)); sys.exit('read')\n"
        "    except InvalidMask as error: print(error.code)\n"
        "status = Path('/proc/self/status').read_text()\n"
        "print(int(status.partition('VmHWM:')[2].split()[0]) // 1024)"
    )
    command = [sys.executable, "-c", program, str(bomb), str(liar)]
    project = ROOT / "mlcubes" / "metrics" / "project"
    done = subprocess.run(command, capture_output=True, text=True, cwd=project, timeout=60, check=True)
    first, second, peak_mib = done.stdout.split()
    assert (first, second) == ("too_long", "too_large")
    assert int(peak_mib) < 120


def test_links_pipes_and_folders_are_no_predictions(tmp_path: Path) -> None:
    """A link out of the predictions could lead to the reference."""
    target = write_mask(tmp_path / "reference.nii.gz", LABELS)
    link, pipe, folder, gone = (tmp_path / f"{name}.nii.gz" for name in ("link", "pipe", "folder", "gone"))
    link.symlink_to(target)
    os.mkfifo(pipe)
    folder.mkdir()
    assert get_reason(link, follow_links=False) == "not_a_file"
    assert np.array_equal(load_mask(link).voxels, LABELS), "a site may link its references"
    assert get_reason(pipe) == "not_a_file"
    assert get_reason(folder) == "not_a_file"
    assert get_reason(gone) == "unreadable"


def test_what_the_system_refuses_is_unreadable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_mask(tmp_path / "m.nii.gz", LABELS)

    def refuse(*_: Any) -> int:
        raise PermissionError(errno.EACCES, "refused", str(path))

    monkeypatch.setattr(os, "open", refuse)
    assert get_reason(path) == "unreadable"


def test_grid_must_agree_with_the_expected_one(tmp_path: Path) -> None:
    path = write_mask(tmp_path / "m.nii.gz", LABELS, np.eye(4))
    expected = make_header(LABELS.shape)
    assert load_mask(path, expected).header.shape == LABELS.shape
    assert get_reason(path, expected=make_header((20, 24, 16))) == "shape_differs"
    assert get_reason(path, max_voxels=100) == "too_large"
    moved, turned, wider = np.eye(4), np.diag([1.0, -1, 1, 1]), np.diag([1.0, 1, 1.001, 1])
    moved[0, 3] = 0.02
    for affine in (moved, turned, wider):
        assert get_reason(write_mask(tmp_path / "o.nii.gz", LABELS, affine), expected=expected) == "geometry_differs"
    assert load_mask(tmp_path / "o.nii.gz", expected, tolerance_mm=0.1).voxels.any()
    moved[0, 3] = 0.005
    assert load_mask(write_mask(tmp_path / "n.nii.gz", LABELS, moved), expected).voxels.any()


@pytest.mark.parametrize("codes", [(0, 0), (1, 0), (0, 1), (2, 3)])
def test_affine_is_nibabels(codes: tuple[int, int], tmp_path: Path) -> None:
    rng = np.random.default_rng([11, 41])
    for trial in range(12):
        rotation = np.linalg.qr(rng.normal(size=(3, 3)))[0]
        if trial == 0:
            rotation = np.diag([-1.0, -1.0, 1.0])  # a half turn: the quaternion's scalar part is 0
        affine = np.eye(4)
        affine[:3, :3] = rotation * rng.uniform(0.4, 4, 3)
        affine[:3, 3] = rng.normal(0, 90, 3)
        image = nib.Nifti1Image(LABELS, affine)
        image.set_qform(affine, codes[0])
        image.set_sform(affine, codes[1])
        nib.save(image, tmp_path / "m.nii")
        loaded = load_by_nibabel(tmp_path / "m.nii")
        header = load_header((tmp_path / "m.nii").read_bytes()[:540])
        assert np.array(header.affine) == pytest.approx(loaded.affine[:3], abs=1e-4)
        assert header.spacing_mm == pytest.approx([float(zoom) for zoom in loaded.header.get_zooms()], rel=0)


def test_one_voxel_thick_images_without_a_third_spacing(tmp_path: Path) -> None:
    """Two-dimensional images count as one slice."""
    path = write_mask(tmp_path / "m.nii", LABELS[:, :, 0])
    header = load_mask(path).header
    assert header.shape == (24, 20, 1)
    assert header.spacing_mm[2] == 1.0
