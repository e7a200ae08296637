"""The report page: everything is there, the numbers are those of the document, and nothing comes from outside."""

from __future__ import annotations

import base64
import copy
import hashlib
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from ranking.document import Document
from ranking.report import REPORT_NAME, build_page, write_report
from tests.unit.ranking_report_documents import (
    HOSTILE_NAMES,
    METRICS,
    add_more_answers,
    compute_test_documents,
    rename,
    write_site_files,
)

ROOT = Path(__file__).resolve().parents[2]

FEDERATION_FIGURES = {
    "rank_intervals", "podium", "blobs_cases", "blobs_sites", "blobs_sites_cases", "tau_federation", "tau_sites",
    "better_than", "rank_heatmap", "significance", "site_mean_ranks", "methods", "site_weights", "leave_one_site_out",
    "worst_site", "site_dendrogram", "site_agreement", "other_rankings", "critical_difference", "bayes", "permutation",
    *(f"site_medians_{number}" for number in range(1, 7)),
}  # fmt: skip
SITE_FIGURES = {
    "blobs", "significance", "methods", "tau",
    *(f"{kind}_{number}" for kind in ("boxes", "podium", "heatmap", "blobs") for number in range(1, 7)),
}  # fmt: skip


class _Reader(HTMLParser):
    """Elements, attributes and tables of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str]] = []
        self.tables: list[list[list[str]]] = []
        self.text = ""
        self._in_cell = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
            self._in_cell = True

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th"):
            self._in_cell = False

    def handle_data(self, data: str) -> None:
        self.text += data
        if self._in_cell:
            self.tables[-1][-1][-1] += data


def _read(path: Path) -> _Reader:
    reader = _Reader()
    reader.feed(path.read_text(encoding="utf-8"))
    return reader


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> Document:
    (found,) = compute_test_documents(tmp_path_factory.mktemp("sites") / "in", 5, 4, 6, more=True)
    return found


def _list_figures(document: Document) -> tuple[set[str], list[set[str]]]:
    (part,) = build_page([document]).parts
    federation = {figure.name for section in part.sections for group in section.groups for figure in group.figures}
    return federation, [{figure.name for group in site.groups for figure in group.figures} for site in part.sites]


def test_every_figure_is_there(document: Document) -> None:
    federation, sites = _list_figures(document)
    assert federation == FEDERATION_FIGURES
    assert sites == [SITE_FIGURES] * 4


def test_every_figure_says_how_to_read_it(document: Document) -> None:
    (part,) = build_page([document]).parts
    groups = [group for section in part.sections for group in section.groups if group.figures]
    groups += [group for site in part.sites for group in site.groups if group.figures]
    assert len(groups) > 20
    for group in groups:
        assert len(re.findall(r"[a-z)%][.](?= [A-Z]|$)", group.caption)) >= 2, group.title
        assert all(figure.caption.endswith(".") and figure.title for figure in group.figures)
        # In dark mode much is light and little is dark.
        assert not re.search("dark|light|pale|black|white", group.caption)


def test_final_table_has_the_numbers_of_the_document(document: Document, tmp_path: Path) -> None:
    (path,) = write_report([document], tmp_path)
    table = _read(path).tables[0]
    assert table[0] == [
        "Rank", "Submission", "Mean rank", "95 % (cases)", "95 % (sites)", "95 % (both)", "Rank set", "Group", "Wins",
        "First (both)",
    ]  # fmt: skip
    bootstrap = document["federation"]["bootstrap"]["sites+cases"]
    assert len(table) == 6
    for number, (cells, row) in enumerate(zip(table[1:], document["federation"]["final_table"], strict=True), start=1):
        assert float(cells[0]) == row["final_rank"]
        assert cells[1] == f"{number}{document['submissions'][row['submission']]}"
        assert float(cells[2]) == pytest.approx(row["mean_rank"], abs=0.0005)
        for text, name in zip(cells[3:6], ("cases", "sites", "sites+cases"), strict=True):
            ends = [float(end) for end in text.split("–")]
            assert [ends[0], ends[-1]] == pytest.approx(row["intervals"][name], abs=0.05)
        assert (cells[7], cells[8]) == (row["groups"], str(row["wins"]))
        assert cells[9] == f"{100 * bootstrap['winner_counts'][row['submission']] / 60:.0f} %"


def test_site_table_has_the_sub_ranks(document: Document, tmp_path: Path) -> None:
    (path,) = write_report([document], tmp_path)
    tables = [table for table in _read(path).tables if table[0][-1] == "Missing"]
    assert len(tables) == 4
    for table, site in zip(tables, document["per_site"], strict=True):
        assert [float(row[0]) for row in table[1:]] == sorted(site["rank"])
        for row in table[1:]:
            submission = document["submissions"].index(row[1][1:])
            assert [int(cell) for cell in row[4:10]] == [metric["rank"][submission] for metric in site["metrics"]]
            boxes = [metric["box"][submission] for metric in site["metrics"]]
            assert int(row[10]) == sum(box["missing"] for box in boxes if box is not None)


def _say(document: Document) -> str:
    return " ".join(build_page([document]).parts[0].sections[0].sentences).replace("\u2068", "").replace("\u2069", "")


def test_sentences_name_the_winner_and_the_shaky_site(document: Document) -> None:
    changed = copy.deepcopy(document)
    federation = changed["federation"]
    first, second = (changed["submissions"][submission] for submission in federation["order"][:2])
    for entry in federation["leave_one_site_out"]:
        entry["changed"], entry["largest_shift"] = 0, 0
    assert f"“{first}” is first (mean rank" in _say(changed) and "Kendall's W = " in _say(changed)
    assert "No final rank changes when any single site is left out." in _say(changed)
    federation["leave_one_site_out"][2]["changed"] = 3
    federation["leave_one_site_out"][2]["largest_shift"] = 1.5
    assert "by more than 1.5 ranks (most without “site_03”, which changes 3 ranks)" in _say(changed)
    for submission in federation["order"][:2]:
        federation["final_rank"][submission] = 1.5
    assert f"“{first}” and “{second}” share the first place" in _say(changed)
    federation["groups"] = [[federation["order"][0]]]
    assert f"“{first}” can be separated from all others" in _say(changed)
    federation["groups"] = [federation["order"][:2]]
    assert f"Not separable from “{first}” (simultaneous 95 % confidence sets): “{second}”." in _say(changed)


def test_page_needs_nothing_from_outside(document: Document, tmp_path: Path) -> None:
    (path,) = write_report([document], tmp_path)
    page, reader = path.read_text(encoding="utf-8"), _read(path)
    assert not reader.tags & {"script", "link", "img", "iframe", "object", "embed", "base", "form", "image"}
    assert not re.search(r"https?:|url\(|@import|javascript:|data:", page)
    assert all(value.startswith("#") for name, value in reader.attributes if name in ("href", "src", "xlink:href"))
    assert not [name for name, _ in reader.attributes if name == "style" or name.startswith("on")]
    (policy,) = [value for name, value in reader.attributes if name == "content" and "default-src" in value]
    assert policy.startswith("default-src 'none'; style-src 'sha256-") and "unsafe" not in policy
    (style,) = re.findall("<style>(.*?)</style>", page, re.DOTALL)
    assert f"'sha256-{base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()}'" in policy


def test_ids_are_unique_and_links_lead_somewhere(document: Document, tmp_path: Path) -> None:
    (path,) = write_report([document], tmp_path)
    attributes = _read(path).attributes
    identifiers = [value for name, value in attributes if name == "id"]
    assert len(identifiers) == len(set(identifiers))
    assert {value[1:] for name, value in attributes if name == "href"} <= set(identifiers)


def test_hostile_names_stay_text(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> None:
    folder = tmp_path_factory.mktemp("hostile") / "in"
    (plain,) = compute_test_documents(folder, len(HOSTILE_NAMES), 3, 2, draws=20)
    document = rename(add_more_answers(plain), HOSTILE_NAMES, HOSTILE_NAMES)
    document["warnings"] = [f"site {HOSTILE_NAMES[0]}: \x1b[2J\u202e"]
    document["left_out"] = [HOSTILE_NAMES[1]]
    document["rule"] = HOSTILE_NAMES[2]
    document["metrics"][0]["name"] = HOSTILE_NAMES[3]
    (path,) = write_report([document], tmp_path)
    page, reader = path.read_text(encoding="utf-8"), _read(path)
    plain_reader = _read(write_report([plain], tmp_path)[0])
    # The names add neither elements nor kinds of attributes; further answers add none either.
    assert reader.tags - plain_reader.tags <= {"aside"}
    assert {name for name, _ in reader.attributes} - {name for name, _ in plain_reader.attributes} <= {"title"}
    assert HOSTILE_NAMES[0] in reader.text and HOSTILE_NAMES[1] in reader.text
    assert "{{ 7 * 7 }} {% raw %}" in reader.text
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066\u2067]", page)


@pytest.mark.parametrize(
    ("submissions", "sites", "cases", "settings"),
    [
        (1, 1, 1, {}),
        (1, 3, 4, {}),
        (2, 1, 1, {}),
        (3, 1, 5, {}),
        (3, 2, 1, {}),
        (4, 3, 4, {"bootstrap": None}),
        (3, 3, 3, {"bootstrap": "challengeR", "method": "testBased"}),
    ],
)
def test_small_and_bare_rankings(
    submissions: int, sites: int, cases: int, settings: dict[str, object], tmp_path: Path
) -> None:
    options = {**settings, "methods": (settings.get("method", "rankThenMean"),), "more": True}
    options.pop("method", None)
    (document,) = compute_test_documents(tmp_path / "in", submissions, sites, cases, **options)
    (path,) = write_report([document], tmp_path)
    reader = _read(path)
    assert len(reader.tables[0]) == 1 + submissions
    federation, each = _list_figures(document)
    assert {"rank_intervals", "podium", "rank_heatmap", "methods", "worst_site"} <= federation
    assert ("blobs_cases" in federation) == (document["federation"]["bootstrap"] != {})
    assert ("leave_one_site_out" in federation) == (sites > 1)
    assert len(each) == sites and all("boxes_1" in figures and "podium_1" in figures for figures in each)
    if settings.get("bootstrap", "case") is None:
        assert not any(name.startswith(("blobs", "tau")) for name in set.union(federation, *each))
    if cases == 1:
        assert "no bootstrap possible" in reader.text
    assert "weighted as the tool challengeR does" in reader.text or settings.get("bootstrap") != "challengeR"


def test_document_without_values_of_cases(document: Document, tmp_path: Path) -> None:
    """As a coordinator has it who got only the shares of the sites."""
    bare = copy.deepcopy(document)
    for site in bare["per_site"]:
        for metric in site["metrics"]:
            metric["box"], metric["value"] = [None] * 5, [None] * 5
            metric["dots"] = metric["case_rank_counts"] = None
    more = bare["federation"]["more"]
    assert more is not None
    more["permutation"] = more["decathlon"] = None
    federation, sites = _list_figures(bare)
    gone = {"other_rankings", "permutation", *(f"site_medians_{number}" for number in range(1, 7))}
    assert federation == FEDERATION_FIGURES - gone
    assert sites == [{name for name in SITE_FIGURES if not name.startswith(("boxes", "podium", "heatmap"))}] * 4
    (path,) = write_report([bare], tmp_path)
    assert not any("Missing" in table[0] for table in _read(path).tables)


def test_submission_absent_at_a_site(document: Document, tmp_path: Path) -> None:
    changed = copy.deepcopy(document)
    for metric in changed["per_site"][1]["metrics"]:
        metric["box"][2] = metric["value"][2] = None
        assert metric["dots"] is not None and metric["case_rank_counts"] is not None
        for row in metric["dots"]["values"]:
            row[2] = None
        metric["case_rank_counts"][2] = [0] * 5
    changed["left_out"] = ["team_02 is absent at site_02 and ranked last there"]
    (path,) = write_report([changed], tmp_path)
    reader = _read(path)
    assert "team_02 is absent at site_02" in reader.text
    table = [table for table in reader.tables if table[0][-1] == "Missing"][1]
    assert [row[-1] for row in table[1:] if row[1].endswith("team_02")] == ["absent"]


def test_infinite_and_undefined_numbers(document: Document, tmp_path: Path) -> None:
    changed = copy.deepcopy(document)
    box = changed["per_site"][0]["metrics"][1]["box"][0]
    assert box is not None
    box["high"] = box["whisker_high"] = box["mean"] = None
    for bootstrap in changed["federation"]["bootstrap"].values():
        bootstrap["tau"] = {"percentiles": None, "mean": None, "undefined": 60}
    for row in changed["federation"]["final_table"]:
        row["rank_set"], row["intervals"]["sites"] = None, None
    for entry in changed["federation"]["leave_one_site_out"]:
        entry["tau"] = None
    heterogeneity = changed["federation"]["heterogeneity"]
    assert heterogeneity is not None
    heterogeneity["tau"][0][1] = heterogeneity["tau"][1][0] = None
    heterogeneity["kendall_w_p"] = None
    (path,) = write_report([changed], tmp_path)
    reader = _read(path)
    assert "Rank set" not in reader.tables[0][0] and "95 % (sites)" not in reader.tables[0][0]
    assert "p not defined" in reader.text


def test_all_methods_on_one_page(tmp_path: Path) -> None:
    methods = ("rankThenMean", "rankThenMedian", "aggregateThenMean", "aggregateThenMedian", "testBased")
    documents = compute_test_documents(tmp_path / "in", 4, 3, 4, methods=methods)
    (path,) = write_report(documents, tmp_path)
    reader = _read(path)
    assert sum(table[0][:2] == ["Rank", "Submission"] for table in reader.tables) == 5 * (1 + 3)
    parts = build_page(documents).parts
    assert [part.method for part in parts] == list(methods)
    # What does not depend on the method is drawn once.
    names = [
        [figure.name for section in part.sections for group in section.groups for figure in group.figures]
        for part in parts
    ]
    assert [("significance" in found, "methods" in found, "podium" in found) for found in names] == [
        (True, True, True), *[(False, False, True)] * 4,
    ]  # fmt: skip


def test_scale_of_forty_submissions_and_thirty_sites(tmp_path: Path) -> None:
    (document,) = compute_test_documents(tmp_path / "in", 40, 30, 4)
    names = [f"{HOSTILE_NAMES[14]} {number}" for number in range(40)]
    large = rename(add_more_answers(document), names, names[:30])
    (path,) = write_report([large], tmp_path)
    federation, sites = _list_figures(large)
    assert federation == FEDERATION_FIGURES
    assert sites == [SITE_FIGURES] * 30
    assert path.stat().st_size < 6_000_000
    assert path.read_text(encoding="utf-8").count('role="img"') == len(FEDERATION_FIGURES) + 30 * len(SITE_FIGURES)


def test_what_cannot_be_reported(document: Document, tmp_path: Path) -> None:
    other = copy.deepcopy(document)
    other["submissions"][0] = "somebody else"
    elsewhere = copy.deepcopy(document)
    elsewhere["method"] = "../../elsewhere"
    for documents, figures, text in (
        ([], (), "none was given"),
        ([document], ("pdf",), "'pdf'; expected one of svg, png"),
        ([elsewhere], ("svg",), "'../../elsewhere' is not a method"),
        ([document, other], (), "different submissions or sites"),
    ):
        with pytest.raises(ValueError, match=re.escape(text)):
            write_report(documents, tmp_path, figures)
    assert list(tmp_path.iterdir()) == []


def test_command_writes_the_report(tmp_path: Path) -> None:
    write_site_files(tmp_path / "in", ["one", "two", "three"], ["north", "south"], 4)
    command = [
        sys.executable, str(ROOT / "ranking" / "compute_ranking.py"), "in", "--report", "--figures", "svg",
        "--bootstrap", "none", "--output", "out",
    ]  # fmt: skip
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert _read(tmp_path / "out" / REPORT_NAME).tables[0][1][1].startswith("1")
    assert (tmp_path / "out" / "figures_rankThenMean" / "podium.svg").is_file()


def test_metrics_and_options_are_stated(document: Document, tmp_path: Path) -> None:
    (path,) = write_report([document], tmp_path)
    assert path.name == REPORT_NAME
    table = _read(path).tables[-1]
    assert table[0] == ["Metric", "Better", "Missing counts as"]
    assert {row[0]: (row[1], row[2]) for row in table[1:]} == {
        name: ("higher", "0") if "Dice" in name else ("lower", "1000") for name in METRICS
    }
    assert "60 draws, seed 1; a case drawn k times counts k times" in _read(path).text
