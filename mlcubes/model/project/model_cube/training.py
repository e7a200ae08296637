"""Fits the weights file from cases with reference segmentations.

Three logistic regressions, each among the voxels of the region around: whole tumour in the brain, core in the whole
tumour, enhancing tumour in the core. The log-likelihood is fitted on a seeded sample of voxels; then each bias is
moved to where the mean Dice of whole calibration cases is best, because likelihood and Dice prefer different
thresholds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy import optimize

from model_cube.cases import MODALITIES, compute_spacing_mm
from model_cube.errors import InputError
from model_cube.features import (
    Volume,
    compute_bounding_box,
    compute_brain_mask,
    compute_feature_names,
    compute_features,
)
from model_cube.parameters import load_parameters
from model_cube.segmentation import REGIONS, Model, compute_region_scores

# Labels of the voxels a regression is fitted on, and of those that are positive.
DOMAINS = {"WT": (0, 1, 2, 4), "TC": (1, 2, 4), "ET": (1, 4)}
POSITIVES = {"WT": (1, 2, 4), "TC": (1, 4), "ET": (4,)}
SCALES_MM = (1.5, 4.0, 9.0)
# Strength of the ridge penalty on standardised features, per sampled voxel.
RIDGE = 1e-4
SHIFTS = np.linspace(-6.0, 6.0, 97)


@dataclass(frozen=True)
class TrainingCase:
    """One case cut to the bounding box of its brain.

    Attributes
    ----------
    images : dict of str to ndarray, shape (x, y, z), float32
    brain : ndarray, shape (x, y, z), bool
    reference : ndarray, shape (voxels in brain,), uint8
        Labels 0, 1, 2, 4.
    spacing_mm : three floats
    """

    images: dict[str, Volume]
    brain: NDArray[np.bool_]
    reference: NDArray[np.uint8]
    spacing_mm: tuple[float, float, float]


def load_raw_cases(raw_path: Path) -> Iterator[TrainingCase]:
    """Read `data/<subject>/*<modality>.nii.gz` and `labels/<subject>/*seg.nii.gz` one case at a time, sorted.

    Raises
    ------
    InputError
        If a file of a subject is missing or there is no subject.
    """
    subjects = sorted(path for path in (raw_path / "data").glob("*") if path.is_dir())
    if not subjects:
        raise InputError(
            f"train: no case below {raw_path / 'data'}; next: generate them with `python -m toy_data cases`"
        )
    for subject in subjects:
        files = {name: _find_file(subject, f"_{name}.nii.gz") for name in MODALITIES}
        images = {name: nib.Nifti1Image.from_filename(path) for name, path in files.items()}
        volumes = {name: image.get_fdata(dtype=np.float32) for name, image in images.items()}
        reference = nib.Nifti1Image.from_filename(_find_file(raw_path / "labels" / subject.name, "seg.nii.gz"))
        labels = np.asarray(reference.dataobj)
        brain = compute_brain_mask(volumes)
        box = compute_bounding_box(brain)
        yield TrainingCase(
            {name: volume[box] for name, volume in volumes.items()},
            brain[box],
            labels[brain].astype(np.uint8),
            compute_spacing_mm(images["t1"].affine),
        )


def _find_file(folder: Path, ending: str) -> Path:
    """Find the one file of a folder with an ending; sites name them `<id>_t1` or `<id>_brain_t1`."""
    found = sorted(path for path in folder.glob("*") if path.name.endswith(ending))
    if len(found) != 1:
        raise InputError(f"train: expected one file ending in {ending} in {folder}, found {len(found)}")
    return found[0]


def compute_sample(
    case: TrainingCase, generator: np.random.Generator, per_label: int
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Draw voxels of one case: `per_label` of each tumour label, three times as many of healthy brain.

    Returns
    -------
    features : ndarray, shape (voxels, features), float32
    labels : ndarray, shape (voxels,), uint8
    """
    chosen = []
    for label in (0, 1, 2, 4):
        positions = np.flatnonzero(case.reference == label)
        count = min(len(positions), per_label if label else 3 * per_label)
        chosen.append(generator.choice(positions, count, replace=False))
    index = np.concatenate(chosen)
    columns = compute_features(case.images, case.brain, case.spacing_mm, MODALITIES, SCALES_MM)
    return np.stack([column[index] for column in columns], axis=1), case.reference[index]


