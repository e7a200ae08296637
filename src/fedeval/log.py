"""The log file of a run, and making text from strangers safe to show."""

from __future__ import annotations

import contextlib
import logging
import re
from datetime import UTC, datetime
from pathlib import Path

from fedeval.errors import StorageError

LOGGER = logging.getLogger("fedeval")
LOGGER.addHandler(logging.NullHandler())  # without a log file nothing goes to the terminal behind our back
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def show_safe(text: str, limit: int = 500) -> str:
    r"""Text from a container, a file name or a manifest, safe for a terminal, a log and a message.

    Control characters (ANSI escapes, carriage returns, bidirectional overrides) and newlines become ``\xNN``; longer
    text than `limit` characters is cut.
    """
    shown = _CONTROL.sub(lambda found: ascii(found.group())[1:-1], text.replace("\n", r"\n").replace("\t", " "))
    return shown if len(shown) <= limit else shown[: limit - 3] + "..."


class _LogFile(logging.FileHandler):
    """On a full disk the log ends early and quietly: the step that meets the full disk tells it, once."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Nothing."""

    def close(self) -> None:
        """Close the file, whatever can still be written."""
        with contextlib.suppress(OSError):
            super().close()


def open_run_log(folder: Path, name: str, level: str) -> Path:
    """Send the log records of this process to a new file ``<folder>/<time>_<name>.log`` and return its path.

    Raises
    ------
    StorageError
        The folder cannot be made or written.
    """
    path = folder / f"{datetime.now(UTC):%Y%m%dT%H%M%S_%f}_{name}.log"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handler = _LogFile(path, encoding="utf-8", errors="backslashreplace")
    except OSError as err:
        raise StorageError(
            "the log folder cannot be written",
            f"{folder}: {err.strerror}; expected a writable folder",
            "choose another one with --storage DIR or MEDPERF_STORAGE",
        ) from err
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    close_run_log()
    LOGGER.addHandler(handler)
    LOGGER.setLevel(level.upper())
    LOGGER.propagate = False
    return path


def close_run_log() -> None:
    """Close the log files opened so far."""
    for handler in [handler for handler in LOGGER.handlers if isinstance(handler, logging.FileHandler)]:
        LOGGER.removeHandler(handler)
        handler.close()
