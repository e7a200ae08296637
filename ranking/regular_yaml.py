"""Quick reader of regular site files: one regular expression, made for the file from its first block.

A site file is written by a program, so nearly every one is block YAML with the same keys in the same order in every
block. Such a file is read at tens of megabytes a second. Anything else (comments inside, flow style, duplicates, odd
numbers, text values) makes :func:`read_regular_yaml` return None, and the strict reader decides; this one never
reports an error.
"""

from __future__ import annotations

import math
import re
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

_KEY = r"""'[^'\n]{1,200}'|"[^"\\\n]{1,200}"|[A-Za-z0-9_](?:[\w.+/-]|\ (?=[\w.+/-])){0,200}"""
_VALUE = r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]*)?(?:[eE][-+]?[0-9]+)?|null|~|\.nan|\.NaN|-?\.inf"
_ANY_PLAIN = r"(?:\ -?[\w.][\w.+-]*)?"

# More keys than this in one block is no results file; the strict reader decides.
_MAX_KEYS = 200

_PREAMBLE = re.compile(r"(?:\#[^\n]*\n|---\n|\n)*")
_FIRST_HEADS = re.compile(rf"(?:{_KEY}):\n(?P<outer>\ +)(?:{_KEY}):\n(?P<inner>\ +)", re.VERBOSE)
_FIRST_ENTRY = re.compile(rf"(?P<indent>\ +)(?P<key>{_KEY}):[^\n]*\n", re.VERBOSE)

_SPECIAL = {
    **dict.fromkeys([None, "null", "~", ".nan", ".NaN"], math.nan),
    ".inf": math.inf,
    "-.inf": -math.inf,
}


class SiteValues(NamedTuple):
    """The values of one site file as they stand there.

    ``values`` is float64 [cases, submissions, metrics] with NaN for missing; ``stated`` is bool of that shape, False
    at a gap (no such entry in the file); ``unknown`` are keys that no metric of the rule has.
    """

    cases: list[str]
    submissions: list[str]
    values: npt.NDArray[np.float64]
    stated: npt.NDArray[np.bool_]
    unknown: list[str]


def read_regular_yaml(text: str, metrics: tuple[str, ...]) -> SiteValues | None:
    """Read a regular site file.

    Parameters
    ----------
    text : str
        The file, lines ended by newlines.
    metrics : tuple of str
        Names of the metrics of the rule.

    Returns
    -------
    SiteValues or None
        None when the file is not regular throughout.
    """
    if not text.endswith("\n"):
        text += "\n"
    preamble = _PREAMBLE.match(text)
    start = preamble.end() if preamble else 0
    block = _make_block_pattern(text, start, metrics)
    if block is None:
        return None
    pattern, keys = block
    return _read_blocks(text, start, pattern, keys, metrics)


def _make_block_pattern(text: str, start: int, metrics: tuple[str, ...]) -> tuple[re.Pattern[str], list[str]] | None:
    """Pattern of one submission's block (with the case line before the first one) and the keys of the block."""
    heads = _FIRST_HEADS.match(text, start)
    if heads is None or len(heads["inner"]) <= len(heads["outer"]):
        return None
    outer, inner = heads["outer"], heads["inner"]
    entries: list[tuple[str, str]] = []
    position = heads.start("inner")
    while (entry := _FIRST_ENTRY.match(text, position)) and entry["indent"] == inner:
        entries.append((entry["key"], _strip_quotes(entry["key"])))
        position = entry.end()
    keys = [key for _, key in entries]
    if not 0 < len(set(keys)) == len(keys) <= _MAX_KEYS or not set(keys) & set(metrics):
        return None
    lines = "".join(
        f"{inner}{re.escape(written)}:" + (rf"(?:\ ({_VALUE})?)?\n" if key in metrics else rf"{_ANY_PLAIN}\n")
        for written, key in entries
    )
    return re.compile(rf"(?:({_KEY}):\n)?{outer}({_KEY}):\n{lines}".replace("\\ ", " ")), keys


def _read_blocks(
    text: str, start: int, pattern: re.Pattern[str], keys: list[str], metrics: tuple[str, ...]
) -> SiteValues | None:
    cases: dict[str, int] = {}
    submissions: dict[str, int] = {}
    places: list[tuple[int, int]] = []
    texts: list[str | None] = []
    case = -1
    position = start
    for match in pattern.finditer(text, start):
        if match.start() != position:
            return None
        position = match.end()
        groups = match.groups()
        if groups[0] is not None:
            case = len(cases)
            if cases.setdefault(_strip_quotes(groups[0]), case) != case:
                return None
        places.append((case, submissions.setdefault(_strip_quotes(groups[1]), len(submissions))))
        texts.extend(groups[2:])
    if position != len(text) or not places or places[0][0] < 0 or len(set(places)) != len(places):
        return None
    known = [key for key in keys if key in metrics]
    numbers = _read_numbers(texts).reshape(len(places), len(known))
    values = np.full((len(cases), len(submissions), len(metrics)), np.nan)
    stated = np.zeros(values.shape, dtype=bool)
    rows, columns = np.array(places).T[:, :, None]
    values[rows, columns, [metrics.index(key) for key in known]] = numbers
    stated[rows, columns, [metrics.index(key) for key in known]] = True
    unknown = [key for key in keys if key not in metrics]
    return SiteValues(list(cases), list(submissions), values, stated, unknown)


def _read_numbers(texts: list[str | None]) -> npt.NDArray[np.float64]:
    try:
        return np.array(list(map(float, texts)))  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return np.array([_SPECIAL[text] if text is None or text in _SPECIAL else float(text) for text in texts])


def _strip_quotes(key: str) -> str:
    return key[1:-1] if key[0] in "'\"" else key
