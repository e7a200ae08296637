"""Benchmark files: data that names cubes, files and tables; whatever does not fit is one clear error."""

from pathlib import Path

import pytest

from fedeval.benchmark import BENCHMARKS, load_benchmark, resolve_benchmark
from fedeval.errors import BenchmarkError

OWN = sorted(BENCHMARKS.glob("*.yaml"))


def changed(tmp_path: Path, old: str, new: str) -> Path:
    text = (BENCHMARKS / "1-fets.yaml").read_text()
    assert old in text
    path = tmp_path / "benchmark.yaml"
    path.write_text(text.replace(old, new, 1))
    return path


@pytest.mark.parametrize("path", OWN, ids=lambda path: path.stem)
def test_own_benchmarks_are_found_by_number_and_by_file(path: Path) -> None:
    assert resolve_benchmark(path.stem.split("-")[0]) == resolve_benchmark(str(path)) == load_benchmark(path)


@pytest.mark.parametrize(
    "wanted", ["99", "²", "9" * 5000, "x" * 5000, "nowhere.yaml", "", "."], ids=lambda text: text[:12]
)
def test_unknown_benchmark(wanted: str) -> None:
    with pytest.raises(BenchmarkError, match="unknown benchmark"):
        resolve_benchmark(wanted)


@pytest.mark.parametrize(
    ("old", "new", "part"),
    [
        ("name: fets", "name: ../../x", "name '../../x'"),  # part of the names of folders and logs
        ('file: "{case}.nii.gz"', 'file: "../../{case}.nii.gz"', "prediction.file"),
        ('file: "{case}.nii.gz"', 'file: "prediction.nii.gz"', "holds {case} once"),
        ('file: "{case}.nii.gz"', 'file: "{case.__class__}"', "holds {case} once"),
        ('reference: "{case}_final_seg.nii.gz"', 'reference: "/etc/{case}"', "prediction.reference"),
        ("  WT: [1, 2, 4]", '  "<script>": [1]', "region '<script>'"),
        ("key: Dice,", "key: ../Dice,", "metric '../Dice'"),
        ("ranked: true", "ranked: true, best: 1", "unknown keys"),
        ("  infer: {per", "  inferr: {per", "section limits: unknown keys"),
        ("  seed: 0", "  sead: 0", "section toy_data: unknown keys"),
        ("  size: full", "  size: huge", "one of the sizes full, ci"),
        ("  cases: 3", "  cases: 0", "one case or more"),
        ("id: 1", "id: one", "wrong kind of value"),
        ("title:", "titel:", "unknown keys"),
        ("direction: higher", "direction: up", "expected higher or lower"),
        ("id: 1", '"\\e[2J": 1\nid: 1', r"\x1b[2J"),
    ],
)
def test_broken_files(tmp_path: Path, old: str, new: str, part: str) -> None:
    with pytest.raises(BenchmarkError) as caught:
        load_benchmark(changed(tmp_path, old, new))
    assert part in str(caught.value)
    assert "\x1b" not in str(caught.value)


def test_text_of_tables_cannot_steer_a_terminal(tmp_path: Path) -> None:
    assert "\x1b" not in load_benchmark(changed(tmp_path, 'title: "', 'title: "\\e[2J')).title
