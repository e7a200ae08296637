"""Given resamples (``--multiplicities``): every draw ranked as its definition says, in both weightings."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ranking.cli import main
from ranking.rules import METHODS
from tests.unit import test_ranking_reference as plain
from tests.unit.test_ranking_cli import read_columns, write_random_sites


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("weighting", ["case", "challengeR"])
def test_given_multiplicities(tmp_path: Path, method: str, weighting: str) -> None:
    """Every given draw is ranked; cases are found by name, in any order."""
    data = write_random_sites(tmp_path / "data")
    cases = [f"{case:03d}" for case in range(10)][::-1]
    counts = np.random.default_rng(2).multinomial(10, [0.1] * 10, size=8).tolist()
    entry = {"Dice_TC": {"cases": cases, "counts": counts}}
    request = {"federation": "data", "method": method, "weighting": weighting, "sites": {"site.1": entry}}
    (tmp_path / "given.json").write_text(json.dumps(request))
    output = tmp_path / "out"
    given = str(tmp_path / "given.json")
    assert main([str(data), "--multiplicities", given, "--bootstrap", "none", "--output", str(output)]) == 0
    found = json.loads((output / f"bootstrap_exact_{method}.json").read_text())["site.1"]["Dice_TC"]
    assert found["algorithms"] == ["nnU-Net", "10", "if", "no"]
    columns = [column[::-1] for column in read_columns(data / "site.1.yaml", "Dice_TC")]
    for draw, ranks in zip(counts, found["ranks"], strict=True):
        assert ranks == rank_draw(method, weighting, columns, draw)


def rank_draw(method: str, weighting: str, columns: list[list[float]], draw: list[int]) -> list[int]:
    """One draw, from the definition."""
    copies = [min(k, 1) for k in draw] if (method, weighting) == ("testBased", "challengeR") else draw
    sample = [[value for value, k in zip(column, copies, strict=True) for _ in range(k)] for column in columns]
    if weighting == "case" or not method.startswith("rankThen"):
        return plain.sub_ranks(method, sample, True)
    # challengeR ranks the k copies of a case together: each of them gets 1 + k (r - 1).
    rescaled = [
        [1 + k * (rank - 1) for rank, k in zip(ranks, draw, strict=True) for _ in range(k)]
        for ranks in zip(*plain.rank_cases(columns, True), strict=True)
    ]
    if method == "rankThenMean":
        return plain.rank_min([sum(ranks) for ranks in rescaled])
    return plain.rank_min([float(np.median(ranks)) for ranks in rescaled])


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"method": "mean"}, "method is 'mean'"),
        ({"weighting": "both"}, "weighting is 'both'"),
        ({"sites": {"nowhere": {}}}, "site nowhere is not in the data"),
        ({"sites": {"site.0": {"Dice_XX": {"cases": [], "counts": []}}}}, "metric Dice_XX is not in the rule"),
        ({"sites": {"site.0": {"Dice_ET": {"cases": ["x"], "counts": [[1]]}}}}, "site site.0 has no case x"),
        ({"sites": {"site.0": {"Dice_ET": {"cases": ["000"], "counts": [[-1]]}}}}, "whole number of copies"),
        ({"sites": {"site.0": {"Dice_ET": {"cases": ["000"], "counts": [[10**9]]}}}}, "more than 100000 cases"),
        ({"sites": {"site.0": {"Dice_ET": {"cases": ["000"], "counts": [[0]]}}}}, "without any case"),
        ({"sites": {"site.0": {"Dice_ET": {"cases": ["000"], "counts": [[1, 2]]}}}}, "whole number of copies"),
        ({"sites": {"site.0": {"Dice_ET": [1]}}}, "no cases and counts"),
        ({"sites": {"site.0": [1]}}, "holds no mapping"),
        ({"sites": []}, "found no sites"),
    ],
)
def test_bad_multiplicities(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: dict[str, object], part: str
) -> None:
    request = {"method": "rankThenMean", "sites": {}} | change
    (tmp_path / "given.json").write_text(json.dumps(request))
    data, output = write_random_sites(tmp_path / "data"), tmp_path / "out"
    assert main([str(data), "--multiplicities", str(tmp_path / "given.json"), "--output", str(output)]) == 5
    assert part in capsys.readouterr().err
    assert not output.exists()


def test_multiplicities_of_another_method(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "given.json").write_text('{"method": "testBased", "sites": {}}')
    data = write_random_sites(tmp_path / "data")
    given = str(tmp_path / "given.json")
    assert main([str(data), "--method", "rankThenMean", "--multiplicities", given]) == 5
    assert "is for testBased" in capsys.readouterr().err
