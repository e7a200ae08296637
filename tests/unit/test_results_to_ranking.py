"""The way from runs to a ranking, as docs/ranking.md shows it."""

import re
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]


def test_the_script_of_the_page_makes_ranking_input(tmp_path: Path) -> None:
    found = re.search(r"```python\n(import sys.*?)```", (ROOT / "docs" / "ranking.md").read_text(), re.DOTALL)
    assert found
    regions = ("WT", "TC", "ET")
    for model, dice in (("good-0a1b2c3d", 0.9), ("weak-4e5f6a7b", 0.5)):
        for site in ("site1-11111111", "site2-22222222"):
            row: dict[str, object] = {"status": "ok", "missing_pred": False}
            row.update({f"Dice_{region}": dice for region in regions})
            row.update({f"Hausdorff95_{region}": 10 * (1 - dice) for region in regions})
            folder = tmp_path / "results" / "fets" / model / site
            folder.mkdir(parents=True)
            (folder / "results.yaml").write_text(yaml.safe_dump({"case 1": row, "case 2": row}))
    (tmp_path / "merge.py").write_text(found.group(1))
    command = [sys.executable, "merge.py", "results/fets", "sites"]
    subprocess.run(command, cwd=tmp_path, check=True)
    ranked = subprocess.run(
        [sys.executable, ROOT / "ranking/compute_ranking.py", "sites", "--rule", ROOT / "benchmarks/1-fets.yaml"],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert ranked.returncode == 0, ranked.stderr
    table = (tmp_path / "ranking_output" / "final_ranks_rankThenMean.csv").read_text()
    assert table.splitlines() == ['"","meanRank","finalRank"', '"good-0a1b2c3d",1,1', '"weak-4e5f6a7b",2,2']
