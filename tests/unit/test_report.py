"""The report page: what it says, that hostile text stays text, that it asks for nothing, that it is written whole."""

from __future__ import annotations

import copy
import html
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from fedeval.limits import Limits
from fedeval.report.page import (
    ADVICE,
    BADGES,
    MAX_PICTURES,
    choose_pictured,
    flatten,
    format_limit,
    format_memory,
    format_seconds,
    write_report,
)
from fedeval.report.table import compute_table
from fedeval.results import record_schema

REGIONS = {"WT": (1, 2, 4), "TC": (1, 4), "ET": (4,)}
METRICS: list[dict[str, Any]] = [
    {"key": "Dice", "label": "Dice", "direction": "higher", "unit": None},
    {"key": "Hausdorff95", "label": "HD95", "direction": "lower", "unit": "mm"},
    {"key": "Sensitivity", "label": "Sensitivity", "direction": "higher", "unit": None},
    {"key": "Specificity", "label": "Specificity", "direction": "higher", "unit": None},
    {"key": "Precision", "label": "Precision", "direction": "higher", "unit": None},
]
DIGEST = "sha256:" + "0123456789abcdef" * 4
HOSTILE = "<script>alert(1)</script>\"'><img src=http://x.example/ onerror=a()>\x1b[31m\n\r\u202eend"
BLOCKS = {"br", "dd", "div", "dt", "h2", "h3", "li", "p", "span", "td", "th"}
VOID = {"meta", "link", "br", "hr", "img", "input"}


class Page(HTMLParser):
    """Elements with their attributes, visible text, and a check that every element is closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self.words.extend(" " if tag in BLOCKS else "")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join("".join(self.words).split())

    def count(self, tag: str, **attributes: str) -> int:
        wanted = {name.rstrip("_").replace("_", "-"): value for name, value in attributes.items()}
        return sum(found == tag and wanted.items() <= have.items() for found, have in self.elements)


def scores(dice: float = 0.9, hd95: float = 2.0, status: str = "ok", reason: str | None = None) -> dict[str, Any]:
    values: dict[str, Any] = {"missing_pred": status == "missing", "status": status, "reason": reason}
    for shift, region in enumerate(REGIONS):
        values |= {f"Dice_{region}": dice - 0.01 * shift, f"Hausdorff95_{region}": hd95 + shift}
        values |= {f"{name}_{region}": 0.8 for name in ("Sensitivity", "Precision")} | {f"Specificity_{region}": 0.9991}
    return values


def penalty(status: str, reason: str | None = None) -> dict[str, Any]:
    zeros = {f"{metric['key']}_{region}": 0.0 for metric in METRICS for region in REGIONS}
    worst = {f"Hausdorff95_{region}": 374.0 for region in REGIONS}
    return zeros | worst | {"missing_pred": status == "missing", "status": status, "reason": reason}


def make_record(cases: list[dict[str, Any]], status: str = "ok", error: dict[str, Any] | None = None) -> dict[str, Any]:
    cube = {"image": "fedeval/x:0.1.0", "digest": DIGEST, "source": "built"}
    task = {"start_up_s": 0.3, "exit_code": 0, "ended_by": None, "peak_memory_mb": None}
    limits = Limits().to_dict()
    return {
        "schema": "fedeval.run/1", "created": "2026-11-20T14:00:00Z", "fedeval_version": "0.1.0",
        "benchmark": {"id": 1, "name": "fets", "title": "Brain tumours", "digest": DIGEST},
        "engine": {"name": "process", "version": "1.0", "not_enforced": ["network isolation", "read-only root"]},
        "cubes": {role: {"name": f"the {role}", **cube} for role in ("data_prep", "model", "metrics")},
        "dataset": {"name": "toy", "digest": DIGEST, "cases": len(cases), "prepared_now": True,
                    "statistics": {"volumes": {"WT_ml": 12}}},
        "limits": {"infer": limits, "data_prep": limits | {"memory_mb": 16384}, "metrics": limits},
        "outcome": {"status": status, "exit_code": error["code"] if error else 0, "error": error},
        "tasks": [{**task, "cube": "model", "task": "infer", "wall_s": 13.4, "peak_memory_mb": 1229},
                  {**task, "cube": "data_prep", "task": "prepare", "wall_s": 3.0}],
        "cases": cases,
        "timing": {"start_up_s": 0.4, "first_case_s": 4.9, "inference_s": 13.4, "metrics_s": 0.9, "total_s": 24.2},
        "summary": {},
        "host": {"os": "Linux", "python": "3.11.7", "architecture": "x86_64", "cpus": 2, "memory_gb": 15.6},
    }  # fmt: skip


def case_entry(case: str, status: str = "ok", reason: str | None = None, wall_s: float = 4.0) -> dict[str, Any]:
    return {"case": case, "status": status, "reason": reason, "detail": "", "wall_s": wall_s}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two small cases, ``a`` with a prediction and ``b`` without."""
    root = tmp_path_factory.mktemp("cases")
    made = {f"{name}_dir": root / name for name in ("data", "labels", "predictions")}
    grid = np.indices((40, 48, 12)).astype(float)
    for at, case in enumerate(("a", "b")):
        mask = (((grid[0] - 20 - at) ** 2 + (grid[1] - 25) ** 2 + 9 * (grid[2] - 6) ** 2) < 60).astype(np.uint8) * 4
        save(made["labels_dir"] / f"{case}_final_seg.nii.gz", mask)
        for modality in ("flair", "t1ce"):
            scan = (grid.sum(axis=0) + 200 * mask).astype(np.int16)
            save(made["data_dir"] / case / f"{case}_brain_{modality}.nii.gz", scan)
    save(made["predictions_dir"] / "a.nii.gz", mask)
    return made


