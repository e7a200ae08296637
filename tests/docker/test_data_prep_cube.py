"""The data_prep cube's image: under mlcube 0.0.9, under MedPerf's contracts, and as a stranger on a locked root."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from tests.cubes.data_prep_cases import (
    CUBE,
    list_files,
    run_prepare_program,
    write_parameters,
    write_raw,
    write_volume,
)

pytestmark = pytest.mark.docker

SUBJECTS = ["A-1.x", "Site 1-003", "b"]
ROOT = CUBE.parents[1]
BuildImage = Callable[[str], str]


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Raw subjects, and parameters beside them, that everybody may read."""
    root = tmp_path_factory.mktemp("raw")
    write_raw(root, SUBJECTS)
    write_parameters(root / "p.yaml")
    open_to_all(root)
    return root


@pytest.fixture(scope="module")
def expected(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What ``prepare`` writes without a container."""
    out = tmp_path_factory.mktemp("expected") / "out"
    assert run_prepare_program(raw, out).returncode == 0
    return list_files(out)


def open_to_all(path: Path) -> None:
    """Let every user pass through pytest's private folders down to a path."""
    for folder in (path, *path.parents):
        if folder.stat().st_uid == os.getuid() and folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o011)


def make_open_folder(path: Path) -> Path:
    """Make a folder that everybody may write, whatever the umask."""
    path.mkdir(parents=True)
    path.chmod(0o777)
    open_to_all(path)
    return path


def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, **options)


def mlcube_environment(tmp_path: Path) -> dict[str, str]:
    """Environment in which `mlcube` is found and leaves the home folder alone."""
    tools = str(Path(sys.executable).parent)
    settings = str(tmp_path / "mlcube_settings.yaml")
    return os.environ | {"PATH": f"{tools}:{os.environ['PATH']}", "MLCUBE_SYSTEM_SETTINGS": settings}


def locked(image: str, mounts: dict[Path, str], *arguments: str) -> list[str]:
    """A `docker run` without network, home, passwd entry, capabilities, writable root."""
    command = ["docker", "run", "--rm", "--network=none", "--read-only", "--tmpfs=/tmp:size=16m", "--user=31415:2718"]
    command += ["--cap-drop=ALL", "--security-opt=no-new-privileges", "--workdir=/proc", "--env=HOME="]
    return [*command, *(f"--volume={host}:{inside}" for host, inside in mounts.items()), image, *arguments]


