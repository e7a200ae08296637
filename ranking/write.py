"""Results out: CSV files with the names as given, and all of them or none.

Numbers in the three files of the published ranking have 15 significant digits, as R writes them; text is quoted.
"""

from __future__ import annotations

import contextlib
import errno
import math
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ranking.document import Document, format_document
from ranking.errors import OutputError
from ranking.rules import Rule
from ranking.site_share import SiteDetails, SiteShare


def format_csv(rows: Iterable[Iterable[Any]]) -> str:
    """CSV of text and numbers: text quoted, numbers with 15 significant digits, rows ended by newlines."""
    return "".join(",".join(_format_cell(cell) for cell in row) + "\n" for row in rows)


def _format_cell(cell: str | float | int) -> str:
    if isinstance(cell, str):
        return '"' + cell.replace('"', '""') + '"'
    return str(cell) if isinstance(cell, int) else f"{cell:.15g}"


def format_final_ranks(document: Document) -> str:
    """``final_ranks_<method>.csv``: submission, mean rank, final rank; best first."""
    names = document["submissions"]
    rows = [
        (names[row["submission"]], row["mean_rank"], row["final_rank"]) for row in document["federation"]["final_table"]
    ]
    return format_csv([("", "meanRank", "finalRank"), *rows])


def format_institute_ranks(document: Document) -> str:
    """``per_institute_ranks_<method>.csv``: a row per site, a column per submission, the mean of the sub ranks."""
    rows = [(site["name"], *site["mean_rank"]) for site in document["per_site"]]
    return format_csv([("", *document["submissions"]), *rows])


def format_significance(document: Document) -> str:
    """``significant_matrix_<method>.csv``: how often the row is significantly superior to the column."""
    rows = zip(document["submissions"], document["federation"]["significance"], strict=True)
    return format_csv([("", *document["submissions"]), *((name, *cells) for name, cells in rows)])


def format_sub_ranks(submissions: tuple[str, ...], rule: Rule, shares: list[SiteShare], method: str) -> str:
    """``sub_ranks_<method>.csv``: the ranked value (17 digits; empty where absent or not shared) and its rank."""
    lines = ['"institution","metric","algorithm","value","rank"']
    for share in shares:
        ranks = share.ranks[method]
        values = share.values.get(method, np.full(ranks.shape, np.nan))
        for metric, row, places in zip(rule.metrics, values.tolist(), ranks.tolist(), strict=True):
            start = f"{_format_cell(share.name)},{_format_cell(metric.name)},"
            for name, value, rank in zip(submissions, row, places, strict=True):
                lines.append(f"{start}{_format_cell(name)},{'' if math.isnan(value) else repr(value)},{rank}")
    return "\n".join(lines) + "\n"


def format_bootstrap(document: Document) -> str:
    """``bootstrap_<method>.csv``: in how many draws each rank was taken; ranks that never were are left out."""
    lines = ['"institution","metric","algorithm","rank","count"']
    for site in document["per_site"]:
        for metric in site["metrics"]:
            if metric["bootstrap"] is None:
                continue
            start = f"{_format_cell(site['name'])},{_format_cell(metric['metric'])},"
            for name, counts in zip(document["submissions"], metric["bootstrap"]["rank_counts"], strict=True):
                lines += [
                    f"{start}{_format_cell(name)},{rank},{count}" for rank, count in enumerate(counts, 1) if count
                ]
    return "\n".join(lines) + "\n"


def format_p_values(
    federation: str, submissions: tuple[str, ...], rule: Rule, shares: list[SiteShare], details: list[SiteDetails]
) -> str:
    """Every p-value of the one-sided tests, with 17 digits, before and after Holm's correction."""
    lines = ['"federation","institution","metric","superior","inferior","p","p_holm"']
    for share, detail in zip(shares, details, strict=True):
        names = [submissions[number] for number in detail.table.present]
        for metric, tests in zip(rule.metrics, detail.tests, strict=True):
            start = ",".join(_format_cell(cell) for cell in (federation, share.name, metric.name))
            for first, second in np.argwhere(~np.eye(len(names), dtype=bool)):
                pair = f"{_format_cell(names[first])},{_format_cell(names[second])}"
                lines.append(f"{start},{pair},{tests.p[first, second]:.17g},{tests.p_holm[first, second]:.17g}")
    return "\n".join(lines) + "\n"


def format_results(document: Document, rule: Rule, shares: list[SiteShare]) -> dict[str, str]:
    """Every file of one method: name -> text."""
    method = document["method"]
    submissions = tuple(document["submissions"])
    files = {
        f"final_ranks_{method}.csv": format_final_ranks(document),
        f"per_institute_ranks_{method}.csv": format_institute_ranks(document),
        f"significant_matrix_{method}.csv": format_significance(document),
        f"sub_ranks_{method}.csv": format_sub_ranks(submissions, rule, shares, method),
        f"ranking_{method}.json": format_document(document),
    }
    if document["options"]["bootstrap"] is not None:
        files[f"bootstrap_{method}.csv"] = format_bootstrap(document)
    return files


@contextlib.contextmanager
def open_output(output_dir: Path) -> Iterator[Path]:
    """A staging folder whose files appear in ``output_dir`` together, when the block ends without an error.

    Raises
    ------
    OutputError
        The folder cannot be made or written; nothing is left of the attempt.
    """
    made: list[Path] = []
    try:
        made = _make_folders(output_dir)
        staging = Path(tempfile.mkdtemp(prefix=".partial-", dir=output_dir))
    except OSError as error:
        _remove_folders(made)
        raise OutputError(
            f"cannot write to output folder {output_dir}: {error.strerror}; give a writable one with --output"
        ) from error
    try:
        yield staging
        _publish(staging, output_dir)
        made = []
    except OSError as error:
        raise OutputError(f"cannot write the results to {output_dir}: {error.strerror}; nothing was written") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        _remove_folders(made)


def _make_folders(folder: Path) -> list[Path]:
    """Make a folder and its parents; returns those that were not there, outermost first."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    return missing[::-1]


def _remove_folders(folders: list[Path]) -> None:
    for folder in reversed(folders):
        with contextlib.suppress(OSError):
            folder.rmdir()


def _publish(staging: Path, output_dir: Path) -> None:
    """Move everything from staging to the output folder, after it has reached the disk."""
    paths = sorted(path for path in staging.rglob("*") if path.is_file())
    for path in paths:
        with path.open("rb") as stream:
            os.fsync(stream.fileno())
        target = output_dir / path.relative_to(staging)
        if target.is_dir():
            raise OutputError(f"cannot write {target}: a folder of that name is in the way; remove it or use --output")
    for path in paths:
        target = output_dir / path.relative_to(staging)
        target.parent.mkdir(parents=True, exist_ok=True)
        path.replace(target)


@contextlib.contextmanager
def stage_file(path: Path, text: str) -> Iterator[None]:
    """Write one file beside its place, and give it its name when the block ends without an error.

    Raises
    ------
    OutputError
        It cannot be written; nothing is left of the attempt.
    """
    temporary = path.parent / f".{path.name}.partial"
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        temporary.write_text(text, encoding="utf-8")
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise OutputError(f"cannot write {path}: {error.strerror}; give another place") from error
    try:
        yield
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
