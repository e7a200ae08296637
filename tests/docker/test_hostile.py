"""The hostile corpus, run for real in one unattended queue: each ends in its state, none harms, nothing is left."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
import yaml

from fedeval.store import digest_tree
from tests.cube_factory import BASE, PROGRAM, ROOT, make_cube, medperf_command
from tests.docker.hostile_cubes import CORPUS, LIMITS, HostileCube
from tests.docker.hostile_programs import PRELUDE

pytestmark = pytest.mark.docker

EVIL = r"\x1b[2J\x1b]0;owned\x07\x1b[31m<img src=x onerror=alert(1)>"
DOORKEEPER = """
import fcntl, socket, struct
with socket.socket() as control:
    fcntl.ioctl(control, 0x8914, struct.pack("16sH14x", b"lo", 1))  # SIOCSIFFLAGS: the loopback of the namespace is up
door = socket.create_server(("127.0.0.1", 0))
socket.create_connection(door.getsockname()).close()
door.accept()[0].close()
print(door.getsockname()[1], flush=True)
while True:
    door.accept()[0].close()
    print("namespace", flush=True)
"""
"""A server on the loopback of a network namespace of its own; it has visited itself before it tells its port."""


@dataclass
class Listeners:
    """Servers of the test that nobody in a container may reach; `visits` counts who did."""

    port: int
    other_port: int = 0
    visits: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Ran:
    """One call of ``medperf run``."""

    exit_code: int
    output: str
    peak_mb: float
    containers: list[str]


@dataclass
class Site:
    """Where the corpus ran, and what came of it."""

    folder: Path
    data: Path
    mark: str
    listeners: Listeners
    digest: str
    runs: dict[str, Ran] = field(default_factory=dict)

    @property
    def storage(self) -> Path:
        return self.folder / "storage"

    @property
    def trap(self) -> Path:
        return self.folder / "sprung"


def keep_door(server: socket.socket, name: str, visits: list[str]) -> None:
    server.listen()

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                server.accept()[0].close()
                visits.append(name)

    threading.Thread(target=serve, daemon=True).start()


@contextlib.contextmanager
def network_namespace(listeners: Listeners) -> Iterator[None]:
    """A listener in a network namespace of its own, with no link to anywhere."""
    user = [] if os.getuid() == 0 else ["--map-root-user"]
    command = ["unshare", "--net", *user, sys.executable, "-c", DOORKEEPER]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as keeper:
        assert keeper.stdout is not None
        listeners.other_port = int(keeper.stdout.readline())
        reader = threading.Thread(
            target=lambda lines: listeners.visits.extend(map(str.strip, lines)), args=(keeper.stdout,)
        )
        reader.start()
        try:
            yield
        finally:
            keeper.kill()
            reader.join()


@pytest.fixture(scope="module")
def site(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The corpus, run: one queue of all, and apart what needs other limits, containers or another disk."""
    folder = tmp_path_factory.mktemp("hostile")
    data = shutil.copytree(dataset, folder / "dataset")
    mark = f"fv{secrets.token_hex(5)}"
    with contextlib.ExitStack() as stack:
        host, abstract, left = (stack.enter_context(socket.socket(family)) for family in (2, 1, 1))
        host.bind(("127.0.0.1", 0))
        abstract.bind(f"\0{mark}")
        first = sorted((data / "data").iterdir())[0]
        with contextlib.chdir(first):  # the path of a socket may have 108 characters
            left.bind("left.sock")
            Path("left.sock").chmod(0o777)
        listeners = Listeners(host.getsockname()[1])
        for name, server in (("host", host), ("abstract", abstract), ("left", left)):
            keep_door(server, name, listeners.visits)
        stack.enter_context(network_namespace(listeners))
        made = Site(folder, data, mark, listeners, digest_tree(data / "data"))
        for cube in CORPUS:
            build_cube(made, cube)
        run_queue(made, "main", "--slots=2")
        run_queue(made, "short", "--slots=2", per_case_s=1)
        run_queue(made, "per_case", "--per-case")
        run_small_disk(made)
        yield made


def build_cube(site: Site, cube: HostileCube) -> Path:
    """Write a submission of the corpus, with the words that only the test knows."""
    references = sorted((site.data / "labels").rglob("*.nii.gz"))
    words = {
        "PORT": site.listeners.port, "OTHERPORT": site.listeners.other_port, "MARK": site.mark, "EVIL": EVIL,
        "LABELS": site.data / "labels", "TRAP": site.trap,
        "SIZES": [path.stat().st_size for path in references],
        "DIGESTS": [hashlib.sha256(path.read_bytes()).hexdigest() for path in references],
    }  # fmt: skip
    body = re.sub("@([A-Z]+)@", lambda found: str(words[found[1]]), dedent(cube.body))
    made = make_cube(site.folder / cube.name, body, program=PROGRAM + PRELUDE)
    if cube.dockerfile:
        file = site.folder / cube.name / "project" / "Dockerfile"
        file.write_text(file.read_text().replace("COPY", f"{cube.dockerfile}\nCOPY", 1))
    return made


