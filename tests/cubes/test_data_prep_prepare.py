"""Task ``prepare`` of the data_prep cube, run as a program."""

from __future__ import annotations

import gzip
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from data_prep_cube.aliases import ALIAS_FILE
from data_prep_cube.errors import InputError
from data_prep_cube.parameters import Parameters
from data_prep_cube.prepare import PrepareFolders, run_prepare

from tests.cubes.data_prep_cases import (
    AFFINE,
    ENTRY_POINT,
    MODALITIES,
    SHAPE,
    list_files,
    make_image,
    make_reference,
    run_cube,
    run_prepare_program,
    write_parameters,
    write_raw,
    write_volume,
)

nib: Any = nibabel  # its types are incomplete
SUBJECTS = ["A-1.x", "Site 1-003"]


def prepared_names(cases: list[str]) -> list[str]:
    images = [f"data/{case}/{case}_brain_{modality}.nii.gz" for case in cases for modality in MODALITIES]
    return sorted(images + [f"labels/{case}_final_seg.nii.gz" for case in cases])


def make_folders(
    root: Path, output: str = "out/data", labels: str = "out/labels", metadata: str = "m"
) -> PrepareFolders:
    """Folders of a call inside this process."""
    return PrepareFolders(root / "data", root / "labels", root / output, root / labels, root / metadata)


def test_program_says_what_it_does(tmp_path: Path) -> None:
    write_raw(tmp_path, SUBJECTS)
    result = run_prepare_program(tmp_path, tmp_path / "out")
    assert result.returncode == 0, result.stderr
    assert result.stdout == "prepare: 2 cases written, 0 kept (complete from an earlier run)\n"
    assert result.stderr == "prepare: 1/2 A-1.x\nprepare: 2/2 Site 1-003\n"
    assert sorted(list_files(tmp_path / "out")) == prepared_names(SUBJECTS)


@pytest.mark.parametrize("brain", ["", "brain_"])
@pytest.mark.parametrize("seg", ["seg", "final_seg", "brain_seg", "brain_final_seg"])
def test_naming_variants_give_the_prepared_layout(tmp_path: Path, brain: str, seg: str) -> None:
    write_raw(tmp_path, SUBJECTS, brain=brain, seg=seg)
    result = run_prepare(make_folders(tmp_path), Parameters())
    assert (result.written, result.kept) == (tuple(SUBJECTS), ())
    assert sorted(list_files(tmp_path / "out")) == prepared_names(SUBJECTS)


def test_packed_files_are_copied_byte_by_byte_and_plain_ones_are_packed(tmp_path: Path) -> None:
    write_raw(tmp_path / "packed", ["s"])
    write_raw(tmp_path / "plain", ["s"], suffix=".nii")
    for kind in ("packed", "plain"):
        assert run_prepare_program(tmp_path / kind, tmp_path / f"out-{kind}").returncode == 0
    packed, plain = list_files(tmp_path / "out-packed"), list_files(tmp_path / "out-plain")
    for modality in MODALITIES:
        name = f"data/s/s_brain_{modality}.nii.gz"
        source = tmp_path / "packed" / "data" / "s" / f"s_{modality}.nii.gz"
        assert packed[name] == source.read_bytes()
        assert gzip.decompress(plain[name]) == (tmp_path / "plain" / "data" / "s" / f"s_{modality}.nii").read_bytes()
        assert plain[name][3:8] == bytes(5)  # no flags (no file name), no time
    assert run_prepare_program(tmp_path / "plain", tmp_path / "again").returncode == 0
    assert list_files(tmp_path / "again") == plain


def test_segmentations_beside_the_images_or_without_folders(tmp_path: Path) -> None:
    write_raw(tmp_path / "fets", ["s"], labels="data")
    result = run_prepare_program(tmp_path / "fets", tmp_path / "out", labels_path=tmp_path / "fets" / "data")
    assert result.returncode == 0, result.stderr
    write_raw(tmp_path / "flat", ["s"])
    (tmp_path / "flat" / "labels" / "s" / "s_seg.nii.gz").rename(tmp_path / "flat" / "labels" / "s_seg.nii.gz")
    assert run_prepare_program(tmp_path / "flat", tmp_path / "out-flat").returncode == 0
    assert sorted(list_files(tmp_path / "out")) == sorted(list_files(tmp_path / "out-flat")) == prepared_names(["s"])


