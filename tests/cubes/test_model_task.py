"""The model cube's contract: cases read, predictions written, parameters, weights, and the task called as a program."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import yaml
from model_cube.cases import MODALITIES, load_case, load_case_ids, write_prediction
from model_cube.errors import CaseError, InputError
from model_cube.features import compute_feature_names
from model_cube.infer import check_optional_path
from model_cube.parameters import PARAMETERS_PATH, Parameters, load_parameters
from model_cube.segmentation import WEIGHTS_PATH, load_model

from tests.cubes.model_cases import AFFINE, CUBE, ROOT, SHAPE, run_task, write_case

nib: Any = nibabel  # only half annotated

GUIDE = (CUBE / "README.md").read_text(encoding="utf-8")


# --- reading and writing cases


def test_cases_are_sorted_and_files_and_hidden_folders_ignored(tmp_path: Path) -> None:
    for name in ("b", "a-1", ".hidden", "A 2", "c.d"):
        (tmp_path / name).mkdir()
    (tmp_path / "registration.yaml").write_text("")
    assert load_case_ids(tmp_path) == ["A 2", "a-1", "b", "c.d"]


@pytest.mark.parametrize("make", [True, False])
def test_no_cases_is_an_error(tmp_path: Path, make: bool) -> None:
    folder = tmp_path / "data"
    if make:
        folder.mkdir()
    with pytest.raises(InputError, match="next:"):
        load_case_ids(folder)


def test_case_is_read_with_its_grid(tmp_path: Path) -> None:
    write_case(tmp_path, "case")
    case = load_case(tmp_path, "case")
    assert sorted(case.images) == sorted(MODALITIES)
    assert case.images["t2"].shape == SHAPE and case.images["t2"].dtype == np.float32
    assert case.spacing_mm == pytest.approx((2.0, 2.5, 3.0))


def break_missing(path: Path) -> None:
    path.unlink()


def break_cut_gzip(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:2000])


def break_damaged_gzip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 64] = b"\xff" * 64
    path.write_bytes(content)


def break_text(path: Path) -> None:
    path.write_text("not an image")


def break_empty(path: Path) -> None:
    path.write_bytes(b"")


def break_shape(path: Path) -> None:
    nib.save(nib.Nifti1Image(np.ones((20, 24, 17), np.int16), AFFINE), path)


def break_dimensions(path: Path) -> None:
    nib.save(nib.Nifti1Image(np.ones((*SHAPE, 2), np.int16), AFFINE), path)


BREAKS = [
    break_missing, break_cut_gzip, break_damaged_gzip, break_text, break_empty, break_shape, break_dimensions
]  # fmt: skip


@pytest.mark.parametrize("break_file", BREAKS)
def test_broken_image_is_a_case_error_naming_the_file_only(tmp_path: Path, break_file: object) -> None:
    write_case(tmp_path, "case")
    assert callable(break_file)
    break_file(tmp_path / "case" / "case_brain_t2.nii.gz")
    with pytest.raises(CaseError, match=r"^case_brain_t2\.nii\.gz: ") as caught:
        load_case(tmp_path, "case")
    assert str(tmp_path) not in str(caught.value)


def test_values_that_are_not_finite_become_background(tmp_path: Path) -> None:
    write_case(tmp_path, "case")
    voxels = np.full(SHAPE, 7, np.float32)
    voxels[0, 0, :3] = np.nan, np.inf, -np.inf
    nib.save(nib.Nifti1Image(voxels, AFFINE), tmp_path / "case" / "case_brain_t1.nii.gz")
    loaded = load_case(tmp_path, "case").images["t1"]
    assert loaded[0, 0, :4].tolist() == [0, 0, 0, 7]


@pytest.mark.parametrize("image_class", [nib.Nifti1Image, nib.Nifti2Image])
def test_prediction_keeps_grid_and_header(tmp_path: Path, image_class: Any) -> None:
    write_case(tmp_path, "case")
    path = tmp_path / "case" / "case_brain_t1.nii.gz"
    source = image_class.from_image(nib.load(path))
    source.header.set_slope_inter(2.0, 5.0)
    source.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"Jane Doe"))
    nib.save(source, path)
    labels = np.random.default_rng(1).choice(np.array([0, 1, 2, 4], np.uint8), SHAPE)
    target = write_prediction(tmp_path, load_case(tmp_path, "case"), labels)
    assert target == tmp_path / "case.nii.gz"
    written, t1 = nib.load(target), nib.load(path)
    assert isinstance(written, image_class)
    assert written.get_data_dtype() == np.uint8
    assert np.array_equal(np.asarray(written.dataobj), labels)
    assert np.array_equal(written.affine, t1.affine)
    for key in ("qform_code", "sform_code", "pixdim", "xyzt_units", "dim", "srow_x", "quatern_b", "qoffset_x"):
        assert np.array_equal(written.header[key], t1.header[key]), key
    assert not written.header.extensions
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["case", "case.nii.gz"]


def test_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_case(tmp_path, "case")
    case = load_case(tmp_path, "case")

    def fill_disk(image: object, path: Path) -> None:
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(nib, "save", fill_disk)
    with pytest.raises(OSError, match="No space"):
        write_prediction(tmp_path, case, np.zeros(SHAPE, np.uint8))
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["case"]


def test_weights_in_the_image_are_small_json() -> None:
    assert WEIGHTS_PATH.stat().st_size < 100_000
    model = load_model(WEIGHTS_PATH, load_parameters())
    assert model.weights.shape[0] == 3
    content = json.loads(WEIGHTS_PATH.read_text())
    assert content["features"] == compute_feature_names(model.modalities, model.scales_mm)
    assert load_model(WEIGHTS_PATH.parent, load_parameters()).scales_mm == model.scales_mm


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2}, {"modalities": ["t1", "pet"]}, {"scales_mm": [1e9]}, {"scales_mm": [1.5]}, {"regions": {}},
        {"regions": {name: {"bias": 0.0, "weights": [float("nan")] * 24} for name in ("WT", "TC", "ET")}},
        {"regions": {name: {"bias": "x", "weights": [0.0] * 24} for name in ("WT", "TC", "ET")}},
    ],
)  # fmt: skip
def test_broken_weights_are_refused(tmp_path: Path, change: dict[str, object]) -> None:
    path = tmp_path / "weights.json"
    path.write_text(json.dumps(json.loads(WEIGHTS_PATH.read_text()) | change))
    with pytest.raises(InputError, match="not a weights file"):
        load_model(path, load_parameters())


@pytest.mark.parametrize("content", ["", "{", "[1, 2]", "3", "\x80"])
def test_weights_that_are_not_json_objects_are_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "weights.json"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(InputError, match="checkpoint_path"):
        load_model(path, load_parameters())


@pytest.mark.parametrize(
    "content",
    [
        "", "[]", "a: b: c", "largest_component: true", "largest_component: 1\nmin_volume_mm3: 2",
        "largest_component: true\nmin_volume_mm3: -1", "largest_component: true\nmin_volume_mm3: .inf",
        "largest_component: true\nmin_volume_mm3: 1\nmin_volume: 1",
    ],
)  # fmt: skip
def test_broken_parameters_are_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "parameters.yaml"
    path.write_text(content)
    with pytest.raises(InputError, match="parameters_file"):
        load_parameters(path)


def test_null_is_not_given_and_another_missing_path_is_an_error(tmp_path: Path) -> None:
    for value in ("", "null", "/mlcube_io1/null", str(tmp_path / "null")):
        assert check_optional_path("checkpoint_path", value) is None
    assert check_optional_path("checkpoint_path", str(tmp_path)) == tmp_path
    with pytest.raises(InputError, match=r"parameters_file does not exist.*nulls.*next:"):
        check_optional_path("parameters_file", str(tmp_path / "nulls"))


# --- the task as a program


def test_infer_segments_every_case_in_order(tmp_path: Path) -> None:
    names = ["FeTS22_Patient0000", "pat-1.b c", "Z"]
    for number, name in enumerate(names):
        write_case(tmp_path / "data", name, number)
    done = run_task("infer", "--data_path", tmp_path / "data", f"--output_path={tmp_path / 'new' / 'out'}")
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in (tmp_path / "new" / "out").iterdir()) == sorted(f"{n}.nii.gz" for n in names)
    lines = done.stdout.splitlines()
    assert [line.split(": done in ")[0] for line in lines] == [f"{i}/3 {n}" for i, n in enumerate(sorted(names), 1)]
    assert all(float(line.split(": done in ")[1].removesuffix(" s")) >= 0 for line in lines)
    assert done.stderr == ""


def test_broken_case_is_reported_and_the_others_are_segmented(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        write_case(tmp_path / "data", name)
    (tmp_path / "data" / "b" / "b_brain_flair.nii.gz").write_bytes(b"\x1f\x8b broken")
    done = run_task("infer", f"--data_path={tmp_path / 'data'}", f"--output_path={tmp_path / 'out'}")
    assert done.returncode == 1
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.nii.gz", "c.nii.gz"]
    assert "2/3 b: failed: b_brain_flair.nii.gz" in done.stderr
    assert "Traceback" not in done.stderr and str(tmp_path) not in done.stderr


def test_given_parameters_and_checkpoint_are_used(tmp_path: Path) -> None:
    write_case(tmp_path / "data", "a")
    names = compute_feature_names(MODALITIES, [2.0])
    row = [1.0 if name == "flair@2" else 0.0 for name in names]
    regions = {name: {"bias": -2.0, "weights": row} for name in ("WT", "TC", "ET")}
    weights = {"format": 1, "modalities": MODALITIES, "scales_mm": [2.0], "regions": regions}
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "checkpoint" / "weights.json").write_text(json.dumps(weights))
    paths = [f"--data_path={tmp_path / 'data'}", f"--checkpoint_path={tmp_path / 'checkpoint'}"]
    found = []
    for volume in (0, 1e9):
        (tmp_path / "parameters.yaml").write_text(yaml.safe_dump({"largest_component": True, "min_volume_mm3": volume}))
        out = tmp_path / f"out{volume:g}"
        done = run_task("infer", *paths, f"--output_path={out}", f"--parameters_file={tmp_path / 'parameters.yaml'}")
        assert done.returncode == 0, done.stderr
        found.append(set(np.unique(np.asarray(nib.load(out / "a.nii.gz").dataobj)).tolist()))
    assert found == [{0, 4}, {0}]


@pytest.mark.parametrize(
    "arguments",
    [
        [], ["train"], ["infer"], ["infer", "--data_path=x"],
        ["infer", "--data_path={tmp}/none", "--output_path={tmp}/out"],
        ["infer", "--data_path={tmp}/data", "--output_path={tmp}/out", "--data_pth=x"],
        ["infer", "--data_path={tmp}/data", "--output_path={tmp}/out", "--checkpoint_path=/none"],
        ["infer", "--data_path={tmp}/data", "--output_path={tmp}/data/a/a_brain_t1.nii.gz"],
    ],
)  # fmt: skip
def test_wrong_arguments_end_with_status_2_and_one_clear_error(tmp_path: Path, arguments: list[str]) -> None:
    write_case(tmp_path / "data", "a")
    done = run_task(*(argument.format(tmp=tmp_path) for argument in arguments))
    assert done.returncode == 2
    assert done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(os.getuid() == 0, reason="root may write everywhere")
def test_output_that_is_not_writable_is_one_clear_error(tmp_path: Path) -> None:
    write_case(tmp_path / "data", "a")
    (tmp_path / "out").mkdir(mode=0o500)
    done = run_task("infer", f"--data_path={tmp_path / 'data'}", f"--output_path={tmp_path / 'out'}")
    assert done.returncode == 2 and "cannot be written" in done.stderr


# --- manifests


def test_both_manifests_name_the_same_image_tasks_and_parameters() -> None:
    mlcube = yaml.safe_load((CUBE / "mlcube" / "mlcube.yaml").read_text())
    config = yaml.safe_load((CUBE / "mlcube" / "container_config.yaml").read_text())
    assert config["container_type"] == "DockerImage"
    assert config["image"] == mlcube["docker"]["image"]
    assert list(config["tasks"]) == list(mlcube["tasks"]) == ["infer"]
    task, parameters = config["tasks"]["infer"], mlcube["tasks"]["infer"]["parameters"]
    optional = {
        name for name, spec in parameters["inputs"].items() if isinstance(spec, dict) and spec["default"] == "null"
    }
    assert optional == {"parameters_file", "checkpoint_path"}
    assert set(task["input_volumes"]) == set(parameters["inputs"]) - optional
    assert set(task["output_volumes"]) == set(parameters["outputs"])
    words = task["run_args"]["command"].split()
    volumes = task["input_volumes"] | task["output_volumes"]
    assert words == ["infer", *(f"--{name}={volume['mount_path']}" for name, volume in volumes.items())]


def test_parameters_in_the_image_are_the_documented_ones() -> None:
    assert load_parameters(PARAMETERS_PATH) == Parameters(largest_component=True, min_volume_mm3=100.0)


# --- the participants' guide


def test_guide_commands_without_container_run(tmp_path: Path) -> None:
    """The first example of the guide, word by word, with its folder moved to a temporary one."""
    blocks = re.findall(r"```bash\n(.*?)```", GUIDE, flags=re.DOTALL)
    (block,) = (block for block in blocks if "toy_data cases" in block)
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    script = block.replace("demo/model", str(tmp_path / "demo"))
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    said = re.sub(r"\d+\.\d\d s", "T s", done.stdout)
    shown = re.sub(r"\d+\.\d\d s", "T s", GUIDE.split("```text\n")[1].split("```")[0])
    assert said.endswith(shown)


def test_guide_names_every_file_and_option_of_the_cube() -> None:
    paths = [path.relative_to(CUBE) for path in CUBE.rglob("*") if path.is_file()]
    hidden = [any(part.startswith((".", "__")) for part in path.parent.parts) for path in paths]  # caches of tools
    files = {path.name for path, is_hidden in zip(paths, hidden, strict=True) if not is_hidden}
    unnamed = {name for name in files if f"`{name}`" not in GUIDE and f"/{name}`" not in GUIDE}
    assert unnamed == {".gitignore", "__init__.py", "README.md"}
    help_text = run_task("infer", "--help").stdout
    for option in set(re.findall(r"--\w+", help_text)) - {"--help"}:
        assert option in GUIDE
