"""Writing results.yaml and evaluate.log."""

import contextlib
import errno
import math
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from metrics_cube.errors import OutputError

Value = float | int | bool | str | None


def format_results(rows: Mapping[str, Mapping[str, Value]], heading: str = "") -> str:
    """Case -> key -> value as YAML: cases sorted, floats exact (shortest text that reads back as the same double).

    Written by hand because a YAML library takes longer for this than the scoring; any YAML 1.1 or 1.2 reader reads it.
    """
    lines = [f"# {line}".rstrip() for line in heading.splitlines()]
    for case in sorted(rows):
        lines.append(f"{format_text(case)}:")
        lines += [f"  {key}: {format_value(value)}" for key, value in rows[case].items()]
    return "\n".join(lines) + "\n" if rows else "{}\n"


def format_value(value: Value) -> str:
    """One YAML scalar."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return _format_float(value)
    return format_text(value) if isinstance(value, str) else str(value)


def _format_float(value: float) -> str:
    if math.isnan(value):
        return ".nan"
    if math.isinf(value):
        return ".inf" if value > 0 else "-.inf"
    text = repr(float(value))
    # YAML 1.1 sees a float only where there is a point.
    return text if "." in text else text.replace("e", ".0e")


def format_text(text: str) -> str:
    """Double-quoted YAML string; everything but printable ASCII is escaped."""
    return '"' + "".join(map(_escape, text)) + '"'


def _escape(char: str) -> str:
    if char in '"\\':
        return "\\" + char
    if " " <= char <= "~":
        return char
    code = ord(char)
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def clear_output(path: Path) -> None:
    """Take away the results of an earlier run, so that a failure now cannot look like success.

    Raises
    ------
    OutputError
        If the place cannot be written at all.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, "is a folder")
        try:
            path.unlink(missing_ok=True)
        except OSError:  # a single file mounted into a container can be emptied but not removed
            os.truncate(path, 0)
    except OSError as error:
        raise _output_error(error) from error


def write_results(path: Path, text: str) -> None:
    """Write results.yaml whole or not at all.

    The file appears by renaming. Where MedPerf mounts the single file, renaming is impossible: then it is written in
    place and emptied again should that fail.

    Raises
    ------
    OutputError
        On a full disk or a place that cannot be written.
    """
    content = text.encode("utf-8")
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        try:
            _write(partial, content)
            partial.replace(path)
        except OSError as error:
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)
            if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS, errno.EBUSY) or not path.exists():
                raise
            _write_in_place(path, content)
    except OSError as error:
        raise _output_error(error) from error


def _write_in_place(path: Path, content: bytes) -> None:
    try:
        _write(path, content)
    except OSError:
        os.truncate(path, 0)
        raise


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _output_error(error: OSError) -> OutputError:
    return OutputError(
        f"results cannot be written: {error.strerror or error}; next: free space or grant write access at output_path"
    )


def write_log(path: Path, lines: list[str]) -> None:
    """Write evaluate.log; a place that cannot be written is a warning only (MedPerf mounts it read-only)."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        print(f"warning: evaluate.log cannot be written ({error.strerror}); results are not affected", file=sys.stderr)