def fit_logistic_regression(
    features: NDArray[np.float64], positive: NDArray[np.bool_], ridge: float = RIDGE
) -> tuple[NDArray[np.float64], float]:
    """Fit a logistic regression with ridge penalty; both classes count the same in all.

    Parameters
    ----------
    features : ndarray, shape (n, k), float64
    positive : ndarray, shape (n,), bool

    Returns
    -------
    weights : ndarray, shape (k,), float64
    bias : float
        Log-odds of a row x are weights . x + bias.
    """
    mean, scale = features.mean(axis=0), features.std(axis=0) + 1e-9
    table = np.column_stack([(features - mean) / scale, np.ones(len(features))])
    sign = np.where(positive, 1.0, -1.0)
    share = np.where(positive, 0.5 / max(positive.sum(), 1), 0.5 / max((~positive).sum(), 1))
    penalty = np.full(table.shape[1], ridge)
    penalty[-1] = 0.0

    def compute_loss(values: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        margin = sign * (table @ values)
        loss = float(np.dot(share, np.logaddexp(0.0, -margin)) + 0.5 * np.dot(penalty, values**2))
        pull = -share * sign / (1.0 + np.exp(np.clip(margin, -500, 500)))
        return loss, table.T @ pull + penalty * values

    found = optimize.minimize(
        compute_loss, np.zeros(table.shape[1]), jac=True, method="L-BFGS-B", options={"maxiter": 2000, "ftol": 1e-12}
    )
    weights = found.x[:-1] / scale
    return weights, float(found.x[-1] - weights @ mean)


def fit_model(cases: Sequence[TrainingCase], seed: int, per_label: int = 3000) -> Model:
    """Fit the three regressions on a seeded sample of voxels of all cases."""
    generator = np.random.default_rng(seed)
    samples = [compute_sample(case, generator, per_label) for case in cases]
    features = np.concatenate([sample[0] for sample in samples]).astype(np.float64)
    labels = np.concatenate([sample[1] for sample in samples])
    weights, biases = [], []
    for region in REGIONS:
        inside = np.isin(labels, DOMAINS[region])
        row, bias = fit_logistic_regression(features[inside], np.isin(labels[inside], POSITIVES[region]))
        weights.append(row)
        biases.append(bias)
    rows = np.array(weights, np.float32)
    return Model(MODALITIES, SCALES_MM, rows, np.array(biases, np.float32), load_parameters())


def compute_calibrated_model(model: Model, cases: Sequence[TrainingCase]) -> Model:
    """Move each bias to the best mean Dice over cases, outer region first.

    The clean-up of components is left out: it changes a prediction, hardly the best threshold.
    """
    scores = [compute_region_scores(model, case.images, case.brain, case.spacing_mm) for case in cases]
    domains = [np.ones(case.reference.shape, bool) for case in cases]
    biases = model.biases.copy()
    for index, region in enumerate(REGIONS):
        references = [np.isin(case.reference, POSITIVES[region]) for case in cases]
        curves = [
            _compute_dice_curve(score[index][domain], reference[domain], int(reference.sum()))
            for score, domain, reference in zip(scores, domains, references, strict=True)
        ]
        shift = SHIFTS[int(np.argmax(np.mean(curves, axis=0)))]
        biases[index] += np.float32(shift)
        domains = [domain & (score[index] > -shift) for score, domain in zip(scores, domains, strict=True)]
    return replace(model, biases=biases)


def _compute_dice_curve(
    scores: NDArray[np.float32], reference: NDArray[np.bool_], reference_size: int
) -> NDArray[np.float64]:
    """Dice of `scores > -shift` for every shift of `SHIFTS`; 1 where prediction and reference are both empty."""
    ordered = np.sort(scores), np.sort(scores[reference])
    predicted, hits = (len(values) - np.searchsorted(values, -SHIFTS, side="right") for values in ordered)
    total = predicted + reference_size
    return np.where(total == 0, 1.0, 2.0 * hits / np.maximum(total, 1))


def format_weights(model: Model, recipe: dict[str, object]) -> dict[str, object]:
    """Lay out a model as the JSON content that `load_model` reads; `recipe` says how to fit it again."""
    return {
        "format": 1,
        "recipe": recipe,
        "modalities": list(model.modalities),
        "scales_mm": list(model.scales_mm),
        "features": compute_feature_names(model.modalities, model.scales_mm),
        "regions": {
            name: {"bias": round(float(bias), 5), "weights": [round(float(value), 6) for value in row]}
            for name, row, bias in zip(REGIONS, model.weights, model.biases, strict=True)
        },
    }