def test_preferred_names_win(tmp_path: Path) -> None:
    write_raw(tmp_path, ["s"])
    for name in ("s_brain_t1.nii.gz", "s_t1.nii", "s_brain_t1.nii"):
        write_volume(tmp_path / "data" / "s" / name, make_image(99))
    stripped = (tmp_path / "data" / "s" / "s_brain_t1.nii.gz").read_bytes()
    assert run_prepare_program(tmp_path, tmp_path / "out").returncode == 0
    assert (tmp_path / "out" / "data" / "s" / "s_brain_t1.nii.gz").read_bytes() == stripped


def test_second_run_keeps_complete_cases_and_says_so(tmp_path: Path) -> None:
    write_raw(tmp_path, ["a", "b", "c"])
    out = tmp_path / "out"
    assert run_prepare_program(tmp_path, out).returncode == 0
    before = {path: path.stat().st_ino for path in out.rglob("*.nii.gz")}
    again = run_prepare_program(tmp_path, out)
    assert again.stdout == "prepare: 0 cases written, 3 kept (complete from an earlier run)\n"
    assert {path: path.stat().st_ino for path in out.rglob("*.nii.gz")} == before
    (out / "data" / "a" / "a_brain_t2.nii.gz").unlink()
    (out / "labels" / "b_final_seg.nii.gz").unlink()
    assert run_prepare_program(tmp_path, out).stdout.startswith("prepare: 2 cases written, 1 kept")
    assert sorted(list_files(out)) == prepared_names(["a", "b", "c"])


@pytest.mark.parametrize("anonymize", [False, True])
@pytest.mark.parametrize("suffix", [".nii.gz", ".nii"])
def test_changed_source_is_prepared_again(tmp_path: Path, suffix: str, anonymize: bool) -> None:
    write_raw(tmp_path, ["a", "b"], suffix=suffix)
    folders, parameters = make_folders(tmp_path), Parameters(anonymize_subjects=anonymize)
    first = run_prepare(folders, parameters)
    assert run_prepare(folders, parameters).kept == first.written
    source = tmp_path / "data" / "a" / f"a_t1{suffix}"
    write_volume(source, make_image(77))
    os.utime(source, (1, 1))  # as from a backup: the time does not show the change
    result = run_prepare(folders, parameters)
    assert (result.written, result.kept) == (first.written[:1], first.written[1:])
    case = first.written[0]
    prepared = nib.load(folders.output_path / case / f"{case}_brain_t1.nii.gz")
    assert np.array_equal(np.asanyarray(prepared.dataobj), make_image(77))


def test_what_a_killed_run_left_is_removed(tmp_path: Path) -> None:
    write_raw(tmp_path, ["a"])
    for folder in ("data", "labels"):
        (tmp_path / "out" / folder / ".part-folder").mkdir(parents=True)
        (tmp_path / "out" / folder / ".part-folder" / "x_t1.nii.gz").touch()
        (tmp_path / "out" / folder / ".part-file").touch()
    run_prepare(make_folders(tmp_path), Parameters())
    assert sorted(list_files(tmp_path / "out")) == prepared_names(["a"])
    assert not list((tmp_path / "out").rglob(".part-*"))


def test_killed_run_leaves_whole_cases_and_the_next_one_completes_it(tmp_path: Path) -> None:
    subjects = [f"s{number:02d}" for number in range(30)]
    write_raw(tmp_path, subjects, suffix=".nii")
    options = {"data_path": "data", "labels_path": "labels", "output_path": "o/data", "output_labels_path": "o/labels"}
    command = [sys.executable, str(ENTRY_POINT), "prepare", *(f"--{k}={tmp_path / v}" for k, v in options.items())]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("prepare: 5/"):
                process.send_signal(signal.SIGKILL)
                break
    assert process.returncode == -signal.SIGKILL
    finished = sorted(path.name for path in (tmp_path / "o" / "data").iterdir() if not path.name.startswith("."))
    assert 5 <= len(finished) < 30
    for case in finished:
        assert set(prepared_names([case])) < set(list_files(tmp_path / "o"))
    result = run_prepare_program(tmp_path, tmp_path / "o")
    assert (
        result.stdout
        == f"prepare: {30 - len(finished)} cases written, {len(finished)} kept (complete from an earlier run)\n"
    )
    assert run_prepare_program(tmp_path, tmp_path / "uninterrupted").returncode == 0
    assert list_files(tmp_path / "o") == list_files(tmp_path / "uninterrupted")


