"""The contract of the singularity engine, with a recording stand-in on PATH; for real where apptainer is there.

The stand-in notes every call and runs a cube's program with the host's paths in place of the mounted ones, so the whole
chain is exercised but for isolation, which is apptainer's own.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from fedeval.cube import load_cube
from fedeval.engine.base import TaskCall
from fedeval.engine.singularity_engine import SingularityEngine
from fedeval.errors import EngineMissingError, ImageError
from fedeval.invocation import build_invocation
from fedeval.limits import Limits
from tests.cube_factory import INFER, ROOT, make_cube, medperf, medperf_command

VERSION = "apptainer version 1.4.5"

STAND_IN = f"""#!{sys.executable}
import json, os, subprocess, sys
here = os.path.dirname(os.path.abspath(__file__))
words = sys.argv[1:]
with open(here + "/calls", "a") as file:
    file.write(json.dumps({{"words": words, "environment": dict(os.environ), "folder": os.getcwd()}}) + "\\n")
settings = json.load(open(here + "/settings"))
if words == ["--version"]:
    print(settings["version"])
elif words[0] == "build":
    if settings["build"]:
        print("INFO: fetching\\nFATAL: " + settings["build"], file=sys.stderr)
        open(words[-2], "w").close()
        sys.exit(255)
    open(words[-2], "w").write(words[-1].split("docker://")[-1].split("docker-daemon:")[-1])
else:
    at = next(number for number, word in enumerate(words) if word.endswith(".sif"))
    program, command = settings["programs"][open(words[at]).read()], words[at + 1:]
    if words[0] == "exec":
        program, command = command[1], command[2:]
    mounts = {{}}
    for option, value in zip(words, words[1:]):
        if option == "--bind":
            host, inside, _ = value.split(":")
            mounts[inside] = host
    for inside in sorted(mounts, key=len, reverse=True):
        command = [word.replace("=" + inside, "=" + mounts[inside]) for word in command]
    environment = {{"PATH": os.environ["PATH"], "HOME": here, "USER": "x", "PYTHONDONTWRITEBYTECODE": "1"}}
    sys.exit(subprocess.run([{sys.executable!r}, program, *command], env=environment).returncode)
"""


class StandIn:
    """An `apptainer` that records; alone on PATH with the system's folders, no docker engine in sight."""

    def __init__(self, folder: Path, name: str = "apptainer") -> None:
        self.folder = folder
        folder.mkdir()
        (folder / name).write_text(STAND_IN)
        (folder / name).chmod(0o755)
        self.settings: dict[str, Any] = {"version": VERSION, "build": "", "programs": {}}
        self.change()

    def change(self, **settings: Any) -> None:
        self.settings.update(settings)
        (self.folder / "settings").write_text(json.dumps(self.settings))

    def add(self, cube: Path) -> None:
        """Let it know the program of a cube's image."""
        manifest = load_cube(cube)
        self.settings["programs"][manifest.image] = str(manifest.build_context / "mlcube.py")
        self.change()

    @property
    def environment(self) -> dict[str, str]:
        path = os.pathsep.join([str(self.folder), "/usr/bin", "/bin"])
        return {"PATH": path, "DOCKER_HOST": "tcp://127.0.0.1:1", "SECRET": "of the host"}

    def calls(self, verb: str) -> list[dict[str, Any]]:
        lines = (self.folder / "calls").read_text().splitlines()
        return [call for call in map(json.loads, lines) if call["words"][0] == verb]


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    made = StandIn(tmp_path / "bin")
    for name, value in made.environment.items():
        monkeypatch.setenv(name, value)
    return made


def make_call(tmp_path: Path, cube: Path, data: Path, **limits: Any) -> TaskCall:
    manifest = load_cube(cube)
    with SingularityEngine(tmp_path / "cubes") as engine:
        image = engine.get_image(manifest, True, lambda line: None)
    out = tmp_path / "out"
    out.mkdir(exist_ok=True)
    paths = {"data_path": data, "output_path": out}
    invocation = build_invocation(manifest, "infer", paths, tmp_path / "scratch", "model")
    budget = limits.pop("budget_s", 30.0)
    return TaskCall(manifest, image, invocation, Limits(**limits), budget, tmp_path / "log")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    (folder / "case").mkdir(parents=True)
    return folder


def run(tmp_path: Path, call: TaskCall) -> Any:
    with SingularityEngine(tmp_path / "cubes") as engine:
        return engine.run(call)


