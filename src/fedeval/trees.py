"""Walking folders that a stranger filled: any depth, any names, links never followed, also while they change.

Paths are of no use there: below a path of 4096 characters nothing can be opened by name, and `os.walk` and
`shutil.rmtree` call themselves once a level. Here each folder is opened by its name in the folder above.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True)
class Entry:
    """One entry of a tree.

    Attributes
    ----------
    parent : int
        Descriptor of the folder that holds it, valid until the next step of the walk.
    name : str
        Its name there.
    is_folder : bool
        Whether it is a folder (a link to one is not).
    left : bool
        A folder is met twice: when it is found, and, with True, after everything in it.
    """

    parent: int
    name: str
    is_folder: bool
    left: bool = False


def walk_tree(top: Path) -> Generator[Entry, None, None]:
    """Every entry below a folder. What cannot be opened is left out; a tree moved meanwhile ends the walk.

    A folder that denies its owner to look into it is opened up: space must not hide there.

    Raises
    ------
    OSError
        `top` is no folder that can be opened.
    """
    handle = _open_folder(str(top), None)
    trail: list[tuple[str, tuple[int, int], list[str]]] = []  # per level above: name of the child, identity, to do
    try:
        waiting = yield from _list_folder(handle)
        while waiting or trail:
            if waiting:
                name = waiting.pop()
                try:
                    below = _open_folder(name, handle)
                except OSError:
                    continue
                trail.append((name, _identity(handle), waiting))
                os.close(handle)
                handle = below
                waiting = yield from _list_folder(handle)
                continue
            above = os.open("..", _FOLDER, dir_fd=handle)
            os.close(handle)
            handle = above
            name, identity, waiting = trail.pop()
            if _identity(handle) != identity:
                return
            yield Entry(handle, name, is_folder=True, left=True)
    finally:
        os.close(handle)


def _list_folder(handle: int) -> Generator[Entry, None, list[str]]:
    """Entries of one folder as they are read, since there may be millions; returns the names of its folders."""
    folders = []
    with os.scandir(handle) as entries:
        for entry in entries:
            is_folder = entry.is_dir(follow_symlinks=False)
            if is_folder:
                folders.append(entry.name)
            yield Entry(handle, entry.name, is_folder)
    return folders


def _open_folder(name: str, parent: int | None) -> int:
    try:
        return os.open(name, _FOLDER, dir_fd=parent)
    except PermissionError:
        if not hasattr(os, "O_PATH"):  # Linux only
            raise
    locked = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    try:  # by descriptor, so that a link put in its place meanwhile is not followed
        os.chmod(f"/proc/self/fd/{locked}", 0o700)  # noqa: PTH101
        return os.open(f"/proc/self/fd/{locked}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    finally:
        os.close(locked)


def _identity(handle: int) -> tuple[int, int]:
    state = os.fstat(handle)
    return state.st_dev, state.st_ino


def measure_tree(top: Path, max_bytes: int, max_entries: int) -> tuple[int, int]:
    """Bytes on disk and number of entries below a folder; counting ends where either is above its maximum."""
    size = entries = 0
    with contextlib.suppress(OSError), contextlib.closing(walk_tree(top)) as walk:
        for entry in walk:
            if entry.left:
                continue
            entries += 1
            with contextlib.suppress(OSError):
                size += os.stat(entry.name, dir_fd=entry.parent, follow_symlinks=False).st_blocks * 512
            if size > max_bytes or entries > max_entries:
                break
    return size, entries


def give_tree(top: Path, uid: int, gid: int) -> None:
    """Hand a folder and everything in it to a user."""
    with contextlib.suppress(OSError):
        for entry in walk_tree(top):
            if not entry.left:
                with contextlib.suppress(FileNotFoundError):
                    os.chown(entry.name, uid, gid, dir_fd=entry.parent, follow_symlinks=False)
        os.lchown(top, uid, gid)


def remove_tree(top: Path) -> None:
    """Remove a folder whatever its depth and modes are; links are never followed; what cannot go stays."""
    with contextlib.suppress(OSError):
        for entry in walk_tree(top):
            if entry.left or not entry.is_folder:
                with contextlib.suppress(OSError):
                    _remove(entry)
        top.rmdir()


def _remove(entry: Entry) -> None:
    remove = os.rmdir if entry.is_folder else os.unlink
    try:
        remove(entry.name, dir_fd=entry.parent)
    except PermissionError:  # its folder may be read-only
        os.fchmod(entry.parent, 0o700)
        remove(entry.name, dir_fd=entry.parent)
