"""The document that reports are drawn from: every field has the shape that :mod:`ranking.document` states."""

from __future__ import annotations

import json
import subprocess
import sys
import types
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints, is_typeddict

import numpy as np
import pytest

from ranking.document import Document, format_document, load_document
from ranking.pipeline import Settings, compute_documents
from ranking.rules import METHODS
from tests.unit.test_ranking_cli import write_random_sites
from tests.unit.test_ranking_read import fill, format_site

ROOT = Path(__file__).resolve().parents[2]


def check_type(value: Any, wanted: Any, where: str) -> None:
    """Check a JSON value against an annotation, recursively; an int is no float here unless it is whole by chance."""
    origin = get_origin(wanted)
    if is_typeddict(wanted):
        hints = get_type_hints(wanted)
        assert set(value) == set(hints), where
        for key, hint in hints.items():
            check_type(value[key], hint, f"{where}.{key}")
    elif origin in (Union, types.UnionType):
        if value is None:
            assert type(None) in get_args(wanted), where
        else:
            check_type(value, next(arg for arg in get_args(wanted) if arg is not type(None)), where)
    elif origin is list:
        assert isinstance(value, list), where
        for index, item in enumerate(value):
            check_type(item, get_args(wanted)[0], f"{where}[{index}]")
    elif origin is dict:
        for key, item in value.items():
            check_type(item, get_args(wanted)[1], f"{where}[{key}]")
    elif origin is Literal:
        assert value in get_args(wanted), where
    else:
        assert isinstance(value, (int, float) if wanted is float else wanted), (where, value)
        assert not (isinstance(value, bool) and wanted is not bool), where


def check_shapes(document: Document) -> None:
    """Lengths and sums that the comments of :mod:`ranking.document` promise."""
    count, sites, metrics = len(document["submissions"]), len(document["sites"]), len(document["metrics"])
    federation = document["federation"]
    assert sorted(federation["order"]) == list(range(count))
    assert [row["submission"] for row in federation["final_table"]] == federation["order"]
    assert [row["final_rank"] for row in federation["final_table"]] == sorted(federation["final_rank"])
    assert np.array(federation["significance"]).shape == (count, count)
    assert np.max(federation["significance"]) <= federation["significance_max"] == metrics * sites
    assert np.sum(federation["sub_rank_counts"], axis=1).tolist() == [metrics * sites] * count
    assert np.sum(federation["site_rank_counts"], axis=1).tolist() == [sites] * count
    assert list(federation["methods_rank"]) == list(METHODS)
    assert federation["methods_rank"][document["method"]] == federation["final_rank"]
    assert set(federation["weights"]) == {"equal", "cases", "sqrt-cases"}
    assert federation["weights"]["equal"]["final_rank"] == federation["final_rank"]
    for summary in federation["bootstrap"].values():
        assert np.sum(summary["rank_counts"], axis=1).tolist() == [summary["draws"]] * count
        total = np.array(summary["better_than"]) + np.array(summary["better_than"]).T
        assert np.allclose(total, 1.0)
    assert [site["name"] for site in document["per_site"]] == document["sites"]
    for site in document["per_site"]:
        assert [metric["metric"] for metric in site["metrics"]] == [metric["name"] for metric in document["metrics"]]
        totals = np.sum([[list(map(int, row)) for row in metric["significant"]] for metric in site["metrics"]], axis=0)
        assert totals.tolist() == site["significance"]
        for metric in site["metrics"]:
            assert len(metric["value"]) == len(metric["rank"]) == len(metric["box"]) == count
            assert np.sum(metric["case_rank_counts"] or [], axis=1).tolist() == [site["cases"]] * count
            dots = metric["dots"]
            assert dots is not None
            assert len(dots["cases"]) == len(dots["values"]) == len(dots["ranks"]) <= site["cases"]
            if metric["bootstrap"] is not None:
                assert len(metric["bootstrap"]["tau"]["percentiles"] or []) in (0, 101)


