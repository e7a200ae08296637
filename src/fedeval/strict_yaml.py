"""YAML from strangers: safe types only, no duplicate keys, no aliases, bounded size."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from fedeval.log import show_safe

MAX_BYTES = 1 << 20

_BROKEN = (yaml.YAMLError, ValueError, RecursionError, ArithmeticError, LookupError, AttributeError, TypeError)
"""What PyYAML raises on text and on scalars that are none, e.g. ``!!int x``, ``2024-99-99`` or 5000 digits."""


class _StrictLoader(yaml.SafeLoader):
    """SafeLoader that refuses duplicate keys (PyYAML keeps the last one silently) and aliases (bombs)."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            event: Any = self.peek_event()  # type: ignore[no-untyped-call]
            raise yaml.constructor.ConstructorError(None, None, "aliases are not allowed", event.start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, Hashable) and key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"duplicate key {key!r}", key_node.start_mark)
            if isinstance(key, Hashable):
                seen.add(key)
        return super().construct_mapping(node, deep)


def load_mapping(path: Path, error: type[Exception], what: str, max_bytes: int = MAX_BYTES) -> dict[str, Any]:
    """Read one YAML mapping from a regular file; a link is not followed, since a container may have left it.

    Parameters
    ----------
    path : Path
        The file.
    error : type of FedevalError
        What is raised with (what, found, next step).
    what : str
        Name of the thing for the message, e.g. ``"manifest of cube model"``.
    max_bytes : int
        Larger files are refused unread.
    """
    try:
        raw = _read_regular(path, max_bytes + 1)
    except OSError as err:
        found = "a link; expected a regular file" if err.errno == errno.ELOOP else err.strerror
        raise error(f"{what} cannot be read", f"{path}: {found}", "check the path and its permissions") from err
    if len(raw) > max_bytes:
        raise error(f"{what} is too large", f"{path}: over {max_bytes} bytes")
    try:
        content = yaml.load(raw.decode("utf-8"), Loader=_StrictLoader)  # a SafeLoader: plain types only
    except _BROKEN as err:
        raise error(f"{what} is not valid YAML", f"{path}: {_yaml_place(err)}", "correct the file") from err
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise error(f"{what} is not a mapping", f"{path}: {type(content).__name__}; expected 'key: value' lines")
    return content


def _read_regular(path: Path, size: int) -> bytes:
    with open(path, "rb", opener=_open_unfollowed) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "not a regular file")
        return file.read(size)


def _open_unfollowed(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)


def _yaml_place(err: Exception) -> str:
    if isinstance(err, yaml.MarkedYAMLError):
        mark = err.problem_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        return place + show_safe(err.problem or "broken")
    return show_safe(str(err), 200)
