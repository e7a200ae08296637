"""The process engine with bubblewrap, seen from inside by a real cube; and what it says where bubblewrap is missing."""

import json
import os
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fedeval.cube import load_cube
from fedeval.engine import sandbox
from fedeval.engine.base import Breach, TaskCall, TaskOutcome
from fedeval.engine.process_engine import ProcessEngine
from fedeval.invocation import build_invocation
from fedeval.limits import Limits
from tests.cube_factory import INFER, make_cube
from tests.runner_cases import processes_of, run_in_process, write_benchmark

PROBE = """
import errno, json, os, socket, sys, threading, time
arguments = dict(word[2:].split("=", 1) for word in sys.argv[2:])
DATA, OUT = arguments["data_path"], arguments["output_path"]
FACTS = {}
def attempt(name, action):
    try:
        FACTS[name] = action()
    except OSError as error:
        FACTS[name] = errno.errorcode.get(error.errno, str(error))
def tell():
    with open(OUT + "/facts.json", "w") as file:
        json.dump(FACTS, file)
"""

ISOLATED = ("network isolation", "read-only inputs", "hidden labels", "temporary space")


@pytest.fixture(autouse=True)
def _tried_anew() -> Iterator[None]:
    sandbox.find_bubblewrap.cache_clear()
    yield
    sandbox.find_bubblewrap.cache_clear()


needs_bubblewrap = pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed")


def run_probe(
    folder: Path, body: str, *, data: Path | None = None, storage: Path | None = None, budget_s: float = 60,
    on_tick: Any = lambda: None, **limits: Any,
) -> tuple[TaskOutcome, dict[str, Any]]:  # fmt: skip
    """Run a program as task infer on a folder of its own; its facts."""
    manifest = load_cube(make_cube(folder / "cube", body + "\ntell()\n", tasks=INFER, program=PROBE))
    data = data or folder / "data"
    data.mkdir(exist_ok=True)
    (data / "image").write_text("voxels")
    out = folder / "out"
    paths = {"data_path": data, "output_path": out}
    call = TaskCall(
        manifest, ProcessEngine(folder, folder).get_image(manifest, True, print),
        build_invocation(manifest, "infer", paths, folder / "scratch"), Limits(**limits), budget_s, folder / "log",
        on_tick,
    )  # fmt: skip
    with ProcessEngine(folder, storage or folder) as engine:
        outcome = engine.run(call)
    facts = json.loads((out / "facts.json").read_text()) if (out / "facts.json").exists() else {}
    return outcome, facts


@needs_bubblewrap
def test_no_network(tmp_path: Path) -> None:
    """Listeners of this test's own: by address on loopback, in the abstract namespace, by a socket in /tmp."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_UNIX) as abstract, \
            socket.socket(socket.AF_UNIX) as named:  # fmt: skip
        hidden_name = f"\0fedeval-test-{os.getpid()}"
        abstract.bind(hidden_name)
        abstract.listen()
        named.bind(str(tmp_path / "s.sock"))
        named.listen()
        port = server.getsockname()[1]
        socket.create_connection(("127.0.0.1", port)).close()  # it does listen
        outcome, facts = run_probe(tmp_path, f"""
def connect(family, address):
    with socket.socket(family) as client:
        client.settimeout(5)
        client.connect(address)
    return "connected"
attempt("address", lambda: connect(socket.AF_INET, ("127.0.0.1", {port})))
attempt("abstract", lambda: connect(socket.AF_UNIX, {hidden_name!r}))
attempt("named", lambda: connect(socket.AF_UNIX, {str(tmp_path / "s.sock")!r}))
attempt("by name", lambda: socket.getaddrinfo("localhost.localdomain.invalid", 80))
FACTS["interfaces"] = [name for _, name in socket.if_nameindex()]
""")  # fmt: skip
    assert outcome.ok, outcome
    assert facts["address"] == "ECONNREFUSED" and facts["abstract"] == "ECONNREFUSED" and facts["named"] == "ENOENT"
    assert facts["by name"] != "connected" and facts["interfaces"] == ["lo"]


@needs_bubblewrap
def test_labels_storage_and_everything_of_the_site_are_out_of_sight(tmp_path: Path) -> None:
    """Wherever they lie: below the storage, beside the data, outside of /tmp and of the home folder."""
    site = Path(tempfile.mkdtemp(dir="/var/tmp"))
    try:
        labels, storage = site / "dataset" / "labels", tmp_path / "storage"
        for folder in (labels, storage / "data" / "x" / "labels", site / "dataset" / "data"):
            folder.mkdir(parents=True)
            (folder / "reference").write_text("secret")
        places = [labels, storage / "data", site, Path.home() / ".medperf", Path("/etc/passwd"), Path("/etc/hostname"),
                  Path("/run/docker.sock"), Path("/var/run/docker.sock"), Path("/var/log"), tmp_path / "log",
                  ]  # fmt: skip
        outcome, facts = run_probe(
            tmp_path, f"""
