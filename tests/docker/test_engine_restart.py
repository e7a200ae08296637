"""The engine goes away in the middle of a run: an engine of this test's own, ended and started again."""

import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.cube_factory import BASE, make_cube, medperf
from tests.runner_cases import (
    SLOW_MODEL,
    begun,
    complete_cases,
    leftovers,
    log_texts,
    published,
    run_in_process,
    start,
    wait_until,
    write_benchmark,
)

pytestmark = [
    pytest.mark.docker,
    pytest.mark.skipif(os.getuid() != 0, reason="only root can start an engine"),
]


class PrivateEngine:
    """A dockerd with folders, socket and containerd of its own; nobody else's containers are touched."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="fedeval-engine-"))  # short: a socket's path has 108 characters
        self.env = {"DOCKER_HOST": f"unix://{self.folder}/s"}
        self._daemon: subprocess.Popen[bytes] | None = None

    def start(self, *options: str) -> None:
        """Start it, also again, and wait until it answers."""
        # In a network namespace of its own (same process id): --bridge=none would remove the host's docker0.
        command = [
            "unshare", "--net", "dockerd", f"--data-root={self.folder}/data", f"--exec-root={self.folder}/exec",
            f"--pidfile={self.folder}/pid", f"--host=unix://{self.folder}/s", "--iptables=false", "--ip6tables=false",
            "--ip-forward=false", "--ip-masq=false", "--bridge=none", *options,
        ]  # fmt: skip
        with (self.folder / "log").open("ab") as log:
            self._daemon = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        wait_until(lambda: self.docker("version", check=False).returncode == 0, 60)

    def docker(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["docker", *words], env={**os.environ, **self.env}, capture_output=True, text=True, check=check
        )

    def end(self, number: int) -> None:
        """Send a signal and wait for the end."""
        assert self._daemon is not None
        self._daemon.send_signal(number)
        self._daemon.wait(60)
        if number == signal.SIGKILL:  # its containerd goes too, but where nobody collects the dead its note misleads
            (self.folder / "exec" / "containerd" / "containerd.pid").unlink(missing_ok=True)

    def containers(self) -> list[str]:
        return self.docker("ps", "-aq", "--filter", "label=org.fedeval.runner").stdout.split()

    def close(self) -> None:
        """End it and all that it started, by process id, and remove its folders."""
        if self._daemon is not None and self._daemon.poll() is None:
            for container in self.docker("ps", "-q", check=False).stdout.split():
                self.docker("kill", container, check=False)
            self.end(signal.SIGTERM)
        for entry in Path("/proc").iterdir():
            with suppress(OSError, ValueError):
                if str(self.folder).encode() in (entry / "cmdline").read_bytes() and int(entry.name) != os.getpid():
                    os.kill(int(entry.name), signal.SIGKILL)
        mounts = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
        for mount in reversed(mounts):
            if mount.startswith(f"{self.folder}/"):
                subprocess.run(["umount", "-l", mount], check=False)
        shutil.rmtree(self.folder, ignore_errors=True)


@pytest.fixture(scope="module")
def engine() -> Iterator[PrivateEngine]:
    """With the base image of the engine that is already there."""
    engine = PrivateEngine()
    try:
        engine.start()
        saved = subprocess.Popen(["docker", "save", BASE], stdout=subprocess.PIPE)
        loaded = subprocess.run(["docker", "load"], stdin=saved.stdout, env={**os.environ, **engine.env}, check=False)
        assert saved.stdout is not None
        saved.stdout.close()
        assert (saved.wait(), loaded.returncode) == (0, 0)
        yield engine
    finally:
        engine.close()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_cube(tmp_path_factory.mktemp("slow"), SLOW_MODEL.replace("time.sleep(0.1)", "time.sleep(1.2)"))


@pytest.fixture(scope="module")
def benchmark(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_benchmark(tmp_path_factory.mktemp("benchmark"))


@pytest.fixture(scope="module")
def expected(benchmark: Path, model: Path, dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """results.yaml of an undisturbed run, which is the same on every engine."""
    storage = tmp_path_factory.mktemp("undisturbed")
    run_in_process(benchmark, model, dataset, storage)
    return published(storage)[0].read_bytes()


def first_case_done(storage: Path) -> bool:
    return "END S01_001" in "".join(log_texts(storage))


def test_a_test_ends_as_fault_of_the_platform_and_continues(
    engine: PrivateEngine, dataset: Path, tmp_path: Path, model: Path, benchmark: Path, expected: bytes
) -> None:
    command = ("--platform=docker", f"--storage={tmp_path}", "test", "-b", benchmark, "-d", dataset, "-m", model)
    runner = start(*command, env=engine.env)
    wait_until(lambda: first_case_done(tmp_path), 60, runner)
    engine.end(signal.SIGTERM)
    engine.start()
    _, stderr = runner.communicate(timeout=120)
    assert runner.returncode == 19, stderr
    assert stderr.count("error:") == 1 and "not counted against the submission" in stderr and "Traceback" not in stderr
    assert not published(tmp_path) and engine.containers() == []
    kept = complete_cases(tmp_path)
    assert "S01_001" in kept
    again = medperf(*command, env=engine.env)
    assert again.returncode == 0, again.stderr
    assert not kept & set(begun(log_texts(tmp_path)[1:])), "a complete case was repeated"
    assert published(tmp_path)[0].read_bytes() == expected
    assert leftovers(tmp_path) == [] and engine.containers() == []


def test_run_tries_again_by_itself(
    engine: PrivateEngine, dataset: Path, tmp_path: Path, model: Path, benchmark: Path, expected: bytes
) -> None:
    """Nobody is there at night, and the engine was killed; its containers went on, and end when it starts again."""
    command = ("--platform=docker", f"--storage={tmp_path}", "run", "-b", benchmark, "-d", dataset, "-m", model,
               "--build", "--retries=5", "--retry-wait=1", "--json")  # fmt: skip
    runner = start(*command, env=engine.env)
    wait_until(lambda: first_case_done(tmp_path), 60, runner)
    engine.end(signal.SIGKILL)
    engine.start()
    stdout, stderr = runner.communicate(timeout=120)
    assert runner.returncode == 0, stderr
    (run,) = json.loads(stdout)["runs"]
    assert run["status"] == "ok" and run["attempts"] >= 2
    assert "a fault of the platform, trying" in stderr
    assert begun(log_texts(tmp_path)).count("S01_001") == 1
    assert published(tmp_path)[0].read_bytes() == expected
    assert leftovers(tmp_path) == [] and engine.containers() == []


def test_an_engine_that_keeps_containers_alive_costs_nothing(
    engine: PrivateEngine, dataset: Path, tmp_path: Path, benchmark: Path
) -> None:
    """With live-restore containers outlive the daemon: the run goes on, and what fails later is the submission's."""
    body = "for case in CASES:\n    write(case)\n    time.sleep(2)\n    print('END', case, flush=True)\nsys.exit(5)"
    command = ("--platform=docker", f"--storage={tmp_path}/s", "test", "-b", benchmark, "-d", dataset, "--json")
    engine.end(signal.SIGTERM)
    try:
        engine.start("--live-restore")
        runner = start(*command, "-m", make_cube(tmp_path / "m", body), env=engine.env)
        wait_until(lambda: first_case_done(tmp_path / "s"), 60, runner)
        engine.end(signal.SIGTERM)
        engine.start("--live-restore")
        stdout, stderr = runner.communicate(timeout=120)
    finally:
        engine.end(signal.SIGTERM)
        engine.start()
    assert runner.returncode == 22, stderr
    assert [case["status"] for case in json.loads(stdout)["cases"]] == ["ok"] * 3
    assert len(log_texts(tmp_path / "s")) == 1 and engine.containers() == []
