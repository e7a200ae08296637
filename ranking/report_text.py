"""Hostile names and numbers as text that is safe to draw and fits where it is drawn.

Names in a ranking come from strangers. Nothing here escapes markup (the writers do that, in one place each); this
module makes invisible and direction-changing characters visible, estimates widths and shortens.
"""

import re
import unicodedata
from collections.abc import Sequence

# Advance widths of the printable ASCII characters in DejaVu Sans, in hundredths of the font size. It is one of the
# widest common interface fonts, so an estimate made with it holds for the others.
_ASCII_WIDTHS = (
    *(32, 40, 46, 84, 64, 95, 78, 27, 39, 39, 50, 84, 32, 36, 32, 34, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 34, 34),
    *(84, 84, 84, 53, 100, 68, 69, 70, 77, 63, 58, 77, 75, 29, 29, 66, 56, 86, 75, 79, 60, 79, 69, 63, 61, 73, 68),
    *(99, 69, 61, 69, 39, 34, 39, 84, 50, 50, 61, 63, 55, 63, 62, 35, 63, 63, 28, 28, 58, 28, 97, 63, 61, 63, 63),
    *(41, 52, 39, 63, 59, 82, 59, 59, 52, 64, 34, 64, 84),
)
_OTHER_LETTER = 0.85
_WIDE = 1.1
_MARKS_IN_A_ROW = 2
_JOINERS = "\u200c\u200d"
ELLIPSIS = "…"
MINUS = "−"


def format_name(name: str) -> str:
    """Name as it is shown: control, direction and other invisible characters as escapes such as ``\\x1b``.

    Parameters
    ----------
    name : str
        Any text, also with lone surrogates.

    Returns
    -------
    str
        Text that can be encoded as UTF-8 and cannot change what stands around it; ``(blank)`` when nothing of it
        would be visible. Not escaped.
    """
    shown: list[str] = []
    marks = 0
    for character in name:
        category = unicodedata.category(character)
        marks = marks + 1 if category in ("Mn", "Me") else 0
        if marks <= _MARKS_IN_A_ROW:
            shown.append(_show_character(character, category))
    text = "".join(shown)
    return text if text.strip(" \u00a0\u3000" + _JOINERS) else "(blank)"


def _show_character(character: str, category: str) -> str:
    if category in ("Zl", "Zp"):
        return " "
    if category in ("Cc", "Cs", "Co", "Cn") or (category == "Cf" and character not in _JOINERS):
        code = ord(character)
        return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
    return character


def _compute_character_width(character: str) -> float:
    code = ord(character)
    if 32 <= code < 127:
        return _ASCII_WIDTHS[code - 32] / 100
    if unicodedata.combining(character) or character in _JOINERS:
        return 0.0
    if code < 0x530 or character in "…−–—‘’“”·":
        return _OTHER_LETTER if not character.isupper() else _WIDE
    return _WIDE


def compute_text_width(text: str, size: float) -> float:
    """Estimated width of a line of text, in the unit of ``size``; meant to be too large rather than too small."""
    return size * sum(_compute_character_width(character) for character in text)


def shorten_text(text: str, size: float, room: float) -> str:
    """Text with its middle left out so that its estimated width is at most ``room``.

    The middle goes because names of one team differ at their ends (``..._v1``, ``..._v2``).
    """
    if compute_text_width(text, size) <= room:
        return text
    room_left = room / size - _compute_character_width(ELLIPSIS)
    head: list[str] = []
    tail: list[str] = []
    used = 0.0
    front, back = 0, len(text) - 1
    while front <= back:
        take_head = len(head) <= len(tail)
        character = text[front] if take_head else text[back]
        used += _compute_character_width(character)
        if used > room_left:
            break
        if take_head:
            head.append(character)
            front += 1
        else:
            tail.append(character)
            back -= 1
    return "".join(head).rstrip() + ELLIPSIS + "".join(reversed(tail)).lstrip()


def quote_name(name: str, longest: float = 40.0) -> str:
    """Shown name inside a sentence: in quotation marks, shortened when it is wider than ``longest`` letters m."""
    # Isolated, so that a name written from right to left leaves the order of the sentence alone.
    return f"“\u2068{shorten_text(name, 1, longest)}\u2069”"


def split_camel_case(name: str) -> list[str]:
    """Words of an identifier: ``rankThenMean`` gives ``rank``, ``Then``, ``Mean``."""
    return re.findall(r"[A-Z]?[^A-Z]+|[A-Z]+", name) or [name]


def format_number(value: float | None, digits: int = 2) -> str:
    """Number with at most ``digits`` decimals, without useless zeros; an en dash for None."""
    if value is None:
        return "–"
    text = f"{value:.{digits}f}"
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text in ("-0", "") else text.replace("-", MINUS)


def format_fixed(value: float | None, digits: int = 2) -> str:
    """Number with exactly ``digits`` decimals, for a column of a table; an en dash for None."""
    if value is None:
        return "–"
    text = f"{value:.{digits}f}"
    return (text.lstrip("-") if float(text) == 0 else text).replace("-", MINUS)


def format_significant(value: float | None) -> str:
    """Number with four significant digits."""
    return "–" if value is None else f"{value:.4g}".replace("-", MINUS)


def format_p(value: float | None) -> str:
    """p-value for a sentence, with its relation sign: ``= 0.031`` or ``< 0.001``."""
    if value is None:
        return "not defined"
    return "< 0.001" if value < 0.001 else f"= {value:.2g}"


def format_shift(value: float) -> str:
    """Change of rank with its sign, halves as ½ to save room; empty for none."""
    if value == 0:
        return ""
    whole, rest = divmod(abs(value), 1)
    size = f"{whole or '':.0f}½" if whole and rest == 0.5 else "½" if rest == 0.5 else format_number(abs(value))
    return ("+" if value > 0 else MINUS) + size


def format_interval(interval: Sequence[float] | None) -> str:
    """Interval of ranks: ``2–5``, ``2`` when both ends are equal, an en dash for None."""
    if interval is None:
        return "–"
    low, high = (format_number(end, 1) for end in interval)
    return low if low == high else f"{low}–{high}"


def format_count(count: int, singular: str, plural: str = "") -> str:
    """Count with its noun: ``1 site``, ``30 sites``, ``2,600 cases``."""
    return f"{count:,} {singular if count == 1 else plural or singular + 's'}"


def format_list(items: Sequence[str], longest: int = 4) -> str:
    """Items in words; after ``longest`` of them "and n more"."""
    if len(items) > longest + 1:
        return ", ".join(items[:longest]) + f" and {len(items) - longest} more"
    return " and ".join([", ".join(items[:-1]), items[-1]] if len(items) > 1 else list(items))
