"""The report in a real Chromium: nothing fails, nothing overflows, nothing overlaps, whatever the names are."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ranking.report import write_report
from tests.unit.ranking_browser import Browser, Page
from tests.unit.ranking_report_documents import HOSTILE_NAMES, add_more_answers, compute_test_documents, rename

pytestmark = pytest.mark.browser

# What sticks out of the window, of its element or of its drawing, and texts of one drawing that cover each other.
# Shared blocks are put in place first, because a <use> element hides the texts in it.
_FIND_OVERFLOW = """(() => {
  const found = [];
  const name = e => `${e.tagName}.${e.getAttribute('class') || ''} "${(e.textContent || '').slice(0, 60)}"`;
  const root = document.scrollingElement;
  if (root.scrollWidth > root.clientWidth) found.push(`page is ${root.scrollWidth} wide`);
  for (let use = document.querySelector('main use'); use; use = document.querySelector('main use')) {
    const copy = document.querySelector(use.getAttribute('href')).cloneNode(true);
    copy.removeAttribute('id');
    copy.setAttribute('transform', `translate(0 ${use.getAttribute('y') || 0})`);
    use.replaceWith(copy);
  }
  for (const e of document.querySelectorAll('body *:not(svg):not(svg *)')) {
    const style = getComputedStyle(e);
    if (style.display === 'inline' || !e.checkVisibility({contentVisibilityAuto: true})) continue;
    if (style.overflowX !== 'auto' && e.scrollWidth > e.clientWidth + 1) found.push(`wider than its box: ${name(e)}`);
    const box = e.getBoundingClientRect();
    const outside = box.right > root.clientWidth + 0.5 || box.left < -0.5;
    if (outside && !e.closest('.scroll')) found.push(`outside: ${name(e)}`);
  }
  let texts = 0;
  for (const svg of document.querySelectorAll('svg[role=img]')) {
    if (!svg.checkVisibility()) continue;
    const frame = svg.getBoundingClientRect();
    const boxes = [...svg.querySelectorAll('text')].map(e => [e, e.getBoundingClientRect()]);
    texts += boxes.length;
    for (const [e, b] of boxes)
      if (b.left < frame.left - 1 || b.right > frame.right + 1 || b.top < frame.top - 1 || b.bottom > frame.bottom + 1)
        found.push(`text leaves its drawing ${svg.getAttribute('aria-label')}: ${name(e)}`);
    boxes.sort((one, other) => one[1].top - other[1].top);
    boxes.forEach(([e, b], i) => {
      for (const [other, c] of boxes.slice(i + 1)) {
        if (c.top > b.bottom) break;
        const wide = Math.min(b.right, c.right) - Math.max(b.left, c.left);
        const high = Math.min(b.bottom, c.bottom) - Math.max(b.top, c.top);
        const place = svg.getAttribute('aria-label');
        if (wide > 1.5 && high > 4) found.push(`texts overlap in ${place}: ${name(e)}, ${name(other)}`);
      }
    });
  }
  return {found: [...new Set(found)].slice(0, 20), texts};
})()"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("chromium") / "profile") as running:
        yield running


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Reports of very different size, all with names that attack or that do not fit."""
    folder = tmp_path_factory.mktemp("reports")
    small = compute_test_documents(folder / "in_small", 5, 4, 6, methods=("rankThenMean", "testBased"), more=True)
    hostile = compute_test_documents(folder / "in_hostile", len(HOSTILE_NAMES), 5, 4)
    large = compute_test_documents(folder / "in_large", 40, 30, 4)
    single = compute_test_documents(folder / "in_single", 1, 1, 1)
    long_names = [f"{HOSTILE_NAMES[14]} {number}" for number in range(40)]
    documents = {
        "small": small,
        "hostile": [rename(add_more_answers(hostile[0]), HOSTILE_NAMES, HOSTILE_NAMES[::-1])],
        "large": [rename(add_more_answers(large[0]), long_names, long_names[:30])],
        "single": single,
    }
    paths: dict[str, Path] = {}
    for name, found in documents.items():
        (folder / name).mkdir()
        paths[name] = write_report(found, folder / name)[0]
    return paths


def _unfold(page: Page, sites: int) -> None:
    """Open the numbers and the first sites, as a reader would."""
    page.evaluate(
        "document.querySelectorAll('details.numbers').forEach(e => e.open = true);"
        f"[...document.querySelectorAll('details.site')].slice(0, {sites}).forEach(e => e.open = true)"
    )


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("name", ["small", "hostile", "large", "single"])
def test_nothing_fails_or_overflows(browser: Browser, reports: dict[str, Path], name: str, width: int) -> None:
    page = browser.open_page(reports[name], width)
    assert page.evaluate("innerWidth") == width
    assert page.evaluate(f"matchMedia('(width: {width}px)').matches")
    folded: dict[str, Any] = page.evaluate(_FIND_OVERFLOW)
    assert folded["found"] == []
    _unfold(page, 2)
    unfolded: dict[str, Any] = page.evaluate(_FIND_OVERFLOW)
    assert unfolded["found"] == []
    # Unfolding showed more texts than before: the hidden parts were looked at.
    assert unfolded["texts"] > folded["texts"] > 20
    assert page.list_problems() == []
    assert page.list_requests() == [reports[name].as_uri()]
    page.close()


def test_check_finds_what_sticks_out(browser: Browser, tmp_path: Path) -> None:
    bad = tmp_path / "bad.html"
    bad.write_text(
        "<!doctype html><meta name=viewport content='width=device-width'><body><main>"
        "<p style='width:391px'>wide</p><div style='width:50px'><b style='display:block'>Unbreakable</b></div>"
        "<svg role=img aria-label=plot viewBox='0 0 100 40' width=100 height=40><text x=80 y=20>leaves</text>"
        "<text x=4 y=20>one</text><text x=6 y=21>other</text></svg></main>"
    )
    page = browser.open_page(bad, 390)
    found = " ".join(page.evaluate(_FIND_OVERFLOW)["found"])
    assert "page is 399 wide" in found  # 391 and the body's margin of 8
    assert 'wider than its box: B. "Unbreakable"' in found
    assert 'text leaves its drawing plot: text. "leaves"' in found
    assert "texts overlap in plot" in found
    page.close()


def test_check_finds_script_errors_and_requests(browser: Browser, tmp_path: Path) -> None:
    bad = tmp_path / "bad.html"
    bad.write_text("<!doctype html><body><script>undefined_function()</script><img src='missing.png'>")
    page = browser.open_page(bad, 390)
    assert any("undefined_function" in problem for problem in page.list_problems())
    assert any(address.endswith("missing.png") for address in page.list_requests())
    page.close()


def test_hostile_names_are_text(browser: Browser, reports: dict[str, Path]) -> None:
    page = browser.open_page(reports["hostile"], 1280)
    _unfold(page, 5)
    assert page.evaluate("document.querySelectorAll('script, img, iframe, object, link, base, form').length") == 0
    attributes = "[...document.querySelectorAll('*')].flatMap(e => [...e.attributes].map(a => a.name))"
    assert page.evaluate(f"{attributes}.filter(name => name.startsWith('on') || name === 'style')") == []
    assert page.evaluate("typeof window.hacked") == "undefined"
    assert HOSTILE_NAMES[0] in page.evaluate("document.querySelector('main table').textContent")
    assert page.evaluate("document.querySelectorAll('main table')[0].rows.length") == 1 + len(HOSTILE_NAMES)
    page.close()


@pytest.mark.parametrize("dark", [False, True])
def test_colours_follow_the_theme(browser: Browser, reports: dict[str, Path], dark: bool) -> None:
    page = browser.open_page(reports["small"], 1280, dark=dark)
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert background == ("rgb(17, 22, 28)" if dark else "rgb(255, 255, 255)")
    ink = page.evaluate("getComputedStyle(document.querySelector('figure svg text.x')).fill")
    assert ink == ("rgb(163, 176, 189)" if dark else "rgb(82, 96, 109)")
    # Paper is white, whatever the screen.
    page.emulate_print()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.evaluate("getComputedStyle(document.querySelector('nav')).display") == "none"
    page.close()


def test_every_figure_has_a_name_and_a_caption(browser: Browser, reports: dict[str, Path]) -> None:
    page = browser.open_page(reports["small"], 1280)
    nameless = "[...document.querySelectorAll('main svg')].filter(e => !e.getAttribute('aria-label')).length"
    assert page.evaluate(nameless) == 0
    captions = page.evaluate(
        "[...document.querySelectorAll('figure')].map(e => e.querySelector('figcaption p').textContent)"
    )
    assert all(len(caption) > 20 for caption in captions)
    # A link of the contents leads somewhere.
    dead = "[...document.querySelectorAll('nav a')].filter(e => !document.querySelector(e.getAttribute('href'))).length"
    assert page.evaluate(dead) == 0
    page.close()