for place in {[str(place) for place in places]!r}:
    attempt(place, lambda: sorted(os.listdir(place)) if os.path.isdir(place) else open(place).read())
attempt("data", lambda: sorted(os.listdir(DATA)))
FACTS["beside"] = sorted(os.listdir(os.path.dirname(DATA)))
FACTS["root"] = sorted(os.listdir("/"))
FACTS["mounts"] = [line.split()[1] for line in open("/proc/mounts")]
""", data=site / "dataset" / "data", storage=storage)  # fmt: skip
        assert outcome.ok, outcome
        assert facts["data"] == ["image", "reference"] and facts["beside"] == ["data"]
        assert facts[str(site)] == ["dataset"]
        for place in places:
            if place != site:
                assert facts[str(place)] in ("ENOENT", []), place
        assert "secret" not in json.dumps(facts)
    finally:
        shutil.rmtree(site)


@needs_bubblewrap
def test_inputs_programs_and_code_are_read_only_and_output_is_not(tmp_path: Path) -> None:
    outcome, facts = run_probe(tmp_path, """
import encodings
for place in (DATA + "/image", DATA + "/new", __file__, "/usr/new", "/new", "/dev/new", encodings.__file__):
    attempt(place, lambda: open(place, "a").write("x"))
attempt("unlink", lambda: os.unlink(DATA + "/image"))
attempt("rename", lambda: os.rename(DATA, DATA + "2"))
attempt("chmod", lambda: os.chmod(DATA + "/image", 0o777))
attempt("tmp", lambda: open("/tmp/new", "a").write("x"))
attempt("out", lambda: open(OUT + "/new", "a").write("x"))
with open("/proc/self/status") as file:
    FACTS.update(line.strip().split(":\\t") for line in file if line.startswith(("CapEff", "NoNewPrivs")))
FACTS["environment"] = sorted(os.environ)
FACTS["processes"] = sorted(name for name in os.listdir("/proc") if name.isdigit())
""")  # fmt: skip
    assert outcome.ok, outcome
    assert facts.pop("tmp") == facts.pop("out") == 1 and (tmp_path / "out" / "new").read_text() == "x"
    assert int(facts.pop("CapEff"), 16) == 0 and facts.pop("NoNewPrivs") == "1"
    assert set(facts.pop("environment")) == {
        "HOME", "LANG", "PATH", "PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED", "USER", "LC_CTYPE", "PWD",
    } - {name for name in ("LC_CTYPE", "PWD") if name not in _environment_of(tmp_path)}  # fmt: skip
    assert len(facts.pop("processes")) <= 3
    assert set(facts.values()) <= {"EROFS", "EBUSY", "EACCES"}, facts
    assert (tmp_path / "data" / "image").read_text() == "voxels"


def _environment_of(folder: Path) -> list[str]:
    found: list[str] = json.loads((folder / "out" / "facts.json").read_text())["environment"]
    return found


@needs_bubblewrap
def test_temporary_and_shared_space_have_a_size(tmp_path: Path) -> None:
    outcome, facts = run_probe(tmp_path, """
def fill(path):
    written = 0
    with open(path, "wb", buffering=0) as file:
        while written < 64 << 20:
            written += file.write(bytes(1 << 20))
    return written
attempt("tmp", lambda: fill("/tmp/big"))
attempt("var", lambda: fill("/var/tmp/big"))
attempt("shm", lambda: fill("/dev/shm/big"))
""", tmp_mb=8, shm_mb=4)  # fmt: skip
    assert outcome.ok, outcome
    assert facts == dict.fromkeys(("tmp", "var", "shm"), "ENOSPC")


@needs_bubblewrap
def test_a_survivor_that_left_its_group_ends_with_the_task(tmp_path: Path) -> None:
    """Double fork and setsid, deaf to signals: the process namespace takes it along."""
    outcome, facts = run_probe(tmp_path, """
import signal
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        for number in (1, 2, 15): signal.signal(number, signal.SIG_IGN)
        while True: time.sleep(0.1)
    os._exit(0)
