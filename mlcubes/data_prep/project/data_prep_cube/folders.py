"""Looking into input folders and writing outputs that are either whole or absent."""

import contextlib
import errno
import os
import secrets
import stat
from pathlib import Path
from typing import BinaryIO

from data_prep_cube.errors import InputError, output_error

MAX_ID_BYTES = 180  # the longest suffix is 20 bytes, a file name has at most 255

# What the system answers where a file may be written but its folder may not, or where the file is a mount point.
_NO_NEIGHBOUR = (errno.EBUSY, errno.EXDEV, errno.EROFS, errno.EACCES, errno.EPERM)


class OutsideError(Exception):
    """A link that leaves the folder it lies in, or something that is no ordinary file."""


def check_input_folder(parameter: str, path: Path) -> None:
    """Refuse a folder that is missing or empty.

    Raises
    ------
    InputError
        mlcube creates a missing input folder without a word, so that an empty one nearly always is a wrong path.
    """
    spelling = f"check the spelling of {parameter}: mlcube creates a folder that does not exist and goes on"
    if not path.is_dir():
        raise InputError(f"{parameter} is no folder", spelling)
    try:
        empty = not any(path.iterdir())
    except OSError as error:
        raise InputError(f"{parameter} cannot be read", "make it readable for this user") from error
    if empty:
        raise InputError(f"{parameter} is empty, expected at least one case", spelling)


def check_apart(outputs: dict[str, Path], inputs: dict[str, Path]) -> None:
    """Refuse output folders that lie in each other or in an input.

    References inside ``output_path`` would be seen by the model, prepared cases inside ``data_path`` would be
    taken for subjects by the next run, and the alias map must be in neither.
    """
    named = [(name, path.resolve()) for name, path in outputs.items()]
    for name, path in named:
        for other_name, other in [pair for pair in named if pair[0] != name]:
            if path == other or other in path.parents:
                raise InputError(f"{name} is the same folder as {other_name} or lies in it", "give separate folders")
        for input_name, folder in inputs.items():
            source = folder.resolve()
            if path == source or source in path.parents:
                raise InputError(f"{name} is the same folder as {input_name} or lies in it", "give separate folders")


def is_usable_id(name: str) -> bool:
    """Say whether a folder name can be a case id: printable, and short enough to be followed by a suffix."""
    try:
        return name.isprintable() and len(name.encode()) <= MAX_ID_BYTES
    except UnicodeEncodeError:
        return False


def list_folders(path: Path) -> list[str]:
    """Sorted names of the folders in ``path``, hidden ones left out."""
    return sorted(entry.name for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def open_inside(root: Path, path: Path) -> BinaryIO:
    """Open an ordinary file that really lies below ``root``.

    Raises
    ------
    OutsideError
        If a link leads out of ``root`` or the target is a device, a pipe or a folder.
    OSError
        If the file cannot be opened.
    """
    real = path.resolve(strict=True)
    if not real.is_relative_to(root.resolve()):
        raise OutsideError
    # O_NONBLOCK: opening a named pipe must not wait for a writer.
    descriptor = os.open(real, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OutsideError
    return os.fdopen(descriptor, "rb")


def make_output_folder(parameter: str, path: Path) -> None:
    """Create an output folder, and fail early if it cannot be written."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / f".part-{secrets.token_hex(4)}"
        probe.mkdir()
        probe.rmdir()
    except OSError as error:
        raise output_error(parameter, error) from error


def write_text_whole(parameter: str, path: Path, text: str, mode: int = 0o644) -> None:
    """Write a small text file so that a reader sees the old or the new content, never a part.

    MedPerf's current release mounts an output *file* on its own. A mount point can neither be renamed over nor be
    given a neighbour, so that the text is then written into it at once.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    if path.exists() and not path.is_file():
        raise InputError(f"{parameter} is a folder or a device, expected a file name", f"correct {parameter}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            _replace_whole(path, text, mode)
        except OSError as error:
            if error.errno not in _NO_NEIGHBOUR or not path.is_file():
                raise
            _write_synced(path, text, os.O_TRUNC, mode)
    except OSError as error:
        raise output_error(parameter, error) from error


def _replace_whole(path: Path, text: str, mode: int) -> None:
    temporary = path.with_name(f".part-{secrets.token_hex(4)}")
    try:
        _write_synced(temporary, text, os.O_CREAT | os.O_EXCL, mode)
        temporary.replace(path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _write_synced(path: Path, text: str, flags: int, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | flags, mode)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
