"""The report: one HTML file without any reference to the outside, and its figures as files.

The page holds no script at all, and its content security policy allows none: names in a ranking come from strangers.
"""

import base64
import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from ranking.document import Document
from ranking.report_axes import HUGE, NARROW, build_stage
from ranking.report_federation import build_sections
from ranking.report_marks import Figure
from ranking.report_model import Group, MethodPart, Page
from ranking.report_sites import build_site_parts
from ranking.report_style import DARK, LIGHT, build_figure_css, build_variables
from ranking.report_svg import build_page_svg, build_shared_blocks, build_svg_file, find_shared_blocks
from ranking.report_tables import build_metric_table
from ranking.report_text import format_count, format_name

REPORT_NAME = "report.html"
FIGURE_FORMATS = ("svg", "png")
_ASSETS = Path(__file__).parent / "report_assets"
_MOST_WARNINGS = 40

Progress = Callable[[int, int], None]


def write_report(
    documents: Sequence[Document], output_dir: Path, figures: Sequence[str] = (), progress: Progress | None = None
) -> list[Path]:
    """Write ``report.html`` and, on request, every figure as a file.

    Parameters
    ----------
    documents : sequence of Document
        One per method, at least one, all of the same submissions and sites. The first is shown in full; of the others
        whatever depends on the method.
    output_dir : Path
        Existing folder.
    figures : sequence of str
        Out of ``svg`` and ``png``. The files go to ``figures_<method>/``, those of a site to a folder in it.
    progress : callable, optional
        Called with (figures written, figures in all) after every figure file: at full scale there are 900 for a method,
        which takes seconds as SVG and minutes as PNG.

    Returns
    -------
    list of Path
        The files written.

    Raises
    ------
    ValueError
        If there is no document, the documents belong to different rankings, or a method or format is not known.
    """
    _check_documents(documents, figures)
    page = build_page(documents)
    path = output_dir / REPORT_NAME
    path.write_text(build_html(page), encoding="utf-8", newline="\n")
    return [path, *_write_figure_files(page.parts, output_dir, figures, progress)]


def write_figures(
    document: Document, output_dir: Path, image_format: str, progress: Progress | None = None
) -> list[Path]:
    """Write every figure of one document into ``output_dir/figures_<method>/`` as ``svg`` or ``png`` files.

    Raises
    ------
    ValueError
        If the format is not known.
    """
    _check_documents([document], [image_format])
    return _write_figure_files(build_page([document]).parts, output_dir, [image_format], progress)


def _check_documents(documents: Sequence[Document], figures: Sequence[str]) -> None:
    if not documents:
        raise ValueError("The report needs at least one ranking; none was given.")
    first = documents[0]
    for document in documents[1:]:
        if document["submissions"] != first["submissions"] or document["sites"] != first["sites"]:
            raise ValueError(
                f"The rankings by {first['method']} and {document['method']} are of different submissions or sites; "
                "write one report for each."
            )
    for document in documents:
        # It becomes the name of a folder, and a document may have come from somewhere else.
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", document["method"]):
            raise ValueError(f"{document['method']!r} is not a method; expected a name of letters and digits.")
    unknown = [name for name in figures if name not in FIGURE_FORMATS]
    if unknown:
        raise ValueError(f"Unknown figure format {unknown[0]!r}; expected one of {', '.join(FIGURE_FORMATS)}.")


def build_page(documents: Sequence[Document]) -> Page:
    """Everything that the page shows, as plain text and figures."""
    parts: list[MethodPart] = []
    for index, document in enumerate(documents):
        stage, prefix = build_stage(document), f"m{index + 1}"
        sections = build_sections(document, stage, prefix, is_first=index == 0)
        sites = build_site_parts(document, stage, prefix, is_first=index == 0)
        parts.append(MethodPart(prefix, document["method"], sections, sites))
    first = documents[0]
    metrics = build_metric_table(first)
    notes = (
        Group("Metrics", "What was ranked, and what a missing value counted as.", tables=(metrics,)),
        Group("How it was computed", _describe_options(first)),
    )
    return Page(
        f"Ranking: {format_name(first['rule'])}", _list_facts(documents), _list_notices(documents), tuple(parts), notes,
        first["version"],
    )  # fmt: skip


