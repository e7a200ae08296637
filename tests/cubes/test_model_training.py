"""The reference model's quality on unseen generated cases, and that its weights come from the training script."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from model_cube.cases import MODALITIES
from model_cube.features import compute_brain_mask
from model_cube.parameters import Parameters
from model_cube.segmentation import WEIGHTS_PATH, Model
from model_cube.training import (
    POSITIVES,
    TrainingCase,
    compute_calibrated_model,
    fit_logistic_regression,
    fit_model,
)

from tests.cubes.model_cases import CUBE, ROOT, run_task

nib: Any = nibabel  # only half annotated

REQUIRED_DICE = {"WT": 0.85, "TC": 0.6, "ET": 0.7}
TRAIN = CUBE / "project" / "train.py"


def generate_prepared_cases(folder: Path, size: str, count: int, seed: int) -> list[str]:
    """Generate cases of site 1 and give them the prepared names; returns the case ids."""
    command = [sys.executable, "-m", "toy_data", "cases", "--site=1", f"--cases={count}", f"--seed={seed}"]
    command += [f"--size={size}", f"--out={folder / 'raw'}"]
    subprocess.run(command, check=True, capture_output=True, cwd=ROOT, timeout=300)
    case_ids = sorted(path.name for path in (folder / "raw" / "data").iterdir())
    for case_id in case_ids:
        (folder / "data" / case_id).mkdir(parents=True)
        for modality in MODALITIES:
            (source,) = (folder / "raw" / "data" / case_id).glob(f"*_{modality}.nii.gz")
            source.rename(folder / "data" / case_id / f"{case_id}_brain_{modality}.nii.gz")
    return case_ids


def compute_dice(prediction_path: Path, reference_folder: Path) -> dict[str, float]:
    """Dice of the three regions, from the definition."""
    (reference_path,) = reference_folder.glob("*seg.nii.gz")
    prediction, reference = (np.asarray(nib.load(path).dataobj) for path in (prediction_path, reference_path))
    dice = {}
    for region, labels in POSITIVES.items():
        predicted, true = np.isin(prediction, labels), np.isin(reference, labels)
        total = int(predicted.sum() + true.sum())
        dice[region] = 2 * int((predicted & true).sum()) / total if total else 1.0
    return dice


@pytest.mark.parametrize(("size", "count", "seed"), [("ci", 8, 7), ("full", 1, 8)])
def test_unseen_cases_of_site_1_reach_the_required_mean_dice(tmp_path: Path, size: str, count: int, seed: int) -> None:
    assert seed != json.loads(WEIGHTS_PATH.read_text())["recipe"]["seed"]
    case_ids = generate_prepared_cases(tmp_path, size, count, seed)
    done = run_task("infer", f"--data_path={tmp_path / 'data'}", f"--output_path={tmp_path / 'predictions'}")
    assert done.returncode == 0, done.stderr
    dice = [
        compute_dice(tmp_path / "predictions" / f"{case_id}.nii.gz", tmp_path / "raw" / "labels" / case_id)
        for case_id in case_ids
    ]
    mean = {region: float(np.mean([values[region] for values in dice])) for region in REQUIRED_DICE}
    assert all(mean[region] >= limit for region, limit in REQUIRED_DICE.items()), (mean, dice)


def test_weights_follow_from_their_recipe() -> None:
    """Training again by the recipe in the weights file gives the committed weights."""
    done = subprocess.run(
        [sys.executable, str(TRAIN), "--check"], capture_output=True, text=True, cwd=ROOT, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert "weights.json agrees with its recipe" in done.stderr


def test_training_writes_a_weights_file_and_check_sees_a_change(tmp_path: Path) -> None:
    path = tmp_path / "weights.json"
    command = [sys.executable, str(TRAIN), f"--weights={path}", "--cases=2", "--seed=3"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=300)
    assert done.returncode == 0, done.stderr
    content = json.loads(path.read_text())
    assert content["recipe"] == {"site": 1, "cases": 2, "seed": 3}
    assert [entry.name for entry in tmp_path.iterdir()] == ["weights.json"]
    content["regions"]["TC"]["weights"][0] += 3 * max(map(abs, content["regions"]["TC"]["weights"]))
    path.write_text(json.dumps(content))
    done = subprocess.run([*command[:3], "--check"], capture_output=True, text=True, cwd=ROOT, timeout=300)
    assert done.returncode == 1
    assert "TC: weights differ" in done.stderr


def test_logistic_regression_finds_the_known_answer() -> None:
    """Two Gaussians of equal spread: the log-odds are linear, with weights (b - a) / variance."""
    generator = np.random.default_rng(0)
    negative, positive = generator.normal(0, 2, (200_000, 2)), generator.normal((3, -1), 2, (50_000, 2))
    labels = np.repeat([False, True], [len(negative), len(positive)])
    weights, bias = fit_logistic_regression(np.concatenate([negative, positive]), labels, ridge=0.0)
    assert weights == pytest.approx([0.75, -0.25], abs=0.02)
    assert bias == pytest.approx(-0.5 * (9 + 1) / 4, abs=0.03)


def make_training_case(seed: int) -> TrainingCase:
    """Nested balls in noise; flair, t1ce and t2 each single out one region."""
    generator = np.random.default_rng(seed)
    shape = (24, 24, 24)
    radius = np.sqrt(((np.indices(shape) - 12.0) ** 2).sum(axis=0))
    reference = np.select([radius < 3, radius < 6, radius < 9], [1, 4, 2], 0).astype(np.uint8)
    shown = {"flair": (1, 2, 4), "t1ce": (4,), "t2": (1,), "t1": ()}
    images = {
        name: (100 + 5 * generator.normal(size=shape) + 60 * np.isin(reference, labels)).astype(np.float32)
        for name, labels in shown.items()
    }
    brain = compute_brain_mask(images)
    return TrainingCase(images, brain, reference[brain], (1.0, 1.0, 1.0))


def compute_region_dice(model: Model, case: TrainingCase) -> list[float]:
    """Dice of the model on one case, region by region."""
    prediction = model.segment(case.images, case.spacing_mm)[case.brain]
    pairs = [(np.isin(prediction, labels), np.isin(case.reference, labels)) for labels in POSITIVES.values()]
    return [float(2 * (predicted & true).sum() / (predicted.sum() + true.sum())) for predicted, true in pairs]


def test_fit_learns_nested_regions_and_calibration_does_not_hurt() -> None:
    cases = [make_training_case(seed) for seed in range(2)]
    unseen = make_training_case(9)
    fitted = fit_model(cases, seed=0, per_label=400)
    assert np.array_equal(fitted.weights, fit_model(cases, seed=0, per_label=400).weights)
    calibrated = compute_calibrated_model(fitted, cases)
    assert calibrated.parameters == Parameters(True, 100.0)
    before, after = (np.array(compute_region_dice(model, unseen)) for model in (fitted, calibrated))
    assert (after > 0.85).all(), after
    assert after[0] >= before[0] - 0.01