def save(path: Path, array: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, np.diag([-1.0, -1.0, 1.0, 1.0])), path)  # type: ignore[no-untyped-call]


def write(path: Path, record: Any, results: Any, folders: dict[str, Path], **more: Any) -> Page:
    more |= folders
    write_report(path, record, results, regions=REGIONS, metrics=METRICS, **more)
    return Page(path.read_text(encoding="utf-8"))


GOOD = {"a": scores(0.91234, 1.5), "b": scores(0.81234, 3.5)}
GOOD_RECORD = make_record([case_entry("a"), case_entry("b", wall_s=9.0)])


READ = (
    "created", "fedeval_version", "benchmark.id", "benchmark.name", "benchmark.title", "benchmark.digest",
    "engine.name", "engine.version", "engine.not_enforced", "cubes.model.name", "cubes.model.image",
    "cubes.model.digest", "cubes.model.source", "dataset.name", "dataset.digest", "dataset.cases",
    "dataset.prepared_now", "dataset.statistics", "limits.infer.per_case_s", "limits.infer.memory_mb",
    "outcome.status", "outcome.error", "outcome.limit", "tasks.cube", "tasks.task", "tasks.start_up_s",
    "tasks.wall_s", "tasks.exit_code", "tasks.ended_by", "tasks.peak_memory_mb", "cases.case", "cases.status",
    "cases.reason", "cases.detail", "cases.wall_s", "timing", "summary", "host",
)  # fmt: skip


@pytest.mark.parametrize("name", READ)
def test_what_the_page_reads_is_in_the_schema_of_the_record(name: str) -> None:
    part = record_schema()
    for key in name.split("."):
        part = part.get("items", part)["properties"][key]


def test_a_good_run_is_shown_in_full(tmp_path: Path, folders: dict[str, Path]) -> None:
    page = write(tmp_path / "report.html", GOOD_RECORD, GOOD, folders, log_excerpt=["first line\n", "last line"])
    for words in (
        "the model", "Brain tumours", "dataset toy", "Complete", "All 2 cases are scored.",
        "did not enforce: network isolation, read-only root",
        "Whole tumour WT Dice 0.862 HD95 2.50 mm", "median 0.862 (0.812 to 0.912)",
        "Dice ↑", "HD95 (mm) ↓", "a ok 4.0 s 0.912 0.902 0.892 1.50 2.50 3.50 0.800 0.800 0.800 0.9991",
        "Slowest case 9.0 s of 3 min 00 s (5.0 %)", "Peak memory of the model 1.2 GB of 40 GB (3.0 %)",
        "First case after 4.9 s", "data_prep · prepare ok 0.30 s 3.0 s –",
        "memory_mb 40 GB 16 GB 40 GB", "cpus – – –", DIGEST, "2 cases, prepared in this run", "volumes.WT_ml 12",
        "os Linux · python 3.11.7 · architecture x86_64 · cpus 2 · memory_gb 15.6", "first line last line",
        "Axial slice 7 of 12, counted from the feet: the largest tumour area of the reference.",
    ):  # fmt: skip
        assert words in page.text, words
    assert page.count("article") == 2
    assert page.count("image") == 8


