"""From files to tables: missing values, gaps, absent submissions, CSV files, rules."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from ranking.errors import InputError, RuleError
from ranking.read import load_site_files
from ranking.rules import Rule, load_rule
from ranking.tables import Absent, Study, build_study
from tests.unit.test_ranking_read import METRICS, check_error, fill, format_site


def load_study(folder: Path, absent: Absent = "error", strict: bool = False) -> Study:
    """Read a folder."""
    return build_study(load_site_files(folder, load_rule()), load_rule(), absent, strict)


def test_missing_values_and_gaps_become_the_rules_number(tmp_path: Path) -> None:
    first, second = fill(), fill()
    first["Dice_TC"] = None
    del second["Hausdorff95_ET"]
    (tmp_path / "a.yaml").write_text(format_site({"c1": {"x": first, "y": second}, "c2": {"x": fill()}}))
    study = load_study(tmp_path)
    site = study.sites[0]
    order = list(METRICS)
    assert site.values[order.index("Dice_TC"), 0, 0] == 0.0
    assert site.values[order.index("Hausdorff95_ET"), 0, 1] == 1000.0
    assert site.values[order.index("Dice_WT"), 1].tolist() == [0.5, 0.0]
    assert study.missing_values == 1 + 1 + 6
    warnings = "\n".join(study.warnings)
    assert "site a: submission y has no entry for case c2" in warnings
    assert "site a: submission y has no metric Hausdorff95_ET for case c1" in warnings
    assert "8 missing values" in warnings
    with pytest.raises(InputError, match=r"submission y has no entry for case c2.*--strict"):
        load_study(tmp_path, strict=True)


def test_odd_values_are_used_with_a_warning(tmp_path: Path) -> None:
    odd = fill(1.5, -3.0) | {"Dice_ET": math.inf, "volume": 3}
    (tmp_path / "a.yaml").write_text(format_site({"c1": {"x": odd, "y": fill()}}))
    warnings = "\n".join(load_study(tmp_path).warnings)
    for part in (
        "Dice_TC: 1 values are outside",
        "1.5 of submission x in case c1",
        "-3 of submission x",
        "infinite",
        "volume",
    ):
        assert part in warnings
    assert "one case only" in warnings


def test_all_missing_and_all_identical_are_remarked_on(tmp_path: Path) -> None:
    nothing: dict[str, object] = dict.fromkeys(METRICS)
    (tmp_path / "a.yaml").write_text(format_site({c: {"x": nothing, "y": fill()} for c in ("1", "2")}))
    (tmp_path / "b.yaml").write_text(format_site({c: {"x": fill(), "y": fill()} for c in ("1", "2")}))
    warnings = "\n".join(load_study(tmp_path).warnings)
    assert "site a: every value of submission x is missing" in warnings
    assert "site b: all submissions have identical values" in warnings


def write_three_sites(folder: Path) -> None:
    """Submission z is absent at site b; site c has it."""
    for site, entered in (("a", "xyz"), ("b", "xy"), ("c", "zxy")):
        (folder / f"{site}.yaml").write_text(format_site({"1": {name: fill() for name in entered}}))


def test_absent_submission_is_an_error_by_default(tmp_path: Path) -> None:
    write_three_sites(tmp_path)
    check_error(tmp_path, "site b has no submission z", "--absent")
    (tmp_path / "b.yaml").write_text(format_site({"1": {name: fill() for name in "xyw"}}))
    check_error(tmp_path, "site a has no submission w", "site b has no submission z")


@pytest.mark.parametrize(
    ("absent", "sites", "submissions", "effect"),
    [
        ("leave-out-sites", ["a", "c"], ["x", "y", "z"], "site b is left out"),
        ("leave-out-submission", ["a", "b", "c"], ["x", "y"], "submission z is left out: it is absent at site b"),
        ("rank-last", ["a", "b", "c"], ["x", "y", "z"], "ranked last there"),
    ],
)
def test_policies_state_their_effect(
    tmp_path: Path, absent: Absent, sites: list[str], submissions: list[str], effect: str
) -> None:
    write_three_sites(tmp_path)
    study = load_study(tmp_path, absent)
    assert [site.name for site in study.sites] == sites
    assert list(study.submissions) == submissions
    assert effect in study.left_out[0]
    assert study.left_out[0] in study.warnings


def test_a_policy_that_leaves_nothing_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(format_site({"1": {"x": fill()}}))
    (tmp_path / "b.yaml").write_text(format_site({"1": {"y": fill()}}))
    for absent in ("leave-out-sites", "leave-out-submission"):
        with pytest.raises(InputError, match="leaves nothing to rank"):
            load_study(tmp_path, absent)


CSV_RULE = """
ranking:
  name: lesions
  files: csv
  method: aggregateThenMean
  metrics:
    - {name: auc, better: higher, missing: 0.5, low: 0, high: 1}
    - {name: brier, better: lower, missing: 1}
