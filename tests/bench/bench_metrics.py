"""Speed of the metrics cube as ratios of processor time, paired in one run.

``python tests/bench/bench_metrics.py`` compares, on twelve typical cases (`metrics_cases`):

* two .nii.gz files to all of FeTS 2022's metrics, with decompressing the two files by libdeflate (the floor);
* Dice and Hausdorff95 of three regions, labels in memory, with surface-distance and with MedPy on ready-made masks;
* the same without the native kernel with surface-distance;

then edge and adversarial cases with the floor, memory and start-up of the program, and 250 cases in the container.
Every round measures ours and the peer one after the other; a ratio is that of the medians over the rounds. ``--quick``
does it on one small case cut out of its image, for which nothing has to be reached.
"""

import argparse
import functools
import importlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before numpy starts threads that burn time while they wait
ROOT = Path(__file__).resolve().parents[2]
PROJECT = ROOT / "mlcubes" / "metrics" / "project"
sys.path[:0] = [str(ROOT), str(PROJECT)]

import deflate  # noqa: E402
import nibabel as nib  # noqa: E402
import numpy as np  # noqa: E402
from metrics_cube.cases import CaseFiles  # noqa: E402
from metrics_cube.cores import keep_freed_memory  # noqa: E402
from metrics_cube.evaluate import compute_case_result  # noqa: E402
from metrics_cube.mask_file import load_mask  # noqa: E402
from metrics_cube.native import load_kernel  # noqa: E402
from metrics_cube.parameters import Parameters  # noqa: E402
from metrics_cube.scores import compute_case, compute_region_image  # noqa: E402

from tests.bench.metrics_cases import (  # noqa: E402
    BenchCase,
    make_adversarial_cases,
    make_case,
    make_edge_cases,
    make_typical,
)

IMAGE = "fedeval/fets-metrics:0.1.0"
AFFINE = np.diag([-1.0, -1.0, 1.0, 1.0])
FETS = Parameters(workers=1)
DICE_HD95 = Parameters(metrics=("Dice", "Hausdorff95"), workers=1)
Action = Callable[[], object]


@dataclass(frozen=True)
class Setting:
    """How much to measure."""

    quick: bool
    rounds: int
    folder: Path


def measure(*actions: Action, rounds: int, floor_ms: float = 5.0) -> list[float]:
    """Median processor time in ms of each action over rounds in which all take turns; short ones are repeated."""
    repeats = []
    for action in actions:
        action()
        start = time.process_time()
        action()
        repeats.append(max(1, int(floor_ms / 1e3 / max(time.process_time() - start, 1e-6))))
    times: list[list[float]] = [[] for _ in actions]
    for _ in range(rounds):
        for action, repeat, found in zip(actions, repeats, times, strict=True):
            start = time.process_time()
            for _ in range(repeat):
                action()
            found.append((time.process_time() - start) / repeat * 1e3)
    return [statistics.median(found) for found in times]


def report(setting: Setting, name: str, value: float, limit: float, unit: str, at_most: bool = True) -> None:
    """One line for one thing that the metrics cube must reach."""
    reached = value <= limit if at_most else value >= limit
    verdict = f"must reach {'<=' if at_most else '>='} {limit:g} {unit}: {'reached' if reached else 'NOT REACHED'}"
    print(f"  {name}: {value:.2f} {unit} ({'quick, no verdict' if setting.quick else verdict})", flush=True)


def write_case(case: BenchCase, folder: Path) -> CaseFiles:
    """Save a case as compressed NIfTI."""
    name = case.name.replace(" ", "_").replace("%", "pct")
    paths = []
    for part, voxels in (("labels", case.reference), ("predictions", case.prediction)):
        path = folder / part / f"{name}{'_final_seg' if part == 'labels' else ''}.nii.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(voxels, AFFINE), path)  # type: ignore[no-untyped-call]
        paths.append(path)
    return CaseFiles(name, paths[0], (paths[1],))


def decompress(files: CaseFiles) -> None:
    """The floor: both files through libdeflate, and nothing else."""
    for path in (files.reference, files.predictions[0]):
        packed = path.read_bytes()
        deflate.gzip_decompress(packed, int.from_bytes(packed[-4:], "little"))


def bench_files(cases: list[BenchCase], setting: Setting) -> list[float]:
    """Ratio of the whole way from files to metrics to the floor, per case."""
    ratios = []
    for case in cases:
        files = write_case(case, setting.folder)
        score = functools.partial(compute_case_result, files, FETS, load_kernel())
        ours, floor = measure(score, functools.partial(decompress, files), rounds=setting.rounds)
        ratios.append(ours / floor)
        print(f"  {case.name:36s} {ours:8.2f} ms, floor {floor:6.2f} ms, ratio {ours / floor:7.2f}", flush=True)
    return ratios


