"""Overhead of the runner: time of `medperf test` minus the time of the bare tasks, as a ratio to the bare tasks.

    python tests/bench/bench_runner.py [--quick] [--platform=process]

The floor in the same run is what the tasks cost without fedeval: the cubes' own programs for the process engine, plain
`docker run` of the same images for docker. Both sides do all of it: prepare, sanity_check, statistics, infer, evaluate,
on the same toy cases; making the toy cases is not counted. Wall clock, median of the repetitions, sides in turn.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
IMAGES = {name: f"fedeval/fets-{name.replace('_', '-')}:0.1.0" for name in ("data_prep", "model", "metrics")}
MEDPERF = [sys.executable, "-m", "fedeval.cli"]
Step = tuple[str, str, dict[str, Path]]


def run(command: list[str]) -> float:
    """Wall seconds of a command that must succeed."""
    started = time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode:
        sys.exit(f"{' '.join(command[:6])} ...: exit code {done.returncode}\n{done.stderr[-2000:]}")
    return time.perf_counter() - started


def plan_steps(raw: Path, out: Path, parameters: Path) -> list[Step]:
    """The five tasks with their paths."""
    data, labels, predictions = out / "data", out / "labels", out / "predictions"
    prepared = {"data_path": data, "labels_path": labels, "parameters_file": parameters}
    return [
        ("data_prep", "prepare", {**prepared, "data_path": raw / "data", "labels_path": raw / "labels",
                                  "output_path": data, "output_labels_path": labels}),
        ("data_prep", "sanity_check", prepared),
        ("data_prep", "statistics", {**prepared, "output_path": out / "statistics.yaml"}),
        ("model", "infer", {"data_path": data, "output_path": predictions}),
        ("metrics", "evaluate", {"predictions": predictions, "labels": labels, "output_path": out / "results.yaml"}),
    ]  # fmt: skip


def bare_process(steps: list[Step]) -> float:
    """The cubes' programs, one after the other."""
    total = 0.0
    for cube, task, paths in steps:
        program = ROOT / "mlcubes" / cube / "project" / "mlcube.py"
        total += run([sys.executable, str(program), task, *(f"--{name}={path}" for name, path in paths.items())])
    return total


def bare_docker(steps: list[Step]) -> float:
    """Plain `docker run` of the same images, the whole working folder mounted, as root."""
    total = 0.0
    for cube, task, paths in steps:
        top = Path(steps[0][2]["output_path"]).parents[1]
        command = ["docker", "run", "--rm", "--user=0:0", f"--volume={top}:{top}", IMAGES[cube], task]
        total += run([*command, *(f"--{name}={path}" for name, path in paths.items())])
    return total


def medperf_test(platform: str, size: str, raw_storage: Path, folder: Path) -> float:
    """`medperf test` on a storage that holds the toy cases and nothing else."""
    storage = folder / "storage"
    (storage / "data").mkdir(parents=True)
    shutil.copytree(raw_storage, storage / "data" / raw_storage.name)
    return run([*MEDPERF, f"--platform={platform}", f"--storage={storage}", "test", "-b", "1", f"--toy-size={size}"])


def measure(platform: str, size: str, repetitions: int, work: Path) -> None:
    """Print one line for an engine."""
    first = work / f"{platform}-first"  # builds images, makes the toy cases; not counted
    run([*MEDPERF, f"--platform={platform}", f"--storage={first}", "test", "-b", "1", f"--toy-size={size}"])
    raw = next(path.parent for path in (first / "data").glob("toy-*/toy_data.yaml"))
    parameters = work / "parameters.yaml"
    sizes = yaml.safe_load((ROOT / "benchmarks" / "1-fets.yaml").read_text())["toy_data"]["sizes"]
    own = yaml.safe_load((ROOT / "mlcubes/data_prep/mlcube/workspace/parameters.yaml").read_text())
    parameters.write_text(yaml.safe_dump({**own, **sizes[size]}))
    bare_run: Callable[[list[Step]], float] = bare_docker if platform == "docker" else bare_process
    whole, bare = [], []
    for number in range(repetitions):
        folder = work / f"{platform}-{number}"
        (folder / "out").mkdir(parents=True)
        shutil.copytree(raw, folder / "raw")
        shutil.copy(parameters, folder / "parameters.yaml")
        whole.append(medperf_test(platform, size, raw, folder))
        bare.append(bare_run(plan_steps(folder / "raw", folder / "out", folder / "parameters.yaml")))
    test_s, bare_s = statistics.median(whole), statistics.median(bare)
    print(
        f"{platform:8} {size:5} medperf test {test_s:6.2f} s, bare tasks {bare_s:6.2f} s: "
        f"overhead {test_s - bare_s:5.2f} s, ratio {(test_s - bare_s) / bare_s:.2f}"
    )


def main() -> None:
    """Measure each engine that is at hand."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="small cases, once")
    parser.add_argument("--platform", choices=["process", "docker"], help="this one alone")
    asked = parser.parse_args()
    quick = asked.quick
    engines = [asked.platform or "process"]
    if (
        not asked.platform
        and shutil.which("docker")
        and subprocess.run(["docker", "info"], capture_output=True).returncode == 0
    ):
        engines.append("docker")
    with tempfile.TemporaryDirectory(prefix="bench-runner-") as work:
        for platform in engines:
            measure(platform, "ci" if quick else "full", 1 if quick else 3, Path(work))


if __name__ == "__main__":
    main()