"""


def load_csv_rule(folder: Path) -> Rule:
    """A benchmark file with a rule for CSV site files."""
    (folder / "bench.yaml").write_text(CSV_RULE)
    return load_rule(folder / "bench.yaml")


def test_csv_sites_are_ranked_by_the_same_code(tmp_path: Path) -> None:
    rule = load_csv_rule(tmp_path)
    (tmp_path / "s.csv").write_text(
        'case,algorithm,brier,auc\n1,"a, b",0.2,0.9\n1,c,,0.8\n2,c,0.1,0.7\n2,"a, b",0.3,0.6\n'
    )
    study = build_study(load_site_files(tmp_path, rule), rule)
    assert study.submissions == ("a, b", "c")
    assert study.sites[0].values.tolist() == [[[0.9, 0.8], [0.6, 0.7]], [[0.2, 1.0], [0.3, 0.1]]]


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "expected case, submission"),
        ("case,auc,brier\n1,2,3\n", "expected case, submission"),
        ("case,submission,auc,auc\n", "expected case, submission"),
        ("case,submission,auc\n1,a\n", "found 2 columns, expected 3"),
        ("case,submission,auc\n1,a,0.5\n1,a,0.6\n", "duplicate case 1, submission a"),
        ("case,submission,auc\n1,a,high\n", "metric auc"),
        ("case,submission,auc\n", "no submission in 0 cases"),
        ("case,submission,acc\n1,a,1\n", "none of the metrics"),
    ],
)
def test_bad_csv(tmp_path: Path, text: str, part: str) -> None:
    rule = load_csv_rule(tmp_path)
    (tmp_path / "s.csv").write_text(text)
    with pytest.raises(InputError, match=part):
        load_site_files(tmp_path, rule)


def test_default_rule_is_that_of_fets() -> None:
    rule = load_rule()
    assert (rule.method, rule.files) == ("rankThenMean", "yaml")
    assert METRICS == ("Dice_ET", "Hausdorff95_ET", "Dice_TC", "Hausdorff95_TC", "Dice_WT", "Hausdorff95_WT")
    assert [(metric.better, metric.missing) for metric in rule.metrics] == [("higher", 0.0), ("lower", 1000.0)] * 3


@pytest.mark.parametrize(
    ("old", "new", "part"),
    [
        ("better: lower", "better: less", "better is 'less', expected higher or lower"),
        ("missing: 1}", "worst: 1}", "unknown key 'worst'"),
        (", missing: 1}", "}", "missing is not given"),
        ("missing: 1}", "missing: bad}", "missing is 'bad'"),
        ("missing: 1}", "missing: .inf}", "missing is '.inf'"),
        ("name: brier", "name: auc", "'auc' is listed 2 times"),
        ("name: brier", "name: ''", "expected printable text"),
        ("method: aggregateThenMean", "method: mean", "method is 'mean', expected one of rankThenMean"),
        ("files: csv", "files: xls", "files is 'xls'"),
        ("  files: csv", "  file: csv", "unknown key 'file'"),
        ("name: lesions", "name: [1]", "name is a mapping or list"),
        ("- {name: brier, better: lower, missing: 1}", "- brier", "metric 2: found no mapping"),
        ("ranking:", "ranking: 3 #", "duplicate|did not find|mapping|no mapping"),
    ],
)
def test_bad_rules(tmp_path: Path, old: str, new: str, part: str) -> None:
    assert old in CSV_RULE
    (tmp_path / "rule.yaml").write_text(CSV_RULE.replace(old, new, 1))
    with pytest.raises(RuleError, match=part):
        load_rule(tmp_path / "rule.yaml")


def test_unreadable_and_empty_rules(tmp_path: Path) -> None:
    with pytest.raises(RuleError, match=r"cannot read the ranking rule gone\.yaml"):
        load_rule(tmp_path / "gone.yaml")
    (tmp_path / "rule.yaml").write_text("metrics: []\n")
    with pytest.raises(RuleError, match="no list of metrics"):
        load_rule(tmp_path / "rule.yaml")
