"""Small prepared cases for the tests of the model cube, and a way to call it as a program."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from model_cube.cases import MODALITIES

nib: Any = nibabel  # only half annotated

ROOT = Path(__file__).parents[2]
CUBE = ROOT / "mlcubes" / "model"
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
