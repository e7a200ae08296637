"""The model cube's image: under mlcube 0.0.9, under MedPerf's container config, as a stranger on a locked root."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import yaml

nib: Any = nibabel  # only half annotated

pytestmark = pytest.mark.docker

ROOT = Path(__file__).resolve().parents[2]
CUBE = ROOT / "mlcubes" / "model"
MODALITIES = ("t1", "t1ce", "t2", "flair")
CASES = ("FeTS22_Patient0000", "pat-1.b c")
BuildImage = Callable[[str], str]


@pytest.fixture(scope="module")
def data_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two small prepared cases that everybody may read."""
    folder = tmp_path_factory.mktemp("model") / "data"
    generator = np.random.default_rng(0)
    ball = ((np.indices((24, 24, 20)) - np.array([12, 12, 10])[:, None, None, None]) ** 2).sum(axis=0) < 30
    for case_id in CASES:
        (folder / case_id).mkdir(parents=True)
        for modality in MODALITIES:
            voxels = 200 + 20 * generator.normal(size=ball.shape) + (150 if modality != "t1" else 0) * ball
            voxels[:3] = 0
            image = nib.Nifti1Image(voxels.astype(np.int16), np.diag([-2.0, -2.0, 2.0, 1.0]))
            nib.save(image, folder / case_id / f"{case_id}_brain_{modality}.nii.gz")
    return folder


