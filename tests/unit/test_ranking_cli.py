"""The program: files in, files out, messages and exit statuses."""

from __future__ import annotations

import csv
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ranking import errors
from ranking.cli import main
from ranking.document import load_document
from ranking.options import build_parser
from ranking.progress import SiteProgress
from ranking.rules import METHODS
from tests.unit import test_ranking_reference as plain
from tests.unit.test_ranking_read import METRICS, fill, format_site

ROOT = Path(__file__).resolve().parents[2]

# case -> submission -> Dice_WT, Hausdorff95_WT, Dice_TC, Hausdorff95_TC, Dice_ET, Hausdorff95_ET: the example that
# came with the published script.
EXAMPLE: dict[str, dict[str, tuple[float, ...]]] = {
    "0": {
        "deepmedic": (0.5, 8, 0.7, 2, 0.54, 14),
        "deepscan": (0.45, 12, 0.85, 5, 0.2, 22),
        "nnunet": (0.4, 9, 0.7, 6, 0.12, 16),
    },
    "1": {
        "deepmedic": (0.98, 2, 0.31, 5, 0.45, 1),
        "deepscan": (0.63, 6.1, 0.23, 4.2, 0.65, 9.1),
        "nnunet": (0.31, 6, 0.56, 11, 0.98, 1),
    },
}
ORDER = ("Dice_WT", "Hausdorff95_WT", "Dice_TC", "Hausdorff95_TC", "Dice_ET", "Hausdorff95_ET")

Run = Callable[..., Path]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run the program in a fresh working folder; gives its ranking_output."""
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)

    def run_program(data: Path, *arguments: str, status: int = 0) -> Path:
        assert main([str(data), *arguments]) == status
        return work / "ranking_output"

    return run_program


@pytest.fixture
def example(tmp_path: Path) -> Path:
    """Folder with the published example as its one site."""
    folder = tmp_path / "example"
    folder.mkdir()
    cases: dict[str, dict[str, dict[str, object] | None]] = {
        case: {name: dict(zip(ORDER, values, strict=True)) for name, values in entries.items()}
        for case, entries in EXAMPLE.items()
    }
    (folder / "institute.yaml").write_text(format_site(cases))
    return folder


def write_random_sites(folder: Path, seed: int = 0, sites: int = 3, submissions: int = 4, cases: int = 9) -> Path:
    """Random federation with ties, missing values and names that R would mangle."""
    rng = np.random.default_rng(seed)
    folder.mkdir()
    names = ["nnU-Net", "10", "if", "no", "u net", "z"][:submissions]
    for site in range(sites):
        content: dict[str, dict[str, dict[str, object] | None]] = {}
        for case in range(cases + site):
            content[f"{case:03d}"] = {
                name: {
                    metric: None
                    if rng.random() < 0.03
                    else float(rng.integers(0, 8)) / (10 if metric.startswith("Dice") else 1)
                    for metric in METRICS
                }
                for name in names
            }
        (folder / f"site.{site}.yaml").write_text(format_site(content))
    return folder


def read_table(path: Path) -> list[list[str]]:
    """Cells of a CSV file."""
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.reader(stream))


def read_columns(path: Path, metric: str) -> list[list[float]]:
    """Treated values of one site file, column by column, by PyYAML-free reading of our own writer's output."""
    columns: dict[str, list[float]] = {}
    name = ""
    for line in path.read_text().splitlines():
        text = line.strip().rstrip(":").strip("'")
        if line.startswith("  ") and not line.startswith("    "):
            name = text
        elif line.startswith(f"    {metric}:"):
            value = line.split(": ")[1]
            missing = 0.0 if metric.startswith("Dice") else 1000.0
            columns.setdefault(name, []).append(missing if value == "null" else float(value))
    return list(columns.values())


