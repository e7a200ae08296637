"""Aliases in place of subject ids; the map stays at the site."""

import csv
import io
import re
from pathlib import Path

from data_prep_cube.errors import InputError
from data_prep_cube.folders import write_text_whole

ALIAS_FILE = "subject_aliases.csv"
_ALIAS = re.compile(r"FeTS22_Patient(\d{4,})")


def assign_aliases(subjects: list[str], known: dict[str, str]) -> dict[str, str]:
    """Give every subject an alias, ``FeTS22_Patient0000`` and on.

    Parameters
    ----------
    subjects
        Ids of this run.
    known
        Subject to alias of earlier runs. These never change, so that a second run resumes and results of one
        alias always mean one subject; new subjects get the numbers after the highest.

    Returns
    -------
    dict
        Subject to alias: the known ones and the new ones.
    """
    matches = [_ALIAS.fullmatch(alias) for alias in known.values()]
    following = max((int(match.group(1)) + 1 for match in matches if match), default=0)
    aliases = dict(known)
    for subject in sorted(set(subjects) - set(known)):
        aliases[subject] = f"FeTS22_Patient{following:04d}"
        following += 1
    return aliases


def load_aliases(metadata_path: Path) -> dict[str, str]:
    """Read the alias map of earlier runs, subject to alias; empty if there is none.

    Raises
    ------
    InputError
        If the file is there but is not what `write_aliases` writes. Guessing would mix up subjects.
    """
    path = metadata_path / ALIAS_FILE
    if not path.exists():
        return {}
    try:
        rows = list(csv.reader(io.StringIO(path.read_text(encoding="utf-8"), newline="")))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{ALIAS_FILE} in metadata_path cannot be read", "restore it from a backup") from error
    good = bool(rows) and rows[0] == ["case", "subject"] and all(len(row) == 2 for row in rows)
    aliases = {row[1]: row[0] for row in rows[1:]} if good else {}
    whole = len(aliases) == len(rows) - 1 == len(set(aliases.values()))
    if not good or not whole or not all(_ALIAS.fullmatch(alias) for alias in aliases.values()):
        raise InputError(
            f"{ALIAS_FILE} in metadata_path is damaged, expected the columns case,subject without repetition",
            "restore it from a backup; or delete it and empty output_path and output_labels_path",
        )
    return aliases


def write_aliases(metadata_path: Path, aliases: dict[str, str]) -> None:
    """Write the alias map as CSV with the columns ``case,subject``, readable by its owner only."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["case", "subject"])
    writer.writerows(sorted((alias, subject) for subject, alias in aliases.items()))
    write_text_whole("metadata_path", metadata_path / ALIAS_FILE, text.getvalue(), mode=0o600)