def test_every_picture_and_plot_has_a_description(tmp_path: Path, folders: dict[str, Path]) -> None:
    page = write(tmp_path / "report.html", GOOD_RECORD, GOOD, folders)
    labels = [have.get("aria-label") or "" for tag, have in page.elements if tag == "svg" and have.get("role") == "img"]
    assert len(labels) == 8 + 6
    start = "T1ce of case a, zoomed to ET. Outlines: reference of ET, prediction of ET"
    assert any(label.startswith(start) for label in labels)
    assert "Dice of WT: 2 values, median 0.862, 0.812 to 0.912" in labels
    plain = [have for tag, have in page.elements if tag == "svg" and "role" not in have and "x" not in have]
    assert all(have.get("aria-hidden") == "true" or have.get("height") == "20" for have in plain)


def test_the_page_asks_for_nothing_and_runs_nothing(tmp_path: Path, folders: dict[str, Path]) -> None:
    page = write(tmp_path / "report.html", GOOD_RECORD, GOOD, folders)
    policy = next(have["content"] for tag, have in page.elements if have.get("http-equiv") == "Content-Security-Policy")
    assert policy == "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
    assert not {"script", "link", "iframe", "object", "embed", "form", "base"} & {tag for tag, _ in page.elements}
    for tag, have in page.elements:
        assert not [name for name in have if name.startswith("on")], tag
        for name in ("src", "href", "xlink:href", "action", "srcset", "poster"):
            assert (have.get(name) or "data:").startswith("data:image/png;base64,") or name not in have
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "url(" not in text and "@import" not in text and "http:" not in text and "https:" not in text


def test_penalised_cases_are_marked_with_state_reason_and_advice(tmp_path: Path, folders: dict[str, Path]) -> None:
    error = {"code": 30, "name": "TimeLimitError", "message": "model: too slow\n  found: 181 s", "next": "be faster"}
    cases = [case_entry("a"), case_entry("b", "timeout", "ended after 180.2 s", 180.2)]
    record = make_record(cases, "partial", error)
    record["outcome"]["limit"] = {"name": "time", "measured": 180.2, "limit": 180, "unit": "s", "case": "b"}
    page = write(tmp_path / "report.html", record, {"a": scores(0.9), "b": penalty("missing")}, folders)
    for words in (
        "Partial 1 of 2 cases has a usable prediction.", "What failed model: too slow (TimeLimitError, code 30)",
        "Found 181 s", "Limit reached: time, 180.2 s measured, 180 s allowed, at case b.",
        "What to do next be faster", f"timeout 1 case: {ADVICE['timeout']}", "penalty values included",
        "b timeout ended after 180.2 s 3 min 00 s 0.000", "1 usable case alone: Dice 0.900, HD95 2.00",
        "no prediction is drawn: none is there that lies on the grid of the reference.",
    ):  # fmt: skip
        assert words in page.text, words
    assert page.count("tr", class_="penalised") == 1
    assert page.count("path", class_="cross") == 6
    assert page.count("circle", class_="dot") == 6


def test_a_failed_run_says_what_to_do_and_shows_no_scores(tmp_path: Path, folders: dict[str, Path]) -> None:
    error = {"code": 15, "name": "ImageError", "message": "no image\n  found: nothing\n  next:  build it"}
    page = write(tmp_path / "report.html", make_record([], "failed", error), {}, folders, log_excerpt=["pull refused"])
    assert "Failed The run failed and no case is scored." in page.text
    assert "What to do next build it" in page.text and "pull refused" in page.text
    assert "Spread" not in page.text and page.count("article") == 0


def test_a_run_that_failed_while_scoring_is_not_called_scored(tmp_path: Path, folders: dict[str, Path]) -> None:
    page = write(tmp_path / "report.html", make_record([case_entry("a")], "failed"), {}, folders)
    assert "The run failed and no case is scored." in page.text
    assert f"not scored 1 case: {ADVICE['not scored']}" in page.text


def test_no_usable_prediction_at_all(tmp_path: Path, folders: dict[str, Path]) -> None:
    results = {"a": penalty("crashed", "exit code 139"), "b": penalty("out_of_memory")}
    page = write(tmp_path / "report.html", make_record([], "partial"), results, folders)
    assert "No case has a usable prediction." in page.text
    assert "Whole tumour WT Dice 0.000 HD95 374.00 mm" in page.text
    assert page.count("circle") == 0


