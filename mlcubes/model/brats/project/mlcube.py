"""Runs a program of the BraTS container convention as a model cube.

The convention: images of one case in /data (`t1`, `t1c`, `t2`, `fla` .nii.gz), one result in
/data/results/tumor_<name>_class.nii.gz. Here each case gets a scratch folder below output_path, /data points to it,
the program runs, and its result becomes <case>.nii.gz with the grid of t1. The program starts once per case.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np

INPUT_NAMES = {"t1": "t1.nii.gz", "t1ce": "t1c.nii.gz", "t2": "t2.nii.gz", "flair": "fla.nii.gz"}
RESULTS = "results/tumor_*_class.nii.gz"
DATA_LINK = Path("/tmp/data")  # the image's /data points here


class CaseError(Exception):
    """A case without a usable result."""


def run_case(data_path: Path, output_path: Path, case_id: str) -> None:
    """Run the program on one case; the scratch folder is gone afterwards.

    Raises
    ------
    CaseError
        If the program fails or its result cannot be used.
    """
    scratch = output_path / f".{case_id}.work"
    (scratch / "results").mkdir(parents=True)
    try:
        for modality, name in INPUT_NAMES.items():
            (scratch / name).symlink_to(data_path / case_id / f"{case_id}_brain_{modality}.nii.gz")
        DATA_LINK.unlink(missing_ok=True)
        DATA_LINK.symlink_to(scratch)
        environment = {**os.environ, "HOME": str(scratch), "TMPDIR": str(scratch)}
        command = json.loads(os.environ["BRATS_COMMAND"])
        done = subprocess.run(command, cwd="/data", env=environment, stdout=sys.stderr, check=False)
        if done.returncode != 0:
            raise CaseError(f"{command[0]} ended with status {done.returncode}, expected 0")
        results = sorted(scratch.glob(RESULTS))
        if len(results) != 1:
            raise CaseError(f"expected one file /data/{RESULTS}, found {len(results)}")
        write_prediction(results[0], scratch / "t1.nii.gz", output_path, case_id)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def write_prediction(result: Path, t1: Path, output_path: Path, case_id: str) -> None:
    """Save a result as uint8 with the header of t1, under its final name only when complete."""
    image, reference = nib.load(result), nib.load(t1)
    assert isinstance(image, nib.Nifti1Image) and isinstance(reference, nib.Nifti1Image)
    values = np.asarray(image.dataobj)
    if values.shape != reference.shape or not np.allclose(image.affine, reference.affine, atol=1e-3):
        raise CaseError(f"expected t1's grid {reference.shape}, found {values.shape} or another affine")
    if not np.isin(values, (0, 1, 2, 4)).all():
        raise CaseError("expected the labels 0, 1, 2, 4, found others")
    header = reference.header.copy()  # type: ignore[no-untyped-call]
    header.set_data_dtype(np.uint8)
    header.set_slope_inter(1, 0)
    partial = output_path / f".{case_id}.partial.nii.gz"
    nib.save(type(reference)(values.astype(np.uint8), reference.affine, header), partial)
    partial.replace(output_path / f"{case_id}.nii.gz")


def use_owner_of(output_path: Path) -> None:
    """Give up root for the owner of the output folder: plain mlcube starts containers as root, others name a user."""
    if os.getpid() != 1 or os.getuid() != 0 or not output_path.exists() or output_path.stat().st_uid == 0:
        return
    owner = output_path.stat()
    with contextlib.suppress(PermissionError):  # all capabilities dropped: go on as started
        os.setgroups([])
        os.setgid(owner.st_gid)
        os.setuid(owner.st_uid)


def main() -> int:
    """Run every case; 0 all well, 1 some cases failed."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("task", choices=["infer"])
    parser.add_argument("--data_path", required=True, type=Path)
    parser.add_argument("--output_path", required=True, type=Path)
    parser.add_argument("--parameters_file", help="ignored: parameters are in the image")
    parser.add_argument("--checkpoint_path", help="ignored: weights are in the image")
    options = parser.parse_args()
    use_owner_of(options.output_path)
    case_ids = sorted(entry.name for entry in options.data_path.iterdir() if entry.is_dir())
    failed = 0
    for number, case_id in enumerate(case_ids, start=1):
        start = time.perf_counter()
        try:
            run_case(options.data_path, options.output_path, case_id)
        except CaseError as error:
            failed += 1
            print(f"{number}/{len(case_ids)} {case_id}: failed: {error}", file=sys.stderr, flush=True)
            continue
        print(f"{number}/{len(case_ids)} {case_id}: done in {time.perf_counter() - start:.2f} s", flush=True)
    return 1 if failed or not case_ids else 0


if __name__ == "__main__":
    sys.exit(main())
