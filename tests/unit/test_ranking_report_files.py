"""The report's files: the same bytes every time, figures that other programs can read."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from ranking.document import Document, format_document
from ranking.report import build_page, write_figures, write_report
from ranking.report_marks import Areas, Block, Cells, Dots, Figure, Label, Lines, Rects
from ranking.report_png import build_png_file
from ranking.report_svg import build_page_svg, build_svg_file, find_shared_blocks, format_coordinate
from tests.unit.ranking_report_documents import HOSTILE_NAMES, compute_test_documents, rename

ROOT = Path(__file__).resolve().parents[2]
SVG = "{http://www.w3.org/2000/svg}"

ALL_MARKS = Figure(
    "all_marks", "A title", "A caption.", 200, 100,
    (
        Rects("c1", 20, ((10, 10, 30),)),
        Cells("c2", 60, 10, 10, 20, ((0, 0, 2), (2, 1, 1))),
        Lines("c3", (((10, 60), (50, 60), (50, 80)),), 4),
        Dots("c4", ((100, 70),), 20),
        Areas("c5", (((130, 60), (160, 60), (160, 90), (130, 90)),)),
        Block((Rects("c6", 10, ((170, 0, 20),)),), 10),
        Label(100, 95, "text & <tag>", "t"),
    ),
)  # fmt: skip


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> Document:
    (found,) = compute_test_documents(tmp_path_factory.mktemp("sites") / "in", 4, 3, 4)
    return rename(found, HOSTILE_NAMES[3:], HOSTILE_NAMES[:3])


def test_page_has_the_same_bytes_in_every_process(document: Document, tmp_path: Path) -> None:
    (path,) = write_report([document], tmp_path)
    (tmp_path / "ranking.json").write_text(
        format_document(document).encode("utf-8", "replace").decode(), encoding="utf-8"
    )
    script = (
        "import sys; from pathlib import Path; from ranking.document import load_document; "
        "from ranking.report import write_report; folder = Path(sys.argv[1]); folder.mkdir(); "
        "write_report([load_document(Path(sys.argv[2]))], folder, ['svg'])"
    )
    written: list[dict[str, bytes]] = []
    for seed in ("1", "2"):
        folder = tmp_path / f"out_{seed}"
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        command = [sys.executable, "-c", script, str(folder), str(tmp_path / "ranking.json")]
        subprocess.run(command, check=True, env=environment, cwd=ROOT, timeout=120)
        files = sorted(file for file in folder.rglob("*") if file.is_file())
        written.append({str(file.relative_to(folder)): file.read_bytes() for file in files})
    assert written[0] == written[1]
    assert len(written[0]) > 50
    assert written[0]["report.html"] == path.read_bytes()


def test_figures_are_files_that_other_programs_read(document: Document, tmp_path: Path) -> None:
    steps: list[tuple[int, int]] = []
    written = write_report([document], tmp_path, ["svg"], lambda done, total: steps.append((done, total)))
    figures = written[1:]
    assert sorted(figures) == sorted(path for path in tmp_path.rglob("*.svg"))
    assert steps == [(done, len(figures)) for done in range(1, len(figures) + 1)]
    (part,) = build_page([document]).parts
    groups = [group for section in part.sections for group in section.groups]
    groups += [group for site in part.sites for group in site.groups]
    assert len(figures) == sum(len(group.figures) for group in groups)
    assert {path.parent.name for path in figures} == {"figures_rankThenMean", "site_001", "site_002", "site_003"}
    for path in figures:
        root = ElementTree.parse(path).getroot()
        assert root.tag == f"{SVG}svg" and root.find(f"{SVG}title") is not None
        assert len(root.findtext(f"{SVG}desc") or "") > 20
        assert not [element for element in root.iter() if element.tag in (f"{SVG}use", f"{SVG}script", f"{SVG}image")]
        assert "var(" not in path.read_text(encoding="utf-8")


def test_names_in_an_svg_file_are_text(document: Document, tmp_path: Path) -> None:
    write_figures(document, tmp_path, "svg")
    root = ElementTree.parse(tmp_path / "figures_rankThenMean" / "leave_one_site_out.svg").getroot()
    tooltips = {element.text for element in root.iter(f"{SVG}title")}
    assert HOSTILE_NAMES[0] in tooltips and HOSTILE_NAMES[1] in tooltips


def test_png_files_are_pictures_of_twice_the_size(document: Document, tmp_path: Path) -> None:
    (part,) = build_page([document]).parts
    figure = part.sections[0].groups[1].figures[0]
    data = build_png_file(figure)
    picture = Image.open(io.BytesIO(data))
    assert picture.size == (round(2 * figure.width), round(2 * figure.height))
    assert build_png_file(figure) == data
    assert b"matplotlib" not in data.lower()


def test_unknown_format_writes_nothing(document: Document, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Unknown figure format 'pdf'"):
        write_figures(document, tmp_path, "pdf")
    assert list(tmp_path.iterdir()) == []


def test_png_shows_every_mark_where_it_stands() -> None:
    pixels = np.asarray(Image.open(io.BytesIO(build_png_file(ALL_MARKS))).convert("RGB"))
    assert pixels.shape == (200, 400, 3)

    def colour_at(x: float, y: float) -> str:
        return "#" + "".join(f"{part:02x}" for part in pixels[round(2 * y), round(2 * x)])

    assert colour_at(25, 20) == "#0072b2" and colour_at(45, 20) == "#ffffff"
    assert colour_at(70, 20) == "#d55e00" and colour_at(85, 40) == "#d55e00" and colour_at(85, 20) == "#ffffff"
    assert colour_at(30, 60) == "#009e73" and colour_at(50, 75) == "#009e73"
    assert colour_at(100, 70) == "#b8578f" and colour_at(108, 78) == "#ffffff"
    assert colour_at(145, 75) == "#e69f00"
    assert colour_at(180, 15) == "#56b4e9" and colour_at(180, 5) == "#ffffff"


def test_svg_says_the_same_as_the_marks() -> None:
    root = ElementTree.fromstring(build_svg_file(ALL_MARKS))
    paths = {path.get("class"): path for path in root.iter(f"{SVG}path")}
    assert (paths["c1"].get("d"), paths["c1"].get("stroke-width")) == ("M10 20h30", "20")
    # Cells in units of cells: two in the first row, the third of the second row two further down the path.
    assert paths["c2"].get("d") == "M0 0h2m0 1h1"
    assert paths["c2"].get("transform") == "translate(60 20)scale(10 20)"
    assert paths["c3"].get("d") == "M10 60h40v20"
    assert (paths["c4"].get("d"), paths["c4"].get("stroke-linecap")) == ("M100 70h0", "round")
    assert paths["f-c5"].get("d") == "M130 60h30v30h-30z"
    (text,) = root.iter(f"{SVG}text")
    assert text.text == "text & <tag>"


def test_relative_paths_do_not_drift() -> None:
    points = tuple((index / 3, (index * index) / 7) for index in range(200))
    root = ElementTree.fromstring(build_svg_file(Figure("f", "T", "C.", 100, 100, (Dots("c1", points, 1),))))
    (path,) = [path for path in root.iter(f"{SVG}path") if path.get("class") == "c1"]
    data = (path.get("d") or "").replace("h0", "").replace("-", " -").replace("M", "").split("m")
    x = y = 0.0
    for move, (true_x, true_y) in zip(data, points, strict=True):
        dx, dy = (float(number) for number in move.split())
        x, y = x + dx, y + dy
        assert x == pytest.approx(true_x, abs=0.051) and y == pytest.approx(true_y, abs=0.051)


def test_coordinates_are_short() -> None:
    assert [format_coordinate(value) for value in (0, 1, 0.5, -0.5, -0.01, 12.34, -3.0)] == [
        "0", "1", ".5", "-.5", "0", "12.3", "-3",
    ]  # fmt: skip


def test_repeated_blocks_are_stored_once() -> None:
    inner = Block((Label(0, 0, "name"),))
    outer = Block((inner, Rects("band", 10, ((0, 0, 10),))), 5)
    single = Block((Label(0, 0, "once"),))
    figures = [Figure("f", "T", "C.", 10, 10, marks) for marks in ((outer,), (outer, single))]
    shared = find_shared_blocks(figures)
    assert set(shared) == {inner.marks, outer.marks}
    assert build_page_svg(figures[0], shared).count("<use") == 1
    assert "name" not in build_page_svg(figures[0], shared)
    assert "once" in build_page_svg(figures[1], shared)