@pytest.mark.parametrize("method", METHODS)
def test_documents_are_as_described(tmp_path: Path, method: str) -> None:
    data = write_random_sites(tmp_path / "data")
    document = compute_documents(data, Settings(methods=(method,), draws=30, more=True))[0]
    parsed = json.loads(format_document(document))
    check_type(parsed, Document, "document")
    check_shapes(parsed)
    (tmp_path / "d.json").write_text(format_document(document), encoding="utf-8")
    assert load_document(tmp_path / "d.json") == parsed


def test_smallest_and_oddest_documents(tmp_path: Path) -> None:
    """One site, one case, one submission; infinities; no bootstrap."""
    (tmp_path / "a.yaml").write_text(format_site({"c": {"x": fill(float("inf"), float("-inf"))}}))
    for bootstrap in (None, "case"):
        document = compute_documents(tmp_path, Settings(bootstrap=bootstrap, more=True))[0]
        parsed = json.loads(format_document(document))
        check_type(parsed, Document, "document")
        check_shapes(parsed)
        assert parsed["federation"]["heterogeneity"] is None
        assert parsed["federation"]["leave_one_site_out"] == []
        assert parsed["per_site"][0]["bootstrap"] is None
        box = parsed["per_site"][0]["metrics"][0]["box"][0]
        assert (box["low"], box["mean"], box["missing"]) == (None, None, 0)


def test_boxes_and_dots_by_hand(tmp_path: Path) -> None:
    values = [0.1, 0.2, 0.3, 0.4, 0.95, None]
    cases = {f"c{n}": {"x": fill() | {"Dice_TC": value}, "y": fill(0.3)} for n, value in enumerate(values)}
    (tmp_path / "a.yaml").write_text(format_site(cases))  # type: ignore[arg-type]
    metric = compute_documents(tmp_path, Settings(draws=10))[0]["per_site"][0]["metrics"][2]
    box = metric["box"][0]
    assert box is not None
    # 0 (missing), 0.1, 0.2, 0.3, 0.4, 0.95: quartiles at positions 1.25, 2.5, 3.75; 0.95 is beyond 0.375 + 1.5 * 0.25
    assert (box["low"], box["high"], box["missing"]) == (0.0, 0.95, 1)
    assert [box["q1"], box["median"], box["q3"]] == pytest.approx([0.125, 0.25, 0.375])
    assert [box["whisker_low"], box["whisker_high"]] == pytest.approx([0.0, 0.4])
    assert metric["dots"] is not None
    assert metric["dots"]["cases"] == list(range(6))
    assert metric["dots"]["values"][5] == [0.0, 0.3]
    assert metric["dots"]["ranks"] == [[2, 1], [2, 1], [1, 1], [1, 2], [1, 2], [2, 1]]
    assert metric["case_rank_counts"] == [[3, 3], [4, 2]]


def test_many_cases_are_thinned_evenly(tmp_path: Path) -> None:
    cases = {f"c{n}": {"x": fill(n / 1000), "y": fill(0.3)} for n in range(400)}
    (tmp_path / "a.yaml").write_text(format_site(cases))  # type: ignore[arg-type]
    dots = compute_documents(tmp_path, Settings(bootstrap=None))[0]["per_site"][0]["metrics"][0]["dots"]
    assert dots is not None
    assert (dots["cases"][0], dots["cases"][-1], len(dots["cases"])) == (0, 399, 150)
    assert set(np.diff(dots["cases"]).tolist()) == {2, 3}


def test_only_documents_are_loaded(tmp_path: Path) -> None:
    (tmp_path / "d.json").write_text('{"format": "fedeval-ranking/0"}')
    with pytest.raises(ValueError, match="'fedeval-ranking/0', expected 'fedeval-ranking/1'"):
        load_document(tmp_path / "d.json")
    (tmp_path / "d.json").write_text("[]")
    with pytest.raises(ValueError, match="is not a ranking document"):
        load_document(tmp_path / "d.json")


@pytest.mark.parametrize("name", ["bench_ranking.py", "bench_ranking_coverage.py"])
def test_benchmarks_run(name: str) -> None:
    command = [sys.executable, str(ROOT / "tests" / "bench" / name), "--quick"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert ("ratio" if name == "bench_ranking.py" else "simultaneous set") in done.stdout
