"""The model cube: file contract, features, segmentation, and the task called as a program."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import yaml
from model_cube.cases import MODALITIES, CaseError, load_case, load_case_ids, write_prediction
from model_cube.errors import InputError
from model_cube.features import compute_brain_mask, compute_feature_names, compute_features, compute_z_scores
from model_cube.infer import check_optional_path
from model_cube.parameters import PARAMETERS_PATH, Parameters, load_parameters
from model_cube.segmentation import WEIGHTS_PATH, Model, compute_labels, compute_largest_component, load_model
from numpy.typing import NDArray

CUBE = Path(__file__).parents[2] / "mlcubes" / "model"
SHAPE = (20, 24, 18)
AFFINE = np.array([[-2.0, 0, 0, 10], [0, -2.5, 0, 20], [0, 0, 3.0, -30], [0, 0, 0, 1]])


def write_case(data_path: Path, case_id: str, seed: int = 0) -> None:
    """Write a small prepared case: a box of brain, in it a bright ball in every modality but t1."""
    generator = np.random.default_rng(seed)
    grid = np.indices(SHAPE)
    ball = ((grid - np.array([10, 12, 9])[:, None, None, None]) ** 2).sum(axis=0) < 16
    folder = data_path / case_id
    folder.mkdir(parents=True)
    for modality in MODALITIES:
        voxels = 100 + 10 * generator.normal(size=SHAPE)
        voxels[ball] += 0 if modality == "t1" else 120
        voxels[:3] = 0
        image = nib.Nifti1Image(voxels.astype(np.int16), AFFINE)
        image.set_qform(AFFINE, code=3)
        image.set_sform(AFFINE, code=4)
        image.header.set_xyzt_units("mm", "sec")
        nib.save(image, folder / f"{case_id}_brain_{modality}.nii.gz")


def run_task(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run mlcube.py as a program from a foreign folder."""
    return subprocess.run(
        [sys.executable, str(CUBE / "project" / "mlcube.py"), *map(str, arguments)],
        capture_output=True, text=True, cwd="/", timeout=120,
    )  # fmt: skip


def make_model(parameters: Parameters | None = None) -> Model:
    """A model whose whole tumour is where smoothed flair is above 2 standard deviations, all of it oedema."""
    names = compute_feature_names(MODALITIES, [2.0])
    weights = np.zeros((3, len(names)), np.float32)
    weights[0, names.index("flair@2")] = 1.0
    return Model(MODALITIES, (2.0,), weights, np.array([-2, -1, -1], np.float32), parameters or Parameters(True, 0.0))


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
def test_prediction_keeps_grid_and_header(tmp_path: Path, image_class: type[nib.Nifti1Image]) -> None:
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


# --- features and segmentation


def test_z_scores_ignore_a_tumour_and_the_background() -> None:
    generator = np.random.default_rng(3)
    volume = np.zeros((30, 30, 30), np.float32)
    mask = np.zeros(volume.shape, bool)
    mask[5:25, 5:25, 5:25] = True
    volume[mask] = generator.normal(300, 20, mask.sum())
    scores = compute_z_scores(volume, mask)
    assert np.all(scores[~mask] == 0)
    assert np.median(scores[mask]) == pytest.approx(0, abs=1e-3)
    assert scores[mask].std() == pytest.approx(1, abs=0.03)
    volume[5:10, 5:10, 5:25] = 3000
    with_tumour = compute_z_scores(volume, mask)
    assert np.abs(with_tumour - scores)[12:25, 12:25, 12:25].max() < 0.4
    assert with_tumour.max() == 6


def test_z_scores_do_not_depend_on_gain_and_offset() -> None:
    volume = np.random.default_rng(4).normal(50, 9, (9, 9, 9)).astype(np.float32)
    mask = np.ones(volume.shape, bool)
    assert np.allclose(compute_z_scores(volume, mask), compute_z_scores(volume * 3 + 40, mask), atol=1e-3)


def test_constant_image_has_zero_scores() -> None:
    mask = np.ones((4, 4, 4), bool)
    assert not compute_z_scores(np.full((4, 4, 4), 9, np.float32), mask).any()


