"""Makes model_cube/weights.json from generated cases of site 1.

    python mlcubes/model/project/train.py                 train and write the weights file
    python mlcubes/model/project/train.py --check         train again by the file's own recipe and compare

Run it from the root of the repository, in an environment that has `toy_data` and its requirements. Inference needs
none of them. The recipe in the weights file says which cases were used; the same recipe gives the same weights.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from model_cube.errors import InputError
from model_cube.segmentation import REGIONS, WEIGHTS_PATH
from model_cube.training import TrainingCase, compute_calibrated_model, fit_model, format_weights, load_raw_cases

# Retraining elsewhere may end an iteration earlier or later; this is far below what changes a prediction.
TOLERANCE = 0.02


@dataclass(frozen=True)
class Recipe:
    """Everything the weights depend on, apart from the code."""

    site: int = 1
    cases: int = 16
    seed: int = 20220


def generate_cases(recipe: Recipe) -> list[TrainingCase]:
    """Generate cases with toy_data into a temporary folder and read them.

    The small size is enough: features are in millimetres, and the weights do as well on full-size cases.
    """
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "toy_data", "cases", "--size=ci", f"--out={folder}"]
        command += [f"--{name}={value}" for name, value in dataclasses.asdict(recipe).items()]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return list(load_raw_cases(Path(folder)))


def train(recipe: Recipe) -> dict[str, object]:
    """Fit and calibrate by a recipe; returns the content of a weights file.

    Both steps use all cases: 75 weights and 3 thresholds against some 300 000 voxels cannot learn them by heart.
    """
    cases = generate_cases(recipe)
    model = compute_calibrated_model(fit_model(cases, recipe.seed), cases)
    return format_weights(model, dataclasses.asdict(recipe))


def check_weights(path: Path) -> str:
    """Train by the recipe of a weights file and compare; the answer is empty if they agree, else it says where."""
    committed = json.loads(path.read_text(encoding="utf-8"))
    retrained = json.loads(json.dumps(train(Recipe(**committed["recipe"]))))
    for region in REGIONS:
        old, new = (
            [*item["regions"][region]["weights"], item["regions"][region]["bias"]] for item in (committed, retrained)
        )
        if len(old) != len(new):
            return f"{region}: expected {len(new)} weights, found {len(old)}"
        difference = float(np.abs(np.subtract(old, new)).max() / np.abs(new).max())
        print(f"{region}: largest difference {difference:.2e} of the largest weight")
        if difference > TOLERANCE:
            return (
                f"train: {path.name}, {region}: weights differ by {difference:.2e} of the largest one, "
                f"allowed {TOLERANCE}; next: if toy_data or the method changed, train again without --check"
            )
    return ""


def main() -> int:
    """Read the arguments and train or check."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, default=WEIGHTS_PATH, help="weights file to write or to check")
    parser.add_argument("--check", action="store_true", help="compare the file with a new training, write nothing")
    for field in dataclasses.fields(Recipe):
        parser.add_argument(f"--{field.name}", type=int, default=field.default)
    arguments = vars(parser.parse_args())
    path, check = arguments.pop("weights"), arguments.pop("check")
    try:
        if check:
            fault = check_weights(path)
            print(fault or f"train: {path.name} agrees with its recipe", file=sys.stderr)
            return 1 if fault else 0
        content = train(Recipe(**arguments))
    except (InputError, subprocess.CalledProcessError) as error:
        print(f"train: {error}", file=sys.stderr)
        return 2
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    partial.replace(path)
    print(f"train: wrote {path}, {path.stat().st_size / 1e3:.1f} kB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
