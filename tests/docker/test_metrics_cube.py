"""The metrics cube's image: under mlcube 0.0.9, under MedPerf's contracts, as a stranger on a locked root, and fast."""

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

from tests.cubes.metrics_files import CUBE, PROGRAM, ROOT, make_labels, write_mask

pytestmark = pytest.mark.docker

CASES = ["FeTS22_Patient0000", "a b", "x-1.2"]
MANIFEST = yaml.safe_load((CUBE / "mlcube" / "mlcube.yaml").read_text(encoding="utf-8"))
BuildImage = Callable[[str], str]


def open_to_all(path: Path) -> Path:
    """Let every user pass through pytest's private folders down to a path."""
    for folder in (path, *path.parents):
        if folder != Path("/") and folder.stat().st_uid == os.getuid():
            folder.chmod(folder.stat().st_mode | 0o011)
    return path


def make_open_folder(path: Path) -> Path:
    """Make a folder that everybody may write, whatever the umask."""
    path.mkdir(parents=True)
    path.chmod(0o777)
    return open_to_all(path)


def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, **options)


@pytest.fixture(scope="module")
def masks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Predictions and references of three cases; one prediction is missing, one is shifted."""
    root = tmp_path_factory.mktemp("masks")
    for i, case in enumerate(CASES):
        labels = make_labels(i)
        write_mask(root / "labels" / f"{case}_final_seg.nii.gz", labels)
        if i < 2:
            write_mask(root / "predictions" / f"{case}.nii.gz", np.roll(labels, i, axis=1))
    return open_to_all(root)


@pytest.fixture(scope="module")
def expected(masks: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """What the same program writes without a container."""
    results = tmp_path_factory.mktemp("expected") / "results.yaml"
    inputs = [f"--predictions={masks / 'predictions'}", f"--labels={masks / 'labels'}"]
    done = run([sys.executable, str(PROGRAM), "evaluate", *inputs, f"--output_path={results}"])
    assert done.returncode == 0, done.stderr
    return results.read_bytes()


def test_readme_commands_with_the_real_mlcube(
    cube_image: BuildImage, masks: Path, expected: bytes, tmp_path: Path
) -> None:
    """Configure builds, run scores; the results belong to the caller."""
    cube_image("metrics")
    blocks = re.findall(r"```bash\n(.*?)```", (CUBE / "README.md").read_text(encoding="utf-8"), flags=re.DOTALL)
    commands = [line for block in blocks for line in block.splitlines() if line.startswith("mlcube ")]
    assert [shlex.split(line)[1] for line in commands] == ["configure", "run"]
    (tmp_path / "out").mkdir()
    places = {"PREDICTIONS": masks / "predictions", "LABELS": masks / "labels", "OUT": tmp_path / "out"}
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "MLCUBE_SYSTEM_SETTINGS": str(tmp_path / "settings.yaml"),
    }
    for command in commands:
        for word, path in places.items():
            command = re.sub(rf"\b{word}\b", str(path), command)
        command += " -Pdocker.build_args.BASE_IMAGE=fedeval-base:bookworm" if " configure " in command else ""
        done = run(["bash", "-c", command], cwd=ROOT, env=environment)
        assert done.returncode == 0, done.stderr
    results = tmp_path / "out" / "results.yaml"
    assert results.read_bytes() == expected
    assert results.stat().st_uid == os.getuid()
    assert (tmp_path / "out" / "logs" / "evaluate.log").is_file()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a folder away")
def test_mlcubes_root_becomes_the_owner_of_the_results(
    cube_image: BuildImage, masks: Path, expected: bytes, tmp_path: Path
) -> None:
    """The user that mlcube.yaml asks for, with a caller who is not root."""
    image = cube_image("metrics")
    out = make_open_folder(tmp_path / "out")
    shutil.chown(out, 31415, 2718)
    out.chmod(0o755)
    user = shlex.split(MANIFEST["docker"]["cpu_args"])
    command = ["docker", "run", "--network=none", *user, f"--volume={masks}:/m", f"--volume={out}:/o"]
    arguments = ["evaluate", "--predictions=/m/predictions", "--labels=/m/labels", "--output_path=/o/results.yaml"]
    done = run([*command, image, *arguments])
    assert done.returncode == 0, done.stderr
    assert (out / "results.yaml").read_bytes() == expected
    assert {(path.stat().st_uid, path.stat().st_gid) for path in out.rglob("*")} == {(31415, 2718)}


def test_a_stranger_on_a_locked_root(cube_image: BuildImage, masks: Path, expected: bytes, tmp_path: Path) -> None:
    """No network, home, passwd entry, capabilities, writable root, working folder; 16 MB in /tmp; one process more."""
    image = cube_image("metrics")
    out = make_open_folder(tmp_path / "out")
    command = ["docker", "run", "--rm", "--network=none", "--read-only", "--tmpfs=/tmp:size=16m", "--user=31415:2718"]
    command += ["--cap-drop=ALL", "--security-opt=no-new-privileges", "--workdir=/proc", "--env=HOME=", "--memory=256m"]
    command += [f"--volume={masks}:/m:ro", f"--volume={out}:/o", image, "evaluate"]
    done = run([*command, "--predictions", "/m/predictions", "--labels=/m/labels", "--output_path=/o/deep/r.yaml"])
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1] == "scored 3/3 cases"
    assert (out / "deep" / "r.yaml").read_bytes() == expected
    assert {path.name for path in out.rglob("*") if path.is_file()} == {"r.yaml", "evaluate.log"}


def test_container_config_contract(cube_image: BuildImage, masks: Path, expected: bytes, tmp_path: Path) -> None:
    """MedPerf's current release: fixed mounts, inputs read-only, the caller's user, the output *file* beforehand."""
    config = yaml.safe_load((CUBE / "mlcube" / "container_config.yaml").read_text(encoding="utf-8"))
    assert cube_image("metrics") == config["image"]
    results = open_to_all(tmp_path) / "results.yaml"
    results.write_text("left over\n" * 1000)
    results.chmod(0o666)  # the caller's, whoever that is
    paths = {
        "predictions": masks / "predictions",
        "labels": masks / "labels",
        "parameters_file": CUBE / "mlcube" / "workspace" / "parameters.yaml",
        "output_path": results,
    }
    spec = config["tasks"]["evaluate"]
    command = ["docker", "run", "--rm", "--network=none", "--user=31415:2718"]
    for volumes, mode in (("input_volumes", "ro"), ("output_volumes", "rw")):
        for name, volume in spec[volumes].items():
            command.append(f"--volume={paths[name]}:{volume['mount_path']}:{mode}")
    words = spec["run_args"]["command"]
    done = run([*command, config["image"], *(shlex.split(words) if isinstance(words, str) else words)])
    assert done.returncode == 0, done.stderr
    assert "warning: evaluate.log cannot be written" in done.stderr
    assert results.read_bytes() == expected


def test_medperf_0_1_4_contract(cube_image: BuildImage, masks: Path, expected: bytes, tmp_path: Path) -> None:
    """The workspace folder read-only for the parameters, log_path in its own folder, the caller's user."""
    image = cube_image("metrics")
    out, logs = make_open_folder(tmp_path / "out"), make_open_folder(tmp_path / "logs")
    workspace = CUBE / "mlcube" / "workspace"
    mounts = {masks / "predictions": "0:ro", masks / "labels": "1:ro", workspace: "2:ro", out: "3", logs: "4"}
    command = ["docker", "run", "--rm", "--network=none", "--user=31415:2718"]
    command += [f"--volume={host}:/mlcube_io{inside}" for host, inside in mounts.items()]
    arguments = ["--predictions=/mlcube_io0", "--labels=/mlcube_io1", "--parameters_file=/mlcube_io2/parameters.yaml"]
    arguments += ["--output_path=/mlcube_io3/results.yaml", "--log_path=/mlcube_io4/evaluate.log"]
    done = run([*command, image, "evaluate", *arguments])
    assert done.returncode == 0, done.stderr
    assert (out / "results.yaml").read_bytes() == expected
    assert (logs / "evaluate.log").read_text(encoding="utf-8").count("\n") == len(CASES)


