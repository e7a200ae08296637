"""The parameters of the metrics cube, and the cores it takes."""

import os
from pathlib import Path
from typing import Any

import pytest
from metrics_cube import cores
from metrics_cube.errors import SetupError
from metrics_cube.parameters import Parameters, check_parameters, load_parameters

from tests.cubes.metrics_files import CUBE


def test_parameters_file_in_the_workspace_is_the_default() -> None:
    assert load_parameters(CUBE / "mlcube" / "workspace" / "parameters.yaml") == Parameters()
    assert load_parameters(None) == Parameters()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1], "expected a mapping"),
        ({"metric": ["Dice"]}, "unknown parameter metric; known: .*metrics"),
        ({"metrics": ["Dise"]}, "metrics: Dise; expected"),
        ({"metrics": []}, "metrics"),
        ({"metrics": ["Dice", "Dice"]}, "twice"),
        ({"regions": {}}, "regions"),
        ({"regions": {"A": [0]}}, "other than 0"),
        ({"regions": {"A": ["x"]}}, "whole numbers"),
        ({"regions": {"A b": [1]}}, "letters"),
        ({"regions": {str(chr(65 + i)): [i + 1] for i in range(9)}}, "1 to 8"),
        ({"workers": -1}, "workers"),
        ({"workers": 1.5}, "workers"),
        ({"workers": True}, "workers"),
        ({"max_voxels": 0}, "max_voxels"),
        ({"geometry_tolerance_mm": "x"}, "geometry_tolerance_mm"),
        ({"geometry_tolerance_mm": float("nan")}, "geometry_tolerance_mm"),
        ({"nsd_tolerances_mm": [-1]}, "nsd_tolerances_mm"),
        ({"reference_suffix": "/x"}, "slash"),
        ({"native_kernel": 1}, "true or false"),
    ],
)
def test_wrong_parameters_are_named(content: Any, message: str) -> None:
    with pytest.raises(SetupError, match=message):
        check_parameters(content)


def test_broken_parameters_file_is_an_error(tmp_path: Path) -> None:
    for text in ("a: [", "\udcff"):
        (tmp_path / "p.yaml").write_bytes(text.encode("utf-8", "surrogateescape"))
        with pytest.raises(SetupError, match="no valid YAML"):
            load_parameters(tmp_path / "p.yaml")
    (tmp_path / "p.yaml").write_text("")
    assert load_parameters(tmp_path / "p.yaml") == Parameters()


def test_cores_are_those_given_by_affinity_and_quota(tmp_path: Path) -> None:
    given = len(os.sched_getaffinity(0))
    assert cores.count_cores(tmp_path) == given
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert cores.count_cores(tmp_path) == given
    (tmp_path / "cpu.max").write_text("50000 100000\n")
    assert cores.count_cores(tmp_path) == 1
    (tmp_path / "cpu.max").unlink()
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text("100000\n")
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    assert cores.count_cores(tmp_path) == 1
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text("-1\n")
    assert cores.count_cores(tmp_path) == given