def test_features_follow_their_names_and_are_flat_in_a_flat_brain() -> None:
    """In a brain of constant score smoothing must not show the rim: that is what the normalisation is for."""
    images = {name: np.zeros((24, 24, 24), np.float32) for name in MODALITIES}
    mask = np.zeros((24, 24, 24), bool)
    mask[4:20, 4:20, 4:20] = True
    ramp = np.tile(np.arange(24, dtype=np.float32), (24, 24, 1))
    for number, volume in enumerate(images.values()):
        volume[mask] = 50 + (number + 1) * ramp[mask]
    columns = list(compute_features(images, mask, (1.0, 1.0, 1.0), MODALITIES, [0.0, 2.0]))
    names = compute_feature_names(MODALITIES, [0.0, 2.0])
    assert len(columns) == len(names) == 16
    assert names[0:3] == ["t1@0", "t1@0^2", "t1ce@0"] and names[8] == "t1@2"
    assert all(column.shape == (16**3,) and column.dtype == np.float32 for column in columns)
    assert np.allclose(columns[1], columns[0] ** 2)
    middle_plane = np.nonzero(mask)[2] == 12
    smooth = columns[8]
    assert np.ptp(smooth[middle_plane]) < 1e-4


def test_scales_are_in_millimetres() -> None:
    """The same anatomy on a coarser grid gives the same features."""
    fine = np.random.default_rng(5).normal(size=(12, 12, 12)).astype(np.float32).repeat(4, 0).repeat(4, 1).repeat(4, 2)
    fine += 10
    coarse = fine[1::2, 1::2, 1::2]
    columns = [
        next(iter(compute_features({"t1": volume}, np.ones(volume.shape, bool), (size,) * 3, ["t1"], [6.0])))
        for volume, size in ((fine, 1.0), (coarse, 2.0))
    ]
    fine_smooth, coarse_smooth = columns[0].reshape(fine.shape), columns[1].reshape(coarse.shape)
    difference = np.abs(fine_smooth[1::2, 1::2, 1::2] - coarse_smooth)[5:-5, 5:-5, 5:-5]
    assert difference.max() < 0.05 * np.ptp(coarse_smooth)


def test_brain_is_where_any_modality_differs_from_zero() -> None:
    first, second = np.zeros((2, 1, 1), np.float32), np.array([0, -3], np.float32).reshape(2, 1, 1)
    assert compute_brain_mask({"a": first, "b": second}).ravel().tolist() == [False, True]


def test_largest_component_is_kept_and_filled() -> None:
    mask = np.zeros((10, 10, 10), bool)
    mask[0:2, 0:2, 0:2] = True
    mask[4:9, 4:9, 4:9] = True
    mask[6, 6, 6] = False
    kept = compute_largest_component(mask)
    assert kept[6, 6, 6] and not kept[0, 0, 0] and kept.sum() == 125
    assert not compute_largest_component(np.zeros((3, 3, 3), bool)).any()


def make_scores(*values: float) -> NDArray[np.float32]:
    return np.array(values, np.float32)[:, None]


@pytest.mark.parametrize(
    ("scores", "label"),
    [((-1, 1, 1), 0), ((1, -1, 1), 2), ((1, 1, -1), 1), ((1, 1, 1), 4), ((0, 1, 1), 0), ((1, 0, 1), 2)],
)
def test_regions_are_nested(scores: tuple[float, ...], label: int) -> None:
    brain = np.ones((1, 1, 1), bool)
    labels = compute_labels(make_scores(*scores), brain, (1.0, 1.0, 1.0), Parameters(True, 0.0))
    assert labels.dtype == np.uint8 and labels.item() == label


def test_small_tumour_is_noise_and_volume_is_in_mm3() -> None:
    brain = np.ones((4, 1, 1), bool)
    scores = np.array([[1, 1, 1, -1], [-1] * 4, [-1] * 4], np.float32)
    for spacing, expected in ((2.0, 3), (1.0, 0)):
        labels = compute_labels(scores, brain, (spacing,) * 3, Parameters(True, 20.0))
        assert np.count_nonzero(labels) == expected


def test_component_clean_up_can_be_switched_off() -> None:
    brain = np.ones((5, 1, 1), bool)
    scores = np.array([[1, -1, 1, 1, -1], [-1] * 5, [-1] * 5], np.float32)
    counts = [
        np.count_nonzero(compute_labels(scores, brain, (1.0, 1.0, 1.0), Parameters(keep, 0.0)))
        for keep in (True, False)
    ]
    assert counts == [2, 3]


def test_segment_finds_the_ball(tmp_path: Path) -> None:
    write_case(tmp_path, "case")
    case = load_case(tmp_path, "case")
    labels = make_model().segment(case.images, case.spacing_mm)
    assert labels[10, 12, 9] == 2 and labels[5, 5, 5] == 0 and not labels[:3].any()
    assert 150 < np.count_nonzero(labels) < 450  # the ball has 251 voxels


def test_empty_brain_gives_an_empty_prediction() -> None:
    images = {name: np.zeros((5, 6, 7), np.float32) for name in MODALITIES}
    labels = make_model().segment(images, (1.0, 1.0, 1.0))
    assert labels.shape == (5, 6, 7) and labels.dtype == np.uint8 and not labels.any()


# --- parameters and weights


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