def test_full_disk_leaves_no_half_case(tmp_path: Path) -> None:
    write_raw(tmp_path, ["a"])
    write_raw(tmp_path, ["b"])
    voxels = np.random.default_rng(0).integers(0, 30000, size=(64, 64, 8)).astype(np.int16)
    write_volume(tmp_path / "data" / "b" / "b_t2.nii.gz", voxels)  # 60 kB, above the limit on the size of a file
    options = {"data_path": "data", "labels_path": "labels", "output_path": "o/data", "output_labels_path": "o/labels"}
    result = subprocess.run(
        [sys.executable, str(ENTRY_POINT), "prepare", *(f"--{k}={tmp_path / v}" for k, v in options.items())],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000)),
    )
    assert result.returncode == 3
    assert "prepare: error: cannot write output_path: File too large; next:" in result.stderr
    assert str(tmp_path) not in result.stderr
    assert sorted(list_files(tmp_path / "o")) == prepared_names(["a"])
    assert not list((tmp_path / "o").rglob(".part-*"))


def test_incomplete_subjects_are_listed_together_before_anything_is_written(tmp_path: Path) -> None:
    write_raw(tmp_path, ["a", "b", "c"])
    (tmp_path / "data" / "a" / "a_t1ce.nii.gz").unlink()
    (tmp_path / "data" / "c" / "c_flair.nii.gz").unlink()
    (tmp_path / "labels" / "c" / "c_seg.nii.gz").unlink()
    result = run_prepare_program(tmp_path, tmp_path / "out")
    assert result.returncode == 1
    assert "2 of 3 selected subjects are incomplete, nothing was prepared" in result.stderr
    rows = [line.split()[:3] for line in result.stderr.splitlines()[2:5]]
    assert rows == [["a", "t1ce", "missing"], ["c", "flair", "missing"], ["c", "reference", "missing"]]
    assert "<subject>_brain_t1ce.nii.gz or <subject>_t1ce.nii.gz" in result.stderr
    assert list_files(tmp_path / "out") == {}


def test_links_and_pipes_among_the_files_are_refused(tmp_path: Path) -> None:
    write_raw(tmp_path / "raw", ["a"])
    secret = tmp_path / "secret.nii.gz"
    write_volume(secret, make_image(1))
    folder = tmp_path / "raw" / "data" / "a"
    (folder / "a_t1.nii.gz").unlink()
    (folder / "a_t1.nii.gz").symlink_to(secret)
    (folder / "a_t2.nii.gz").unlink()
    os.mkfifo(folder / "a_t2.nii.gz")
    (folder / "a_flair.nii.gz").unlink()
    (folder / "a_flair.nii.gz").symlink_to("nowhere")
    result = run_prepare_program(tmp_path / "raw", tmp_path / "out")
    assert result.returncode == 1
    assert [line.split()[1:5] for line in result.stderr.splitlines()[2:5]] == [
        ["t1", "no", "ordinary", "file"],
        ["t2", "no", "ordinary", "file"],
        ["flair", "cannot", "be", "read"],
    ]
    assert list_files(tmp_path / "out") == {}


def test_links_inside_the_folder_are_followed(tmp_path: Path) -> None:
    write_raw(tmp_path, ["a"])
    folder = tmp_path / "data" / "a"
    (folder / "a_t1.nii.gz").rename(folder / "original.nii.gz")
    (folder / "a_t1.nii.gz").symlink_to("original.nii.gz")
    assert run_prepare_program(tmp_path, tmp_path / "out").returncode == 0
    prepared = tmp_path / "out" / "data" / "a" / "a_brain_t1.nii.gz"
    assert not prepared.is_symlink()
    assert prepared.read_bytes() == (folder / "original.nii.gz").read_bytes()