def test_published_example_by_hand(example: Path, run: Run) -> None:
    """Sub ranks worked by hand: 7, 12 and 12 in sum, so 1, 2.5, 2.5 (and not 1, 2, 2)."""
    output = run(example)
    assert (output / "final_ranks_rankThenMean.csv").read_text() == (
        '"","meanRank","finalRank"\n"deepmedic",1.16666666666667,1\n"deepscan",2,2.5\n"nnunet",2,2.5\n'
    )
    assert (output / "per_institute_ranks_rankThenMean.csv").read_text() == (
        '"","deepmedic","deepscan","nnunet"\n"institute",1.16666666666667,2,2\n'
    )
    assert (output / "significant_matrix_rankThenMean.csv").read_text() == (
        '"","deepmedic","deepscan","nnunet"\n"deepmedic",0,0,0\n"deepscan",0,0,0\n"nnunet",0,0,0\n'
    )
    ranks = {(row[1], row[2]): row[4] for row in read_table(output / "sub_ranks_rankThenMean.csv")[1:]}
    by_hand = {
        "Dice_ET": "111",
        "Hausdorff95_ET": "132",
        "Dice_TC": "221",
        "Hausdorff95_TC": "113",
        "Dice_WT": "123",
        "Hausdorff95_WT": "132",
    }
    for metric, places in by_hand.items():
        assert "".join(ranks[metric, name] for name in ("deepmedic", "deepscan", "nnunet")) == places


@pytest.mark.parametrize(
    ("options", "expected"), [(["--final-ties", "min"], ["1", "2", "2"]), (["--na", "bottom"], ["1", "2.5", "2.5"])]
)
def test_switches_of_the_final_rank(example: Path, run: Run, options: list[str], expected: list[str]) -> None:
    table = read_table(run(example, *options) / "final_ranks_rankThenMean.csv")
    assert [row[2] for row in table[1:]] == expected


@pytest.mark.parametrize("method", METHODS)
def test_all_files_equal_the_plain_implementation(tmp_path: Path, run: Run, method: str) -> None:
    data = write_random_sites(tmp_path / "data")
    output = run(data, "--method", method, "--bootstrap", "none")
    names = ["nnU-Net", "10", "if", "no"]
    sites = sorted(data.iterdir())
    totals = [0] * 4
    wins = [[0] * 4 for _ in names]
    institutes = read_table(output / f"per_institute_ranks_{method}.csv")
    assert institutes[0] == ["", *names]
    for row, path in zip(institutes[1:], sites, strict=True):
        sums = [0] * 4
        for metric in METRICS:
            columns = read_columns(path, metric)
            higher = metric.startswith("Dice")
            sums = [a + b for a, b in zip(sums, plain.sub_ranks(method, columns, higher), strict=True)]
            matrix = plain.significance(columns, higher)
            wins = [[a + b for a, b in zip(*rows, strict=True)] for rows in zip(wins, matrix, strict=True)]
        assert row == [path.name.removesuffix(".yaml"), *(f"{value / 6:.15g}" for value in sums)]
        totals = [a + b for a, b in zip(totals, sums, strict=True)]
    ranks = plain.rank_average([float(total) for total in totals])
    final = read_table(output / f"final_ranks_{method}.csv")
    order = sorted(range(4), key=lambda index: ranks[index])
    assert final[1:] == [[names[i], f"{totals[i] / 18:.15g}", f"{ranks[i]:g}"] for i in order]
    found = read_table(output / f"significant_matrix_{method}.csv")
    assert found[1:] == [[name, *map(str, row)] for name, row in zip(names, wins, strict=True)]


def test_p_values_file(tmp_path: Path, run: Run) -> None:
    data = write_random_sites(tmp_path / "federation_x")
    run(data, "--bootstrap", "none", "--pvalues", "p.csv")
    rows = read_table(Path("p.csv"))
    assert rows[0] == ["federation", "institution", "metric", "superior", "inferior", "p", "p_holm"]
    assert len(rows) == 1 + 3 * 6 * 4 * 3
    columns = read_columns(data / "site.1.yaml", "Hausdorff95_TC")
    names = ["nnU-Net", "10", "if", "no"]
    pairs = [(a, b) for a in range(4) for b in range(4) if a != b]
    p_values = [plain.one_sided_p(columns[a], columns[b], False) for a, b in pairs]
    adjusted = plain.holm(p_values)
    found = {(row[3], row[4]): row[5:] for row in rows if row[:3] == ["federation_x", "site.1", "Hausdorff95_TC"]}
    for (a, b), p, p_holm in zip(pairs, p_values, adjusted, strict=True):
        assert [float(cell) for cell in found[names[a], names[b]]] == pytest.approx([p, p_holm], rel=1e-12)