def test_readme_commands_with_the_real_mlcube(
    cube_image: BuildImage, raw: Path, tmp_path: Path, expected: dict[str, bytes]
) -> None:
    image = cube_image("data_prep")
    base = "-Pdocker.build_args.BASE_IMAGE=fedeval-base:bookworm"
    readme = (CUBE / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```bash\n(.*?)```", readme, flags=re.DOTALL)
    commands = [line for block in blocks for line in block.splitlines() if line.startswith("mlcube ")]
    assert [shlex.split(line)[1] for line in commands] == ["configure", "run", "run", "run"]
    places = {"RAW": raw, "OUT": tmp_path / "out", "PARAMETERS": raw / "p.yaml"}
    for command in commands:
        for word, path in places.items():
            command = re.sub(rf"\b{word}\b", str(path), command)
        command += f" {base}" if " configure " in command else ""
        done = run(["bash", "-c", command], cwd=ROOT, env=mlcube_environment(tmp_path))
        assert done.returncode == 0, done.stderr
    assert image == yaml.safe_load((CUBE / "mlcube" / "mlcube.yaml").read_text(encoding="utf-8"))["docker"]["image"]
    files = list_files(tmp_path / "out")
    assert yaml.safe_load(files.pop("statistics.yaml"))["cases"] == {"valid": "< 10", "invalid": "< 10"}
    assert files == expected
    assert {path.stat().st_uid for path in (tmp_path / "out").rglob("*.gz")} == {os.getuid()}


def test_fets_contract(cube_image: BuildImage, raw: Path, tmp_path: Path, expected: dict[str, bytes]) -> None:
    """The FeTS branch: a copy of the manifest's folder, no parameters_file, statistics into the workspace."""
    cube_image("data_prep")
    cube = tmp_path / "cubes" / "1"
    shutil.copytree(CUBE / "mlcube", cube)
    write_parameters(cube / "workspace" / "parameters.yaml")
    (cube / "workspace").chmod(0o777)
    data, labels = make_open_folder(tmp_path / "out" / "data"), make_open_folder(tmp_path / "out" / "labels")
    calls = {
        "prepare": [raw / "data", raw / "labels", data, labels],
        "sanity_check": [data, labels],
        "statistics": [data, labels],
    }
    names = ("data_path", "labels_path", "output_path", "output_labels_path")
    for task, paths in calls.items():
        command = ["mlcube", "run", f"--mlcube={cube}", f"--task={task}", "--platform=docker", "-Pdocker.cpu_args=--rm"]
        command += [f"{name}={path}" for name, path in zip(names, paths, strict=False)]
        done = run(command, env=mlcube_environment(tmp_path))
        assert done.returncode == 0, done.stderr
    assert list_files(tmp_path / "out") == expected
    assert yaml.safe_load((cube / "workspace" / "statistics.yaml").read_text())["volumes_suppressed"] is True
    # 0.1.4 also hands metadata_path to statistics, which does not declare it.
    command = ["mlcube", "run", f"--mlcube={cube}", "--task=statistics", "-Pdocker.cpu_args=--rm"]
    command += [f"data_path={data}", f"labels_path={labels}"]
    done = run([*command, f"metadata_path={tmp_path / 'm'}"], env=mlcube_environment(tmp_path))
    assert done.returncode == 0, done.stderr


def test_aliases_stay_in_the_workspace_by_default(cube_image: BuildImage, raw: Path, tmp_path: Path) -> None:
    cube_image("data_prep")
    cube = tmp_path / "cube"
    shutil.copytree(CUBE / "mlcube", cube)
    write_parameters(cube / "workspace" / "parameters.yaml", anonymize_subjects=True)
    (cube / "workspace").chmod(0o777)
    metadata = make_open_folder(cube / "workspace" / "metadata")
    data, labels = make_open_folder(tmp_path / "out" / "data"), make_open_folder(tmp_path / "out" / "labels")
    command = ["mlcube", "run", f"--mlcube={cube}", "--task=prepare", "-Pdocker.cpu_args=--rm"]
    command += [f"data_path={raw / 'data'}"]
    command += [f"labels_path={raw / 'labels'}", f"output_path={data}", f"output_labels_path={labels}"]
    done = run(command, env=mlcube_environment(tmp_path))
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in data.iterdir()) == [f"FeTS22_Patient000{number}" for number in range(3)]
    assert list(list_files(metadata)) == ["subject_aliases.csv"]
    assert not any(subject in done.stdout + done.stderr for subject in SUBJECTS if len(subject) > 1)


def test_container_config_contract(
    cube_image: BuildImage, raw: Path, tmp_path: Path, expected: dict[str, bytes]
) -> None:
    """MedPerf's current release: fixed mounts, inputs read-only, the caller's user, output *files* made beforehand."""
    config = yaml.safe_load((CUBE / "mlcube" / "container_config.yaml").read_text(encoding="utf-8"))
    assert cube_image("data_prep") == config["image"]
    out = tmp_path / "out"
    statistics = tmp_path / "statistics.yaml"
    statistics.touch()
    prepared = {"data_path": out / "data", "labels_path": out / "labels", "parameters_file": raw / "p.yaml"}
    mounts: dict[str, dict[str, Path]] = {
        "prepare": {
            "data_path": raw / "data",
            "labels_path": raw / "labels",
            "parameters_file": raw / "p.yaml",
            "output_path": out / "data",
            "output_labels_path": out / "labels",
            "metadata_path": out / "metadata",
        },
        "sanity_check": prepared,
        "statistics": prepared | {"output_path": statistics},
    }
    for task, paths in mounts.items():
        spec = config["tasks"][task]
        command = ["docker", "run", "--rm", "--network=none", f"--user={os.getuid()}:{os.getgid()}"]
        for volumes, mode in (("input_volumes", "ro"), ("output_volumes", "rw")):
            for name, volume in spec.get(volumes, {}).items():
                if mode == "rw" and volume["type"] == "directory":
                    paths[name].mkdir(parents=True)
                command.append(f"--volume={paths[name]}:{volume['mount_path']}:{mode}")
        done = run([*command, config["image"], *shlex.split(spec["run_args"]["command"])])
        assert done.returncode == 0, done.stderr
    assert list_files(out) == expected
    assert yaml.safe_load(statistics.read_text(encoding="utf-8"))["cases"]["valid"] == "< 10"


