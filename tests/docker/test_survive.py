"""What a hospital's night may bring: kills, a full disk at each step, damaged data, a clock that jumps, two runners."""

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest

from fedeval.errors import InputError
from tests.cube_factory import ROOT, make_cube, medperf
from tests.runner_cases import (
    SLOW_MODEL,
    WRITE_SCORES,
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

pytestmark = pytest.mark.docker

KILLS = int(os.environ.get("FEDEVAL_TEST_KILLS", "6")) // 2


def containers() -> set[str]:
    """Containers of runners of this machine, of anybody's."""
    asked = ["docker", "ps", "-aq", "--filter", "label=org.fedeval.runner"]
    return set(subprocess.run(asked, capture_output=True, text=True, check=True).stdout.split())


def containers_of(storage: Path) -> list[str]:
    """Containers that mount something below a storage."""
    asked = ["docker", "inspect", "-f", "{{.Id}} {{range .Mounts}}{{.Source}} {{end}}", *sorted(containers())]
    shown = subprocess.run(asked, capture_output=True, text=True).stdout if len(asked) > 4 else ""
    return [line.split()[0] for line in shown.splitlines() if f"{storage}/" in line]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_cube(tmp_path_factory.mktemp("slow"), SLOW_MODEL)


@pytest.fixture(scope="module")
def benchmark(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_benchmark(tmp_path_factory.mktemp("benchmark"), {"output_mb": 4})


@pytest.fixture(scope="module")
def expected(benchmark: Path, model: Path, dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """results.yaml of an undisturbed run of `model`, which is the same on every engine."""
    return run_undisturbed(tmp_path_factory.mktemp("undisturbed"), benchmark, model, dataset)


def run_undisturbed(storage: Path, benchmark: Path, model: Path, dataset: Path) -> bytes:
    run_in_process(benchmark, model, dataset, storage)
    return published(storage)[0].read_bytes()


def command(storage: Path, benchmark: Path, dataset: Path, model: Path, *more: str) -> tuple[str | Path, ...]:
    return ("--platform=docker", f"--storage={storage}", "test", "-b", benchmark, "-d", dataset, "-m", model, *more)


def one_error(code: int | None, expected: int, stderr: str) -> None:
    assert code == expected, stderr
    assert stderr.count("error:") == 1 and "Traceback" not in stderr and "Logging error" not in stderr, stderr


# kill -9


def kill_during_inference(storage: Path, delay_s: float, asked: tuple[str | Path, ...]) -> None:
    before = len(log_texts(storage))
    runner = start(*asked)
    wait_until(lambda: len(log_texts(storage)) > before or runner.poll() is not None, 60)
    time.sleep(delay_s)
    runner.kill()
    runner.communicate()


def test_killed_again_and_again(dataset: Path, tmp_path: Path, model: Path, benchmark: Path, expected: bytes) -> None:
    """Each start removes the container that the one before left; nothing complete is repeated."""
    random = np.random.default_rng(1)
    for _ in range(KILLS):
        kill_during_inference(tmp_path, float(random.uniform(0, 0.6)), command(tmp_path, benchmark, dataset, model))
        assert len(containers_of(tmp_path)) <= 1
        if published(tmp_path) or len(complete_cases(tmp_path)) == 3:  # later kills would find nothing to do
            break
    late = bool(published(tmp_path))
    done = medperf(*command(tmp_path, benchmark, dataset, model))
    assert done.returncode == 0, done.stderr
    assert containers_of(tmp_path) == [] and leftovers(tmp_path) == []
    assert published(tmp_path)[0].read_bytes() == expected
    if late:  # `test` does it all again
        return
    ended: set[str] = set()
    for line in "".join(log_texts(tmp_path)).splitlines():
        kind, name = line.split(maxsplit=1)
        assert kind != "BEGIN" or name not in ended, "a complete case was repeated"
        ended |= {name} if kind == "END" else set()


# limits of a case


def test_one_container_a_case_and_going_on(dataset: Path, tmp_path: Path) -> None:
    """A hang and a crash cost only themselves; every case has its time, the limit its case."""
    body = """
    import signal
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    for case in CASES:
        head = header(case)
        if case == "S01_001": sys.exit(3)
        while case == "Site 1-003": time.sleep(1)
        write(case, head)
    """
    model = make_cube(tmp_path / "m", body)
    benchmark = write_benchmark(tmp_path / "b", {"per_case_s": 2})
    done = medperf(*command(tmp_path / "s", benchmark, dataset, model, "--per-case", "--json"))
    assert done.returncode == 22, done.stderr
    record = json.loads(done.stdout)
    assert [case["status"] for case in record["cases"]] == ["crashed", "timeout", "ok"]
    assert all(case["wall_s"] is not None and 0 <= case["wall_s"] < 5 for case in record["cases"])
    limit = record["outcome"]["limit"]
    assert (limit["name"], limit["case"], limit["limit"]) == ("time", "Site 1-003", 2)
    assert containers_of(tmp_path) == []


def test_going_on_after_a_crash(dataset: Path, tmp_path: Path, benchmark: Path) -> None:
    body = """
    for case in CASES: head = header(case)
    for case in CASES:
        if case == "Site 1-003": sys.exit(3)
        write(case)
    """
    model = make_cube(tmp_path / "m", body)
    done = medperf(*command(tmp_path / "s", benchmark, dataset, model, "--on-failure=continue", "--json"))
    assert done.returncode == 22, done.stderr
    assert [case["status"] for case in json.loads(done.stdout)["cases"]] == ["ok", "crashed", "ok"]
    assert containers_of(tmp_path) == []


# a full disk


@contextmanager
def small_disk(folder: Path, size_mb: float) -> Iterator[Path]:
    """A file system of a few MB."""
    folder.mkdir()
    options = f"size={int(size_mb * 1024)}k"
    if subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True).returncode:
        pytest.skip("only root can mount a small file system")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def fill(disk: Path, leave: int) -> None:
    """Somebody else fills the disk, but for some bytes."""
    with (disk / "filler").open("wb") as file:
        while (more := shutil.disk_usage(disk).free - leave) > 4096:
            file.write(bytes(min(more - 4096, 1 << 20) or 4096))
            file.flush()


WAIT = """
def wait_for_go(folder):
    open(folder + "/waiting", "w").close()
    while not os.path.exists(folder + "/go"):
        time.sleep(0.02)
"""

BIG = """
def write_big(case):
    head = header(case)
    x, y, z = shape(head)
    voxels = bytes([0, 1, 2, 4]) * (x * y * z // 4)
    with gzip.GzipFile(f"{OUT}/{case}.nii.gz", "wb", 0, mtime=0) as file:
        file.write(bytes(head) + voxels)
"""

WAITING_MODEL = """
print("BEGIN model", flush=True)
write(CASES[0])
if len(CASES) == 3: wait_for_go(OUT)
for case in CASES[1:]: write(case)
"""

QUICK_MODEL = 'print("BEGIN model", flush=True)\nfor case in CASES: write(case)\n'
WAITING_METRICS = "wait_for_go(os.path.dirname(OUT))"

STEPS: dict[str, tuple[str, str, int]] = {
    "model output": (WAITING_MODEL, "", 0),
    "keeping predictions": (
        'print("BEGIN model", flush=True)\nfor case in CASES: write_big(case)\nwait_for_go(OUT)', "", 1_300_000
    ),
    "log": (
        QUICK_MODEL + 'wait_for_go(OUT)\nfor _ in range(200): print("x" * 99999)', "", 0
    ),
    "metrics": (QUICK_MODEL, WAITING_METRICS, 0),
    "results": (QUICK_MODEL, WAITING_METRICS, 40_000),
}  # fmt: skip
"""Step -> program of the model, of the metrics cube, and bytes that are left when one of them waits."""


def drive(asked: tuple[str | Path, ...], storage: Path, at_wait: Callable[[], None]) -> tuple[int, str]:
    """Run a command and let what waits go on after `at_wait`; exit code and stderr."""
    for old in [*storage.rglob("waiting"), *storage.rglob("go")]:
        old.unlink()
    runner = start(*asked)

    def look() -> bool:
        with suppress(FileNotFoundError):  # folders come and go while they are looked through
            for waiting in storage.rglob("waiting"):
                if not (waiting.parent / "go").exists():
                    at_wait()
                    (waiting.parent / "go").touch()
        return runner.poll() is not None

    wait_until(look, 90)
    return runner.returncode, runner.communicate()[1]


@pytest.mark.parametrize("step", sorted(STEPS))
def test_disk_full(dataset: Path, tmp_path: Path, step: str, small_masks: bytes, big_masks: bytes) -> None:
    """Exit 51, nothing under a final name; with space again the same command continues and repeats nothing."""
    body, metrics, leave = STEPS[step]
    model = make_cube(tmp_path / "m", BIG + WAIT + body)
    benchmark = write_benchmark(tmp_path / "b", {"output_mb": 3}, WAIT + metrics + WRITE_SCORES)
    with small_disk(tmp_path / "s", 8) as disk:
        asked = command(disk, benchmark, dataset, model)
        code, stderr = drive(asked, disk, lambda: fill(disk, leave))
        one_error(code, 51, stderr)
        assert "disk is full" in stderr or "disk of the storage" in stderr
        assert not published(disk) and not published(disk, "run.json") and not list((disk / "tmp").iterdir())
        assert not list(disk.rglob("*.partial"))
        (disk / "filler").unlink()
        code, stderr = drive(asked, disk, lambda: None)
        assert code == 0, stderr
        found = published(disk)[0].read_bytes()
        assert leftovers(disk) == []
        assert len(log_texts(disk)) == (2 if step == "model output" else 1), "something complete was repeated"
    assert found == (small_masks if step != "keeping predictions" else big_masks)
    assert containers_of(tmp_path) == []


@pytest.fixture(scope="module")
def small_masks(benchmark: Path, dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """results.yaml of masks as `write` makes them."""
    folder = tmp_path_factory.mktemp("small")
    return run_undisturbed(folder / "s", benchmark, make_cube(folder / "m"), dataset)


@pytest.fixture(scope="module")
def big_masks(benchmark: Path, dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The same of masks as `BIG` makes them."""
    folder = tmp_path_factory.mktemp("big")
    model = make_cube(folder / "m", BIG + "\nfor case in CASES: write_big(case)")
    return run_undisturbed(folder / "s", benchmark, model, dataset)


@pytest.mark.parametrize(("step", "size_mb"), [("toy data", 0.8), ("prepare", 1.9)])
def test_disk_full_while_data_are_prepared(tmp_path: Path, step: str, size_mb: float) -> None:
    """1.2 MB of toy cases, and as much prepared: once neither fits, once the first alone."""
    with small_disk(tmp_path / "s", size_mb) as disk:
        asked = ("--platform=process", f"--storage={disk}", "test", "-b", write_benchmark(
            tmp_path / "b", {"output_mb": 3}, data_prep=ROOT / "mlcubes" / "data_prep" / "mlcube",
        ), "--toy-size=ci", "--allow-foreign-code")  # fmt: skip
        done = medperf(*asked)
        one_error(done.returncode, 51, done.stderr)
        assert (
            "disk" in done.stderr and not list(disk.glob("data/*/dataset.json")) and not list((disk / "tmp").iterdir())
        )
        assert len(list((disk / "data").iterdir())) == (0 if step == "toy data" else 1)
        if step == "toy data":
            return
        subprocess.run(["mount", "-o", "remount,size=20m", disk], check=True)
        again = medperf(*asked)
        assert again.returncode == 0, again.stderr
        assert "toy data:" not in again.stderr, "something complete was repeated"


# data


def test_data_damaged_while_a_model_runs_are_not_its_fault(dataset: Path, tmp_path: Path, small_masks: bytes) -> None:
    """The model stumbles over a file that is cut short meanwhile; mended, the same command gives the same results."""
    copy = tmp_path / "d"
    shutil.copytree(dataset, copy)
    body = """
    print("BEGIN model", flush=True)
    write(CASES[0])
    if len(CASES) == 3: wait_for_go(OUT)
    for case in CASES[1:]:
        with gzip.open(f"{DATA}/{case}/{case}_brain_t1.nii.gz") as file: file.read()
        write(case)
    """
    model, benchmark = (
        make_cube(tmp_path / "m", WAIT + "\n" + body.replace("\n    ", "\n")),
        write_benchmark(tmp_path / "b"),
    )
    image = copy / "data" / "site1-002" / "site1-002_brain_t1.nii.gz"
    content = image.read_bytes()

    def cut() -> None:
        os.truncate(image, len(content) // 2)

    asked = command(tmp_path / "s", benchmark, copy, model)
    code, stderr = drive(asked, tmp_path / "s", cut)
    one_error(code, 14, stderr)
    assert "not what was prepared" in stderr and not published(tmp_path / "s")
    image.write_bytes(content)
    code, stderr = drive(asked, tmp_path / "s", lambda: None)
    assert code == 0, stderr
    assert published(tmp_path / "s")[0].read_bytes() == small_masks


def test_data_that_are_not_what_was_prepared(dataset: Path, tmp_path: Path, benchmark: Path, model: Path) -> None:
    """Removed, cut short, added, a reference too, a damaged note: always the site's fault, before anything runs."""

    def remove_case(folder: Path) -> None:
        shutil.rmtree(folder / "data" / "Site 1-003")

    def remove_image(folder: Path) -> None:
        next((folder / "data").rglob("*_t2.nii.gz")).unlink()

    def cut_image(folder: Path) -> None:
        os.truncate(next((folder / "data").rglob("*_t2.nii.gz")), 100)

    def cut_reference(folder: Path) -> None:
        os.truncate(next((folder / "labels").iterdir()), 100)

    def remove_reference(folder: Path) -> None:
        next((folder / "labels").iterdir()).unlink()

    def add_case(folder: Path) -> None:
        shutil.copytree(folder / "data" / "Site 1-003", folder / "data" / "new")

    def note(text: str) -> Callable[[Path], None]:
        def write(folder: Path) -> None:
            (folder / "dataset.json").write_text(text)

        return write

    damages = [remove_case, remove_image, cut_image, cut_reference, remove_reference, add_case, note(""), note("[]"),
               note('{"name": "x", "digest": 5, "cases": 3, "statistics": null}'),
               note('{"name": "x", "digest": "sha256:0", "cases": ["S01_001"], "statistics": null}')]  # fmt: skip
    for number, damage in enumerate(damages):
        copy = tmp_path / str(number)
        shutil.copytree(dataset, copy)
        damage(copy)
        if number == 0:
            done = medperf(*command(tmp_path / "s", benchmark, copy, model))
            one_error(done.returncode, 14, done.stderr)
        with pytest.raises(InputError):
            run_in_process(benchmark, model, copy, tmp_path / "s")
        assert not log_texts(tmp_path / "s") and not published(tmp_path / "s"), number


# the clock

JUMP = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static long offset(void) {
    const char *file = getenv("CLOCK_JUMPS_WHEN");
    return file && access(file, F_OK) == 0 ? atol(getenv("CLOCK_JUMPS_BY")) : 0;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    int (*real)(clockid_t, struct timespec *) = dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(clock, now);
    if (clock == CLOCK_REALTIME) now->tv_sec += offset();
    return result;
}

time_t time(time_t *out) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (out) *out = now.tv_sec;
    return now.tv_sec;
}
"""


@pytest.fixture(scope="module")
def clock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library that moves the runner's wall clock by so many seconds as soon as a file is there."""
    if shutil.which("cc") is None:
        pytest.skip("no C compiler")
    folder = tmp_path_factory.mktemp("clock")
    (folder / "jump.c").write_text(JUMP)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", folder / "jump.so", folder / "jump.c", "-ldl"], check=True)
    return folder / "jump.so"


@pytest.mark.parametrize("seconds", [-86400, 86400])
def test_the_clock_jumps_a_day(
    dataset: Path, tmp_path: Path, model: Path, benchmark: Path, expected: bytes, clock: Path, seconds: int
) -> None:
    """In the middle of a case, then a kill, then the clock is right again: no limit bites, results are the same."""
    env = {"LD_PRELOAD": str(clock), "CLOCK_JUMPS_WHEN": str(tmp_path / "jump"), "CLOCK_JUMPS_BY": str(seconds)}
    asked = command(tmp_path / "s", benchmark, dataset, model)
    runner = start(*asked, env=env)
    wait_until(lambda: begun(log_texts(tmp_path / "s")), 60, runner)
    (tmp_path / "jump").touch()
    _, stderr = runner.communicate(timeout=60)
    assert runner.returncode == 0, stderr
    assert published(tmp_path / "s")[0].read_bytes() == expected
    if seconds > 0:
        return

    runner = start(*command(tmp_path / "t", benchmark, dataset, model), env=env)  # wrong from the beginning
    wait_until(lambda: "END S01_001" in "".join(log_texts(tmp_path / "t")), 60, runner)
    runner.send_signal(signal.SIGKILL)
    runner.communicate()
    again = medperf(*command(tmp_path / "t", benchmark, dataset, model))
    assert again.returncode == 0, again.stderr
    assert published(tmp_path / "t")[0].read_bytes() == expected
    assert leftovers(tmp_path / "t") == [] and containers_of(tmp_path) == []


# two runners


def test_two_runners_on_one_storage(
    dataset: Path, tmp_path: Path, model: Path, benchmark: Path, expected: bytes
) -> None:
    """The same list at the same time, in the other order: each submission runs once, both get all results."""
    other = make_cube(tmp_path / "other", SLOW_MODEL + "# another submission")
    named = [["-m", str(first), "-m", str(second)] for first, second in ((model, other), (other, model))]
    storage = tmp_path / "s"
    runners = [
        start("--platform=docker", f"--storage={storage}", "run", "-b", benchmark, "-d", dataset, "--build", "--json",
              *words) for words in named
    ]  # fmt: skip
    documents = []
    for runner in runners:
        stdout, stderr = runner.communicate(timeout=120)
        assert runner.returncode == 0, stderr
        documents.append(json.loads(stdout)["runs"])
    attempts = [run["attempts"] for document in documents for run in document]
    assert sorted(attempts) == [0, 0, 1, 1]
    assert len(begun(log_texts(storage))) == 6, "a submission ran twice"
    assert [path.read_bytes() for path in published(storage)] == [expected, expected]
    assert leftovers(storage) == [] and containers_of(storage) == []


def test_a_killed_runner_holds_nobody_up(
    dataset: Path, tmp_path: Path, model: Path, benchmark: Path, expected: bytes
) -> None:
    """One waits for another that works on the same run; when that one is killed, the waiting one continues its work."""
    asked = command(tmp_path, benchmark, dataset, model)
    first = start(*asked)
    wait_until(lambda: begun(log_texts(tmp_path)), 60, first)
    second = start(*asked)
    wait_until(lambda: "END S01_001" in "".join(log_texts(tmp_path)), 60, first)
    first.kill()
    first.communicate()
    kept = complete_cases(tmp_path)
    _, stderr = second.communicate(timeout=60)
    assert second.returncode == 0, stderr
    assert published(tmp_path)[0].read_bytes() == expected
    assert not kept & set(begun(log_texts(tmp_path)[1:])) and leftovers(tmp_path) == []
    medperf(*asked)
    assert containers_of(tmp_path) == []
