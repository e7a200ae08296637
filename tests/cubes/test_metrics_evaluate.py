"""The `evaluate` task: folders in, results.yaml and evaluate.log out, and one clear error for everything else."""

import contextlib
import errno
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from metrics_cube import results
from metrics_cube.errors import BadReferenceError, OutputError, SetupError
from metrics_cube.evaluate import run_evaluate
from metrics_cube.results import format_results, write_results

from tests.cubes.metrics_files import CUBE, PROGRAM, make_labels, write_mask

CASES = ["FeTS22_Patient0000", "a b", "x-1.2", "ünï"]


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Predictions and references of four cases; the second prediction is off by some voxels."""
    for i, case in enumerate(CASES):
        labels = make_labels(i)
        write_mask(tmp_path / "labels" / f"{case}_final_seg.nii.gz", labels)
        write_mask(tmp_path / "predictions" / f"{case}.nii.gz", np.roll(labels, i, axis=0))
    return tmp_path / "predictions", tmp_path / "labels"


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """The program as a user or a container calls it."""
    command = [sys.executable, str(PROGRAM), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def evaluate(folders: tuple[Path, Path], **options: Any) -> dict[str, Any]:
    """Run the task in this process and read its results."""
    output = folders[0].parent / "out" / "results.yaml"
    run_evaluate(folders[0], folders[1], output, **options)
    content = yaml.safe_load(output.read_text(encoding="utf-8"))
    assert isinstance(content, dict)
    return content


def test_results_have_the_upstream_keys_and_say_how_each_case_went(folders: tuple[Path, Path]) -> None:
    content = evaluate(folders)
    assert list(content) == sorted(CASES)
    metrics = ["Dice", "Hausdorff95", "Sensitivity", "Specificity", "Precision", "TP", "FP", "TN", "FN"]
    keys = [f"{metric}_{region}" for metric in metrics for region in ("WT", "TC", "ET")]
    for case in CASES:
        assert list(content[case]) == [*keys, "missing_pred", "status", "reason"]
        assert (content[case]["missing_pred"], content[case]["status"], content[case]["reason"]) == (False, "ok", None)
        whole = {key for key in keys if isinstance(content[case][key], int)}
        assert whole == {key for key in keys if key[:2] in ("TP", "FP", "TN", "FN")}
    assert content[CASES[0]]["Dice_WT"] == 1.0
    assert content["a b"]["Dice_WT"] < 1


def test_values_are_those_of_plain_numpy_and_medpy(folders: tuple[Path, Path]) -> None:
    from medpy.metric.binary import hd95

    content = evaluate(folders)
    regions = {"WT": (1, 2, 4), "TC": (1, 4), "ET": (4,)}
    for i, case in enumerate(CASES):
        for region, labels in regions.items():
            g = np.isin(make_labels(i), labels)
            p = np.roll(g, i, axis=0)
            assert content[case][f"Dice_{region}"] == 2 * (g & p).sum() / (g.sum() + p.sum())
            assert content[case][f"Hausdorff95_{region}"] == hd95(p, g, voxelspacing=(1.0, 1.0, 1.0))
            assert content[case][f"FN_{region}"] == (g & ~p).sum()


def test_the_bytes_do_not_depend_on_workers_kernel_or_listing(folders: tuple[Path, Path], tmp_path: Path) -> None:
    output = tmp_path / "out" / "results.yaml"
    found = set()
    for workers in (1, 2, 7):
        for native in (True, False):
            file = tmp_path / "parameters.yaml"
            file.write_text(f"workers: {workers}\nnative_kernel: {str(native).lower()}\n")
            evaluate(folders, parameters_file=file)
            found.add(output.read_bytes())
    assert len(found) == 1
    head = found.pop().decode().splitlines()[:2]
    assert all(line.startswith("# ") for line in head)
    assert "definition P" in head[1]


def test_penalty_rows_say_why(folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    predictions = folders[0]
    (predictions / "a b.nii.gz").unlink()
    (predictions / "x-1.2.nii.gz").write_bytes(b"no mask")
    write_mask(predictions / "ünï.nii", make_labels(3))
    write_mask(predictions / "stranger.nii.gz", make_labels(0))
    (predictions / "notes.txt").write_text("not a mask")
    (folders[1] / "bare").mkdir()
    (predictions / ".nii.gz").write_text("nobody's")
    content = evaluate(folders)
    missing, invalid, ambiguous = content["a b"], content["x-1.2"], content["ünï"]
    assert (missing["missing_pred"], missing["status"], missing["reason"]) == (True, "missing", "missing")
    assert (invalid["missing_pred"], invalid["status"], invalid["reason"]) == (False, "invalid", "not_nifti")
    assert (ambiguous["status"], ambiguous["reason"]) == ("invalid", "ambiguous")
    for row in (missing, invalid, ambiguous):
        assert (row["Dice_WT"], row["Hausdorff95_TC"], row["TP_ET"], row["FN_ET"]) == (0, 374, 0, 24 * 20 * 16)
    error = capsys.readouterr().err
    assert 'warning: not scored: prediction "stranger": no reference' in error
    assert 'warning: not scored: folder "bare" in labels: holds no reference' in error
    assert "ALL" not in error
    assert "stranger" not in content
    log = (predictions.parent / "out" / "logs" / "evaluate.log").read_text(encoding="utf-8").splitlines()
    assert [line.partition('" ')[2].split()[0] for line in log[:4]] == ["ok", "missing", "invalid", "invalid"]
    assert [line.partition(":")[0] for line in log[4:]] == ["not scored"] * 2
    assert str(predictions) not in "".join(log)


def test_other_grid_scores_as_the_penalty(folders: tuple[Path, Path]) -> None:
    write_mask(folders[0] / "a b.nii.gz", make_labels(1), np.eye(4))
    write_mask(folders[0] / "x-1.2.nii.gz", make_labels(1)[:-1])
    content = evaluate(folders)
    assert content["a b"]["reason"].startswith("geometry_differs: corners up to ")
    assert content["x-1.2"]["reason"] == "shape_differs: found 23x20x16, expected 24x20x16"


def test_a_link_to_the_reference_is_no_prediction(folders: tuple[Path, Path]) -> None:
    prediction = folders[0] / "a b.nii.gz"
    prediction.unlink()
    prediction.symlink_to(folders[1] / "a b_final_seg.nii.gz")
    assert evaluate(folders)["a b"]["reason"] == "not_a_file"


def test_references_in_folders_and_uncompressed(tmp_path: Path) -> None:
    for i, case in enumerate(CASES):
        labels = make_labels(i)
        write_mask(tmp_path / "labels" / case / f"{case}_final_seg.nii", labels)
        write_mask(tmp_path / "labels" / case / f"{case}_brain_t1.nii.gz", labels)
        write_mask(tmp_path / "predictions" / f"{case}.nii", labels)
    content = evaluate((tmp_path / "predictions", tmp_path / "labels"))
    assert {case: row["Dice_WT"] for case, row in content.items()} == dict.fromkeys(sorted(CASES), 1.0)


def test_all_penalised_is_said_loudly(folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    for path in folders[0].iterdir():
        path.write_bytes(b"")
    content = evaluate(folders)
    assert {row["status"] for row in content.values()} == {"invalid"}
    assert "warning: ALL 4 CASES GET THE PENALTY SCORE (4 x truncated)" in capsys.readouterr().err


def test_an_unusable_reference_is_an_error_and_leaves_no_results(folders: tuple[Path, Path]) -> None:
    output = folders[0].parent / "out" / "results.yaml"
    evaluate(folders)
    assert output.exists()
    (folders[1] / "x-1.2_final_seg.nii.gz").write_bytes(b"\x1f\x8b")
    done = run("evaluate", "--predictions", folders[0], f"--labels={folders[1]}", "--output_path", output)
    assert done.returncode == BadReferenceError.exit_code
    start = 'metrics: evaluate failed: the reference of case "x-1.2" cannot be used'
    assert done.stderr.splitlines()[-1].startswith(start)
    assert "Traceback" not in done.stderr
    assert not output.exists(), "results of an earlier run must not look like this run's"
    fraction = make_labels(2) * 0.5
    write_mask(folders[1] / "x-1.2_final_seg.nii.gz", fraction)
    with pytest.raises(BadReferenceError, match="not_integer"):
        evaluate(folders)
    write_mask(folders[1] / "x-1.2" / "x-1.2_final_seg.nii.gz", make_labels(2))
    with pytest.raises(BadReferenceError, match="more than one reference"):
        evaluate(folders)


@pytest.mark.parametrize("labels", ["gone", "empty", "other"])
def test_no_reference_at_all_is_an_error(labels: str, folders: tuple[Path, Path], tmp_path: Path) -> None:
    place = tmp_path / labels
    if labels != "gone":
        place.mkdir()
    if labels == "other":
        write_mask(place / "a b_seg.nii.gz", make_labels(1))
    done = run("evaluate", f"--predictions={folders[0]}", f"--labels={place}", f"--output_path={tmp_path / 'r.yaml'}")
    assert done.returncode == SetupError.exit_code
    assert "labels: found" in done.stderr
    assert "next:" in done.stderr
    assert not (tmp_path / "r.yaml").exists()


def test_missing_predictions_folder_is_an_error_an_empty_one_is_all_missing(folders: tuple[Path, Path]) -> None:
    with pytest.raises(SetupError, match="predictions: found no such folder"):
        evaluate((folders[0] / "gone", folders[1]))
    (folders[0] / "empty").mkdir()
    content = evaluate((folders[0] / "empty", folders[1]))
    assert all(row["missing_pred"] for row in content.values())


@pytest.mark.parametrize(
    "arguments",
    [[], ["score"], ["evaluate"], ["evaluate", "--predictions=a", "--labels=b", "--output_path=c", "--output=d"]],
)
def test_a_wrong_call_is_a_usage_error(arguments: list[str]) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert "usage:" in done.stderr


def test_program_with_everything_said_and_with_the_least(folders: tuple[Path, Path], tmp_path: Path) -> None:
    """Both ways of writing options; upstream's ``null`` for a parameters file that is not there."""
    least, most = tmp_path / "least" / "results.yaml", tmp_path / "most" / "r.yaml"
    given = CUBE / "mlcube" / "workspace" / "parameters.yaml"
    everything = {
        "predictions": folders[0],
        "labels": folders[1],
        "output_path": most,
        "parameters_file": given,
        "log_path": tmp_path / "other" / "e.log",
    }
    calls: list[list[str | Path]] = [
        ["--predictions", folders[0], "--labels", folders[1], "--output_path", least],
        [f"--{name}={path}" for name, path in everything.items()],
    ]
    for call in calls:
        done = run("evaluate", *call)
        assert done.returncode == 0, done.stderr
        assert done.stderr.splitlines()[-1] == "scored 4/4 cases"
    assert least.read_bytes() == most.read_bytes()
    assert (least.parent / "logs" / "evaluate.log").read_text() == (tmp_path / "other" / "e.log").read_text()
    assert run("evaluate", *calls[0], f"--parameters_file={tmp_path / 'null'}").returncode == 0
    assert run("evaluate", *calls[0], f"--parameters_file={tmp_path / 'gone.yaml'}").returncode == 2
    leftover = [path.name for path in tmp_path.rglob("*") if "partial" in path.name]
    assert leftover == []


