"""What can go wrong, and the exit status of each.

``RankingError``
    ``InputError``   (3)  a site file, a share or the folder of them cannot be used
    ``RuleError``    (4)  the ranking rule cannot be used
    ``OptionError``  (5)  options that do not go together, or a multiplicities file that does not fit
    ``OutputError``  (6)  the results cannot be written

A message has three parts: what failed, found against expected, what to do next. argparse itself exits with 2.
"""

from __future__ import annotations


class RankingError(Exception):
    """Base of every error that the ranking reports by one message and no traceback."""

    exit_code = 1


class InputError(RankingError):
    """A site file, a share or the folder of them cannot be used."""

    exit_code = 3


class RuleError(RankingError):
    """The ranking rule cannot be used."""

    exit_code = 4


class OptionError(RankingError):
    """Options do not go together, or a file given as an option does not fit the data."""

    exit_code = 5


class OutputError(RankingError):
    """The results cannot be written."""

    exit_code = 6


def format_found(text: str, limit: int = 60) -> str:
    """Quote text of a file for a message: control characters escaped, cut after ``limit`` characters."""
    return repr(text if len(text) <= limit else text[:limit] + "...")


def format_names(names: list[str], limit: int = 20) -> str:
    """Join names for a message; after ``limit`` names only their number is given."""
    shown = ", ".join(format_name(name) for name in names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"


def format_name(name: str) -> str:
    """A name as given where it is harmless in a message, else quoted with control characters escaped."""
    return name if name and name.isprintable() and len(name) <= 200 else format_found(name, 200)