def test_a_stranger_on_a_locked_root(
    cube_image: BuildImage, raw: Path, tmp_path: Path, expected: dict[str, bytes]
) -> None:
    image = cube_image("data_prep")
    out = make_open_folder(tmp_path / "out")
    inputs = {raw: "/raw:ro", out: "/out"}
    prepared = ["--data_path=/out/data", "--labels_path", "/out/labels", "--parameters_file=/raw/p.yaml"]
    tasks = [
        ["prepare", "--data_path=/raw/data", "--labels_path=/raw/labels", "--parameters_file=/raw/p.yaml",
         "--output_path=/out/data", "--output_labels_path=/out/labels"],
        ["sanity_check", *prepared],
        ["statistics", *prepared, "--output_path=/out/statistics.yaml"],
    ]  # fmt: skip
    for arguments in tasks:
        done = run(locked(image, inputs, *arguments))
        assert done.returncode == 0, done.stderr
    files = list_files(out)
    assert files.pop("statistics.yaml")
    assert files == expected
    assert {(path.stat().st_uid, path.stat().st_gid) for path in out.iterdir()} == {(31415, 2718)}


def test_findings_and_unwritable_outputs(cube_image: BuildImage, raw: Path, tmp_path: Path) -> None:
    image = cube_image("data_prep")
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o755)
    open_to_all(closed)
    prepare = ["prepare", "--data_path=/raw/data", "--labels_path=/raw/labels", "--output_labels_path=/tmp/l"]
    done = run(locked(image, {raw: "/raw:ro", closed: "/out"}, *prepare, "--output_path=/out"))
    assert done.returncode == 3
    assert "cannot write output_path: Permission denied; next: let uid 31415 write there" in done.stderr
    assert list(closed.iterdir()) == []
    done = run(locked(image, {raw: "/raw:ro"}, *prepare, "--output_path=/elsewhere"))
    assert done.returncode == 3
    assert "cannot write output_path: Read-only file system" in done.stderr
    done = run(locked(image, {raw: "/raw:ro"}, *prepare, "--output_path=/tmp/o", "--data_path=/raw/typo"))
    assert done.returncode == 2
    assert "data_path is no folder" in done.stderr


def test_full_disk(cube_image: BuildImage, tmp_path: Path) -> None:
    """Two cases of 60 kB on a disk of 100 kB: the first is whole, the second is not there, in any form."""
    image = cube_image("data_prep")
    raw = tmp_path / "raw"
    write_raw(raw, ["a", "b"])
    noise = np.random.default_rng(0).integers(0, 30000, size=(64, 64, 8)).astype(np.int16)
    for subject in ("a", "b"):
        write_volume(raw / "data" / subject / f"{subject}_t2.nii.gz", noise)
    open_to_all(raw)
    script = (
        "/opt/venv/bin/python /project/mlcube.py prepare --data_path=/raw/data --labels_path=/raw/labels "
        "--output_path=/disk/data --output_labels_path=/disk/labels; echo rc $?; find /disk -type f | sort; "
        "find /disk -name '.part*'"
    )
    command = ["docker", "run", "--rm", "--network=none", "--read-only", "--tmpfs=/disk:size=100k,mode=1777"]
    command += ["--user=31415:2718", f"--volume={raw}:/raw:ro", "--entrypoint=sh", image, "-c", script]
    done = run(command)
    assert "cannot write output_path: No space left on device; next: free some space" in done.stderr
    images = [f"/disk/data/a/a_brain_{modality}.nii.gz" for modality in ("flair", "t1", "t1ce", "t2")]
    assert done.stdout.splitlines() == ["rc 3", *images, "/disk/labels/a_final_seg.nii.gz"]


def test_image_is_small_and_runs_as_nobody(cube_image: BuildImage) -> None:
    image = cube_image("data_prep")
    template = "{{.Size}} {{.Config.User}} {{json .Config.Entrypoint}}"
    size, user, entrypoint = run(["docker", "image", "inspect", "-f", template, image]).stdout.split(maxsplit=2)
    print(f"{image}: {int(size) / 1e6:.0f} MB")
    assert int(size) < 400e6
    assert user == "65534:65534"
    assert yaml.safe_load(entrypoint) == ["/opt/venv/bin/python", "/project/mlcube.py"]