def test_a_log_that_cannot_be_written_is_a_warning(
    folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert len(evaluate(folders, log_path=tmp_path / "file" / "evaluate.log")) == 4
    assert "warning: evaluate.log cannot be written" in capsys.readouterr().err


def test_results_that_cannot_be_written_are_an_error(folders: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for output in (tmp_path / "file" / "results.yaml", tmp_path):
        done = run("evaluate", f"--predictions={folders[0]}", f"--labels={folders[1]}", f"--output_path={output}")
        assert done.returncode == OutputError.exit_code
        assert "results cannot be written" in done.stderr
        assert "Traceback" not in done.stderr


def test_a_full_disk_leaves_nothing_that_looks_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OutputError, match="No space left"):
        write_results(tmp_path / "results.yaml", "text\n")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("full", [False, True])
def test_a_file_that_cannot_be_replaced_is_written_in_place(
    full: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MedPerf mounts the one file: renaming onto it fails, and a failure must leave it empty."""
    path = tmp_path / "results.yaml"
    path.write_text("old")

    def refuse(*_: Any) -> None:
        raise OSError(errno.EBUSY, "Device or resource busy")

    monkeypatch.setattr(Path, "replace", refuse)
    if full:
        real = results._write

        def fail_in_place(target: Path, content: bytes) -> None:
            real(target, content)
            if target == path:
                raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(results, "_write", fail_in_place)
    with pytest.raises(OutputError) if full else contextlib.nullcontext():
        write_results(path, "new\n")
    assert path.read_text() == ("" if full else "new\n")
    assert list(tmp_path.iterdir()) == [path]


def test_numbers_and_names_survive_yaml_exactly() -> None:
    rng = np.random.default_rng([11, 51])
    numbers = [*rng.normal(size=300), *10.0 ** rng.uniform(-300, 300, 300), 0.0, -0.0, 1e16, 1e22, 1e-5, 5e-324, 1 / 3]
    row: dict[str, Any] = {f"k{i}": float(number) for i, number in enumerate(numbers)}
    row |= {
        "nan": math.nan,
        "inf": math.inf,
        "less": -math.inf,
        "n": 8928000,
        "right": True,
        "none": None,
        "t": 'a "b" \\',
    }
    names = ["plain", "with space", "x.y-z", "ünï", "😀", "null", "1e5", "a: b", "# c", "\x7f\u2028", "tab\tnewline\n"]
    text = format_results(dict.fromkeys(names, row), "head\nline")
    assert text.isascii()
    content = yaml.safe_load(text)
    assert sorted(content) == sorted(names)
    for name in names:
        nan = content[name].pop("nan")
        assert math.isnan(nan)
        assert content[name] == {key: value for key, value in row.items() if key != "nan"}
        assert math.copysign(1, content[name]["k601"]) == -1
    assert yaml.safe_load(format_results({})) == {}


def test_another_benchmark_needs_no_code(tmp_path: Path) -> None:
    """Other regions, labels beyond a byte, suffixes and metrics."""
    rng = np.random.default_rng([11, 52])
    labels = rng.choice(np.array([0, 7, 300], np.int16), (9, 9, 9))
    write_mask(tmp_path / "labels" / "p1-truth.nii.gz", labels)
    write_mask(tmp_path / "predictions" / "p1-pred.nii.gz", labels)
    (tmp_path / "p.yaml").write_text(
        "regions: {lesion: [300], any: [7, 300]}\nmetrics: [Dice, NSD, Hausdorff95Directed, Hausdorff95Surfel, "
        "RelativeVolumeDifference, LesionDice, LesionHausdorff95]\nnsd_tolerances_mm: [0.5, 2]\n"
        "reference_suffix: -truth\nprediction_suffix: -pred\n"
    )
    content = evaluate((tmp_path / "predictions", tmp_path / "labels"), parameters_file=tmp_path / "p.yaml")
    row = content["p1"]
    names = ["Dice", "NSD0.5mm", "NSD2mm", "Hausdorff95Directed", "Hausdorff95Surfel", "RelativeVolumeDifference"]
    names += ["LesionDice", "LesionHausdorff95"]
    assert list(row)[:-3] == [f"{name}_{region}" for name in names for region in ("lesion", "any")]
    assert [row[f"{name}_any"] for name in names] == [1, 1, 1, 0, 0, 0, 1, 0]


def test_start_up_imports_nothing_heavy(folders: tuple[Path, Path], tmp_path: Path) -> None:
    """With the kernel neither scipy nor nibabel is on the way to the first case."""
    program = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[1])\n"
        "from metrics_cube import kernel_sources, native\n"
        "from metrics_cube.build import run_build\n"
        "native.LIBRARY = run_build(Path(sys.argv[2]) / 'k.so')\n"
        "for name in ('metrics_cube.build', 'subprocess', 'tempfile'): del sys.modules[name]\n"
        "from metrics_cube.evaluate import run_evaluate\n"
        "run_evaluate(Path(sys.argv[3]), Path(sys.argv[4]), Path(sys.argv[2]) / 'r.yaml')\n"
        "print(sorted({name.partition('.')[0] for name in sys.modules}))"
    )
    command = [sys.executable, "-c", program, str(PROGRAM.parent), str(tmp_path), *map(str, folders)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    heavy = {"scipy", "nibabel", "pandas", "sklearn", "SimpleITK", "yaml"}
    assert heavy.isdisjoint(yaml.safe_load(done.stdout))


def test_many_strangers_do_not_flood_the_screen(folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    for i in range(30):
        (folders[0] / f"stranger{i:02d}\x1b[2J.nii.gz").write_bytes(b"")
    assert len(evaluate(folders)) == 4
    error = capsys.readouterr().err
    assert error.count("not scored: prediction") == 20
    assert "not scored: 10 more" in error
    assert "\x1b" not in error
    log = (folders[0].parent / "out" / "logs" / "evaluate.log").read_text()
    assert log.count("not scored: prediction") == 30
    assert "\x1b" not in log
