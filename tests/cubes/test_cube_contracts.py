"""One folder serves three upstream contracts: mlcube.yaml, container_config.yaml, Dockerfile and program agree."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from fedeval.benchmark import resolve_benchmark
from fedeval.pipeline import REQUIRED_TASKS

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("data_prep", "model", "metrics")


def load(name: str, file: str) -> Any:
    return yaml.safe_load((ROOT / "mlcubes" / name / "mlcube" / file).read_text())


def parameters(task: dict[str, Any]) -> dict[str, bool]:
    """Parameter -> whether it is an output."""
    groups = (task.get("parameters") or {}) if "parameters" in task else {}
    found = dict.fromkeys(groups.get("inputs") or {}, False)
    return found | dict.fromkeys(groups.get("outputs") or {}, True)


def volumes(task: dict[str, Any]) -> dict[str, bool]:
    found = dict.fromkeys(task.get("input_volumes") or {}, False)
    return found | dict.fromkeys(task.get("output_volumes") or {}, True)


@pytest.mark.parametrize("name", NAMES)
def test_container_config_agrees_with_mlcube_yaml(name: str) -> None:
    mlcube, config = load(name, "mlcube.yaml"), load(name, "container_config.yaml")
    assert config["container_type"] == "DockerImage"
    assert config["image"] == mlcube["docker"]["image"]
    assert set(config["tasks"]) == set(mlcube["tasks"])
    for task, spec in config["tasks"].items():
        declared = parameters(mlcube["tasks"][task])
        assert volumes(spec).items() <= declared.items(), task
        command = spec["run_args"]["command"]
        words = command.split() if isinstance(command, str) else command
        mounts = {**(spec.get("input_volumes") or {}), **(spec.get("output_volumes") or {})}
        assert words[0] == task
        assert sorted(words[1:]) == sorted(f"--{key}={volume['mount_path']}" for key, volume in mounts.items())
        for key, volume in mounts.items():
            group = mlcube["tasks"][task]["parameters"]["outputs" if declared[key] else "inputs"]
            kind = group[key]["type"] if isinstance(group[key], dict) else "directory"
            assert volume["type"] == kind, (task, key)


@pytest.mark.parametrize("name", NAMES)
def test_program_takes_the_declared_parameters(name: str) -> None:
    program = ROOT / "mlcubes" / name / "project" / "mlcube.py"
    for task, spec in load(name, "mlcube.yaml")["tasks"].items():
        shown = subprocess.run([sys.executable, str(program), task, "--help"], capture_output=True, text=True)
        assert shown.returncode == 0, shown.stderr
        assert set(re.findall(r"--([a-z_]+)", shown.stdout)) - {"help"} >= set(parameters(spec)), task


@pytest.mark.parametrize("name", NAMES)
def test_runner_uses_only_declared_parameters(name: str) -> None:
    tasks = load(name, "mlcube.yaml")["tasks"]
    for task, needed in REQUIRED_TASKS[name].items():
        assert set(needed) <= set(parameters(tasks[task]))


@pytest.mark.parametrize("name", NAMES)
def test_dockerfile_keeps_the_convention(name: str) -> None:
    project = ROOT / "mlcubes" / name / "project"
    lines = [line.strip() for line in (project / "Dockerfile").read_text().splitlines()]
    assert "ARG BASE_IMAGE=python:3.11-slim-bookworm" in lines
    entrypoint = json.loads(next(line for line in lines if line.startswith("ENTRYPOINT")).removeprefix("ENTRYPOINT"))
    assert all(word.startswith("/") for word in entrypoint)
    assert not any(line.startswith("WORKDIR") for line in lines)
    assert "USER 65534:65534" in lines
    assert any("--require-hashes" in line for line in lines)
    requirements = (project / "requirements.txt").read_text()
    assert requirements.count("--hash=sha256:") >= len(re.findall(r"^[a-zA-Z]", requirements, re.MULTILINE)) > 0


@pytest.mark.parametrize("name", NAMES)
def test_mlcube_itself_reads_the_manifest(name: str, tmp_path: Path) -> None:
    mlcube = Path(sys.executable).with_name("mlcube")
    folder = ROOT / "mlcubes" / name / "mlcube"
    shown = subprocess.run([str(mlcube), "describe", f"--mlcube={folder}"], capture_output=True, text=True)
    assert shown.returncode == 0, shown.stderr
    assert all(task in shown.stdout for task in load(name, "mlcube.yaml")["tasks"])


def test_regions_and_metric_keys_agree_on_all_sides() -> None:
    """Benchmark file, metrics cube and ranking rule meet only in names."""
    benchmark = resolve_benchmark("1")
    cube = load("metrics", "workspace/parameters.yaml")
    assert {name: tuple(labels) for name, labels in cube["regions"].items()} == benchmark.regions
    assert [metric.key for metric in benchmark.metrics] == cube["metrics"][: len(benchmark.metrics)]
    rule = yaml.safe_load((ROOT / "ranking" / "fets.yaml").read_text())
    assert yaml.safe_load((ROOT / "benchmarks" / "1-fets.yaml").read_text())["ranking"] == rule
    ranked = {
        f"{metric.key}_{region}": metric.direction
        for metric in benchmark.metrics if metric.ranked for region in benchmark.regions
    }  # fmt: skip
    assert {metric["name"]: metric["better"] for metric in rule["metrics"]} == ranked
    assert benchmark.reference_file == "{case}" + cube["reference_suffix"] + ".nii.gz"
    assert benchmark.prediction_file == "{case}" + cube["prediction_suffix"] + ".nii.gz"
