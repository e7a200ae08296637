"""What the page is made of, before it becomes HTML. All text here is plain; the template escapes it."""

from dataclasses import dataclass, field

from ranking.report_marks import Figure


@dataclass(frozen=True)
class Cell:
    """One cell of a table."""

    text: str
    style: str = ""
    """``name``: any text of any length; ``tint1`` (weak) to ``tint3``: a shaded number; otherwise a number."""
    key: str = ""
    """Number of a submission in the figures, written before its name."""
    full: str = ""
    """Whole text where ``text`` is shortened, shown as tooltip."""


@dataclass(frozen=True)
class Heading:
    """Heading of a column, with a tooltip."""

    text: str
    hint: str = ""
    is_text: bool = False


@dataclass(frozen=True)
class Table:
    """A table; it scrolls inside its frame when it is wider than the screen."""

    title: str
    headings: tuple[Heading, ...]
    rows: tuple[tuple[Cell, ...], ...]
    breaks: frozenset[int] = frozenset()
    """Rows above which a line is drawn."""


@dataclass(frozen=True)
class Group:
    """Figures that are read together, how to read them, and their numbers."""

    title: str
    caption: str
    figures: tuple[Figure, ...] = ()
    tables: tuple[Table, ...] = ()
    """Behind a fold, unless there are no figures."""


@dataclass(frozen=True)
class Section:
    """A part of the page with a heading."""

    identifier: str
    title: str
    groups: tuple[Group, ...]
    sentences: tuple[str, ...] = ()


@dataclass(frozen=True)
class SitePart:
    """One site, folded away until somebody opens it."""

    identifier: str
    name: str
    summary: str
    groups: tuple[Group, ...]


@dataclass(frozen=True)
class MethodPart:
    """Everything about the ranking by one method."""

    identifier: str
    method: str
    sections: tuple[Section, ...]
    sites: tuple[SitePart, ...]


@dataclass(frozen=True)
class Page:
    """The whole page."""

    title: str
    facts: tuple[tuple[str, str], ...]
    """Number or word, what it counts."""
    notices: tuple[str, ...]
    parts: tuple[MethodPart, ...]
    notes: tuple[Group, ...] = field(default=())
    version: str = ""