@dataclass(frozen=True)
class Arrays:
    """One case in memory: labels for us, ready-made masks of the three regions for the peers."""

    labels: tuple[Any, Any]
    masks: list[tuple[Any, Any]]
    files: CaseFiles

    @classmethod
    def make(cls, case: BenchCase, files: CaseFiles) -> "Arrays":
        """Load the files as a caller of any of the tools has them."""
        pair = (load_mask(files.reference), load_mask(files.predictions[0]))
        masks = [
            (np.isin(case.reference, labels), np.isin(case.prediction, labels)) for labels in FETS.regions.values()
        ]
        return cls(pair, masks, files)

    def score(self, native: bool) -> None:
        """Dice and Hausdorff95 of the three regions by this cube."""
        kernel = load_kernel() if native else None
        reference, prediction = (compute_region_image(mask, DICE_HD95, kernel) for mask in self.labels)
        compute_case(reference, prediction, self.labels[0].header, DICE_HD95, kernel)

    def score_with_surface_distance(self, peer: Any) -> None:
        """The same by DeepMind's package."""
        for g, p in self.masks:
            peer.compute_dice_coefficient(g, p)
            peer.compute_robust_hausdorff(peer.compute_surface_distances(g, p, (1.0, 1.0, 1.0)), 95)

    def score_with_medpy(self, peer: Any) -> None:
        """The same by MedPy."""
        for g, p in self.masks:
            peer.dc(p, g)
            peer.hd95(p, g, voxelspacing=(1.0, 1.0, 1.0))


