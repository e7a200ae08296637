"""Writing toy cases: folders, files, command line, faults."""

import gzip
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import yaml

import toy_data
from toy_data import ToyCase, ToyDataError, compute_array_checksum, make_case, write_cases
from toy_data.__main__ import main
from toy_data.atlas import load_atlas

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "toy_data" / "README.md"


def run_python(*arguments: str, cwd: Path, path_first: Path = ROOT) -> subprocess.CompletedProcess[str]:
    path = f"{path_first}{os.pathsep}{ROOT}"
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": path}
    return subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def three_cases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_cases(tmp_path_factory.mktemp("toy") / "site 2", site=2, cases=3, seed=5, size="ci")


def test_layout_keeps_data_and_labels_apart(three_cases: Path) -> None:
    found = sorted(str(path.relative_to(three_cases)) for path in three_cases.rglob("*") if path.is_file())
    images = [
        f"data/{subject}/{subject}{infix}_{modality}.nii.gz"
        for subject, infix in (("S02_001", ""), ("site2-002", "_brain"), ("Site 2-003", "_brain"))
        for modality in ("t1", "t1ce", "t2", "flair")
    ]
    labels = [
        "labels/S02_001/S02_001_seg.nii.gz",
        "labels/site2-002/site2-002_final_seg.nii.gz",
        "labels/Site 2-003/Site 2-003_seg.nii.gz",
    ]
    assert found == sorted([*images, *labels, "toy_data.yaml"])


def test_files_hold_the_arrays_of_make_case(three_cases: Path) -> None:
    manifest = yaml.safe_load((three_cases / "toy_data.yaml").read_text(encoding="utf-8"))
    assert {key: manifest[key] for key in ("version", "seed", "site", "size")} == {
        "version": toy_data.VERSION,
        "seed": 5,
        "site": 2,
        "size": "ci",
    }
    for index, subject in enumerate(manifest["sha256"]):
        case = make_case(2, index, 5, "ci")
        assert subject == case.subject_id
        assert manifest["sha256"][subject] == case.compute_checksums()
        paths = {m: three_cases / "data" / subject / name for m, name in case.names.images.items()}
        paths["seg"] = three_cases / "labels" / subject / case.names.segmentation
        for name, path in paths.items():
            image: Any = nibabel.Nifti1Image.from_filename(path)
            assert compute_array_checksum(np.asanyarray(image.dataobj)) == manifest["sha256"][subject][name]
            np.testing.assert_array_equal(image.affine, case.affine)
            assert image.header.get_zooms() == case.spacing_mm
            assert image.header["qform_code"] == image.header["sform_code"] == 1
            np.testing.assert_array_equal(image.get_qform(), case.affine)


def test_ci_cases_are_below_half_a_megabyte(three_cases: Path) -> None:
    for subject in sorted(three_cases.glob("data/*")):
        files = [*subject.iterdir(), *(three_cases / "labels" / subject.name).iterdir()]
        assert len(files) == 5
        assert sum(path.stat().st_size for path in files) < 500_000


def test_cases_do_not_depend_on_their_number(three_cases: Path, tmp_path: Path) -> None:
    one = write_cases(tmp_path / "one", site=2, cases=1, seed=5, size="ci")
    for path in sorted(one.rglob("*.nii.gz")):
        assert path.read_bytes() == (three_cases / path.relative_to(one)).read_bytes()


def test_files_carry_no_time_stamp(three_cases: Path) -> None:
    packed = (three_cases / "labels" / "S02_001" / "S02_001_seg.nii.gz").read_bytes()
    assert packed[4:8] == b"\0\0\0\0" and packed[9] == 0xFF and len(gzip.decompress(packed)) == 352 + 96 * 96 * 64


def test_empty_folder_is_filled(tmp_path: Path) -> None:
    out = tmp_path / "a b=c"
    out.mkdir()
    write_cases(out, site=1, cases=1, size="ci")
    assert sorted(path.name for path in out.iterdir()) == ["data", "labels", "toy_data.yaml"]
    assert [path.name for path in tmp_path.iterdir()] == ["a b=c"]


@pytest.mark.parametrize("fault", [OSError(28, "No space left on device"), KeyboardInterrupt(), RuntimeError("x")])
def test_interrupted_writing_leaves_nothing(tmp_path: Path, fault: BaseException) -> None:
    def fail(case: ToyCase) -> None:
        assert any(tmp_path.rglob("*_t1.nii.gz"))
        raise fault

    expected = ToyDataError if isinstance(fault, OSError) else type(fault)
    with pytest.raises(expected):
        write_cases(tmp_path / "out", site=1, cases=2, size="ci", on_case=fail)
    assert list(tmp_path.iterdir()) == []


def test_cli_writes_and_reports_progress_without_network(tmp_path: Path) -> None:
    """The interpreter's audit hook refuses every look-up and connection."""
    script = (
        "import runpy, sys\n"
        "def refuse(event, arguments):\n"
        "    if event.startswith('socket.') and event != 'socket.__new__': raise RuntimeError(event)\n"
        "sys.addaudithook(refuse)\n"
        "runpy.run_module('toy_data', run_name='__main__')"
    )
    arguments = ("cases", "--site", "1", "--cases", "2", "--seed", "0", "--out", "out", "--size", "ci")
    done = run_python("-c", script, *arguments, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "out\n"), done.stderr
    assert done.stderr.splitlines() == ["toy case 1/2: S01_001", "toy case 2/2: site1-002"]
    assert sorted(path.name for path in (tmp_path / "out" / "data").iterdir()) == ["S01_001", "site1-002"]