def run_queue(site: Site, queue: str, *options: str, storage: Path | None = None, **limits: float) -> None:
    """`medperf run` on the submissions of a queue."""
    content = yaml.safe_load((ROOT / "benchmarks" / "1-fets.yaml").read_text())
    content["cubes"] = {role: str((ROOT / "benchmarks" / path).resolve()) for role, path in content["cubes"].items()}
    content["limits"]["infer"].update({**LIMITS, **limits})
    benchmark = site.folder / f"{queue}.yaml"
    benchmark.write_text(yaml.safe_dump(content))
    models = [f"-m{site.folder / cube.name}" for cube in CORPUS if cube.queue == queue]
    command = medperf_command(
        "--platform=docker", f"--storage={storage or site.storage}", "run", "-b", benchmark, "-d", site.data, "--build",
        "--on-failure=stop", *options, *models,
    )  # fmt: skip
    output = site.folder / f"{queue}.txt"
    with output.open("wb") as file:
        runner = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT,
            env={**os.environ, "PRIVATE": f"secret {site.mark}"},
        )  # fmt: skip
    watchdog = threading.Timer(600, runner.kill)
    watchdog.start()
    _, status, usage = os.wait4(runner.pid, 0)
    watchdog.cancel()
    runner.returncode = os.waitstatus_to_exitcode(status)
    left = containers_of(runner.pid)
    site.runs[queue] = Ran(runner.returncode, output.read_text(errors="strict"), usage.ru_maxrss / 1024, left)


def containers_of(pid: int) -> list[str]:
    """Containers that a runner left, by the engine's word."""
    shown = subprocess.run(
        ["docker", "ps", "-a", "--format", '{{.Names}} {{.Label "org.fedeval.runner"}}'], capture_output=True, text=True
    )
    return [line for line in shown.stdout.splitlines() if f":{pid}:" in line]


def run_small_disk(site: Site) -> None:
    """The queue ``small_disk``, on a storage that a bomb can fill in a second; its results are kept."""
    small = site.folder / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256m", "tmpfs", small], capture_output=True).returncode:
        return
    try:
        run_queue(site, "small_disk", storage=small)
        shutil.copytree(small, site.storage, dirs_exist_ok=True)
    finally:
        subprocess.run(["umount", small], check=True)


def load_record(site: Site, cube: HostileCube) -> dict[str, Any]:
    (file,) = site.storage.glob(f"results/fets/{cube.name}-*/*/run.json")
    record: dict[str, Any] = json.loads(file.read_text())
    return record


def load_facts(site: Site, cube: HostileCube) -> list[dict[str, Any]]:
    """What the program told, a container at a time."""
    logs = sorted(site.storage.glob(f"logs/*/*-{cube.name}-1/model-infer*.log"))
    assert logs
    lines = [line for log in logs for line in log.read_text().splitlines() if line.startswith("FACTS ")]
    return [json.loads(line.removeprefix("FACTS ")) for line in lines]


@pytest.mark.parametrize("cube", CORPUS, ids=lambda cube: cube.name)
def test_each_ends_in_its_state(site: Site, cube: HostileCube) -> None:
    if cube.queue not in site.runs:
        pytest.skip("only root can mount a small file system")
    record = load_record(site, cube)
    states = [case["status"] + (f": {case['reason']}" if case["reason"] else "") for case in record["cases"]]
    assert (tuple(states), record["outcome"]["exit_code"]) == (cube.states, cube.exit_code), record["outcome"]
    for facts in load_facts(site, cube) if cube.facts else []:
        assert {key: facts[key] for key in cube.facts} == cube.facts
    breach = record["outcome"]["limit"]
    assert (breach is not None) == any(word in state for state in states for word in ("time", "memory", "output"))
    if breach is not None:
        assert breach["measured"] >= 0.9 * breach["limit"] and breach["case"] == record["cases"][1]["case"]


def test_the_queue_went_on_to_its_end(site: Site) -> None:
    """Every submission has a line in the table; the participants' failures are told, none counts as the platform's."""
    for queue, ran in site.runs.items():
        expected = {"per_case": 0}.get(queue, ran.exit_code or 1)
        assert ran.exit_code == expected, ran.output
        assert "fault of" not in ran.output
        for cube in CORPUS:
            if cube.queue == queue:
                assert cube.name in ran.output


def test_no_listener_was_reached(site: Site) -> None:
    assert site.listeners.visits == []


def test_the_listeners_can_be_reached_without_isolation(site: Site) -> None:
    """The same program in a container on the host's network, with the images' own folder: every door opens."""
    cube = next(cube for cube in CORPUS if cube.name == "network")
    out = site.folder / "open"
    out.mkdir(exist_ok=True)
    image = yaml.safe_load((site.folder / cube.name / "mlcube" / "mlcube.yaml").read_text())["docker"]["image"]
    done = subprocess.run(
        ["docker", "run", "--rm", "--network=host", f"--volume={site.data / 'data'}:/in", f"--volume={out}:/out", image,
         "infer", "--data_path=/in", "--output_path=/out"], capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout.removeprefix("FACTS "))
    assert [facts[door] for door in ("address", "name", "abstract", "in_data")] == ["done"] * 4
    expected = ["abstract", "host", "host", "left"]
    for _ in range(100):
        if len(site.listeners.visits) == len(expected):
            break
        threading.Event().wait(0.05)
    assert sorted(site.listeners.visits) == expected
    site.listeners.visits.clear()