@pytest.mark.parametrize("which", ["data", "labels"])
@pytest.mark.parametrize("state", ["missing", "empty"])
def test_missing_or_empty_input_folder(tmp_path: Path, which: str, state: str) -> None:
    write_raw(tmp_path, ["a"])
    (tmp_path / which).rename(tmp_path / "elsewhere")
    if state == "empty":
        (tmp_path / which).mkdir()
    found = f"{which}_path is {'no folder' if state == 'missing' else 'empty'}.*mlcube creates a folder"
    with pytest.raises(InputError, match=found) as error:
        run_prepare(make_folders(tmp_path), Parameters())
    assert str(tmp_path) not in str(error.value)
    assert error.value.exit_code == 2
    assert not (tmp_path / "out").exists()


def test_other_cases_in_the_output_stop_the_run(tmp_path: Path) -> None:
    write_raw(tmp_path, ["a", "b"])
    assert run_prepare_program(tmp_path, tmp_path / "out").returncode == 0
    fewer = write_parameters(tmp_path / "fewer.yaml", validation_subjects=["a"])
    result = run_prepare_program(tmp_path, tmp_path / "out", parameters_file=fewer)
    assert result.returncode == 2
    assert "hold 2 entries of other cases than the selected ones; next: empty both folders" in result.stderr


@pytest.mark.parametrize(
    ("output", "labels", "metadata"),
    [
        ("o", "o", "m"),
        ("o", "o/labels", "m"),
        ("o/x", "o", "m"),
        ("data/o", "l", "m"),
        ("o", "labels", "m"),
        ("o", "l", "o/m"),
    ],
)
def test_outputs_inside_each_other_or_an_input_are_refused(
    tmp_path: Path, output: str, labels: str, metadata: str
) -> None:
    write_raw(tmp_path, ["a"])
    before = list_files(tmp_path)
    with pytest.raises(InputError, match="is the same folder as"):
        run_prepare(make_folders(tmp_path, output, labels, metadata), Parameters())
    assert list_files(tmp_path) == before


def write_identifying_raw(root: Path, subject: str) -> None:
    """Raw files that name the subject wherever a NIfTI or gzip file can."""
    for modality in (*MODALITIES, "seg"):
        voxels = make_reference() if modality == "seg" else make_image(3)
        image = nib.Nifti1Image(voxels, AFFINE)
        for field in ("descrip", "aux_file", "db_name", "intent_name"):
            image.header[field] = subject.encode()[:10]
        image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", subject.encode()))
        image.header.set_slope_inter(2.0, -1.0)
        folder = root / ("labels" if modality == "seg" else "data") / subject
        folder.mkdir(parents=True, exist_ok=True)
        name = f"{subject}_{modality}.nii"
        with (folder / f"{name}.gz").open("wb") as file, gzip.GzipFile(name, "wb", fileobj=file) as packed:
            packed.write(image.to_bytes())


def test_aliases_leave_no_trace_of_the_subject(tmp_path: Path) -> None:
    subjects = ["JaneDoe71", "JohnDoe80"]
    for subject in subjects:
        write_identifying_raw(tmp_path, subject)
    parameters = write_parameters(tmp_path / "p.yaml", anonymize_subjects=True)
    out, metadata = tmp_path / "out", tmp_path / "metadata"
    result = run_prepare_program(tmp_path, out, parameters_file=parameters, metadata_path=metadata)
    assert result.returncode == 0, result.stderr
    cases = ["FeTS22_Patient0000", "FeTS22_Patient0001"]
    files = list_files(out)
    assert sorted(files) == prepared_names(cases)
    for name, content in files.items():
        raw = gzip.decompress(content)
        assert not any(subject.encode() in part for subject in subjects for part in (name.encode(), content, raw))
        assert raw[40:42] == np.int16(3).tobytes()
    assert not any(subject in result.stdout + result.stderr for subject in subjects)
    assert list_files(metadata) == {
        ALIAS_FILE: b"case,subject\nFeTS22_Patient0000,JaneDoe71\nFeTS22_Patient0001,JohnDoe80\n"
    }
    again = run_prepare_program(tmp_path, out, parameters_file=parameters, metadata_path=metadata)
    assert again.stdout.startswith("prepare: 0 cases written, 2 kept")
    assert list_files(out) == files