def test_one_case(tmp_path: Path, folders: dict[str, Path]) -> None:
    page = write(tmp_path / "report.html", make_record([case_entry("a")]), {"a": scores()}, folders)
    assert "The case is scored." in page.text and "Mean over 1 case." in page.text
    assert page.count("tfoot") == 0


def test_values_that_are_not_defined(tmp_path: Path, folders: dict[str, Path]) -> None:
    results = {"a": scores() | {"Precision_ET": float("nan"), "Dice_WT": float("inf"), "Hausdorff95_TC": None}}
    results["b"] = {name: float("nan") for name in results["a"] if name[0] in "DHSP"} | {"status": "ok"}
    page = write(tmp_path / "report.html", GOOD_RECORD, results, folders)
    row = page.text[page.text.index("a ok 4.0 s") :]
    assert row.startswith("a ok 4.0 s n/a 0.890 0.880 2.00 n/a 4.00")
    assert " nan" not in page.text.lower() and "inf " not in page.text


@pytest.mark.parametrize("record", [{}, {"cases": None, "outcome": "x", "tasks": "y"}, {"cubes": {"model": "text"}}])
@pytest.mark.parametrize("results", [{}, {"a": scores()}, {"a": None}, {7: {"Dice_WT": "0.5"}}])
def test_gaps_in_the_record_do_not_break_the_page(
    tmp_path: Path, folders: dict[str, Path], record: Any, results: Any
) -> None:
    assert "fedeval" in write(tmp_path / "report.html", record, results, folders).text


def spoil(value: Any) -> Any:
    """`value` with every text in it, keys of free form included, turned hostile."""
    if isinstance(value, dict):
        spoiled = {key: spoil(item) for key, item in value.items()}
        return spoiled | {HOSTILE: HOSTILE} if "per_case_s" in value or "os" in value or "WT_ml" in value else spoiled
    if isinstance(value, list):
        return [spoil(item) for item in value]
    return HOSTILE if isinstance(value, str) else value


def test_hostile_text_stays_text(tmp_path: Path, folders: dict[str, Path]) -> None:
    record = spoil(make_record([case_entry("x", "timeout", "r")], "partial", {"code": 1, "name": "n", "message": "m"}))
    results = {HOSTILE: penalty(HOSTILE, HOSTILE), "a": scores()}
    page = write(tmp_path / "report.html", record, results, folders, log_excerpt=[HOSTILE, "\x07bell \udcff"])
    raw = (tmp_path / "report.html").read_bytes()
    assert b"<script" not in raw and b"<img" not in raw
    assert not {code for code in raw if code < 32} - {10} and "\u202e" not in raw.decode()
    assert not [tag for tag, have in page.elements if tag in ("script", "img") or "onerror" in have]
    shown = "<script>alert(1)</script>\"'><img src=http://x.example/ onerror=a()>\\x1b[31m\\n\\r\\u202eend"
    # Headline, table, picture, log, limits, host, statistics, provenance ...
    assert page.text.count(shown) > 25
    assert html.escape(shown, quote=False).replace('"', "&#34;").replace("'", "&#39;") in raw.decode()
    assert "\\x07bell \\udcff" in page.text
    assert "no picture: the case id is not a plain file name." in page.text


def test_long_text_is_cut(tmp_path: Path, folders: dict[str, Path]) -> None:
    results = {"a": penalty("invalid", "x" * 10**6)}
    write(tmp_path / "report.html", make_record([]), results, folders, log_excerpt=["y" * 10**6] * 1000)
    assert (tmp_path / "report.html").stat().st_size < 700_000


def test_equal_inputs_give_equal_bytes(tmp_path: Path, folders: dict[str, Path]) -> None:
    write(tmp_path / "one.html", GOOD_RECORD, GOOD, folders)
    write(tmp_path / "two.html", copy.deepcopy(GOOD_RECORD), dict(reversed(GOOD.items())), folders)
    assert (tmp_path / "one.html").read_bytes() == (tmp_path / "two.html").read_bytes()


