"""Small raw cases for the tests of the data_prep cube, and a way to call it as a program."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import yaml
from numpy.typing import NDArray

nib: Any = nibabel  # its types are incomplete
CUBE = Path(__file__).parents[2] / "mlcubes" / "data_prep"
ENTRY_POINT = CUBE / "project" / "mlcube.py"
MODALITIES = ("t1", "t1ce", "t2", "flair")
SHAPE = (12, 12, 8)
AFFINE = np.array([[-1.0, 0, 0, 5], [0, -1.0, 0, 7], [0, 0, 1.0, -3], [0, 0, 0, 1]])
PARAMETERS: dict[str, Any] = {"expected_shape": list(SHAPE)}


def make_image(seed: int, dtype: type[np.generic] = np.int16) -> NDArray[Any]:
    """A box of random tissue, zero around it."""
    voxels = np.zeros(SHAPE, dtype=dtype)
    voxels[2:10, 2:10, 1:7] = np.random.default_rng(seed).integers(50, 200, size=(8, 8, 6))
    return voxels


def make_reference() -> NDArray[np.uint8]:
    """A nested tumour: 64 voxels of oedema around 8, of which 4 are enhancing and 4 necrotic."""
    voxels = np.zeros(SHAPE, dtype=np.uint8)
    voxels[4:8, 4:8, 2:6] = 2
    voxels[5:7, 5:7, 3:5] = 4
    voxels[5:7, 5:7, 3] = 1
    return voxels


def write_volume(path: Path, voxels: NDArray[Any], affine: NDArray[Any] = AFFINE, **fields: Any) -> None:
    """Write a NIfTI file; ``fields`` are set in its header."""
    image = nib.Nifti1Image(voxels, affine)
    image.set_qform(affine, code=1)
    for name, value in fields.items():
        image.header[name] = value
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(image, path)


def write_raw(
    root: Path,
    subjects: list[str],
    brain: str = "",
    seg: str = "seg",
    suffix: str = ".nii.gz",
    labels: str = "labels",
) -> None:
    """Write raw subjects below ``root/data`` and ``root/<labels>``."""
    for number, subject in enumerate(subjects):
        for offset, modality in enumerate(MODALITIES):
            name = f"{subject}_{brain}{modality}{suffix}"
            write_volume(root / "data" / subject / name, make_image(10 * number + offset))
        write_volume(root / labels / subject / f"{subject}_{seg}{suffix}", make_reference())


def write_prepared(root: Path, cases: list[str]) -> None:
    """Write prepared cases below ``root/data`` and ``root/labels`` without the cube."""
    for number, case in enumerate(cases):
        for offset, modality in enumerate(MODALITIES):
            write_volume(root / "data" / case / f"{case}_brain_{modality}.nii.gz", make_image(10 * number + offset))
        write_volume(root / "labels" / f"{case}_final_seg.nii.gz", make_reference())


def write_parameters(path: Path, **values: Any) -> Path:
    """Write a parameters file for the small grid, with other keys added or replaced."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(PARAMETERS | values), encoding="utf-8")
    return path


def run_cube(task: str, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a task as a program; ``options`` become ``--name=value``."""
    command = [sys.executable, str(ENTRY_POINT), task, *arguments, *(f"--{k}={v}" for k, v in options.items())]
    environment = {"PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment, check=False)


def run_prepare_program(root: Path, out: Path, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run ``prepare`` on the raw cases of ``root`` with the folders of ``out``."""
    options.setdefault("parameters_file", write_parameters(out.parent / f"{out.name}.yaml"))
    options.setdefault("labels_path", root / "labels")
    return run_cube(
        "prepare",
        data_path=root / "data",
        output_path=out / "data",
        output_labels_path=out / "labels",
        **options,
    )


def list_files(root: Path) -> dict[str, bytes]:
    """Relative path to content of every file below ``root``."""
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}
