"""Task ``sanity_check`` of the data_prep cube: single findings, hostile files, and the program."""

from __future__ import annotations

import gzip
import os
import pty
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from data_prep_cube.checks import check_case, run_sanity_check
from data_prep_cube.errors import InputError
from data_prep_cube.parameters import Parameters
from data_prep_cube.site_statistics import run_statistics
from data_prep_cube.volumes import VolumeError, load_volume
from numpy.typing import NDArray

from tests.cubes.data_prep_cases import (
    AFFINE,
    ENTRY_POINT,
    SHAPE,
    make_image,
    make_reference,
    run_cube,
    write_parameters,
    write_prepared,
    write_volume,
)

nib: Any = nibabel  # its types are incomplete
EXPECTED = Parameters(expected_shape=SHAPE)
CASE = "c-1 x.y"


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    """One clean prepared case."""
    write_prepared(tmp_path, [CASE])
    return tmp_path


def image_path(root: Path, modality: str = "t2") -> Path:
    return root / "data" / CASE / f"{CASE}_brain_{modality}.nii.gz"


def reference_path(root: Path) -> Path:
    return root / "labels" / f"{CASE}_final_seg.nii.gz"


def problems(root: Path, parameters: Parameters = EXPECTED) -> list[tuple[str, str]]:
    """Part and problem of every finding of the case."""
    checked = check_case(root / "data", root / "labels", CASE, parameters)
    assert all(finding.case == CASE for finding in checked.findings)
    return [(finding.part, finding.problem) for finding in checked.findings]


def test_clean_case_has_no_findings(prepared: Path) -> None:
    assert problems(prepared) == []
    assert run_sanity_check(prepared / "data", prepared / "labels", EXPECTED) == (1, [])


def test_reference_in_a_folder_of_its_own(prepared: Path) -> None:
    (prepared / "labels" / CASE).mkdir()
    reference_path(prepared).rename(prepared / "labels" / CASE / reference_path(prepared).name)
    assert run_sanity_check(prepared / "data", prepared / "labels", EXPECTED) == (1, [])


@pytest.mark.parametrize("part", ["t1", "t1ce", "t2", "flair", "reference"])
def test_each_missing_file(prepared: Path, part: str) -> None:
    (reference_path(prepared) if part == "reference" else image_path(prepared, part)).unlink()
    assert problems(prepared) == [(part, "missing")]


def test_expected_shape_and_spacing(prepared: Path) -> None:
    parts = ["t1", "t1ce", "t2", "flair", "reference"]
    assert problems(prepared, Parameters()) == [(part, "size") for part in parts]
    assert problems(prepared, Parameters(expected_shape=None)) == []
    other = Parameters(expected_shape=SHAPE, expected_spacing_mm=(1.0, 1.0, 1.002))
    assert problems(prepared, other) == [(part, "spacing") for part in parts]
    assert problems(prepared, Parameters(None, expected_shape=SHAPE, expected_spacing_mm=None)) == []


def shifted(**changes: float) -> Any:
    affine = AFFINE.copy()
    for place, value in changes.items():
        affine[int(place[1]), int(place[2])] = value
    return affine