def test_a_page_that_cannot_be_written_leaves_nothing(tmp_path: Path, folders: dict[str, Path]) -> None:
    (tmp_path / "report.html").mkdir()
    (tmp_path / "report.html" / "kept").touch()
    with pytest.raises(OSError):
        write(tmp_path / "report.html", GOOD_RECORD, GOOD, folders)
    assert [path.name for path in sorted(tmp_path.rglob("*"))] == ["report.html", "kept"]


def test_three_full_size_cases_stay_below_three_megabytes(tmp_path: Path) -> None:
    shape, rng = (240, 240, 155), np.random.default_rng(0)
    grid = np.indices(shape, dtype=np.float32)
    brain = (grid[0] - 120) ** 2 / 70**2 + (grid[1] - 120) ** 2 / 90**2 + (grid[2] - 77) ** 2 / 60**2 < 1
    # White noise in one slice, repeated: the worst case for a PNG, cheap to store.
    scan = np.where(brain, rng.integers(100, 1000, (240, 240, 1)), 0).astype(np.int16)
    rough = (grid[0] - 90) ** 2 + (grid[1] - 100) ** 2 + (grid[2] - 80) ** 2 < rng.uniform(300, 1200, (240, 240, 1))
    mask = np.where(rough & brain, 4, 0).astype(np.uint8)
    data, labels, predictions = (tmp_path / name for name in ("data", "labels", "predictions"))
    save(labels / "a_final_seg.nii.gz", mask)
    save(predictions / "a.nii.gz", np.roll(mask, 2, axis=1))
    save(data / "a" / "a_brain_flair.nii.gz", scan)
    for case in ("a", "b", "c"):
        (data / case).mkdir(exist_ok=True)
        for modality in ("flair", "t1ce"):
            if (case, modality) != ("a", "flair"):
                source = data / "a" / "a_brain_flair.nii.gz"
                (data / case / f"{case}_brain_{modality}.nii.gz").symlink_to(source)
        if case != "a":
            (labels / f"{case}_final_seg.nii.gz").symlink_to(labels / "a_final_seg.nii.gz")
            shutil.copy(predictions / "a.nii.gz", predictions / f"{case}.nii.gz")
    folders = {"data_dir": data, "labels_dir": labels, "predictions_dir": predictions}
    page = write(tmp_path / "report.html", make_record([]), {case: scores() for case in "abc"}, folders)
    assert page.count("image") == 12 and page.count("path", class_="line prediction") == 1 + 12
    assert (tmp_path / "report.html").stat().st_size < 3_000_000


def test_many_cases_get_a_choice_of_pictures_and_say_so(tmp_path: Path, folders: dict[str, Path]) -> None:
    results = {f"case{at:03d}": scores(0.5 + at / 1000) for at in range(250)}
    results["case000"] = penalty("timeout")
    page = write(tmp_path / "report.html", make_record([]), results, folders)
    assert page.count("article") == MAX_PICTURES
    assert "12 of 250 cases: the 4 lowest, 4 around the median and 4 highest of those with a usable" in page.text
    rows, columns = compute_table({}, results, REGIONS, METRICS)
    chosen = [(group, row.case) for group, row in choose_pictured(rows, columns)]
    assert [case for group, case in chosen if group == "lowest"] == ["case001", "case002", "case003", "case004"]
    assert [case for group, case in chosen if group == "middle"] == ["case123", "case124", "case125", "case126"]
    assert [case for group, case in chosen if group == "highest"] == ["case246", "case247", "case248", "case249"]
    assert page.count("rect", class_="box") == 6


def test_numbers_are_shown_as_a_person_reads_them() -> None:
    times = (0.42, 12.34, 180, 3599.6, 7620, None, float("nan"))
    assert [format_seconds(value) for value in times] == [
        "0.42 s", "12.3 s", "3 min 00 s", "1 h 00 min", "2 h 07 min", "–", "–",
    ]  # fmt: skip
    assert [format_memory(value) for value in (64, 1229, 40960, None)] == ["64 MB", "1.2 GB", "40 GB", "–"]
    assert [format_limit(5, key) for key in ("a_s", "a_mb", "pids")] == ["5.0 s", "5 MB", "5"]
    assert list(flatten({"a": {"b": 1}, "c": [1, 2]})) == [("a.b", 1), ("c", "1, 2")]


def test_every_state_and_outcome_has_words() -> None:
    assert set(BADGES) == {"ok", "partial", "failed"}
    states = {"missing", "invalid", "timeout", "crashed", "out_of_memory", "out_of_gpu_memory", "not scored"}
    assert set(ADVICE) == states
