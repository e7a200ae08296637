"""Mask files for the tests of the metrics cube; imports nothing of the cube."""

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

ROOT = Path(__file__).resolve().parents[2]
CUBE = ROOT / "mlcubes" / "metrics"
PROGRAM = CUBE / "project" / "mlcube.py"
AFFINE = np.array([[-1.0, 0, 0, 0], [0, -1.0, 0, 239], [0, 0, 1.0, 0], [0, 0, 0, 1]])


def write_mask(path: Path, voxels: NDArray[Any], affine: NDArray[np.float64] = AFFINE) -> Path:
    """Write a mask as NIfTI-1."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(voxels, affine), path)
    return path


def make_labels(seed: int, shape: tuple[int, int, int] = (24, 20, 16)) -> NDArray[np.uint8]:
    """A small nested tumour with the labels of BraTS."""
    rng = np.random.default_rng([12, seed])
    field = ndimage.gaussian_filter(rng.normal(size=shape), 2)
    cuts = np.quantile(field, [0.7, 0.85, 0.95])
    return np.asarray(np.array([0, 2, 4, 1], np.uint8)[np.digitize(field, cuts)])
