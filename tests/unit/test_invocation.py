"""Arguments are those that `mlcube run` gives; mounts are what the task declares and nothing else."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fedeval.cube import CubeManifest, load_cube
from fedeval.errors import InputError, ParameterError, UnsafeManifestError
from fedeval.invocation import build_invocation
from tests.cube_factory import make_cube

ROOT = Path(__file__).resolve().parents[2]
RECORDER = """#!{python}
import json, sys
if sys.argv[1] == "run":
    open({record!r}, "w").write(json.dumps(sys.argv[1:]))
"""


def filled(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "content").touch()
    return folder


def mlcube_arguments(tmp_path: Path, folder: Path, task: str, given: dict[str, Path], image: str) -> list[str]:
    """What the real mlcube 0.0.9 puts after the image, seen by a program called docker."""
    record = tmp_path / "record.json"
    fake = tmp_path / "bin" / "docker"
    fake.parent.mkdir()
    fake.write_text(RECORDER.format(python=sys.executable, record=str(record)))
    fake.chmod(0o755)
    command = [str(Path(sys.executable).with_name("mlcube")), "run", f"--mlcube={folder}/mlcube.yaml", f"--task={task}"]
    command += [f"{name}={path}" for name, path in given.items()]
    env = {**os.environ, "PATH": f"{fake.parent}:{os.environ['PATH']}"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr[-2000:]
    words: list[str] = json.loads(record.read_text())
    return words[words.index(image) + 1 :]


@pytest.mark.parametrize(
    ("cube", "task", "inputs", "outputs"),
    [
        ("model", "infer", ["data_path"], ["output_path"]),
        ("data_prep", "prepare", ["data_path", "labels_path"], ["output_path", "output_labels_path"]),
        ("data_prep", "sanity_check", ["data_path", "labels_path"], []),
        ("metrics", "evaluate", ["predictions", "labels"], []),
    ],
)
def test_arguments_equal_mlcube_run(
    tmp_path: Path, cube: str, task: str, inputs: list[str], outputs: list[str]
) -> None:
    folder = tmp_path / cube / "mlcube"
    shutil.copytree(ROOT / "mlcubes" / cube, folder.parent)
    manifest = load_cube(folder)
    given = {name: filled(tmp_path / f"in_{name}") for name in inputs}
    given |= {name: tmp_path / f"out_{name}" for name in outputs}
    files = {}
    for spec in manifest.task(task).parameters:  # file outputs go to a folder of their own in both
        if spec.is_output and spec.kind == "file":
            files[spec.name] = tmp_path / f"out_{spec.name}" / Path(spec.default).name
    expected = mlcube_arguments(tmp_path, folder, task, {**given, **files}, manifest.image)
    found = build_invocation(manifest, task, {**given, **files}, tmp_path / "scratch")
    assert list(found.arguments) == expected


def test_null_defaults_mount_nothing(tmp_path: Path) -> None:
    """FeTS's ``default: "null"`` makes mlcube mount the whole workspace read-write; ours mounts nothing."""
    manifest = load_cube(ROOT / "mlcubes" / "model" / "mlcube")
    given = {"data_path": filled(tmp_path / "data"), "output_path": tmp_path / "out"}
    found = build_invocation(manifest, "infer", given, tmp_path / "scratch")
    assert [(binding.host, binding.read_only) for binding in found.bindings] == [
        (tmp_path / "data", True),
        (tmp_path / "out", False),
    ]
    assert any(argument.endswith("/null") for argument in found.arguments)


def test_a_file_input_mounts_only_the_file(tmp_path: Path) -> None:
    manifest = load_cube(ROOT / "mlcubes" / "metrics" / "mlcube")
    given = {name: filled(tmp_path / name) for name in ("predictions", "labels")}
    parameters = tmp_path / "private" / "parameters.yaml"
    parameters.parent.mkdir()
    parameters.write_text("{}")
    (parameters.parent / "secret").touch()
    found = build_invocation(manifest, "evaluate", {**given, "parameters_file": parameters}, tmp_path / "scratch")
    binding = next(binding for binding in found.bindings if "private" in str(binding.host))
    assert binding.host == parameters and binding.read_only
    assert {binding.host for binding in found.bindings if not binding.read_only} <= set(found.output_dirs)


def load(tmp_path: Path, inputs: str) -> CubeManifest:
    tasks = f"infer:\n  parameters:\n    inputs: {{{inputs}}}\n    outputs: {{output_path: {{type: directory}}}}\n"
    return load_cube(make_cube(tmp_path, tasks=tasks))


@pytest.mark.parametrize("default", ["/etc/", "../../../secrets/", "link/"])
def test_a_default_cannot_mount_the_host(tmp_path: Path, default: str) -> None:
    manifest = load(tmp_path / "cube", f"data_path: data/, other: {default}")
    (manifest.workspace / "link").symlink_to("/etc")
    filled(tmp_path / "secrets")
    with pytest.raises(UnsafeManifestError, match="out of the workspace"):
        build_invocation(manifest, "infer", {"data_path": filled(tmp_path / "d")}, tmp_path / "scratch")


@pytest.mark.parametrize("make", [lambda path: None, lambda path: path.mkdir()], ids=["missing", "empty"])
def test_missing_and_empty_inputs_are_refused(tmp_path: Path, make: object) -> None:
    """mlcube creates the folder and succeeds with zero cases."""
    make(tmp_path / "data")  # type: ignore[operator]
    manifest = load(tmp_path / "cube", "data_path: data/")
    with pytest.raises(InputError, match="input data_path is not there"):
        build_invocation(manifest, "infer", {"data_path": tmp_path / "data"}, tmp_path / "scratch")
    assert not list((tmp_path / "data").glob("*"))


def test_unknown_parameter_suggests_the_near_one(tmp_path: Path) -> None:
    manifest = load(tmp_path / "cube", "data_path: data/")
    with pytest.raises(ParameterError, match="did you mean 'data_path'"):
        build_invocation(manifest, "infer", {"data_pth": tmp_path}, tmp_path / "scratch")


def test_paths_with_spaces_and_equals_signs_survive(tmp_path: Path) -> None:
    manifest = load(tmp_path / "cube", "data_path: data/")
    data = filled(tmp_path / "a b=c,d:e")
    found = build_invocation(manifest, "infer", {"data_path": data}, tmp_path / "scratch")
    assert found.bindings[0].host == data
    assert f"--data_path={data}" in found.host_arguments
