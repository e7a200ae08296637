"""Speed of the ranking, from files read to files written, and as a ratio to a plain loop over draws.

``python tests/bench/bench_ranking.py`` makes 30 sites x 40 submissions x 2,600 cases from a seed, runs the program
once per line below in a process of its own with one thread, and prints the processor time (user and system) against
the limit that was set for it. Then it times the plain way, one call of the same ranking functions per draw, on a few
draws, and prints the ratio for the same draws. ``--quick`` does the same on little data; its limits are the same, so
they say nothing.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

for _variable in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")  # before numpy starts its threads, which burn processor time while they wait

import numpy as np  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from ranking.bootstrap import compute_bootstrap_ranks  # noqa: E402
from ranking.methods import compute_sub_ranking  # noqa: E402
from ranking.pipeline import Settings, load_study  # noqa: E402
from ranking.regular_yaml import read_regular_yaml  # noqa: E402
from ranking.rules import METHODS, load_rule  # noqa: E402
from ranking.signed_rank_draws import find_add_sums  # noqa: E402
from ranking.site_share import draw_case_counts  # noqa: E402
from ranking.tables import Study  # noqa: E402

RUNS = (
    ("five methods, significance", ["--method", "all", "--bootstrap", "none"], 4.0),
    ("rankThenMean, 1000 draws", ["--method", "rankThenMean"], 6.0),
    ("testBased, 1000 draws, no numba", ["--method", "testBased"], 150.0),
    ("testBased, 1000 draws", ["--method", "testBased"], 25.0),
    ("five methods, 1000 draws each", ["--method", "all"], 40.0),
)
MEMORY_LIMIT_MB = 1000.0


def write_federation(folder: Path, sites: int, submissions: int, cases: int, seed: int = 7) -> int:
    """Write site files of a made-up federation; sites have from 10 to some 250 cases. Returns bytes written."""
    rng = np.random.default_rng(seed)
    share = rng.dirichlet(np.full(sites, 2.0))
    counts = np.maximum(2, np.round(share * (cases - 10 * sites)).astype(int) + 10)
    counts[-1] = max(2, counts[-1] + cases - counts.sum())
    skill = rng.normal(0.0, 0.3, submissions)
    size = 0
    for site, count in enumerate(counts):
        lines = []
        for case, quality in enumerate(rng.normal(1.5, 1.0, count)):
            lines.append(f"site{site:02d}_case{case:04d}:")
            logits = quality + skill[:, None] + rng.normal(0.0, 0.6, (submissions, 6))
            for submission, row in enumerate(logits):
                lines.append(f"  team{submission:02d}_model:")
                for region, dice, distance in zip(("WT", "TC", "ET"), row[:3], row[3:], strict=True):
                    overlap = round(4000 / (1 + np.exp(-dice))) / 4000
                    lines.append(f"    Dice_{region}: {overlap}")
                    lines.append(f"    Hausdorff95_{region}: {np.sqrt(round(np.exp(4 - distance))):.6f}")
        text = "\n".join(lines) + "\n"
        size += len(text)
        (folder / f"site{site:02d}.yaml").write_text(text)
    return size


def run_program(data: Path, output: Path, arguments: list[str], draws: int, without_numba: bool) -> tuple[float, float]:
    """Processor seconds and peak memory (MB) of one run of the program in a process of its own."""
    script = (
        "import resource, runpy, sys\n"
        f"if {without_numba}: sys.modules['numba'] = None\n"
        "sys.argv = sys.argv[1:]\n"
        "try:\n    runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "finally:\n    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)\n"
    )
    program = ROOT / "ranking" / "compute_ranking.py"
    command = [sys.executable, "-c", script, str(program), str(data), "--output", str(output), "--draws", str(draws)]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(arguments)} ended with status {done.returncode}:\n{done.stderr}")
    seconds = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return seconds, int(done.stderr.split()[-1]) / 1024.0


def measure_ratio(study: Study, method: str, draws: int, plain_draws: int) -> tuple[float, float]:
    """Seconds per draw of the plain loop and of the program's way, over all sites and metrics (processor time)."""
    settings = Settings(methods=(method,), draws=draws).make_site_settings(study)
    add_sums = find_add_sums(settings.compiled)
    plain = quick = 0.0
    for table in study.sites:
        counts = draw_case_counts(table, settings)
        for values, metric in zip(table.values, study.rule.metrics, strict=True):
            if settings.compiled and quick == 0.0:
                compute_bootstrap_ranks(method, values, metric.higher_is_better, counts[:2], add_sums=add_sums)
            start = time.process_time()
            ranks = compute_bootstrap_ranks(method, values, metric.higher_is_better, counts, add_sums=add_sums)
            quick += time.process_time() - start
            start = time.process_time()
            for draw in range(plain_draws):
                sample = np.repeat(values, counts[draw], axis=0)
                rank = compute_sub_ranking(method, sample, metric.higher_is_better).rank
                if not np.array_equal(rank, ranks[:, draw]):
                    raise SystemExit(f"{method}: the two ways differ at site {table.name}, {metric.name}, draw {draw}")
            plain += time.process_time() - start
    return plain / plain_draws, quick / draws


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="little data, few draws: a smoke test")
    quick = parser.parse_args().quick
    sites, submissions, cases, draws = (3, 5, 45, 50) if quick else (30, 40, 2600, 1000)
    with tempfile.TemporaryDirectory() as folder:
        data, output = Path(folder) / "data", Path(folder) / "output"
        data.mkdir()
        size = write_federation(data, sites, submissions, cases)
        print(f"{sites} sites x {submissions} submissions x {cases} cases, {size / 1e6:.1f} MB of YAML, {draws} draws")
        names = tuple(metric.name for metric in load_rule().metrics)
        start = time.process_time()
        for path in sorted(data.iterdir()):
            assert read_regular_yaml(path.read_text(), names) is not None
        seconds = time.process_time() - start
        print(f"{'reading the YAML':<32}{seconds:8.2f} s   {size / 1e6 / seconds:.0f} MB/s")
        figures = {}
        has_numba = importlib.util.find_spec("numba") is not None
        runs = [run for run in RUNS if has_numba or "numba" in run[0] or "testBased" not in run[0]]
        for name, arguments, limit in RUNS[:2] if quick else runs:
            seconds, memory = run_program(data, output, arguments, draws, "no numba" in name)
            figures[name] = seconds
            print(
                f"{name:<32}{seconds:8.2f} s   limit {limit:5.0f} s   {memory:5.0f} MB   limit {MEMORY_LIMIT_MB:.0f} MB"
            )
        study = load_study(data, load_rule(), Settings())
        for method in METHODS:
            slow, fast = measure_ratio(study, method, draws, 2)
            figures[f"ratio {method}"] = slow / fast
            speeds = f"plain loop {slow * 1e3:9.2f} ms a draw, here {fast * 1e3:7.2f} ms"
            print(f"{method:<20} {speeds}: ratio {slow / fast:.0f}")
        print(json.dumps(figures))


if __name__ == "__main__":
    main()