def test_p_values_that_cannot_be_written_stop_everything(
    example: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    for place in ("gone/p.csv", "."):
        assert not run(example, "--pvalues", place, status=errors.OutputError.exit_code).exists()
        assert "cannot write" in capsys.readouterr().err
    Path("ranking_output").write_text("in the way")
    run(example, "--pvalues", "p.csv", status=errors.OutputError.exit_code)
    assert [path.name for path in Path().iterdir()] == ["ranking_output"]


def test_bootstrap_file_sums_to_the_draws(tmp_path: Path, run: Run) -> None:
    output = run(write_random_sites(tmp_path / "data"), "--draws", "40")
    rows = read_table(output / "bootstrap_rankThenMean.csv")
    assert rows[0] == ["institution", "metric", "algorithm", "rank", "count"]
    sums: dict[tuple[str, ...], int] = {}
    for row in rows[1:]:
        sums[tuple(row[:3])] = sums.get(tuple(row[:3]), 0) + int(row[4])
    assert set(sums.values()) == {40}
    assert len(sums) == 3 * 6 * 4


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--figures", "svg"], "--figures needs --report"),
        (["--report", "--figures", "gif"], "expected svg, png"),
        (["--share", "--from-shares"], "both given"),
        (["--share", "--report"], "--share writes no ranking"),
        (["--share-draws"], "needs --share"),
        (["--from-shares", "--pvalues", "p.csv"], "needs the values"),
        (["--na", "bottom", "--method", "testBased"], "no meaning for testBased"),
        (["--draws", "0"], "--draws is 0"),
        (["--workers", "0"], "--workers is 0"),
        (["--seed", "-1"], "--seed is -1"),
        (["--multiplicities", "gone.json"], "cannot read multiplicities file gone.json"),
    ],
)
def test_options_that_do_not_go_together(
    example: Path, run: Run, capsys: pytest.CaptureFixture[str], arguments: list[str], part: str
) -> None:
    assert not run(example, *arguments, status=errors.OptionError.exit_code).exists()
    assert part in capsys.readouterr().err


def test_a_wrong_command_line_ends_with_status_2(example: Path) -> None:
    for arguments in (["--method", "mean"], ["--meth", "all"], [str(example), "more"]):
        with pytest.raises(SystemExit) as caught:
            main([str(example), *arguments])
        assert caught.value.code == 2


