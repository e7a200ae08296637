"""Shares of sites: what is in them, and that a coordinator reaches the same final ranking, bit for bit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ranking.cli import main
from ranking.document import Document, load_document
from ranking.rules import METHODS
from tests.unit.test_ranking_cli import write_random_sites
from tests.unit.test_ranking_read import fill, format_site

CSV_FILES = [f"{kind}_rankThenMean.csv" for kind in ("final_ranks", "per_institute_ranks", "significant_matrix")]


def make_shares(data: Path, folder: Path, *options: str) -> Path:
    """Every site on its own: its file alone in a folder, its share into the common folder."""
    for path in sorted(data.iterdir()):
        alone = folder / "sites" / path.name
        alone.mkdir(parents=True)
        (alone / path.name).write_bytes(path.read_bytes())
        assert main([str(alone), "--share", "--output", str(folder / "shares"), "--draws", "40", *options]) == 0
    return folder / "shares"


def rank(data: Path, output: Path, *options: str) -> Document:
    """The document of one run."""
    assert main([str(data), "--output", str(output), "--draws", "40", *options]) == 0
    return load_document(output / "ranking_rankThenMean.json")


def test_a_share_has_no_case_values(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    cases = {f"patient-{n}": {"x": fill(0.625 + n / 64, 17.125), "y": fill(0.5)} for n in range(4)}
    (data / "clinic.yaml").write_text(format_site(cases))  # type: ignore[arg-type]
    shares = make_shares(data, tmp_path, "--method", "all", "--share-draws")
    text = (shares / "share_clinic.json").read_text()
    for secret in ("patient", "0.625", "0.640625", "17.125"):
        assert secret not in text
    share = json.loads(text)
    assert set(share) == {
        *("format", "rule", "site", "cases", "submissions", "metrics", "na", "ranks", "significant"),
        *("weighting", "draws", "seed", "bootstrap"),
    }
    assert share["cases"] == 4
    assert list(share["ranks"]) == list(METHODS)
    assert set(share["bootstrap"]) == set(METHODS)


def test_the_coordinator_reaches_the_same_ranking(tmp_path: Path) -> None:
    data = write_random_sites(tmp_path / "data")
    central = rank(data, tmp_path / "central")
    shared = rank(make_shares(data, tmp_path), tmp_path / "shared", "--from-shares")
    for name in CSV_FILES:
        assert (tmp_path / "central" / name).read_bytes() == (tmp_path / "shared" / name).read_bytes()
    assert (tmp_path / "central" / "bootstrap_rankThenMean.csv").read_bytes() == (
        tmp_path / "shared" / "bootstrap_rankThenMean.csv"
    ).read_bytes()
    first, second = central["federation"], shared["federation"]
    for key in (
        "leave_one_site_out",
        "worst_site",
        "weights",
        "heterogeneity",
        "groups",
        "methods_rank",
        "significance",
    ):
        assert first[key] == second[key]
    # without the draws, only whole sites can be drawn again
    assert second["bootstrap"] == {"sites": first["bootstrap"]["sites"]}
    assert shared["per_site"][0]["metrics"][0]["box"] == [None] * 4
    assert shared["per_site"][0]["metrics"][0]["dots"] is None


def test_with_draws_all_uncertainty_is_the_same(tmp_path: Path) -> None:
    data = write_random_sites(tmp_path / "data")
    central = rank(data, tmp_path / "central")
    shared = rank(make_shares(data, tmp_path, "--share-draws"), tmp_path / "shared", "--from-shares")
    assert shared["federation"] == central["federation"]
    assert set(central["federation"]["bootstrap"]) == {"cases", "sites", "sites+cases"}


def test_shares_without_bootstrap(tmp_path: Path) -> None:
    data = write_random_sites(tmp_path / "data")
    shared = rank(make_shares(data, tmp_path, "--bootstrap", "none"), tmp_path / "shared", "--from-shares")
    assert set(shared["federation"]["bootstrap"]) == {"sites"}
    assert shared["per_site"][0]["bootstrap"] is None


def write_unequal_sites(folder: Path) -> Path:
    """Sites with submissions in different order, and one that lacks z."""
    folder.mkdir()
    for site, entered in (("a", "xyz"), ("b", "yx"), ("c", "zyx")):
        cases = {
            f"c{n}": {name: fill((n * 7 + 3 * ord(name)) % 10 / 10, (n + ord(name)) % 4) for name in entered}
            for n in range(5)
        }
        (folder / f"{site}.yaml").write_text(format_site(cases))  # type: ignore[arg-type]
    return folder


@pytest.mark.parametrize("policy", ["rank-last", "leave-out-sites"])
def test_policies_on_shares(tmp_path: Path, policy: str) -> None:
    data = write_unequal_sites(tmp_path / "data")
    central = rank(data, tmp_path / "central", "--absent", policy)
    shares = make_shares(data, tmp_path, "--share-draws")
    shared = rank(shares, tmp_path / "shared", "--from-shares", "--absent", policy)
    for name in CSV_FILES:
        assert (tmp_path / "central" / name).read_bytes() == (tmp_path / "shared" / name).read_bytes()
    assert shared["left_out"] == central["left_out"]
    assert shared["federation"]["bootstrap"] == central["federation"]["bootstrap"]


@pytest.mark.parametrize(
    ("policy", "part"), [("error", "has no submission z"), ("leave-out-submission", "need the values")]
)
def test_policies_that_shares_cannot_follow(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], policy: str, part: str
) -> None:
    shares = make_shares(write_unequal_sites(tmp_path / "data"), tmp_path)
    assert main([str(shares), "--from-shares", "--absent", policy, "--output", str(tmp_path / "out")]) == 3
    assert part in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


CHANGES: list[tuple[dict[str, Any], str]] = [
    ({"format": "other"}, "no share of format"),
    ({"rule": "other"}, "another ranking rule"),
    ({"cases": 0}, "cases is not a positive whole number"),
    ({"cases": "9"}, "cases is not a positive whole number"),
    ({"site": "a\nb"}, "not printable"),
    ({"submissions": ["x", "x", "y", "z"]}, "not distinct"),
    ({"submissions": ["x"]}, "ranks of rankThenMean"),
    ({"ranks": {}}, "rankThenMean"),
    ({"significant": [["0"]]}, "significance decisions"),
    ({"draws": 3}, "do not sum to the number of draws"),
    ({"bootstrap": {"rankThenMean": {"metrics": [], "site": {}, "sums": None}}}, "does not have every metric"),
]


@pytest.mark.parametrize(("change", "part"), CHANGES)
def test_bad_shares(tmp_path: Path, capsys: pytest.CaptureFixture[str], change: dict[str, Any], part: str) -> None:
    shares = make_shares(write_random_sites(tmp_path / "data", sites=2), tmp_path)
    path = shares / "share_site.1.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    assert main([str(shares), "--from-shares", "--output", str(tmp_path / "out")]) == 3
    message = capsys.readouterr().err
    assert "share_site.1.json" in message
    assert part in message
    assert not (tmp_path / "out").exists()


def test_shares_that_do_not_fit_together(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shares = make_shares(write_random_sites(tmp_path / "data", sites=2), tmp_path)
    first = (shares / "share_site.0.json").read_text()

    def check(text: str, part: str) -> None:
        (shares / "share_again.json").write_text(text)
        assert main([str(shares), "--from-shares", "--output", str(tmp_path / "out")]) == 3
        assert part in capsys.readouterr().err

    check(first, "two shares are of site site.0")
    other = json.loads(first) | {"site": "other"}
    check(json.dumps(other | {"na": "bottom"}), "--na")
    check(json.dumps(other | {"weighting": "challengeR"}), "bootstrapped differently")
    check("{", "cannot read share share_again.json")
    assert main([str(tmp_path / "data"), "--from-shares"]) == 3
    assert "no shares in" in capsys.readouterr().err
