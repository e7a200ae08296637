"""The data_prep cube's manifests against each other and its entry point; its README against both."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml
from data_prep_cube.parameters import Parameters

from tests.cubes.data_prep_cases import CUBE, run_cube, write_parameters, write_raw

README = (CUBE / "README.md").read_text(encoding="utf-8")
ROOT = CUBE.parents[1]
TASKS = ("prepare", "sanity_check", "statistics")


def load(name: str) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((CUBE / "mlcube" / name).read_text(encoding="utf-8"))
    return content


def test_both_manifests_say_the_same() -> None:
    mlcube, container = load("mlcube.yaml"), load("container_config.yaml")
    assert container["image"] == mlcube["docker"]["image"]
    assert list(container["tasks"]) == list(mlcube["tasks"]) == list(TASKS)
    for task in TASKS:
        parameters, volumes = mlcube["tasks"][task]["parameters"], container["tasks"][task]
        for side in ("input", "output"):
            declared = {name: entry["type"] for name, entry in parameters[f"{side}s"].items()}
            mounted = {name: entry["type"] for name, entry in volumes.get(f"{side}_volumes", {}).items()}
            assert declared == mounted


@pytest.mark.parametrize("task", TASKS)
def test_container_command_passes_every_volume_at_its_place(task: str) -> None:
    config = load("container_config.yaml")["tasks"][task]
    name, *options = shlex.split(config["run_args"]["command"])
    volumes = config["input_volumes"] | config.get("output_volumes", {})
    assert name == task
    assert options == [f"--{key}={volume['mount_path']}" for key, volume in volumes.items()]
    assert set(config["run_args"]) == {"command"}  # MedPerf allows few others, and none is needed
    assert len({volume["mount_path"] for volume in volumes.values()}) == len(volumes)


@pytest.mark.parametrize("task", TASKS)
def test_entry_point_knows_the_declared_parameters_and_no_others(task: str) -> None:
    parameters = load("mlcube.yaml")["tasks"][task]["parameters"]
    declared = {*parameters["inputs"], *parameters["outputs"]}
    text = run_cube(task, "--help").stdout
    assert set(re.findall(r"^  --(\w+)", text, flags=re.MULTILINE)) == declared


def test_build_places_exist_and_only_a_user_is_asked_of_the_engine() -> None:
    docker = load("mlcube.yaml")["docker"]
    assert (CUBE / "mlcube" / docker["build_context"] / docker["build_file"]).is_file()
    assert set(docker) == {"image", "build_context", "build_file", "cpu_args"}
    assert docker["cpu_args"] == "--rm --user 0:0"
    requirements = (CUBE / "project" / "requirements.txt").read_text(encoding="utf-8")
    assert "http" not in requirements
    assert requirements.count("==") * 2 <= requirements.count("--hash=sha256:")


def table(heading: str) -> dict[str, str]:
    """First two columns of the table below a heading of the README."""
    section = README.split(f"## {heading}\n")[1].split("\n## ")[0]
    rows = [line.split("|")[1:3] for line in section.splitlines() if line.startswith("|")][2:]
    return {key.strip().strip("`"): value.strip() for key, value in rows}


def test_readme_lists_every_parameter_with_its_default() -> None:
    defaults = {field.name: field.default for field in fields(Parameters)}
    documented = {key: yaml.safe_load(value) for key, value in table("Parameters").items()}
    assert documented == {key: list(value) if isinstance(value, tuple) else value for key, value in defaults.items()}


def test_readme_lists_every_exit_code() -> None:
    source = "".join(path.read_text(encoding="utf-8") for path in (CUBE / "project").rglob("*.py"))
    codes = set(re.findall(r"exit_code = (\d+)|EXIT_\w+ = (\d+)", source))
    assert set(table("Exit codes")) == {"0"} | {first or second for first, second in codes}


def readme_commands(program: str) -> list[str]:
    """Commands of the README's code blocks that start with a program."""
    blocks = re.findall(r"```bash\n(.*?)```", README, flags=re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line.startswith(f"{program} ")]


def test_readme_commands_run(tmp_path: Path) -> None:
    write_raw(tmp_path / "raw", ["a", "b 2"])
    parameters = write_parameters(tmp_path / "p.yaml")
    places = {"RAW": tmp_path / "raw", "OUT": tmp_path / "out", "PARAMETERS": parameters}
    commands = readme_commands("python")
    assert len(commands) == 3
    for command in commands:
        for word, path in places.items():
            command = re.sub(rf"\b{word}\b", str(path), command)
        arguments = [sys.executable, *shlex.split(command)[1:]]
        result = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
        assert result.returncode == 0, result.stderr
    assert (tmp_path / "out" / "statistics.yaml").is_file()
    assert (tmp_path / "out" / "data" / "b 2" / "b 2_brain_flair.nii.gz").is_file()