def test_anonymised_files_keep_voxels_geometry_and_scaling(tmp_path: Path) -> None:
    write_identifying_raw(tmp_path, "JaneDoe71")
    parameters = write_parameters(tmp_path / "p.yaml", anonymize_subjects=True)
    run_prepare_program(tmp_path, tmp_path / "out", parameters_file=parameters, metadata_path=tmp_path / "m")
    case = "FeTS22_Patient0000"
    source = nib.load(tmp_path / "data" / "JaneDoe71" / "JaneDoe71_t2.nii.gz")
    target = nib.load(tmp_path / "out" / "data" / case / f"{case}_brain_t2.nii.gz")
    assert np.array_equal(np.asanyarray(source.dataobj), np.asanyarray(target.dataobj))
    assert np.array_equal(source.affine, target.affine)
    differing = {key for key in source.header if source.header[key].tobytes() != target.header[key].tobytes()}
    assert differing <= {"descrip", "aux_file", "db_name", "intent_name", "vox_offset"}
    assert len(target.header.extensions) == 0


def test_aliases_need_a_place_for_their_map(tmp_path: Path) -> None:
    write_raw(tmp_path, ["a"])
    parameters = write_parameters(tmp_path / "p.yaml", anonymize_subjects=True)
    result = run_prepare_program(tmp_path, tmp_path / "out", parameters_file=parameters)
    assert result.returncode == 2
    assert "anonymize_subjects needs a place for the alias map" in result.stderr
    assert "--metadata_path=FOLDER" in result.stderr
    assert not (tmp_path / "out").exists()


def test_lost_alias_map_stops_the_run(tmp_path: Path) -> None:
    write_raw(tmp_path, ["a", "b"])
    parameters = write_parameters(tmp_path / "p.yaml", anonymize_subjects=True)
    options = {"parameters_file": parameters, "metadata_path": tmp_path / "m"}
    assert run_prepare_program(tmp_path, tmp_path / "out", **options).returncode == 0
    (tmp_path / "m" / ALIAS_FILE).unlink()
    result = run_prepare_program(tmp_path, tmp_path / "out", **options)
    assert result.returncode == 2
    assert f"metadata_path has no {ALIAS_FILE} that says whose they are" in result.stderr


def test_file_too_damaged_to_anonymise_is_a_finding_and_the_others_are_prepared(tmp_path: Path) -> None:
    write_raw(tmp_path, ["DoeA", "DoeB", "DoeC"])
    damaged = tmp_path / "data" / "DoeB" / "DoeB_t1ce.nii.gz"
    damaged.write_bytes(damaged.read_bytes()[:-40])
    (tmp_path / "data" / "DoeC" / "DoeC_t1.nii.gz").write_bytes(b"no image at all")
    parameters = write_parameters(tmp_path / "p.yaml", anonymize_subjects=True)
    out = tmp_path / "out"
    result = run_prepare_program(tmp_path, out, parameters_file=parameters, metadata_path=tmp_path / "m")
    assert result.returncode == 1
    assert "2 of 3 cases cannot be anonymised" in result.stderr
    assert "Doe" not in result.stderr
    assert sorted(list_files(out)) == prepared_names(["FeTS22_Patient0000"])
    assert not list(out.rglob(".part-*"))


def test_arguments(tmp_path: Path) -> None:
    write_raw(tmp_path, ["a"])
    misspelt = run_cube("prepare", "--data_pth", str(tmp_path / "data"), labels_path=tmp_path)
    assert misspelt.returncode == 2
    assert "unknown argument '--data_pth'; next: mlcube.py prepare --help" in misspelt.stderr
    assert "prepare needs --output_path, --output_labels_path" in run_cube("prepare", data_path=1, labels_path=2).stderr
    assert run_cube("prepares").returncode == 2
    assert run_cube("prepare", data=1).returncode == 2  # no abbreviations
    separate = ["--data_path", "data", "--labels_path", "labels", "--output_path", "o", "--output_labels_path", "l"]
    separate = [str(tmp_path / value) if index % 2 else value for index, value in enumerate(separate)]
    assert run_cube("prepare", *separate, parameters_file=tmp_path / "null").returncode == 0
    assert nib.load(tmp_path / "o" / "a" / "a_brain_t1.nii.gz").shape == SHAPE