def _list_facts(documents: Sequence[Document]) -> tuple[tuple[str, str], ...]:
    first = documents[0]
    cases = sum(site["cases"] for site in first["per_site"])
    counts = (
        (len(first["submissions"]), "submission"), (len(first["sites"]), "site"), (cases, "case"),
        (len(first["metrics"]), "metric"), (len(documents), "method"),
    )  # fmt: skip
    facts = [(f"{count:,}", noun if count == 1 else noun + "s") for count, noun in counts]
    bootstrap = first["options"]["bootstrap"]
    if bootstrap is not None:
        facts.append((f"{bootstrap['draws']:,}", "bootstrap draws"))
    return tuple(facts)


def _list_notices(documents: Sequence[Document]) -> tuple[str, ...]:
    first = documents[0]
    found = list(first["left_out"])
    warnings = list(dict.fromkeys(warning for document in documents for warning in document["warnings"]))
    found += [warning for warning in warnings if warning not in found]
    if len(found) > _MOST_WARNINGS:
        rest = len(found) - _MOST_WARNINGS
        found = [*found[:_MOST_WARNINGS], f"… and {format_count(rest, 'more warning')}; all are in the JSON file."]
    return tuple(format_name(text) for text in found)


def _describe_options(document: Document) -> str:
    options = document["options"]
    bootstrap = options["bootstrap"]
    if bootstrap is None:
        drawn = "No bootstrap was asked for."
    else:
        weighting = {
            "case": "a case drawn k times counts k times",
            "challengeR": "weighted as the tool challengeR does, which is known to be wrong",
        }[bootstrap["weighting"]]
        drawn = f"Bootstrap: {format_count(bootstrap['draws'], 'draw')}, seed {bootstrap['seed']}; {weighting}."
    return (
        f"Rule: {format_name(document['rule'])}. Submissions absent at a site: {options['absent']}. Missing values: "
        f"{options['na']}. Ties in the final rank: {options['final_ties']}. {drawn} Fedeval ranking "
        f"{document['version']}; every number of this page is in the JSON files beside it."
    )


def build_html(page: Page) -> str:
    """Text of the page; same page, same text."""
    environment = Environment(
        loader=FileSystemLoader(_ASSETS), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
    shared = find_shared_blocks(
        figure for part in page.parts for _, group in _iterate_groups(part) for figure in group.figures
    )
    environment.globals.update(
        draw=lambda figure: build_page_svg(figure, shared, with_size=figure.width > HUGE), group_class=_choose_class,
        narrow=NARROW, wide=HUGE,
        shared_blocks=build_shared_blocks(shared),
    )  # fmt: skip
    style = build_style()
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return environment.get_template("page.html.j2").render(page=page, style=style, style_hash=digest)


def _choose_class(group: Group) -> str:
    """How much room a group takes: a group of one figure may stand beside others."""
    if len(group.figures) != 1 or group.figures[0].width > HUGE:
        return "full"
    return "pair" if group.figures[0].width > NARROW else "one"


def build_style() -> str:
    """Style sheet of the page: light by default and on paper, dark on screens that ask for it."""
    dark = f"@media screen and (prefers-color-scheme:dark){{:root{{{build_variables(DARK)}}}}}"
    layout = (_ASSETS / "page.css").read_text(encoding="utf-8")
    return f":root{{{build_variables(LIGHT)}}}{dark}{build_figure_css()}\n{layout}"


def _iterate_groups(part: MethodPart) -> Iterator[tuple[str, Group]]:
    for section in part.sections:
        for group in section.groups:
            yield "", group
    for index, site in enumerate(part.sites):
        for group in site.groups:
            # Numbers, not names: a site's name may hold what a file name must not.
            yield f"site_{index + 1:03d}", group


def _write_figure_files(
    parts: Sequence[MethodPart], output_dir: Path, formats: Sequence[str], progress: Progress | None
) -> list[Path]:
    places = [
        (output_dir / f"figures_{part.method}" / subfolder, figure, image_format)
        for part in parts
        for image_format in dict.fromkeys(formats)
        for subfolder, group in _iterate_groups(part)
        for figure in group.figures
    ]
    written: list[Path] = []
    for folder, figure, image_format in places:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{figure.name}.{image_format}"
        path.write_bytes(_build_image(figure, image_format))
        written.append(path)
        if progress is not None:
            progress(len(written), len(places))
    return written


def _build_image(figure: Figure, image_format: str) -> bytes:
    if image_format == "svg":
        return build_svg_file(figure).encode()
    # Only PNG needs matplotlib, which takes longer to load than a small report to write.
    from ranking.report_png import build_png_file

    return build_png_file(figure)