def test_whole_chain_equals_the_process_engine(dataset: Path, tmp_path: Path) -> None:
    """`medperf --platform=singularity test` with data_prep, model and metrics: the numbers of a run without."""
    stand_in = StandIn(tmp_path / "bin")
    model = make_cube(tmp_path / "m", "for case in CASES: write(case)")
    for cube in (ROOT / "mlcubes" / "data_prep" / "mlcube", ROOT / "mlcubes" / "metrics" / "mlcube", model):
        stand_in.add(cube)
    results = []
    for platform in ("singularity", "process"):
        done = medperf(
            f"--platform={platform}", f"--storage={tmp_path / platform}", "test", "-b", "1", "-d", dataset, "-m", model,
            "--allow-foreign-code", env=stand_in.environment,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        results.append(yaml.safe_load(next((tmp_path / platform).rglob("results.yaml")).read_text()))
    assert results[0] == results[1]
    record = json.loads(next((tmp_path / "singularity").rglob("run.json")).read_text())
    assert record["engine"]["name"] == "singularity" and record["engine"]["version"] == "1.4.5"
    assert "memory" in record["engine"]["not_enforced"]
    assert len(stand_in.calls("build")) == 3 and len(stand_in.calls("run")) == 2


def test_the_command(stand_in: StandIn, tmp_path: Path, data: Path) -> None:
    """Clean environment, contained, no network, no home, inputs read-only; nothing else of the host."""
    cube = make_cube(tmp_path / "c", "pass")
    stand_in.add(cube)
    call = make_call(tmp_path, cube, data)
    assert run(tmp_path, call).ok
    (done,) = stand_in.calls("run")
    sif = next((tmp_path / "cubes").glob("*.sif"))
    assert done["words"] == [
        "run", "--cleanenv", "--containall", "--no-home", "--net", "--network", "none", "--pwd", "/",
        "--env", "PYTHONUNBUFFERED=1", "--bind", f"{data}:/mlcube_io0:ro", "--bind", f"{tmp_path}/out:/mlcube_io1:rw",
        str(sif), "infer", "--data_path=/mlcube_io0", "--output_path=/mlcube_io1",
    ]  # fmt: skip
    assert done["folder"] == "/"
    assert {"PATH", "LANG"} <= set(done["environment"]) <= {"PATH", "LANG", "PWD", "SHLVL", "_", "LC_CTYPE"}


@pytest.mark.parametrize(
    ("name", "option"),
    [
        ("a b $(id)", "--bind={}:/mlcube_io0:ro"),
        ("a,rw:b", '--mount=type=bind,"source={}","destination=/mlcube_io0",ro'),
        ('a,"b', '--mount=type=bind,"source={}","destination=/mlcube_io0",ro'),
    ],
)
def test_paths_reach_no_shell_and_no_other_option(
    stand_in: StandIn, tmp_path: Path, data: Path, name: str, option: str
) -> None:
    cube = make_cube(tmp_path / "c", "CASES")
    stand_in.add(cube)
    odd = data.rename(tmp_path / name)
    call = make_call(tmp_path, cube, odd)
    run(tmp_path, call)
    (done,) = stand_in.calls("run")
    at = done["words"].index("--env") + 2
    assert "=".join(done["words"][at : at + 2]) == option.format(str(odd).replace('"', '""'))


def test_a_task_with_an_entrypoint_is_executed(stand_in: StandIn, tmp_path: Path, data: Path) -> None:
    program = tmp_path / "own.py"
    program.write_text("import sys; print(sys.argv[1:])")
    tasks = INFER.rstrip() + f"\n    entrypoint: /usr/bin/python3 {program} own\n"
    cube = make_cube(tmp_path / "c", "sys.exit(9)", tasks=tasks)
    stand_in.add(cube)
    call = make_call(tmp_path, cube, data)
    assert run(tmp_path, call).last_lines == (f"['own', '--data_path={data}', '--output_path={tmp_path}/out']",)
    assert not stand_in.calls("run")
    words = stand_in.calls("exec")[0]["words"]
    assert words[-5:-2] == ["/usr/bin/python3", str(program), "own"]


def test_an_image_is_converted_once(stand_in: StandIn, tmp_path: Path) -> None:
    manifest = load_cube(make_cube(tmp_path / "c", image="name/model:1"))
    lines: list[str] = []
    for _ in range(2):
        with SingularityEngine(tmp_path / "cubes") as engine:
            record = engine.get_image(manifest, True, lines.append)
    (build,) = stand_in.calls("build")
    assert build["words"][-1] == "docker://name/model:1" and lines == ["converting docker://name/model:1"]
    (sif,) = (tmp_path / "cubes").iterdir()
    assert record.reference == "name/model:1" and record.digest.startswith("sha256:") and sif.suffix == ".sif"


def test_a_failed_conversion_leaves_nothing(stand_in: StandIn, tmp_path: Path) -> None:
    stand_in.change(build="no space left\x1b[31m")
    manifest = load_cube(make_cube(tmp_path / "c"))
    with SingularityEngine(tmp_path / "cubes") as engine, pytest.raises(ImageError) as told:
        engine.get_image(manifest, True, lambda line: None)
    assert r"no space left\x1b[31m" in str(told.value) and "APPTAINER_TMPDIR" in str(told.value)
    assert not list((tmp_path / "cubes").iterdir())


def test_two_conversions_at_once_do_not_meet(stand_in: StandIn, tmp_path: Path) -> None:
    manifest = load_cube(make_cube(tmp_path / "c"))

    def convert() -> None:
        with SingularityEngine(tmp_path / "cubes") as engine:
            engine.get_image(manifest, True, lambda line: None)

    threads = [threading.Thread(target=convert) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    targets = [call["words"][-2] for call in stand_in.calls("build")]
    assert len(set(targets)) == len(targets) >= 1
    assert [path.suffix for path in (tmp_path / "cubes").iterdir()] == [".sif"]


@pytest.mark.parametrize(
    ("body", "limits", "expected"),
    [
        ("sys.exit(3)", {}, (3, None)),
        ("time.sleep(60)", {"budget_s": 0.5}, (-9, "time")),
        ("while True: os.write(1, b'x' * 65536)", {"budget_s": 0.5, "log_mb": 1}, (-9, "time")),
        ("open(OUT + '/big', 'wb').write(bytes(3 << 20))", {"output_mb": 1}, (1, None)),
        ("x = bytearray(3 << 30)", {"memory_mb": 1500}, (1, None)),
    ],
)
def test_limits_that_this_engine_enforces(
    stand_in: StandIn, tmp_path: Path, data: Path, body: str, limits: dict[str, Any],
    expected: tuple[int, str | None],
) -> None:  # fmt: skip
    cube = make_cube(tmp_path / "c", body)
    stand_in.add(cube)
    outcome = run(tmp_path, make_call(tmp_path, cube, data, **limits))
    assert (outcome.exit_code, outcome.ended_by and outcome.ended_by.name) == expected, outcome
    assert (tmp_path / "log").stat().st_size < (1 << 20) + 100
    if expected == (1, None):
        assert "MemoryError" in outcome.last_lines[-1] or "File too large" in outcome.last_lines[-1]


def wait_for(look: Callable[[], bool]) -> bool:
    for _ in range(200):
        if look():
            return True
        time.sleep(0.05)
    return False


def test_what_a_task_started_is_gone_with_the_deadline(stand_in: StandIn, tmp_path: Path, data: Path) -> None:
    """The group of apptainer; what leaves it goes with apptainer's process namespace (--containall)."""
    body = f"""
    import signal
    for number in (1, 2, 15): signal.signal(number, signal.SIG_IGN)
    child = os.fork()
    open({str(tmp_path / "pids")!r}, "a").write(f"{{os.getpid()}}\\n")
    time.sleep(60)
    """
    cube = make_cube(tmp_path / "c", body)
    stand_in.add(cube)
    outcome = run(tmp_path, make_call(tmp_path, cube, data, budget_s=3.0))
    assert outcome.ended_by is not None
    pids = (tmp_path / "pids").read_text().split()
    assert len(pids) == 2
    assert wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))


