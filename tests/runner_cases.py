"""What the tests of limits and survival share: a quick benchmark on real toy data, and a look at what a run left."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from fedeval.inference import InferenceMode
from fedeval.log import close_run_log
from fedeval.options import Options
from fedeval.pipeline import TestOutcome, TestRequest, run_test
from fedeval.view import RunView
from tests.cube_factory import ROOT, make_cube, medperf_command

DATA_PREP = """
  prepare:
    parameters:
      inputs: {data_path: data/, labels_path: labels/, parameters_file: parameters.yaml}
      outputs: {output_path: prepared/, output_labels_path: prepared_labels/}
  sanity_check:
    parameters:
      inputs: {data_path: data/, labels_path: labels/}
  statistics:
    parameters:
      inputs: {data_path: data/, labels_path: labels/}
      outputs: {output_path: {type: file, default: statistics.yaml}}
"""

CHECKS = """
import os, sys
arguments = dict(word[2:].split("=", 1) for word in sys.argv[2:])
if sys.argv[1] == "statistics":
    with open(arguments["output_path"], "w") as file:
        file.write("cases: %d" % len(os.listdir(arguments["data_path"])))
"""

EVALUATE = """
  evaluate:
    parameters:
      inputs: {predictions: predictions/, labels: labels/}
      outputs: {output_path: {type: file, default: results.yaml}}
"""

SCORES = '''
import gzip, json, os, struct, sys, time
arguments = dict(word[2:].split("=", 1) for word in sys.argv[2:])
FOUND, LABELS, OUT = arguments["predictions"], arguments["labels"], arguments["output_path"]

def masks(path):
    """Region -> its voxels as the bits of one number."""
    with gzip.open(path) as file:
        content = file.read()
    voxels = content[int(struct.unpack_from("<f", content, 108)[0]):]
    return {region: int.from_bytes(voxels.translate(bytes(label in labels for label in range(256))), "little")
            for region, labels in {"WT": (1, 2, 4), "TC": (1, 4), "ET": (4,)}.items()}, len(voxels)

def score(case):
    reference, size = masks(f"{LABELS}/{case}_final_seg.nii.gz")
    path = f"{FOUND}/{case}.nii.gz"
    missing = not os.path.exists(path)
    found = dict.fromkeys(reference, 0) if missing else masks(path)[0]
    row = {"missing_pred": missing}
    for region, expected in reference.items():
        both, one, other = ((a & b).bit_count() for a, b in
                            ((expected, found[region]), (expected, expected), (found[region], found[region])))
        row[f"Dice_{region}"] = 2 * both / max(one + other, 1)
        row[f"Hausdorff95_{region}"] = 374 if missing else abs(one - other) ** (1 / 3)
        row[f"Sensitivity_{region}"] = both / max(one, 1)
        row[f"Specificity_{region}"] = (size - one - other + both) / max(size - one, 1)
        row[f"Precision_{region}"] = both / max(other, 1)
    return row

rows = {name.removesuffix("_final_seg.nii.gz"): None for name in sorted(os.listdir(LABELS))}
rows = {case: score(case) for case in rows}
'''

WRITE_SCORES = """
with open(OUT, "w") as file:
    json.dump(rows, file)