def test_image_has_its_kernel_no_compiler_and_a_modest_size(cube_image: BuildImage) -> None:
    image = cube_image("metrics")
    program = "import sys; sys.path.insert(0, '/project'); from metrics_cube import native; print(native.load_kernel())"
    done = run(["docker", "run", "--rm", "--network=none", "--entrypoint=/opt/venv/bin/python", image, "-c", program])
    assert done.returncode == 0, done.stderr
    assert "Kernel object" in done.stdout
    done = run(["docker", "run", "--rm", "--network=none", "--entrypoint=/bin/sh", image, "-c", "command -v gcc cc"])
    assert done.returncode != 0
    size_mb = int(run(["docker", "image", "inspect", "--format={{.Size}}", image]).stdout) / 1e6
    print(f"{image}: {size_mb:.0f} MB")
    assert size_mb < 500


def test_errors_are_one_line_with_their_exit_code(cube_image: BuildImage, masks: Path, tmp_path: Path) -> None:
    image = cube_image("metrics")
    out = make_open_folder(tmp_path / "out")
    command = [
        "docker",
        "run",
        "--rm",
        "--network=none",
        f"--volume={masks}:/m:ro",
        f"--volume={out}:/o",
        image,
        "evaluate",
    ]
    done = run([*command, "--predictions=/m/predictions", "--labels=/nowhere", "--output_path=/o/r.yaml"])
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    done = run([*command, "--predictions=/m/predictions", "--labels=/m/labels", "--output_path=/r/r.yaml"])
    assert (done.returncode, len(done.stderr.splitlines())) == (4, 1)
    assert list(out.iterdir()) == []