def test_stopping_the_runner_ends_the_task(dataset: Path, tmp_path: Path) -> None:
    stand_in = StandIn(tmp_path / "bin")
    cube = make_cube(tmp_path / "c", f"open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()))\ntime.sleep(60)")
    for other in (ROOT / "mlcubes" / "data_prep" / "mlcube", ROOT / "mlcubes" / "metrics" / "mlcube", cube):
        stand_in.add(other)
    command = medperf_command("--platform=singularity", "test", "-b", "1", "-d", dataset, "-m", cube)
    runner = subprocess.Popen(command, env={**os.environ, **stand_in.environment}, stderr=subprocess.PIPE, text=True)
    assert wait_for(lambda: (tmp_path / "pid").is_file() and bool((tmp_path / "pid").read_text()))
    runner.send_signal(signal.SIGINT)
    _, stderr = runner.communicate(timeout=60)
    assert runner.returncode == 130, stderr
    pid = (tmp_path / "pid").read_text()
    assert wait_for(lambda: not Path(f"/proc/{pid}").exists())


@pytest.mark.parametrize(
    ("name", "version", "found"),
    [
        ("apptainer", "apptainer version 1.4.5", "1.4.5"),
        ("singularity", "singularity-ce version 4.1.0-jammy", "4.1.0-jammy"),
        ("singularity", "singularity version 3.8.7", "3.8.7"),
        ("singularity", "Endgame: Singularity 1.00", None),
        ("other", "", None),
    ],
)
def test_which_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, version: str, found: str | None
) -> None:
    """Debian has a game of that name."""
    stand_in = StandIn(tmp_path / "bin", name)
    stand_in.change(version=version)
    (tmp_path / "bin" / "env").symlink_to("/usr/bin/env")
    monkeypatch.setenv("PATH", str(stand_in.folder))
    if found is not None:
        assert SingularityEngine(tmp_path).version == found
        return
    with pytest.raises(EngineMissingError) as told:
        SingularityEngine(tmp_path)
    assert ("does not tell a version" in str(told.value)) == (name == "singularity")