def bench_peers(cases: list[BenchCase], setting: Setting) -> dict[str, list[float]]:
    """Ratios of the peers' time to ours, labels in memory."""
    deepmind: Any = importlib.import_module("surface_distance.metrics")
    medpy: Any = importlib.import_module("medpy.metric.binary")
    ratios: dict[str, list[float]] = {"surface-distance": [], "MedPy": [], "without kernel": []}
    for case in cases:
        arrays = Arrays.make(case, write_case(case, setting.folder))
        ours, fallback, surface = measure(
            functools.partial(arrays.score, True),
            functools.partial(arrays.score, False),
            functools.partial(arrays.score_with_surface_distance, deepmind),
            rounds=max(1, setting.rounds // 3),
        )
        start = time.process_time()
        arrays.score_with_medpy(medpy)
        slow = (time.process_time() - start) * 1e3
        ratios["surface-distance"].append(surface / ours)
        ratios["MedPy"].append(slow / ours)
        ratios["without kernel"].append(surface / fallback)
        print(
            f"  {case.name:20s} ours {ours:6.2f} ms, without kernel {fallback:7.1f}, surface-distance {surface:8.1f}, "
            f"MedPy {slow:9.1f}: {surface / ours:6.0f}, {slow / ours:7.0f} times; {surface / fallback:5.1f} without",
            flush=True,
        )
    return ratios


CHILD = """
import json, resource, runpy, sys
sys.argv = sys.argv[1:]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
except SystemExit as end:
    assert not end.code, end.code
usage = resource.getrusage(resource.RUSAGE_SELF)
peak = int(open("/proc/self/status").read().partition("VmHWM:")[2].split()[0]) / 1024
print(json.dumps({"cpu_s": usage.ru_utime + usage.ru_stime, "peak_mib": peak}))
"""


def run_program(predictions: Path, labels: Path, output: Path, workers: int) -> dict[str, float]:
    """Processor time and peak memory of `mlcube.py evaluate` in a process of its own."""
    parameters = output.with_suffix(".parameters.yaml")
    parameters.write_text(f"workers: {workers}\n")
    command = [sys.executable, "-c", CHILD, str(PROJECT / "mlcube.py"), "evaluate"]
    command += [f"--predictions={predictions}", f"--labels={labels}", f"--output_path={output}"]
    command += [f"--parameters_file={parameters}"]
    environment = {key: value for key, value in os.environ.items() if key != "OPENBLAS_NUM_THREADS"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    usage: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return usage


def bench_program(case: BenchCase, setting: Setting) -> None:
    """Start-up and memory of the program on one case."""
    folder = setting.folder / "one"
    write_case(case, folder)
    inputs = (folder / "predictions", folder / "labels")
    runs = [run_program(*inputs, folder / "r.yaml", 1) for _ in range(3)]
    report(
        setting, "start-up, imports to the last byte of one case", min(run["cpu_s"] for run in runs), 0.5, "s of CPU"
    )
    report(setting, "memory of the whole process, one case", max(run["peak_mib"] for run in runs), 150, "MiB")


def bench_container(cases: list[BenchCase], setting: Setting, count: int) -> None:
    """`evaluate` on many cases in the container, or where there is none in a process."""
    folder = setting.folder / "many"
    originals = [write_case(case, setting.folder / "few") for case in cases]
    for i in range(count):
        files = originals[i % len(originals)]
        parts = ((files.reference, "labels", "_final_seg"), (files.predictions[0], "predictions", ""))
        for source, part, tail in parts:
            target = folder / part / f"case{i:04d}{tail}.nii.gz"
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
    floor_ms = statistics.fmean(
        measure(*(functools.partial(decompress, files) for files in originals), rounds=setting.rounds)
    )
    out = folder / "out"
    out.mkdir()
    out.chmod(0o777)
    for path in (setting.folder, folder):
        path.chmod(0o755)
    arguments = ["evaluate", "--predictions=/m/predictions", "--labels=/m/labels", "--output_path=/m/out/r.yaml"]
    command = ["docker", "run", "--rm", "--network=none", "--entrypoint=/opt/venv/bin/python", f"--volume={folder}:/m"]
    command += [IMAGE, "-c", CHILD, "/project/mlcube.py", *arguments]
    place = f"in {IMAGE}"
    if setting.quick or not has_image():
        place = "in a process (no engine or no image here)"
        words = [argument.replace("/m/", f"{folder}/") for argument in arguments]
        command = [sys.executable, "-c", CHILD, str(PROJECT / "mlcube.py"), *words]
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    wall_s = time.perf_counter() - start
    cpu_s = json.loads(done.stdout.splitlines()[-1])["cpu_s"]
    share = 1 - count * floor_ms / 1e3 / cpu_s
    print(
        f"  {count} cases {place}: {wall_s:.2f} s with start, {count / wall_s:.0f} cases/s on {os.cpu_count()} cores; "
        f"{cpu_s:.2f} s of CPU, {share:.0%} of it not decompression",
        flush=True,
    )


def has_image() -> bool:
    """Whether an engine answers and has the cube's image."""
    if shutil.which("docker") is None:
        return False
    return subprocess.run(["docker", "image", "inspect", IMAGE], capture_output=True, check=False).returncode == 0


def cut_out(case: BenchCase) -> BenchCase:
    """The case without the empty rest of its image, for a quick run."""
    box = tuple(slice(max(0, int(hit.min()) - 3), int(hit.max()) + 4) for hit in np.nonzero(case.reference))
    return BenchCase(case.name + " cut", *(np.asfortranarray(part[box]) for part in (case.reference, case.prediction)))


def iterate_sections(setting: Setting) -> Iterator[str]:
    """Run the sections; each yields its heading before it runs."""
    typical = [cut_out(make_case(0, 13.0, 0))] if setting.quick else make_typical()
    yield "files to metrics, typical cases, against decompressing the files"
    ratios = bench_files(typical, setting)
    report(setting, "median", statistics.median(ratios), 3, "times the floor")
    report(setting, "worst", max(ratios), 6, "times the floor")
    if not setting.quick:
        yield "edge cases, against decompressing the files"
        bench_files(make_edge_cases(), setting)
        yield "adversarial cases, against decompressing the files"
        report(setting, "worst", max(bench_files(make_adversarial_cases(), setting)), 50, "times the floor")
    yield "the program"
    bench_program(typical[-1], setting)
    yield "many cases"
    bench_container(typical, setting, 6 if setting.quick else 250)
    yield "Dice and Hausdorff95 of three regions, labels in memory, against peers"
    peers = bench_peers(typical, setting)
    report(setting, "surface-distance / ours, least", min(peers["surface-distance"]), 50, "times", at_most=False)
    report(
        setting,
        "surface-distance / ours, median",
        statistics.median(peers["surface-distance"]),
        100,
        "times",
        at_most=False,
    )
    report(setting, "MedPy / ours, least", min(peers["MedPy"]), 500, "times", at_most=False)
    report(setting, "surface-distance / without kernel, least", min(peers["without kernel"]), 5, "times", at_most=False)


def main() -> None:
    """Print all ratios."""
    parser = argparse.ArgumentParser(description="Ratios of the metrics cube's processor time.", allow_abbrev=False)
    parser.add_argument("--quick", action="store_true", help="one small case: shows that it runs, not how fast")
    parser.add_argument("--rounds", type=int, default=9, help="rounds of every comparison")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")  # the peers warn of their own age
    np.Inf = np.inf  # type: ignore[attr-defined]  # surface-distance 0.1 was written for numpy 1
    if load_kernel() is None:
        print("the native kernel is not built: python -m metrics_cube.build (ratios below are scipy's)")
    keep_freed_memory()
    with tempfile.TemporaryDirectory(prefix="bench_metrics.") as folder:
        setting = Setting(arguments.quick, 1 if arguments.quick else arguments.rounds, Path(folder))
        for heading in iterate_sections(setting):
            print(heading, flush=True)


if __name__ == "__main__":
    main()