FACTS["begun"] = True
""")  # fmt: skip
    assert outcome.ok and facts["begun"]
    time.sleep(0.2)
    assert not list(processes_of(tmp_path / "cube"))


@pytest.mark.parametrize("path", [None, "/nonexistent"], ids=["bubblewrap", "none"])
def test_limits_of_a_single_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str | None) -> None:
    """Memory and the size of a file, from the first instruction on, also in what it starts."""
    if path:
        monkeypatch.setenv("PATH", path)
    outcome, facts = run_probe(tmp_path, """
import resource, subprocess
FACTS["limits"] = [resource.getrlimit(kind)[1] >> 20 for kind in (resource.RLIMIT_AS, resource.RLIMIT_FSIZE)]
FACTS["core"] = resource.getrlimit(resource.RLIMIT_CORE)[1]
def grow():
    try:
        return len(bytearray(1 << 30))
    except MemoryError:
        return "MemoryError"
FACTS["memory"] = grow()
attempt("file", lambda: open(OUT + "/big", "wb").write(bytes(20 << 20)))
child = [sys.executable, "-c", "import resource; print(resource.getrlimit(resource.RLIMIT_AS)[1] >> 20)"]
FACTS["child"] = subprocess.run(child, capture_output=True, text=True).stdout.strip()
""", memory_mb=700, output_mb=5)  # fmt: skip
    assert outcome.ok, outcome
    assert facts["limits"] == [700, 5] and facts["core"] == 0 and facts["child"] == "700"
    assert facts["memory"] == "MemoryError" and facts["file"] == "EFBIG"


@pytest.mark.parametrize("path", [None, "/nonexistent"], ids=["bubblewrap", "none"])
def test_a_flood_of_output_starves_no_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str | None) -> None:
    """A child that writes all the time is still looked at: by the clock, by what is called on every tick."""
    if path:
        monkeypatch.setenv("PATH", path)
    ticks: list[float] = []
    flood = "block = b'x' * 65535 + b'\\n'\nwhile True: os.write(1, block)"
    outcome, _ = run_probe(tmp_path, flood, budget_s=1, on_tick=lambda: ticks.append(time.monotonic()), log_mb=1)
    assert outcome.ended_by == Breach("time", outcome.ended_by.measured if outcome.ended_by else 0, 1, "s")
    assert 1 <= outcome.wall_s < 3 and len(ticks) >= 4
    assert (tmp_path / "log").stat().st_size < 2 << 20
    assert not list(processes_of(tmp_path / "cube"))


def test_a_breach_told_on_the_last_tick_counts(tmp_path: Path) -> None:
    breach = Breach("output_size", 2, 1, "MiB")
    outcome, _ = run_probe(tmp_path, "", on_tick=lambda: breach if (tmp_path / "out" / "facts.json").exists() else None)
    assert outcome.ended_by == breach and not outcome.ok


def test_two_tasks_at_the_same_time_do_not_end_each_other(tmp_path: Path) -> None:
    done: dict[str, TaskOutcome] = {}

    def run(name: str, seconds: float) -> None:
        (tmp_path / name).mkdir()
        done[name] = run_probe(tmp_path / name, f"time.sleep({seconds})")[0]

    threads = [threading.Thread(target=run, args=pair) for pair in (("short", 0.2), ("long", 1.2))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert done["short"].ok and done["long"].ok and done["long"].wall_s >= 1.2


def test_without_bubblewrap_it_says_what_is_not_enforced(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the record of the run, and therefore in the report; the numbers are the same."""
    model, benchmark = make_cube(tmp_path / "m"), write_benchmark(tmp_path / "b")
    with_it = run_in_process(benchmark, model, dataset, tmp_path / "with")
    monkeypatch.setenv("PATH", "/nonexistent")
    sandbox.find_bubblewrap.cache_clear()
    without = run_in_process(benchmark, model, dataset, tmp_path / "without")
    said = [outcome.record["engine"]["not_enforced"] for outcome in (with_it, without)]
    assert set(ISOLATED) <= set(said[1]) and "memory of all processes together" in said[1]
    assert with_it.results == without.results
    assert ("network isolation" in said[0]) == (shutil.which("bwrap", path=os.defpath) is None)


def test_bubblewrap_that_may_make_no_namespaces_counts_as_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "bwrap"
    program.write_text("#!/bin/sh\necho 'bwrap: No permissions to create new namespace' >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert sandbox.find_bubblewrap() is None
    assert set(ISOLATED) <= set(ProcessEngine(tmp_path, tmp_path).not_enforced)