@pytest.fixture(scope="module")
def expected(data_path: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What the cube predicts without a container, voxels as bytes."""
    output = tmp_path_factory.mktemp("expected")
    command = [sys.executable, str(CUBE / "project" / "mlcube.py"), "infer"]
    subprocess.run([*command, f"--data_path={data_path}", f"--output_path={output}"], check=True, timeout=120)
    return load_predictions(output)


def load_predictions(output: Path) -> dict[str, bytes]:
    """File name to voxels, for everything in an output folder."""
    return {path.name: np.asarray(nib.load(path).dataobj).tobytes() for path in sorted(output.iterdir())}


def make_folder(path: Path, mode: int) -> Path:
    """Make a folder with exactly this mode, whatever the umask."""
    path.mkdir()
    path.chmod(mode)
    return path


def run_mlcube(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the real mlcube in the folder of mlcube.yaml, as the README says."""
    mlcube = Path(sys.executable).with_name("mlcube")
    command = [str(mlcube), "run", "--mlcube=mlcube.yaml", "--task=infer", *arguments]
    return subprocess.run(command, cwd=CUBE / "mlcube", capture_output=True, text=True, timeout=300)


def test_mlcube_run_as_the_calling_user(
    cube_image: BuildImage, data_path: Path, tmp_path: Path, expected: dict[str, bytes]
) -> None:
    assert cube_image("model") == "fedeval/fets-model:0.1.0"
    output = tmp_path / "out"
    user = f"-Prunner.cpu_args=--rm --user={os.getuid()}:{os.getgid()}"
    done = run_mlcube(f"data_path={data_path}", f"output_path={output}", user)
    assert done.returncode == 0, done.stderr
    assert load_predictions(output) == expected
    assert set(expected) == {f"{case_id}.nii.gz" for case_id in CASES}
    assert {path.stat().st_uid for path in output.iterdir()} == {os.getuid()}


def test_plain_mlcube_run(cube_image: BuildImage, data_path: Path, tmp_path: Path, expected: dict[str, bytes]) -> None:
    """mlcube names no user: the cube becomes the owner of the output folder, made by mlcube or closed to others."""
    cube_image("model")
    done = run_mlcube(f"data_path={data_path}", f"output_path={tmp_path / 'new'}")
    assert done.returncode == 0, done.stderr
    assert load_predictions(tmp_path / "new") == expected
    closed = make_folder(tmp_path / "closed", 0o755)
    if os.getuid() == 0:
        os.chown(closed, 31415, 2718)
    done = run_mlcube(f"data_path={data_path}", f"output_path={closed}")
    assert done.returncode == 0, done.stderr
    assert load_predictions(closed) == expected
    assert {(path.stat().st_uid, path.stat().st_gid) for path in closed.iterdir()} == {
        (closed.stat().st_uid, closed.stat().st_gid)
    }


def test_a_stranger_on_a_locked_root(
    cube_image: BuildImage, data_path: Path, tmp_path: Path, expected: dict[str, bytes]
) -> None:
    """No passwd entry, no HOME, read-only root, foreign working folder, 16 MB of /tmp, no network, no capabilities."""
    output = make_folder(tmp_path / "out", 0o777)
    command = [
        "docker", "run", "--rm", "--network=none", "--read-only", "--tmpfs=/tmp:size=16m", "--workdir=/proc",
        "--user=31415:2718", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--memory=2g", "--env=HOME=",
        f"--volume={data_path}:/in:ro", f"--volume={output}:/out", cube_image("model"),
        "infer", "--data_path", "/in", "--output_path", "/out",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert load_predictions(output) == expected
    assert {(path.stat().st_uid, path.stat().st_gid) for path in output.iterdir()} == {(31415, 2718)}
    assert [line.split(":")[0] for line in done.stdout.splitlines()] == [
        f"{i}/2 {name}" for i, name in enumerate(CASES, 1)
    ]


def test_container_config_command(
    cube_image: BuildImage, data_path: Path, tmp_path: Path, expected: dict[str, bytes]
) -> None:
    """MedPerf main: fixed mounts, read-only input, the caller's user."""
    output = make_folder(tmp_path / "out", 0o755)
    config = yaml.safe_load((CUBE / "mlcube" / "container_config.yaml").read_text())
    task = config["tasks"]["infer"]
    mounts = {"data_path": (data_path, "ro"), "output_path": (output, "rw")}
    volumes = {**task["input_volumes"], **task["output_volumes"]}
    command = ["docker", "run", "--rm", "--network=none", f"--user={os.getuid()}:{os.getgid()}"]
    command += [
        f"--volume={mounts[name][0]}:{volume['mount_path']}:{mounts[name][1]}" for name, volume in volumes.items()
    ]
    assert config["image"] == cube_image("model")
    done = subprocess.run(
        [*command, config["image"], *shlex.split(task["run_args"]["command"])],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert load_predictions(output) == expected


def test_started_as_root_it_works_as_the_owner_of_the_output(
    cube_image: BuildImage, data_path: Path, tmp_path: Path
) -> None:
    """Older runners start every container as root: the caller must still be able to delete the predictions."""
    if os.getuid() != 0:
        pytest.skip("only root can hand a folder to another user")
    output = make_folder(tmp_path / "out", 0o700)
    os.chown(output, 4711, 815)
    command = ["docker", "run", "--rm", "--user=0:0", f"--volume={data_path}:/in:ro", f"--volume={output}:/out"]
    arguments = ["infer", "--data_path=/in", "--output_path=/out"]
    done = subprocess.run([*command, cube_image("model"), *arguments], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert {(path.stat().st_uid, path.stat().st_gid) for path in output.iterdir()} == {(4711, 815)}


def test_sigterm_ends_the_container_at_once(cube_image: BuildImage, data_path: Path, tmp_path: Path) -> None:
    """A process 1 without a handler would ignore SIGTERM until docker kills it, with status 137."""
    output = make_folder(tmp_path / "out", 0o777)
    many = make_folder(tmp_path / "many", 0o755)
    source = data_path / CASES[0]
    for number in range(400):
        case = make_folder(many / f"{number:03}", 0o755)
        for modality in MODALITIES:
            os.link(source / f"{CASES[0]}_brain_{modality}.nii.gz", case / f"{number:03}_brain_{modality}.nii.gz")
    run = ["docker", "run", "--detach", f"--volume={many}:/in:ro", f"--volume={output}:/out", cube_image("model")]
    started = subprocess.run(
        [*run, "infer", "--data_path=/in", "--output_path=/out"], capture_output=True, text=True, timeout=60, check=True
    )
    container = started.stdout.strip()
    try:
        with subprocess.Popen(["docker", "logs", "--follow", container], stdout=subprocess.PIPE, text=True) as logs:
            assert logs.stdout is not None
            assert logs.stdout.readline().startswith("1/400 000: done")
            subprocess.run(["docker", "stop", "--time=60", container], capture_output=True, timeout=120, check=True)
        state = subprocess.run(
            ["docker", "inspect", "--format={{.State.ExitCode}}", container], capture_output=True, text=True, timeout=60
        )
        assert state.stdout.strip() == "143"
        assert not [path.name for path in output.iterdir() if path.name.startswith(".")]
    finally:
        subprocess.run(["docker", "rm", "--force", container], capture_output=True, timeout=60)


def test_image_is_small_and_not_root(cube_image: BuildImage) -> None:
    command = ["docker", "image", "inspect", "--format={{.Size}} {{.Config.User}}", cube_image("model")]
    size, user = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout.split()
    print(f"fedeval/fets-model: {int(size) / 1e6:.0f} MB")
    assert int(size) < 500e6
    assert user == "65534:65534"


BRATS_PROGRAM = """
import os
from pathlib import Path
import nibabel as nib, numpy as np

images = {name: nib.load(f"/data/{name}.nii.gz") for name in ("t1", "t1c", "t2", "fla")}
if Path("/data/t1.nii.gz").resolve().parent.name.startswith("pat"):
    raise SystemExit(3)
Path(os.environ["TMPDIR"], "scratch").write_bytes(bytes(20_000_000))
found = 2.0 * (images["fla"].get_fdata() > 300)
nib.save(nib.Nifti1Image(found, images["t1"].affine), "/data/results/tumor_12345678_class.nii.gz")
"""


def test_a_brats_container_becomes_a_cube(
    cube_image: BuildImage, data_path: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """The adapter of mlcubes/model/brats on a stand-in for a BraTS image, with a locked root; one case of two fails."""
    (tmp_path / "brats.py").write_text(BRATS_PROGRAM)
    (tmp_path / "Dockerfile").write_text(
        f"FROM {cube_image('model')}\nUSER root\nENV PATH=/opt/venv/bin:/usr/bin:/bin\n"
        "COPY brats.py /app/run.py\nENTRYPOINT python3 /app/run.py\n"
    )
    tags = ["fedeval-test/brats:1", "fedeval-test/brats-cube:1"]
    request.addfinalizer(lambda: subprocess.run(["docker", "rmi", *reversed(tags)], capture_output=True, timeout=60))
    folders = [tmp_path, CUBE / "brats" / "project"]
    for tag, folder in zip(tags, folders, strict=True):
        build = ["docker", "build", "-q", f"--build-arg=BRATS_IMAGE={tags[0]}", "-t", tag, str(folder)]
        built = subprocess.run(build, capture_output=True, text=True, timeout=300)
        assert built.returncode == 0, built.stderr
    output = make_folder(tmp_path / "out", 0o777)
    command = [
        "docker", "run", "--rm", "--network=none", "--read-only", "--tmpfs=/tmp:size=16m", "--user=31415:2718",
        "--cap-drop=ALL", f"--volume={data_path}:/in:ro", f"--volume={output}:/out", tags[1],
        "infer", "--data_path=/in", "--output_path=/out", "--parameters_file=/in/null",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1
    assert "2/2 pat-1.b c: failed: python3 ended with status 3, expected 0" in done.stderr
    assert [path.name for path in output.iterdir()] == [f"{CASES[0]}.nii.gz"]
    prediction = nib.load(output / f"{CASES[0]}.nii.gz")
    t1 = nib.load(data_path / CASES[0] / f"{CASES[0]}_brain_t1.nii.gz")
    assert prediction.get_data_dtype() == np.uint8 and np.array_equal(prediction.affine, t1.affine)
    assert np.unique(np.asarray(prediction.dataobj)).tolist() == [0, 2]


def test_every_command_of_the_guide_runs(cube_image: BuildImage, tmp_path: Path) -> None:
    """The guide's bash blocks in order, in one shell; only its folder is moved and the toy cases are small.

    The training check is left out: tests/cubes/test_model_training.py runs it.
    """
    cube_image("model")
    blocks = re.findall(r"```bash\n(.*?)```", (CUBE / "README.md").read_text(encoding="utf-8"), flags=re.DOTALL)
    script = "".join(block for block in blocks if "train.py" not in block).replace("demo/model", str(tmp_path / "demo"))
    # An absolute folder stands where the guide puts one below the root of the repository.
    script = script.replace(f"$OLDPWD/{tmp_path}", str(tmp_path)).replace(f"$PWD/{tmp_path}", str(tmp_path))
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "BASE_IMAGE": "fedeval-base:bookworm",
        "MEDPERF_TOY_SIZE": "ci",
    }
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    first = load_predictions(tmp_path / "demo" / "predictions")
    assert len(first) == 2
    assert load_predictions(tmp_path / "demo" / "output") == first
    assert load_predictions(tmp_path / "demo" / "locked") == first