def test_bad_input_leaves_nothing(tmp_path: Path, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_random_sites(tmp_path / "data", sites=5)
    (data / "site.3.yaml").write_bytes(b"\xff\xfe")
    assert not run(data, status=errors.InputError.exit_code).exists()
    captured = capsys.readouterr()
    assert "site.3.yaml" in captured.err
    assert captured.out == ""
    assert "Traceback" not in captured.err


def test_output_that_cannot_be_written(tmp_path: Path, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_random_sites(tmp_path / "data")
    (tmp_path / "file").write_text("in the way")
    run(data, "--output", str(tmp_path / "file" / "out"), status=errors.OutputError.exit_code)
    assert "cannot write to output folder" in capsys.readouterr().err
    assert (tmp_path / "file").read_text() == "in the way"
    taken = tmp_path / "taken"
    (taken / "ranking_rankThenMean.json").mkdir(parents=True)
    run(data, "--output", str(taken), status=errors.OutputError.exit_code)
    assert sorted(path.name for path in taken.iterdir()) == ["ranking_rankThenMean.json"]


def test_a_failure_while_writing_leaves_nothing(
    tmp_path: Path, run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is full at the third file: no file of this run, and no folder, is left."""
    written = 0
    write_text = Path.write_text

    def fill_disk(self: Path, data: str, encoding: str | None = None) -> int:
        nonlocal written
        written += 1
        if written == 3:
            raise OSError(28, "No space left on device")
        return write_text(self, data, encoding=encoding)

    data = write_random_sites(tmp_path / "data")
    monkeypatch.setattr(Path, "write_text", fill_disk)
    output = run(data, "--output", "deep/out", status=errors.OutputError.exit_code)
    assert "No space left" in capsys.readouterr().err
    assert written == 3
    assert list(output.parent.iterdir()) == []


def test_a_fault_of_ours_is_one_line_without_values(
    example: Path, run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def break_down(*_: object) -> None:
        raise ZeroDivisionError("0.54 of patient x")

    monkeypatch.setattr("ranking.cli.combine", break_down)
    assert not run(example, status=1).exists()
    message = capsys.readouterr().err
    assert "ZeroDivisionError in break_down" in message
    assert "patient" not in message
    assert "Traceback" not in message


def test_progress_is_plain_lines_or_a_bar(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ranking.progress._SECONDS_BETWEEN_LINES", 0.0)
    with SiteProgress() as progress:
        progress(3, 30)
    assert capsys.readouterr().err == "3 of 30 sites\n"
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    with SiteProgress() as progress:
        progress(1, 2)
        progress(2, 2)
        assert progress.bar.finished
    monkeypatch.setattr("ranking.progress._SECONDS_BETWEEN_LINES", 60.0)
    capsys.readouterr()
    with SiteProgress() as progress:
        progress(1, 2)
    assert capsys.readouterr().err == ""


def test_results_of_several_methods_share_a_folder(example: Path, run: Run) -> None:
    run(example, "--bootstrap", "none")
    output = run(example, "--method", "testBased", "--bootstrap", "none")
    files = sorted(path.name for path in output.iterdir())
    kinds = ("final_ranks", "per_institute_ranks", "ranking", "significant_matrix", "sub_ranks")
    assert [Path(name).stem for name in files] == sorted(
        f"{kind}_{method}" for kind in kinds for method in ("rankThenMean", "testBased")
    )


def test_warnings_are_on_stderr_and_the_ranking_on_stdout(
    tmp_path: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.yaml").write_text(format_site({"c1": {"x": fill(1.5), "y": fill()}, "c2": {"x": fill()}}))
    output = run(tmp_path)
    captured = capsys.readouterr()
    assert "warning: site a: submission y has no entry for case c2" in captured.err
    assert "final rank" in captured.out
    document = load_document(output / "ranking_rankThenMean.json")
    assert [f"warning: {text}" for text in document["warnings"]] == captured.err.splitlines()


def test_one_submission_and_one_case(tmp_path: Path, run: Run) -> None:
    (tmp_path / "a.yaml").write_text(format_site({"c1": {"x": fill()}}))
    for method in METHODS:
        table = read_table(run(tmp_path, "--method", method, "--more") / f"final_ranks_{method}.csv")
        assert table[1:] == [["x", "1", "1"]]


def test_rank_last_places_the_absent_after_the_present(tmp_path: Path, run: Run) -> None:
    for site, entered in (("a", "xyz"), ("b", "xy")):
        (tmp_path / f"{site}.yaml").write_text(format_site({c: {name: fill() for name in entered} for c in "12"}))
    table = read_table(run(tmp_path, "--absent", "rank-last") / "per_institute_ranks_rankThenMean.csv")
    assert table[1:] == [["a", "1", "1", "1"], ["b", "1", "1", "3"]]


def test_starts_from_anywhere(example: Path, tmp_path: Path) -> None:
    """As a script from another folder, and as a module."""
    script = [sys.executable, str(ROOT / "ranking" / "compute_ranking.py")]
    module = [sys.executable, "-m", "ranking"]
    results = []
    for name, command, extra in (("s", script, {}), ("m", module, {"PYTHONPATH": str(ROOT)})):
        (tmp_path / name).mkdir()
        done = subprocess.run(
            [*command, str(example)],
            cwd=tmp_path / name,
            env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"} | extra,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
        results.append({path.name: path.read_bytes() for path in (tmp_path / name / "ranking_output").iterdir()})
    assert results[0] == results[1]
    assert len(results[0]) == 6


def test_a_missing_package_is_named() -> None:
    code = "import sys; sys.modules['scipy'] = None; from ranking.start import start_program as f; sys.exit(f(['x']))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (
        1,
        "error: the ranking needs the package scipy: install fedeval[ranking]\n",
    )


def test_exit_statuses_and_options_are_documented() -> None:
    kinds = [errors.InputError, errors.RuleError, errors.OptionError, errors.OutputError, errors.RankingError]
    statuses = [0, 2, *(kind.exit_code for kind in kinds)]
    assert len(set(statuses)) == len(kinds) + 2
    page = (ROOT / "docs" / "ranking.md").read_text()
    for status in statuses:
        assert f"| {status} |" in page
    for option in re.findall(r"--[a-z-]+", build_parser().format_help()):
        assert option in (*("--help",), *re.findall(r"--[a-z-]+", page)), option