def test_nothing_is_left_running(site: Site) -> None:
    """By the engine's word, by the cgroups, and by the names of all processes of this machine."""
    for ran in site.runs.values():
        assert ran.containers == []
    named = [comm for comm in Path("/proc").glob("[0-9]*/comm") if site.mark in read_quietly(comm)]
    assert named == []
    logs = "".join(path.read_text() for path in site.storage.glob("logs/*.log"))
    started = set(re.findall(r"container ([0-9a-f]{12}): exit", logs))
    assert len(started) >= 2 * len(CORPUS) - 4
    groups = [path.name[:12] for path in Path("/sys/fs/cgroup").glob("*/docker/*")]
    groups += [path.name[7:19] for path in Path("/sys/fs/cgroup").glob("system.slice/docker-*")]
    assert not started & set(groups)


def read_quietly(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def test_data_are_unchanged_and_nothing_ran_on_the_host(site: Site) -> None:
    assert digest_tree(site.data / "data") == site.digest
    assert not site.trap.exists()
    assert not list(site.folder.glob("escape*")) and not list(site.storage.rglob("escape*"))


def test_nothing_is_left_in_the_storage(site: Site) -> None:
    assert not list((site.storage / "tmp").iterdir()) and not list((site.storage / "predictions").glob(".work*"))
    kept = [path for path in site.storage.rglob("*") if path.is_file()]
    assert {path.suffix for path in kept} <= {".gz", ".json", ".yaml", ".html", ".log", ""}
    assert max(path.stat().st_size for path in kept) < 8 << 20
    for path in site.storage.rglob("*"):
        assert not path.is_symlink() and path.stat().st_uid == os.getuid(), path
    users = Path("/etc/passwd").read_bytes()
    assert not [path for path in kept if users[:40] in path.read_bytes()]


CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def test_no_text_acts_on_a_terminal_or_in_a_browser(site: Site) -> None:
    """Logs, records, results, reports and everything printed: valid UTF-8 without control characters."""
    texts = {path: path.read_text() for path in site.storage.rglob("*") if path.suffix in (".log", ".json", ".yaml")}
    texts.update({path: path.read_text() for path in site.storage.rglob("report.html")})
    texts.update({site.folder / queue: ran.output for queue, ran in site.runs.items()})
    assert len(texts) > 4 * len(CORPUS)
    for path, text in texts.items():
        assert not CONTROL.search(text), path
        assert path.suffix != ".html" or "<img src=x" not in text, path
    (report,) = (path for path in texts if path.name == "report.html" and "/terminal-" in str(path))
    assert "&lt;img src=x onerror=alert(1)&gt;" in texts[report]
    (log,) = site.storage.glob("logs/*/*-terminal-1/model-infer.log")
    assert r"\x1b[2J\x1b]0;owned\x07" in log.read_text()


def test_logs_end_at_their_limit(site: Site) -> None:
    (log,) = site.storage.glob("logs/*/*-log-bomb-1/model-infer.log")
    assert 1 << 20 <= log.stat().st_size < (1 << 20) + 100
    assert log.read_text().endswith("[output above the limit was not kept]\n")


def test_the_runner_stayed_small(site: Site) -> None:
    """Terabytes in headers, gigabytes in gzip and in logs: the runner's own memory is bounded."""
    print("peak memory of the runner, MiB:", {queue: round(ran.peak_mb) for queue, ran in site.runs.items()})
    assert max(ran.peak_mb for ran in site.runs.values()) < 500


def test_a_swapped_prediction_was_scored_whole(site: Site) -> None:
    cube = next(cube for cube in CORPUS if cube.name == "survivor")
    (facts,) = load_facts(site, cube)
    case = load_record(site, cube)["cases"][0]["case"]
    (kept,) = site.storage.glob(f"predictions/fets/survivor-*/*/{case}.nii.gz")
    assert hashlib.sha256(kept.read_bytes()).hexdigest() in facts["whole"]


def test_three_containers_saw_one_case_each(site: Site) -> None:
    cube = next(cube for cube in CORPUS if cube.name == "peeker")
    assert len(load_facts(site, cube)) == 3


def test_image_that_the_engine_refuses(dataset: Path, tmp_path: Path) -> None:
    """VOLUME / is no fault of the platform, which would be tried again and again."""
    folder = make_cube(tmp_path / "c")
    (tmp_path / "c" / "project" / "Dockerfile").write_text(f"FROM {BASE}\nVOLUME /\n")
    command = medperf_command(
        "--platform=docker", f"--storage={tmp_path}/s", "test", "-b", "1", "-d", dataset, "-m", folder
    )
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 15 and "cannot start" in done.stderr, done.stderr