def test_interrupt_ends_with_130_and_leaves_nothing(tmp_path: Path) -> None:
    arguments = ("cases", "--site", "1", "--cases", "900", "--out", str(tmp_path / "out"), "--size", "ci")
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    with subprocess.Popen(
        [sys.executable, "-m", "toy_data", *arguments], cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True
    ) as running:
        assert running.stderr is not None
        assert running.stderr.readline() == "toy case 1/900: S01_001\n"
        running.send_signal(signal.SIGINT)
        assert running.stderr.read().splitlines()[-1] == "toy_data: interrupted; nothing was written"
    assert running.returncode == 130
    assert list(tmp_path.iterdir()) == []


def test_cli_shows_a_bar_on_a_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert main(["cases", "--site", "1", "--cases", "1", "--out", str(tmp_path / "out"), "--size", "ci"]) == 0
    assert "1/1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "code", "message"),
    [
        ({"--size": "huge"}, 2, "invalid choice: 'huge'"),
        ({"--cases": "0"}, 1, "cannot make 0 cases: expected 1 to 999"),
        ({"--cases": "three"}, 2, "invalid int value: 'three'"),
        ({"--site": "0"}, 1, "site 0 does not exist: expected a number from 1 to 9999"),
        ({"--seed": "-1"}, 1, "seed -1 is negative"),
        ({"--out": "full"}, 1, "is not empty: choose another folder"),
        ({"--out": "file"}, 1, "is a file: expected a folder there"),
        ({"--out": "file/below"}, 1, "is a file: expected a folder there"),
        ({"--out": "/proc/toy"}, 1, "cannot write toy cases to /proc/toy: "),
        ({"--sead": "1"}, 2, "unrecognized arguments: --sead 1"),
    ],
    ids=lambda value: " ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else "",
)
def test_bad_input_gets_one_clear_error(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    changes: dict[str, str],
    code: int,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "precious").write_text("x", encoding="utf-8")
    (tmp_path / "file").write_text("x", encoding="utf-8")
    options = {"--site": "1", "--cases": "1", "--out": "out", "--size": "ci", **changes}
    try:
        found = main(["cases", *(part for option in options.items() for part in option)])
    except SystemExit as stop:
        found = int(stop.code or 0)
    assert found == code
    printed = capsys.readouterr()
    assert printed.out == ""
    errors = [line for line in printed.err.splitlines() if "error:" in line]
    assert len(errors) == 1 and message in errors[0]
    assert "Traceback" not in printed.err
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "full", "precious"]


def test_current_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ToyDataError, match="is the current folder"):
        write_cases(Path(), site=1, cases=1, size="ci")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "nilearn carries no mni_icbm152_t1"),
        ("other voxels", "has other voxels than this generator was made for"),
        ("broken", "cannot be read"),
    ],
)
def test_other_maps_are_refused(tmp_path: Path, content: str | None, message: str) -> None:
    """A nilearn with missing, changed or broken maps stands first on the path."""
    folder = tmp_path / "fake" / "nilearn" / "datasets" / "data"
    folder.mkdir(parents=True)
    (tmp_path / "fake" / "nilearn" / "__init__.py").touch()
    path = folder / "mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz"
    if content == "other voxels":
        changed = load_atlas().t1.copy()
        changed[100, 100, 100] += 1
        toy_data.writing._write_nifti(path, changed, make_case(1, 0, 0, "ci"))
    elif content == "broken":
        path.write_bytes(b"not gzip")
    arguments = ("-m", "toy_data", "cases", "--site", "1", "--cases", "1", "--out", "out", "--size", "ci")
    done = run_python(*arguments, cwd=tmp_path, path_first=tmp_path / "fake")
    assert done.returncode == 1 and message in done.stderr
    assert len(done.stderr.splitlines()) == 1 and not (tmp_path / "out").exists()


def test_missing_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    load_atlas.cache_clear()
    try:
        with pytest.raises(ToyDataError, match=r"pip install 'fedeval\[toy\]'"):
            write_cases(tmp_path / "out", site=1, cases=1, size="ci")
    finally:
        load_atlas.cache_clear()
    assert list(tmp_path.iterdir()) == []


def test_maps_are_those_of_nilearns_own_functions(tmp_path: Path) -> None:
    code = (
        "import warnings; warnings.simplefilter('ignore')\n"
        "import numpy as np; from nilearn import datasets as d; from toy_data.atlas import load_atlas\n"
        "a = load_atlas()\n"
        "for name, mine in (('', a.t1), ('gm_', a.gm), ('wm_', a.wm)):\n"
        "    load = getattr(d, f'load_mni152_{name}template')\n"
        "    theirs = load(resolution=1).get_fdata()\n"
        "    assert np.array_equal(np.rint(theirs * mine.max()), mine)\n"
    )
    done = run_python("-c", code, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_readme_commands_run_and_options_are_all_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = README.read_text(encoding="utf-8")
    commands = re.findall(r"^python -m (toy_data .*)$", text, flags=re.MULTILINE)
    assert commands
    for command in commands:
        done = run_python("-m", *shlex.split(command), cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        shutil.rmtree(tmp_path / "toy_site1")
    with pytest.raises(SystemExit):
        main(["cases", "--help"])
    options = set(re.findall(r"(--[a-z]+)", capsys.readouterr().out)) - {"--help"}
    assert options == {"--site", "--cases", "--seed", "--out", "--size"}
    assert options <= set(re.findall(r"`(--[a-z]+)", text))


def test_readme_names_files_as_they_are_written() -> None:
    text = README.read_text(encoding="utf-8")
    for index in range(3):
        names = toy_data.compute_case_names(1, index)
        assert f"| `{names.subject_id}` | `{names.images['t1']}` | `{names.segmentation}` |" in text
