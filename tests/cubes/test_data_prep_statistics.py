"""Task ``statistics`` of the data_prep cube: values by hand, suppression, and the program."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from data_prep_cube.parameters import Parameters
from data_prep_cube.site_statistics import (
    compute_region_volumes,
    compute_statistics,
    compute_summary,
    suppress_count,
)
from data_prep_cube.volumes import Grid, Volume

from tests.cubes.data_prep_cases import (
    AFFINE,
    SHAPE,
    list_files,
    make_reference,
    run_cube,
    write_parameters,
    write_prepared,
    write_volume,
)


def test_region_volumes_by_hand() -> None:
    # 4x4x4 voxels of tumour, in them 2x2x1 of label 1 and 2x2x1 of label 4; one voxel is 1 x 2 x 0.5 mm.
    volumes = compute_region_volumes(Volume(make_reference(), Grid(SHAPE, (1.0, 2.0, 0.5), AFFINE)))
    assert volumes == {"WT": 64.0, "TC": 8.0, "ET": 4.0}
    doubled = compute_region_volumes(Volume(make_reference(), Grid(SHAPE, (2.0, 2.0, 0.5), AFFINE)))
    assert doubled == {"WT": 128.0, "TC": 16.0, "ET": 8.0}


def test_summary_by_hand() -> None:
    values = [0.0, 100.0, 200.0, 300.0, 1400.0]  # mean 400, sd of the sample sqrt(1300000 / 4) = 570.09
    assert compute_summary(values, 1.0) == {"mean": 400, "sd": 570, "p25": 100, "median": 200, "p75": 300}
    assert compute_summary(values, 50.0)["sd"] == 550
    assert compute_summary([7.0], 1.0) == {"mean": 7, "sd": None, "p25": 7, "median": 7, "p75": 7}


@pytest.mark.parametrize(("count", "shown"), [(0, "< 10"), (1, "< 10"), (9, "< 10"), (10, 10), (200, 200)])
def test_small_counts_are_suppressed(count: int, shown: int | str) -> None:
    assert suppress_count(count, 10) == shown


def leaves(document: Any) -> list[Any]:
    if isinstance(document, dict):
        return [leaf for value in document.values() for leaf in leaves(value)]
    return [document]


@pytest.mark.parametrize("valid", [0, 1, 9, 10, 57])
@pytest.mark.parametrize("invalid", [0, 1, 9, 10, 57])
def test_no_number_gives_a_suppressed_count_away(valid: int, invalid: int) -> None:
    volumes = [{"WT": 1000.0 * i, "TC": 500.0 * i, "ET": 100.0 * i} for i in range(valid)]
    document = compute_statistics(volumes, invalid, Parameters())
    assert document["cases"] == {
        "valid": valid if valid >= 10 else "< 10",
        "invalid": invalid if invalid >= 10 else "< 10",
    }
    assert set(document) == {
        "schema",
        "small_count_threshold",
        "volume_rounding_mm3",
        "cases",
        "volumes_suppressed",
        "volumes_mm3",
    }
    assert document["volumes_suppressed"] == (valid < 10)
    assert all((leaf is None) == (valid < 10) for leaf in leaves(document["volumes_mm3"]))
    if min(valid, invalid) < 10:
        # Nothing else may differ between datasets that differ by the suppressed count.
        other = compute_statistics(volumes if valid >= 10 else [], invalid if invalid >= 10 else 3, Parameters())
        assert other == document


def test_threshold_is_a_parameter() -> None:
    volumes = [{"WT": 900.0, "TC": 400.0, "ET": 100.0}] * 2
    document = compute_statistics(volumes, 1, Parameters(small_count_threshold=2))
    assert document["cases"] == {"valid": 2, "invalid": "< 2"}
    assert document["volumes_mm3"]["WT"]["mean"] == 900
    everything = compute_statistics(volumes[:1], 0, Parameters(small_count_threshold=0))
    assert everything["cases"] == {"valid": 1, "invalid": 0}
    assert compute_statistics([], 3, Parameters(small_count_threshold=0))["volumes_suppressed"] is True


def test_program_counts_valid_and_invalid_cases(tmp_path: Path) -> None:
    cases = [f"case-{number:02d}" for number in range(13)]
    write_prepared(tmp_path, cases)
    (tmp_path / "data" / cases[3] / f"{cases[3]}_brain_t1.nii.gz").write_bytes(b"broken")
    write_volume(tmp_path / "labels" / f"{cases[5]}_final_seg.nii.gz", np.full(SHAPE, 7, np.uint8))
    parameters = write_parameters(tmp_path / "p.yaml", volume_rounding_mm3=10)
    output = tmp_path / "new" / "folder" / "statistics.yaml"
    folders = {"data_path": tmp_path / "data", "labels_path": tmp_path / "labels"}
    result = run_cube("statistics", **folders, parameters_file=parameters, output_path=output)
    assert (result.returncode, result.stdout) == (0, "statistics: written\n"), result.stderr
    document = yaml.safe_load(output.read_text(encoding="utf-8"))
    assert document["cases"] == {"valid": 11, "invalid": "< 10"}
    assert document["volumes_mm3"]["WT"] == {"mean": 60.0, "sd": 0.0, "p25": 60.0, "median": 60.0, "p75": 60.0}
    assert document["volumes_mm3"]["TC"]["mean"] == 10.0
    assert not any(case in output.read_text(encoding="utf-8") for case in cases)
    assert list(list_files(output.parent)) == ["statistics.yaml"]


def test_output_is_replaced_whole_and_folders_are_refused(tmp_path: Path) -> None:
    write_prepared(tmp_path, ["a"])
    parameters = write_parameters(tmp_path / "p.yaml")
    folders = {"data_path": tmp_path / "data", "labels_path": tmp_path / "labels", "parameters_file": parameters}
    output = tmp_path / "statistics.yaml"
    output.write_text("old: " + "x" * 10000, encoding="utf-8")
    before = output.stat().st_ino
    assert run_cube("statistics", **folders, output_path=output).returncode == 0
    assert output.stat().st_ino != before  # renamed over, not rewritten
    assert yaml.safe_load(output.read_text(encoding="utf-8"))["cases"]["valid"] == "< 10"
    for bad in (tmp_path, Path("/dev/full")):
        result = run_cube("statistics", **folders, output_path=bad)
        assert result.returncode == 2
        assert "output_path is a folder or a device, expected a file name" in result.stderr
    assert Path("/dev/full").is_char_device()
