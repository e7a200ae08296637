"""kill -9 of the runner at any moment, then the same command: it continues, repeats nothing, ends identically."""

import os
import signal
import subprocess
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from tests.cube_factory import make_cube, medperf
from tests.runner_cases import (
    SLOW_MODEL,
    begun,
    complete_cases,
    leftovers,
    log_texts,
    processes_of,
    published,
    run_in_process,
    start,
    wait_until,
    write_benchmark,
)

KILLS = int(os.environ.get("FEDEVAL_TEST_KILLS", "6"))
"""Random moments; more for a long night."""

SEED = int(os.environ.get("FEDEVAL_TEST_SEED", "20221103"))


class Case:
    """A benchmark, a slow model, and what an undisturbed run gives."""

    def __init__(self, folder: Path, dataset: Path) -> None:
        self.model = make_cube(folder / "model", SLOW_MODEL)
        self.benchmark, self.dataset = write_benchmark(folder / "b"), dataset
        self._fixed = ("test", "-b", self.benchmark, "--allow-foreign-code", "-d", dataset)
        undisturbed = folder / "undisturbed"
        done = medperf(*self.command(undisturbed))
        assert done.returncode == 0, done.stderr
        self.expected = published(undisturbed)[0].read_bytes()
        assert begun(log_texts(undisturbed)) == ["S01_001", "Site 1-003", "site1-002"]

    def command(self, storage: Path, *more: str) -> tuple[str | Path, ...]:
        return ("--platform=process", f"--storage={storage}", *self._fixed, "-m", self.model, *more)

    def kill(self, storage: Path, moment: Callable[[subprocess.Popen[str]], object], *more: str) -> None:
        """Begin, wait for a moment, kill; what the runner had started is gone at once."""
        runner = start(*self.command(storage, *more))
        moment(runner)
        runner.kill()
        runner.communicate()
        wait_until(lambda: not list(processes_of(self.model.parent)), 10)

    def finish(self, storage: Path, *, per_case: bool = False, in_process: bool = True) -> None:
        """The same command: identical results, complete cases not repeated, nothing left over."""
        kept = set() if published(storage) else complete_cases(storage)
        before = len(log_texts(storage))
        if in_process:
            outcome = run_in_process(self.benchmark, self.model, self.dataset, storage, per_case=per_case)
            assert outcome.error is None
        else:
            done = medperf(*self.command(storage))
            assert done.returncode == 0, done.stderr
        assert published(storage)[0].read_bytes() == self.expected
        assert not kept & set(begun(log_texts(storage)[before:])), "a complete case was repeated"
        assert leftovers(storage) == []
        assert len(published(storage, "run.json")) == 1


@pytest.fixture(scope="module")
def case(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Case:
    return Case(tmp_path_factory.mktemp("resume"), dataset)


def has(storage: Path, pattern: str) -> bool:
    """Whether something of that name is there; folders may go while they are looked at."""
    try:
        return any(True for _ in storage.glob(pattern))
    except OSError:
        return False


def half_written(storage: Path) -> bool:
    found = list(storage.glob("predictions/.work-*/found/Site*.nii.gz"))
    return bool(found) and "Site 1-003" not in complete_cases(storage)


MOMENTS: dict[str, Callable[[Path], object]] = {
    "before the first case": lambda storage: has(storage, "predictions/.work-*/journal.json"),
    "between cases": lambda storage: "END S01_001" in "".join(log_texts(storage)),
    "a prediction half written": half_written,
    "metrics": lambda storage: has(storage, "tmp/metrics-evaluate-*"),
    "writing results": lambda storage: has(storage, "tmp/results-*/run/results.yaml"),
    "results are there": lambda storage: has(storage, "results/*/*/*/results.yaml"),
}


@pytest.mark.parametrize("moment", sorted(MOMENTS))
def test_killed_at_a_chosen_moment(case: Case, tmp_path: Path, moment: str) -> None:
    storage = tmp_path / "s"
    case.kill(storage, lambda runner: wait_until(lambda: MOMENTS[moment](storage), 60, runner))
    if moment != "results are there":
        assert not published(storage)
    if moment == "a prediction half written":
        assert complete_cases(storage) == {"S01_001"}
    case.finish(storage, in_process=moment != "between cases")


@pytest.mark.parametrize("per_case", [False, True])
def test_killed_again_and_again_at_random_moments(case: Case, tmp_path: Path, per_case: bool) -> None:
    """One storage, many kills in a row: what was complete once is never done again."""
    storage = tmp_path / "s"
    random = np.random.default_rng(SEED + per_case)
    for _ in range(KILLS // 2):
        delay = float(random.uniform(0.0, 1.2))

        def moment(runner: subprocess.Popen[str], delay: float = delay) -> None:
            wait_until(lambda: (storage / "tmp").exists() or runner.poll() is not None, 60)
            threading.Event().wait(delay)

        case.kill(storage, moment, *(["--per-case"] if per_case else []))
        if published(storage):  # this kill came too late: nothing is left to continue
            assert published(storage)[0].read_bytes() == case.expected
            return
    case.finish(storage, per_case=per_case)
    ended: set[str] = set()
    for line in "".join(log_texts(storage)).splitlines():
        kind, name = line.split(maxsplit=1)
        assert kind != "BEGIN" or name not in ended, "a complete case was repeated"
        ended |= {name} if kind == "END" else set()


@pytest.mark.parametrize("path", [None, "/nonexistent"], ids=["bubblewrap", "none"])
def test_a_killed_runner_takes_its_child_with_it(case: Case, tmp_path: Path, path: str | None) -> None:
    """Also what the child started, and not only when the next run begins."""
    body = "if os.fork(): print('BEGIN model', flush=True)\ntime.sleep(60)"
    model = make_cube(tmp_path / "m", body)
    asked = case.command(tmp_path / "s")
    runner = start(*asked[:-1], model, env={"PATH": path} if path else None)
    wait_until(lambda: begun(log_texts(tmp_path / "s")), 60, runner)
    group = os.getpgid(next(processes_of(model.parent)))
    assert group_lives(group)
    runner.kill()
    runner.communicate()
    wait_until(lambda: not group_lives(group), 5)


def group_lives(group: int) -> bool:
    """Whether a process group has a member that is not dead, be it collected or not."""
    for entry in sorted(Path("/proc").glob("[0-9]*/stat")):
        with suppress(OSError):
            state, _, member_of = entry.read_text().rsplit(")", 1)[1].split()[:3]
            if int(member_of) == group and state != "Z":
                return True
    return False


def test_a_stopped_run_continues(case: Case, tmp_path: Path) -> None:
    storage = tmp_path / "s"
    runner = start(*case.command(storage))
    wait_until(lambda: "END S01_001" in "".join(log_texts(storage)), 60, runner)
    runner.send_signal(signal.SIGTERM)
    _, stderr = runner.communicate(timeout=60)
    assert runner.returncode == 130 and "error: stopped" in stderr, stderr
    assert not list(processes_of(case.model.parent))
    assert not published(storage) and not list((storage / "tmp").iterdir())
    assert complete_cases(storage) >= {"S01_001"}
    case.finish(storage)
