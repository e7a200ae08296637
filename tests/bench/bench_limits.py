"""What limits cost and how fast they bite, with real containers.

    python tests/bench/bench_limits.py [--quick]

1. Time from the breach to the container gone (engine and kernel asked), p50 and maximum, for the limits of time, memory
   and output. The program notes the moment right before it crosses the limit; for time it is start plus budget.
2. A container with all limits against plain `docker run` of the same image and program, as a ratio of the whole call:
   with a program that does nothing, and with one that computes and writes for a while.
3. What `--per-case` costs a case: `medperf test` with one container a case against one for all.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from fedeval.cube import load_cube  # noqa: E402
from fedeval.engine.base import Breach, TaskCall, TaskOutcome  # noqa: E402
from fedeval.engine.docker_engine import DockerEngine  # noqa: E402
from fedeval.invocation import build_invocation  # noqa: E402
from fedeval.limits import Limits  # noqa: E402
from fedeval.output_watch import OutputWatch  # noqa: E402
from tests.cube_factory import make_cube  # noqa: E402

LIMITS = Limits(memory_mb=256, output_mb=8, tmp_mb=16)
NOTE = "open(OUT + '/at', 'w').write(repr(time.time()))"
PROGRAMS = {
    "time": "time.sleep(600)",
    "memory": f"a = bytearray(100 << 20); {NOTE}; b = bytearray(400 << 20); b[::4096] = b'1' * (100 << 10); "
    "time.sleep(600)",
    "output": f"open(OUT + '/a', 'wb').write(bytes(7 << 20)); {NOTE}; open(OUT + '/b', 'wb').write(bytes(4 << 20)); "
    "time.sleep(600)",
    "nothing": "print('done')",
    "work": "sum(i * i for i in range(12_000_000)); open(OUT + '/a', 'wb').write(os.urandom(6 << 20))",
}
BUDGET_S = 1.0


class Bench:
    """Runs one of the programs under the limits."""

    def __init__(self, engine: DockerEngine, work: Path) -> None:
        self.engine, self.work, self.count = engine, work, 0
        (work / "data" / "case").mkdir(parents=True)
        (work / "data" / "case" / "content").touch()
        self.cubes = {name: load_cube(make_cube(work / "cubes" / name, body)) for name, body in PROGRAMS.items()}
        self.images = {name: engine.get_image(cube, True, lambda line: None) for name, cube in self.cubes.items()}

    def run(self, name: str, budget_s: float) -> tuple[TaskOutcome, float, float, Path]:
        """Outcome, time of the call, time when the container was gone, output folder."""
        self.count += 1
        folder = self.work / f"run-{self.count}"
        out = folder / "out"
        given = {"data_path": self.work / "data", "output_path": out}
        invocation = build_invocation(self.cubes[name], "infer", given, folder)
        watch = OutputWatch(invocation.output_dirs, LIMITS)
        tick: Callable[[], Breach | None] = lambda: watch.look(time.monotonic())  # noqa: E731
        call = TaskCall(self.cubes[name], self.images[name], invocation, LIMITS, budget_s, folder / "log", tick)
        called = time.time()
        outcome = self.engine.run(call)
        return outcome, called, time.time(), out


def measure_breach(bench: Bench, name: str, repetitions: int) -> None:
    """Print p50 and maximum of the time from a breach to the container gone."""
    times = []
    for _ in range(repetitions):
        outcome, called, gone, out = bench.run(name, BUDGET_S if name == "time" else 60.0)
        wanted = {"time": "time", "memory": "memory", "output": "output_size"}[name]
        if outcome.ended_by is None or outcome.ended_by.name != wanted:
            sys.exit(f"{name}: ended by {outcome.ended_by}, expected {wanted}")
        breach = called + outcome.start_up_s + BUDGET_S if name == "time" else float((out / "at").read_text())
        times.append(gone - breach)
    p50_s, max_s = statistics.median(times), max(times)
    print(f"breach of {name:6} to container gone: p50 {p50_s:.2f} s, max {max_s:.2f} s, n={len(times)}")


def measure_overhead(bench: Bench, name: str, repetitions: int) -> None:
    """Print what all limits together add to a plain container."""
    limited, plain = [], []
    command = ["docker", "run", "--rm", f"--volume={bench.work / 'data'}:/in", f"--volume={bench.work}:/out",
               bench.images[name].digest, "infer", "--data_path=/in", "--output_path=/out"]  # fmt: skip
    for _ in range(repetitions):
        started = time.perf_counter()
        outcome, *_ = bench.run(name, 60.0)
        if not outcome.ok:
            sys.exit(f"{name}: {outcome}")
        limited.append(time.perf_counter() - started)
        started = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        plain.append(time.perf_counter() - started)
    all_s, plain_s = statistics.median(limited), statistics.median(plain)
    print(
        f"all limits {all_s:.2f} s, plain docker run {plain_s:.2f} s: ratio {all_s / plain_s:.2f} "
        f"(program: {name}), n={repetitions}"
    )


def measure_per_case(work: Path, repetitions: int) -> None:
    """Print what one container a case costs against one for all."""
    storage = work / "storage"
    base = [sys.executable, "-m", "fedeval.cli", "--platform=docker", f"--storage={storage}", "test", "-b", "1"]
    base += ["--toy-size=ci", "-m", str(make_cube(work / "model"))]
    subprocess.run(base, check=True, capture_output=True)  # builds and prepares
    walls: dict[str, list[float]] = {"batch": [], "per case": []}
    for _ in range(repetitions):
        for name, more in (("batch", []), ("per case", ["--per-case"])):
            started = time.perf_counter()
            subprocess.run([*base, *more], check=True, capture_output=True)
            walls[name].append(time.perf_counter() - started)
    batch, single = statistics.median(walls["batch"]), statistics.median(walls["per case"])
    cost_s = (single - batch) / 2
    print(f"--per-case: {single:.2f} s against {batch:.2f} s for 3 cases: {cost_s:.2f} s for each container more")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="few repetitions")
    repetitions = 2 if parser.parse_args().quick else 20
    with tempfile.TemporaryDirectory(prefix="bench-limits-") as folder, DockerEngine() as engine:
        work = Path(folder)
        work.chmod(0o755)
        bench = Bench(engine, work)
        for name in ("time", "memory", "output"):
            measure_breach(bench, name, repetitions)
        for name in ("nothing", "work"):
            measure_overhead(bench, name, repetitions)
        measure_per_case(work, max(repetitions // 4, 1))


if __name__ == "__main__":
    main()
