"""`medperf test --as-singularity`: what conversion to singularity breaks is found on docker, with cause and mend.

Each fault is an image that works in a plain `docker run` as mlcube does it (root, writable). The faults of the working
directory and of the small tmpfs pass a plain `medperf test` too, so only the emulation finds them there.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml

from fedeval.diagnosis import CAUSES
from tests.cube_factory import BASE, make_cube, medperf

pytestmark = pytest.mark.docker

START = 'ENTRYPOINT ["/usr/bin/python3", "/project/mlcube.py"]'
FILL = """
def fill(folder, megabytes):
    with open(f"{folder}/scratch", "wb") as file:
        for _ in range(megabytes): file.write(bytes(1 << 20))
    os.unlink(file.name)
"""


@dataclass(frozen=True)
class Fault:
    """An image and what becomes of it.

    Attributes
    ----------
    name : str
        Of the fault.
    body : str
        Before the predictions are written.
    dockerfile : str
        After the code was copied.
    cause : str
        Name of the entry in `fedeval.diagnosis.CAUSES`; empty: it works.
    plain : bool
        Whether a plain `medperf test` passes.
    files : dict
        Path in the image -> mode and content; all belong to root.
    """

    name: str
    body: str = ""
    dockerfile: str = START
    cause: str = ""
    plain: bool = True
    files: dict[str, tuple[int, str]] = field(default_factory=dict)


FAULTS = (
    Fault("good"),
    Fault("scratch below output_path", "fill(OUT, 100)"),
    Fault(
        "relative ENTRYPOINT", dockerfile='WORKDIR /project\nENTRYPOINT ["/usr/bin/python3", "mlcube.py"]',
        cause="workdir",
    ),
    Fault(
        "relative program", dockerfile='WORKDIR /project\nENTRYPOINT ["./run.sh"]', cause="entrypoint",
        files={"project/run.sh": (0o755, '#!/bin/sh\nexec /usr/bin/python3 /project/mlcube.py "$@"\n')},
    ),
    Fault(
        "relative file", 'open("parameters.yaml").read()', f"WORKDIR /project\n{START}", "workdir",
        files={"project/parameters.yaml": (0o644, "threshold: 1\n")},
    ),
    Fault("100 MB in /tmp", 'fill("/tmp", 100)', cause="tmpfs"),
    Fault(
        "100 MB below HOME", 'os.makedirs(os.path.expanduser("~/.cache"), exist_ok=True)\n'
        'fill(os.path.expanduser("~/.cache"), 100)', cause="tmpfs",
    ),
    Fault(
        "checkpoint only for root", 'open("/project/model.pt", "rb").read()', cause="permission", plain=False,
        files={"project/model.pt": (0o600, "weights")},
    ),
    Fault("writes beside its code", 'open("/project/cache.bin", "wb").write(b"x")', cause="read_only", plain=False),
    Fault(  # Debian's /root is for root alone
        "reads /root/.cache", 'open("/root/.cache/weights.pt", "rb").read()', cause="permission", plain=False,
        files={"root/.cache/weights.pt": (0o644, "weights")},
    ),
)  # fmt: skip
STRICT = (Fault("40 MB in /tmp", 'fill("/tmp", 40)'),)


def build(fault: Fault, folder: Path) -> Path:
    body = f"{FILL}\n{fault.body}\nfor case in CASES: write(case)\nprint('finished', flush=True)\n"
    made = make_cube(folder / fault.name.replace(" ", "-").replace("/", "_"), body)
    lines = [f"FROM {BASE}", "COPY mlcube.py /project/mlcube.py"]
    for inside, (mode, content) in fault.files.items():
        file = made.parent / "project" / Path(inside).name
        file.write_text(content)
        file.chmod(mode)
        lines.append(f"COPY {file.name} /{inside}")
    (made.parent / "project" / "Dockerfile").write_text("\n".join([*lines, fault.dockerfile, ""]))
    text = (made / "mlcube.yaml").read_text()
    tag = yaml.safe_load(text)["docker"]["image"]
    own = f"{tag.rsplit(':', 1)[0]}:singularity-{FAULTS.index(fault) if fault in FAULTS else 'strict'}"
    (made / "mlcube.yaml").write_text(text.replace(tag, own))
    return made


Done = subprocess.CompletedProcess[str]


@dataclass(frozen=True)
class Verdicts:
    """How each image ended: emulated, in a plain test, and in `docker run`."""

    emulated: dict[str, Done]
    plain: dict[str, Done]
    docker: dict[str, Done]


def run_docker(cube: Path, data: Path) -> Done:
    """As mlcube 0.0.9 runs it, but for the network: root, everything writable, the image's working directory."""
    image = yaml.safe_load((cube / "mlcube.yaml").read_text())["docker"]["image"]
    out = cube.parent / "out"
    out.mkdir()
    return subprocess.run(
        ["docker", "run", "--rm", "--network=none", f"--volume={data}:/mlcube_io0", f"--volume={out}:/mlcube_io1",
         image, "infer", "--data_path=/mlcube_io0", "--output_path=/mlcube_io1"],
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip


@pytest.fixture(scope="module")
def verdicts(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Verdicts]:
    """All runs, two at a time."""
    folder = tmp_path_factory.mktemp("singularity")
    cubes = {fault.name: build(fault, folder) for fault in (*FAULTS, *STRICT)}
    test = ("test", "-b", "1", "-d", dataset)

    def run(name: str, way: str, *options: str) -> Done:
        storage = folder / f"{cubes[name].parent.name}-{way}"
        return medperf("--platform=docker", f"--storage={storage}", *test, "-m", cubes[name], *options)

    with ThreadPoolExecutor(2) as pool:
        emulated = {name: pool.submit(run, name, "emulated", "--as-singularity") for name in cubes}
        for name in [fault.name for fault in STRICT] + ["good"]:
            emulated[f"{name}, 16 MB"] = pool.submit(run, name, "strict", "--as-singularity", "--tmp", "16m")
        plain = {fault.name: pool.submit(run, fault.name, "plain") for fault in FAULTS if fault.plain and fault.cause}
        ended = {name: future.result() for name, future in emulated.items()}
        docker = {name: pool.submit(run_docker, cubes[name], dataset / "data") for name in cubes}
        yield Verdicts(
            ended,
            {name: future.result() for name, future in plain.items()},
            {name: future.result() for name, future in docker.items()},
        )


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_each_fault_is_found_and_named(verdicts: Verdicts, fault: Fault) -> None:
    done = verdicts.emulated[fault.name]
    if not fault.cause:
        assert done.returncode == 0, done.stderr
        return
    cause = next(cause for cause in CAUSES if cause.name == fault.cause)
    assert done.returncode == 22, done.stderr
    assert f"cause: {cause.cause}; {cause.mend}" in done.stderr, done.stderr
    assert done.stderr.count("error:") == 1


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_each_fault_passes_in_a_plain_run(verdicts: Verdicts, fault: Fault) -> None:
    done = verdicts.docker[fault.name]
    assert done.returncode == 0 and done.stdout.endswith("finished\n"), done.stderr
    if fault.name in verdicts.plain:
        assert verdicts.plain[fault.name].returncode == 0, verdicts.plain[fault.name].stderr


def test_a_smaller_tmp_is_stricter(verdicts: Verdicts) -> None:
    name = STRICT[0].name
    assert verdicts.emulated[name].returncode == 0, verdicts.emulated[name].stderr
    assert verdicts.emulated["good, 16 MB"].returncode == 0
    strict = verdicts.emulated[f"{name}, 16 MB"]
    assert strict.returncode == 22 and "temporary space is small" in strict.stderr, strict.stderr