def test_not_installed_is_one_clear_error(tmp_path: Path) -> None:
    done = medperf("--platform=singularity", "test", "-b", "1", env={"PATH": str(tmp_path)})
    assert done.returncode == 16 and done.stderr.startswith("error: Singularity is not installed"), done.stderr
    assert "--platform=docker" in done.stderr


@pytest.mark.apptainer
def test_the_options_are_known_to_the_real_program() -> None:
    program = SingularityEngine(Path("/nowhere"))._program
    told = subprocess.run([program, "run", "--help"], capture_output=True, text=True).stdout
    for option in (
        "--cleanenv",
        "--containall",
        "--no-home",
        "--net",
        "--network",
        "--bind",
        "--mount",
        "--env",
        "--nv",
    ):
        assert option in told
    assert "--pwd" in told or "--cwd" in told


@pytest.mark.apptainer
@pytest.mark.docker
def test_for_real(dataset: Path, tmp_path: Path) -> None:
    """Isolation as apptainer gives it; a relative ENTRYPOINT and a small /tmp fail as under --as-singularity."""
    body = """
    import json
    def attempt(path):
        try: open(path, "w")
        except OSError as error: return error.errno
        return 0
    print("FACTS", json.dumps([attempt("/x"), attempt(DATA + "/x"), sorted(os.listdir("/sys/class/net")),
                               "SECRET" in os.environ]), flush=True)
    for case in CASES: write(case)
    """
    run_all = ("--platform=singularity", f"--storage={tmp_path}/s", "test", "-b", "1", "-d", dataset)
    done = medperf(*run_all, "-m", make_cube(tmp_path / "good", body), env={"SECRET": "x"}, timeout=1800)
    assert done.returncode == 0, done.stderr
    log = next((tmp_path / "s" / "logs").rglob("model-infer.log")).read_text()
    assert 'FACTS [30, 30, ["lo"], false]' in log
    full = make_cube(tmp_path / "full", "open('/tmp/x', 'wb').write(bytes(100 << 20))")
    done = medperf(*run_all, "-m", full, timeout=1800)
    assert done.returncode == 22 and "temporary space is small" in done.stderr, done.stderr
    relative = make_cube(tmp_path / "relative")
    file = relative.parent / "project" / "Dockerfile"
    file.write_text(
        file.read_text().replace('"/project/mlcube.py"]', '"mlcube.py"]').replace("COPY", "WORKDIR /project\nCOPY")
    )
    done = medperf(*run_all, "-m", relative, timeout=1800)
    assert done.returncode == 22 and "a relative path" in done.stderr, done.stderr


def test_the_breach_of_an_output_limit_ends_the_task(stand_in: StandIn, tmp_path: Path, data: Path) -> None:
    """What a watch tells while the task runs ends it here as on docker."""
    from fedeval.engine.base import Breach

    cube = make_cube(tmp_path / "c", "time.sleep(60)")
    stand_in.add(cube)
    breach = Breach("output_size", 5.0, 4.0, "MiB")
    call = replace(make_call(tmp_path, cube, data), on_tick=lambda: breach)
    assert run(tmp_path, call).ended_by == breach