ROTATED = AFFINE @ np.array([[0.995, -0.0998, 0, 0], [0.0998, 0.995, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])


@pytest.mark.parametrize(
    ("affine", "problem"),
    [
        (shifted(_03=5.01), "origin"),
        (shifted(_22=1.25), "spacing"),
        (shifted(_00=1.0), "direction"),
        (ROTATED, "direction"),
        (shifted(_03=5.0005), None),
    ],
)
@pytest.mark.parametrize("part", ["flair", "reference"])
def test_geometry_must_agree_within_a_case(prepared: Path, affine: Any, problem: str | None, part: str) -> None:
    path = reference_path(prepared) if part == "reference" else image_path(prepared, part)
    write_volume(path, make_reference() if part == "reference" else make_image(1), affine)
    free = Parameters(expected_shape=None, expected_spacing_mm=None)
    assert problems(prepared, free) == ([] if problem is None else [(part, problem)])


def test_size_must_agree_within_a_case(prepared: Path) -> None:
    write_volume(image_path(prepared), make_image(1)[:-1])
    free = Parameters(expected_shape=None)
    assert problems(prepared, free) == [("t2", "size")]


def test_values_of_images(prepared: Path) -> None:
    bad = make_image(1, np.float32)
    bad[5, 5, 5] = np.nan
    write_volume(image_path(prepared, "t1"), bad)
    bad[5, 5, 5] = -np.inf
    write_volume(image_path(prepared, "t2"), bad)
    write_volume(image_path(prepared, "flair"), np.zeros(SHAPE, np.int16))
    assert problems(prepared) == [("t1", "not finite"), ("t2", "not finite"), ("flair", "empty")]


def test_scaling_is_applied_before_values_are_judged(prepared: Path) -> None:
    def write(path: Path, voxels: NDArray[Any], **fields: Any) -> None:
        path.write_bytes(gzip.compress(header_bytes(**fields) + voxels.tobytes(order="F")))

    write(image_path(prepared, "t1"), make_image(1), scl_slope=2.0, scl_inter=-1.0)
    write(image_path(prepared, "t2"), make_image(1, np.float64) * 1e300, datatype=64, bitpix=64, scl_slope=3e38)
    write(image_path(prepared, "flair"), np.zeros(SHAPE, np.int16), scl_slope=np.nan, scl_inter=np.nan)
    write(reference_path(prepared), make_reference(), datatype=2, bitpix=8, scl_slope=0.5)
    assert problems(prepared) == [("t2", "not finite"), ("flair", "empty"), ("reference", "labels")]
    t1 = load_volume(prepared, image_path(prepared, "t1"), SHAPE)
    assert np.array_equal(t1.voxels, make_image(1) * 2.0 - 1.0)


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({(1, 1, 1): 3}, "3"),
        ({(1, 1, 1): 3, (1, 1, 2): 255}, "3 255"),
        ({(1, 1, index): 10 + index for index in range(6)}, "6 other values (an image in place of a mask?)"),
        ({(1, 1, 1): 0.5}, "1 other values (an image in place of a mask?)"),
    ],
)
def test_labels(prepared: Path, change: dict[tuple[int, int, int], float], found: str) -> None:
    voxels = make_reference().astype(np.float32)
    write_volume(reference_path(prepared), voxels)
    assert problems(prepared) == []  # whole numbers stored as float are labels
    for place, value in change.items():
        voxels[place] = value
    write_volume(reference_path(prepared), voxels)
    (finding,) = check_case(prepared / "data", prepared / "labels", CASE, EXPECTED).findings
    assert (finding.part, finding.problem, finding.expected, finding.found) == ("reference", "labels", "0 1 2 4", found)


def test_empty_reference(prepared: Path) -> None:
    write_volume(reference_path(prepared), np.zeros(SHAPE, np.uint8))
    assert problems(prepared) == [("reference", "empty")]
    assert problems(prepared, Parameters(expected_shape=SHAPE, allow_empty_reference=True)) == []


def header_bytes(**fields: Any) -> bytes:
    header = nib.Nifti1Header()
    header.set_data_shape(SHAPE)
    header.set_data_dtype(np.int16)
    header["vox_offset"] = 352
    header["magic"] = b"n+1"
    header.set_sform(AFFINE, 1)
    for name, value in fields.items():
        header[name] = value
    return bytes(header.binaryblock) + bytes(4)


VOXELS = make_image(1).tobytes(order="F")
GOOD = header_bytes() + VOXELS


def flip_check_sum(packed: bytes) -> bytes:
    return packed[:-8] + bytes([packed[-8] ^ 1]) + packed[-7:]


