"""docs/metrics.md and the cube's README: examples are run, tables are compared with the data and the peers."""

import doctest
import importlib
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from metrics_cube import errors
from metrics_cube.conventions import CONVENTIONS
from metrics_cube.errors import REASONS, MetricsError
from metrics_cube.parameters import EXTRA_METRICS, FETS_METRICS, Parameters

from tests.cubes.metrics_files import CUBE, ROOT, make_labels, write_mask
from tests.cubes.metrics_masks import ISOTROPIC, draw, import_peer

PAGE = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
README = (CUBE / "README.md").read_text(encoding="utf-8")
G = draw("......... .###..... .###..... .###.....")
P = draw("......... ..###...# ..###.... ..###....")


def read_table(page: str, first: str) -> list[list[str]]:
    """Cells of the rows below the heading row that begins with the given cell."""
    rows = [line.split(" | ") for line in page[page.index(f"| {first} |") :].partition("\n\n")[0].splitlines()]
    return [[cell.strip("| ") for cell in row] for row in rows if not set("".join(row)) <= set("|- ")][1:]


def test_examples_of_the_page() -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    assert len(blocks) >= 6
    test = doctest.DocTestParser().get_doctest("".join(blocks), {}, "metrics.md", "docs/metrics.md", 0)
    output: list[str] = []
    failed, tried = doctest.DocTestRunner().run(test, out=output.append)
    assert failed == 0, "".join(output)
    assert tried >= 25


def test_every_metric_is_on_the_page() -> None:
    for metric in FETS_METRICS + EXTRA_METRICS:
        assert re.search(rf"\b{metric}\b", PAGE), metric


def test_conventions_of_the_page_are_the_data() -> None:
    columns = ("both_empty", "reference_empty", "prediction_empty", "penalty")
    rows = read_table(PAGE, "metric | both empty")
    words = {"diagonal_mm": "image diagonal", "nan": "NaN", "voxels": "number of voxels"}
    assert {row[0] for row in rows} == set(CONVENTIONS["penalty"])
    for metric, *cells in rows:
        for column, cell in zip(columns, cells, strict=True):
            value = CONVENTIONS[column].get(metric, "formula")
            assert cell == (words.get(value, value) if isinstance(value, str) else f"{value:g}"), (metric, column)


def test_reasons_of_the_page_are_the_data() -> None:
    assert {row[0]: row[1] for row in read_table(PAGE, "reason")} == REASONS


@pytest.mark.filterwarnings("ignore:Please import:DeprecationWarning")
def test_peers_give_what_the_page_says() -> None:
    rows = {row[0]: row[-1] for row in read_table(PAGE, "tool")}
    assert len(rows) - 1 >= 9, "nine tools beside ours"
    medpy: Any = import_peer("medpy.metric.binary", importlib.import_module)
    deepmind: Any = import_peer("surface_distance.metrics", importlib.import_module)
    assert medpy.hd95(P, G, voxelspacing=ISOTROPIC) == pytest.approx(float(rows["MedPy `hd95`"]), abs=1e-12)
    distances = deepmind.compute_surface_distances(G, P, ISOTROPIC)
    assert deepmind.compute_robust_hausdorff(distances, 95) == float(rows["surface-distance, pymia"])


def test_readme_names_every_parameter_and_every_exit_code() -> None:
    defaults = yaml.safe_load((CUBE / "mlcube" / "workspace" / "parameters.yaml").read_text())
    assert set(defaults) == set(Parameters.__dataclass_fields__)
    for name in defaults:
        assert f"`{name}`" in README, name
    codes = {int(row[0]) for row in read_table(README, "exit code")}
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, MetricsError)]
    assert codes == {kind.exit_code for kind in kinds} | {0, 130}


def test_readme_commands_without_a_container(tmp_path: Path) -> None:
    """Every `python` command of the README, on a folder of two cases."""
    for i, case in enumerate("ab"):
        write_mask(tmp_path / "LABELS" / f"{case}_final_seg.nii.gz", make_labels(i))
        write_mask(tmp_path / "PREDICTIONS" / f"{case}.nii.gz", make_labels(i))
    blocks = re.findall(r"```bash\n(.*?)```", README, flags=re.DOTALL)
    commands = [line for block in blocks for line in block.splitlines()]
    ran = 0
    for command in commands:
        words = shlex.split(command.replace("OUT/", f"{tmp_path}/OUT/"))
        if words[0] != "python" or "bench" in command or "metrics_cube.build" in command:
            continue
        words = [re.sub(r"\b(PREDICTIONS|LABELS)\b", lambda m: str(tmp_path / m[0]), word) for word in words]
        done = subprocess.run([sys.executable, *words[1:]], cwd=ROOT, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        ran += 1
    assert ran == 1
    content = yaml.safe_load((tmp_path / "OUT" / "results.yaml").read_text())
    assert [row["Dice_WT"] for row in content.values()] == [1.0, 1.0]