"""

SLOW_MODEL = """
def write_slowly(case, seconds):
    head = header(case)
    x, y, z = shape(head)
    seed = sum(case.encode())
    voxels = bytearray(x * y * z)
    middle = (z // 2 * y + y // 2) * x
    voxels[middle:middle + 40 * x:2] = bytes([1, 2, 4, 2, seed % 2])* (4 * x)
    content = gzip.compress(bytes(head) + bytes(voxels), 1)
    with open(f"{OUT}/{case}.nii.gz", "wb") as file:
        file.write(content[:len(content) // 2])
        file.flush()
        time.sleep(seconds)
        file.write(content[len(content) // 2:])

for case in CASES:
    print("BEGIN", case, flush=True)
    time.sleep(0.1)
    write_slowly(case, 0.1)
    print("END", case, flush=True)
"""
"""Slow enough to be caught between cases and with a prediction half written."""


def write_benchmark(
    folder: Path, limits: Mapping[str, Any] | None = None, scores: str = WRITE_SCORES, **cubes: Path
) -> Path:
    """Benchmark 1 with a data_prep and a metrics cube that need nothing but Python, and other limits for infer.

    Parameters
    ----------
    scores : str
        End of the metrics cube's program, after ``rows`` was computed.
    cubes : Path
        Others, by role.
    """
    folder.mkdir(parents=True, exist_ok=True)
    content = yaml.safe_load((ROOT / "benchmarks" / "1-fets.yaml").read_text())
    own: dict[str, Callable[[], Path]] = {
        "data_prep": lambda: make_cube(folder / "data_prep", "", tasks=DATA_PREP, program=CHECKS),
        "metrics": lambda: make_cube(folder / "metrics", scores, tasks=EVALUATE, program=SCORES),
        "reference_model": lambda: ROOT / "mlcubes" / "model" / "mlcube",
    }
    content["cubes"] = {role: str(cubes[role] if role in cubes else make()) for role, make in own.items()}
    content["limits"]["infer"].update(limits or {})
    path = folder / "benchmark.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def start(*arguments: str | Path, env: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
    """Begin a command; its output is collected by `communicate`."""
    return subprocess.Popen(
        medperf_command(*arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        stdin=subprocess.DEVNULL, env={**os.environ, **(env or {})},
    )  # fmt: skip


def wait_until(found: Callable[[], Any], seconds: float = 60, runner: subprocess.Popen[str] | None = None) -> Any:
    """Wait until `found` gives something true, and return it; fail when the runner ends before."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if value := found():
            return value
        if runner is not None and runner.poll() is not None:
            raise AssertionError(f"the runner ended with {runner.returncode}: {runner.communicate()}")
        threading.Event().wait(0.005)
    raise AssertionError(f"waited {seconds} s in vain")


def log_texts(storage: Path, name: str = "model-infer*.log") -> list[str]:
    """Logs of a task's containers, oldest first."""
    found = sorted((storage / "logs").rglob(name), key=lambda path: path.stat().st_mtime_ns)
    return [path.read_text(errors="replace") for path in found]


def begun(texts: list[str]) -> list[str]:
    """Cases that `SLOW_MODEL` began, in order."""
    return [line.split(maxsplit=1)[1] for text in texts for line in text.splitlines() if line.startswith("BEGIN ")]


def complete_cases(storage: Path) -> set[str]:
    """Cases whose prediction lies complete in the work folder of an unfinished run."""
    complete = set()
    for path in (storage / "predictions").glob(".work-*/*/*.nii.gz"):
        if path.parent.name in ("found", "accepted"):
            try:
                gzip.decompress(path.read_bytes())
            except (EOFError, OSError):
                continue
            complete.add(path.name.removesuffix(".nii.gz"))
    return complete


def published(storage: Path, name: str = "results.yaml") -> list[Path]:
    """Files of that name under their final place."""
    return sorted((storage / "results").rglob(name))


def load_record(storage: Path) -> dict[str, Any]:
    """The one run.json of a storage."""
    (path,) = published(storage, "run.json")
    record: dict[str, Any] = json.loads(path.read_text())
    return record


def leftovers(storage: Path) -> list[str]:
    """What an ended run must not leave in its storage: scratch, work folders, partial files."""
    found = [*(storage / "tmp").iterdir(), *(storage / "predictions").glob(".*"), *storage.rglob("*.partial")]
    return sorted(str(path.relative_to(storage)) for path in found)


def processes_of(path: Path) -> Iterator[int]:
    """Processes, other than runners, whose command line names a path."""
    for entry in sorted(Path("/proc").iterdir()):
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if os.fsencode(path) in words and b"fedeval.cli" not in words and int(entry.name) != os.getpid():
                yield int(entry.name)


def run_in_process(
    benchmark: Path, model: Path, dataset: Path, storage: Path, *, per_case: bool = False, go_on: bool = False,
    platform: str = "process",
) -> TestOutcome:  # fmt: skip
    """`medperf test` without a process of its own, which costs a second."""
    options = Options(storage, platform=platform, allow_foreign=True, json=True)
    request = TestRequest(str(benchmark), model, dataset=dataset, mode=InferenceMode(per_case, go_on))
    try:
        return run_test(request, options, RunView(quiet=True))
    finally:
        close_run_log()


def multiply_cases(dataset: Path, folder: Path, count: int) -> tuple[Path, list[str]]:
    """A dataset of `count` copies of the first case, and their ids."""
    first = sorted(path.name for path in (dataset / "data").iterdir())[0]
    names = [f"case-{number:02d}" for number in range(count)]
    (folder / "labels").mkdir(parents=True)
    for name in names:
        (folder / "data" / name).mkdir(parents=True)
        for image in (dataset / "data" / first).iterdir():
            shutil.copyfile(image, folder / "data" / name / image.name.replace(first, name))
        shutil.copyfile(
            dataset / "labels" / f"{first}_final_seg.nii.gz", folder / "labels" / f"{name}_final_seg.nii.gz"
        )
    return folder, names