HOSTILE: dict[str, tuple[Callable[[], bytes], str]] = {
    "cut off": (lambda: gzip.compress(GOOD)[:-20], "damaged"),
    "cut off in the header": (lambda: gzip.compress(GOOD)[:30], "damaged"),
    "wrong check sum": (lambda: flip_check_sum(gzip.compress(GOOD)), "damaged"),
    "garbage inside": (lambda: gzip.compress(GOOD)[:40] + b"\xff" * 200, "damaged"),
    "not packed": (lambda: GOOD, "damaged"),
    "empty file": (lambda: b"", "no NIfTI file"),
    "something else": (lambda: gzip.compress(b"Name: Jane Doe" * 100), "no NIfTI file"),
    "header of a pair": (lambda: gzip.compress(header_bytes(magic=b"ni1") + VOXELS), "no NIfTI file"),
    "voxels missing": (lambda: gzip.compress(GOOD[:-100]), "damaged"),
    "no voxels": (lambda: gzip.compress(GOOD[:352]), "damaged"),
    "bomb behind the voxels": (lambda: gzip.compress(GOOD + bytes(64 << 20)), "size"),
    "four dimensions": (lambda: gzip.compress(header_bytes(dim=[4, *SHAPE, 2, 1, 1, 1]) + VOXELS * 2), "size"),
    "terabytes": (lambda: gzip.compress(header_bytes(dim=[3, 32767, 32767, 32767, 1, 1, 1, 1]) + VOXELS), "size"),
    "negative size": (lambda: gzip.compress(header_bytes(dim=[3, -12, 12, 8, 1, 1, 1, 1]) + VOXELS), "size"),
    "no dimensions": (lambda: gzip.compress(header_bytes(dim=[3, 0, 0, 0, 1, 1, 1, 1]) + VOXELS), "size"),
    "colours": (lambda: gzip.compress(header_bytes(datatype=128, bitpix=24) + VOXELS * 2), "data type"),
    "complex": (lambda: gzip.compress(header_bytes(datatype=32, bitpix=64) + VOXELS * 4), "data type"),
    "unknown type": (lambda: gzip.compress(header_bytes(datatype=999) + VOXELS), "data type"),
    "offset in the header": (lambda: gzip.compress(header_bytes(vox_offset=8) + VOXELS), "header"),
    "offset not a number": (lambda: gzip.compress(header_bytes(vox_offset=np.nan) + VOXELS), "header"),
    "huge offset": (lambda: gzip.compress(header_bytes(vox_offset=1e18) + VOXELS), "header"),
    "spacing of zero": (lambda: gzip.compress(header_bytes(pixdim=[1, 0, 1, 1, 1, 1, 1, 1]) + VOXELS), "spacing"),
    "spacing not a number": (
        lambda: gzip.compress(header_bytes(pixdim=[1, np.nan, 1, 1, 1, 1, 1, 1]) + VOXELS),
        "spacing",
    ),
    "flat orientation": (lambda: gzip.compress(header_bytes(srow_z=[0, 0, 0, 0]) + VOXELS), "direction"),
    "infinite origin": (lambda: gzip.compress(header_bytes(srow_x=[1, 0, 0, np.inf]) + VOXELS), "direction"),
    "broken quaternion": (
        lambda: gzip.compress(header_bytes(sform_code=0, qform_code=1, quatern_b=5.0) + VOXELS),
        "direction",
    ),
    "infinite scaling": (lambda: gzip.compress(header_bytes(scl_slope=np.inf, scl_inter=1) + VOXELS), "header"),
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("expected_shape", [SHAPE, None])
def test_hostile_files_are_findings(prepared: Path, name: str, expected_shape: tuple[int, int, int] | None) -> None:
    make, problem = HOSTILE[name]
    image_path(prepared).write_bytes(make())
    assert problems(prepared, Parameters(expected_shape=expected_shape)) == [("t2", problem)]


def test_random_headers_never_crash(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    path = tmp_path / "x.nii"
    outcomes = {"volume": 0, "finding": 0}
    for _ in range(400):
        raw = bytearray(GOOD)
        for place in generator.integers(0, 352, size=generator.integers(1, 12)):
            raw[place] = generator.integers(0, 256)
        path.write_bytes(raw)
        try:
            load_volume(tmp_path, path, None)
            outcomes["volume"] += 1
        except VolumeError:
            outcomes["finding"] += 1
    assert min(outcomes.values()) > 20, outcomes


@pytest.mark.parametrize("dim", [[3, 2048, 2048, 2048, 1, 1, 1, 1], [3, *SHAPE, 1, 1, 1, 1]])
def test_memory_follows_the_expectation_not_the_file(tmp_path: Path, dim: list[int]) -> None:
    """64 MiB of packed zeros behind a header that claims 16 GiB, and behind one that claims what is expected."""
    path = tmp_path / "x.nii.gz"
    path.write_bytes(gzip.compress(header_bytes(dim=dim) + bytes(64 << 20)))
    tracemalloc.start()
    try:
        with pytest.raises(VolumeError):
            load_volume(tmp_path, path, SHAPE)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 8 << 20


@pytest.mark.parametrize("target", ["link", "pipe", "dangling"])
def test_links_out_and_pipes(prepared: Path, tmp_path_factory: pytest.TempPathFactory, target: str) -> None:
    outside = tmp_path_factory.mktemp("outside") / "x.nii.gz"
    write_volume(outside, make_image(1))
    image_path(prepared).unlink()
    if target == "pipe":
        os.mkfifo(image_path(prepared))
    else:
        image_path(prepared).symlink_to(outside if target == "link" else "nowhere")
    expected = "cannot be read" if target == "dangling" else "no ordinary file"
    assert problems(prepared) == [("t2", expected)]


def test_files_that_do_not_belong(prepared: Path) -> None:
    write_volume(prepared / "data" / CASE / f"{CASE}_final_seg.nii.gz", make_reference())
    (prepared / "data" / "ids.csv").touch()
    (prepared / "data" / ".DS_Store").touch()
    write_volume(prepared / "labels" / "other_final_seg.nii.gz", make_reference())
    count, findings = run_sanity_check(prepared / "data", prepared / "labels", EXPECTED)
    assert count == 1
    assert [(item.case, item.part, item.found) for item in findings] == [
        (CASE, "", "1 more"),
        ("(dataset)", "", "1 more"),
        ("(dataset)", "reference", "1 more"),
    ]


def test_program_collects_all_findings_of_all_cases(tmp_path: Path) -> None:
    write_prepared(tmp_path, ["a", "b", "c"])
    (tmp_path / "data" / "a" / "a_brain_t1.nii.gz").unlink()
    write_volume(tmp_path / "data" / "a" / "a_brain_t2.nii.gz", np.zeros(SHAPE, np.int16))
    write_volume(tmp_path / "labels" / "c_final_seg.nii.gz", make_reference() + 4)
    parameters = write_parameters(tmp_path / "p.yaml")
    folders = {"data_path": tmp_path / "data", "labels_path": tmp_path / "labels", "parameters_file": parameters}
    result = run_cube("sanity_check", **folders)
    assert result.returncode == 1
    lines = [line.split() for line in result.stdout.splitlines()]
    assert lines[0] == ["case", "file", "problem", "expected", "found"]
    assert [line[:3] for line in lines[1:]] == [
        ["a", "t1", "missing"],
        ["a", "t2", "empty"],
        ["c", "reference", "labels"],
    ]
    assert "3 findings, 2 of 3 cases affected; next: correct the raw data" in result.stderr
    assert str(tmp_path) not in result.stdout + result.stderr
    write_prepared(tmp_path, ["a", "b", "c"])
    clean = run_cube("sanity_check", **folders)
    assert (clean.returncode, clean.stdout) == (0, "sanity_check: 3 cases, no findings\n")


def test_program_draws_a_table_on_a_terminal(prepared: Path) -> None:
    image_path(prepared).unlink()
    leader, follower = pty.openpty()
    command = [sys.executable, str(ENTRY_POINT), "sanity_check", f"--data_path={prepared / 'data'}"]
    command += [f"--labels_path={prepared / 'labels'}", f"--parameters_file={write_parameters(prepared / 'p.yaml')}"]
    environment = {"PATH": os.environ["PATH"], "TERM": "xterm", "COLUMNS": "150", "LANG": "C.UTF-8"}
    with subprocess.Popen(command, stdout=follower, stderr=subprocess.PIPE, env=environment) as process:
        process.communicate(timeout=60)
    os.close(follower)
    shown = os.read(leader, 65536).decode()
    os.close(leader)
    assert process.returncode == 1
    assert "┃" in shown
    assert CASE in shown
    assert "missing" in shown


@pytest.mark.parametrize("which", ["data", "labels"])
@pytest.mark.parametrize("task", ["sanity_check", "statistics"])
@pytest.mark.parametrize("state", ["missing", "empty"])
def test_missing_or_empty_folder(tmp_path: Path, which: str, task: str, state: str) -> None:
    write_prepared(tmp_path, ["a"])
    (tmp_path / which).rename(tmp_path / "elsewhere")
    if state == "empty":
        (tmp_path / which).mkdir()
    folders = tmp_path / "data", tmp_path / "labels"
    with pytest.raises(InputError, match=f"{which}_path is {'no folder' if state == 'missing' else 'empty'}"):
        if task == "sanity_check":
            run_sanity_check(*folders, Parameters())
        else:
            run_statistics(*folders, tmp_path / "statistics.yaml", Parameters())
    assert not (tmp_path / "statistics.yaml").exists()


def test_zero_cases(tmp_path: Path) -> None:
    write_prepared(tmp_path, ["a"])
    (tmp_path / "data" / "a").rename(tmp_path / "data" / ".hidden")
    result = run_cube("sanity_check", data_path=tmp_path / "data", labels_path=tmp_path / "labels")
    assert result.returncode == 2
    assert "data_path holds no case" in result.stderr


def test_unexpected_fault_names_its_place_only(tmp_path: Path) -> None:
    code = (
        "import sys, mlcube\n"
        "def fail(*_): raise ValueError('Jane Doe')\n"
        "mlcube.run_sanity_check = fail\n"
        "sys.exit(mlcube.main(['sanity_check', '--data_path=x', '--labels_path=x']))\n"
    )
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ENTRY_POINT.parent)}
    command = [sys.executable, "-c", code]
    result = subprocess.run(
        command, capture_output=True, text=True, check=False, env=environment, cwd=ENTRY_POINT.parent
    )
    assert result.returncode == 70
    assert "unexpected fault: ValueError at <string>:2; next: run again with DATA_PREP_DEBUG=1" in result.stderr
    assert "Jane" not in result.stderr
    environment["DATA_PREP_DEBUG"] = "1"
    result = subprocess.run(
        command, capture_output=True, text=True, check=False, env=environment, cwd=ENTRY_POINT.parent
    )
    assert "Jane Doe" in result.stderr
