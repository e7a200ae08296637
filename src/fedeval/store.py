"""The storage folder: where data, predictions, results and logs lie, and writing there all or nothing."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fedeval.errors import DiskFullError, StorageError
from fedeval.trees import remove_tree


def storage_error(err: OSError, what: str, path: Path) -> StorageError:
    """The clear error for a failed write below the storage."""
    if err.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFullError(
            f"{what}: the disk is full", f"no space left at {path}; nothing incomplete was kept",
            "free some space, or choose another disk with --storage DIR",
        )  # fmt: skip
    return StorageError(
        f"{what}: the storage cannot be written", f"{path}: {err.strerror}; expected a writable folder",
        "choose another folder with --storage DIR or MEDPERF_STORAGE",
    )  # fmt: skip


@contextlib.contextmanager
def storing(what: str, path: Path) -> Iterator[None]:
    """Turn the operating system's refusal to write into one clear error."""
    try:
        yield
    except OSError as err:
        raise storage_error(err, what, path) from err


def check_space(folder: Path, needed: int) -> None:
    """Refuse to go on where less than `needed` bytes are free: a full disk is a fault of the platform.

    Raises
    ------
    DiskFullError
        With what is free.
    """
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise DiskFullError(
            "the disk of the storage is full", f"{free >> 20} MiB free; expected {-(-needed >> 20)} MiB for this step",
            "free some space, or choose another disk with --storage DIR; the same command continues",
        )  # fmt: skip


class Store:
    """Paths below a storage folder. Complete things have their final name; all else lies in ``tmp/``.

    Raises
    ------
    StorageError
        The folder cannot be made or written.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        with storing("opening the storage", root):
            for part in ("data", "cubes", "results", "logs", "predictions", "tmp"):
                (root / part).mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=root / "tmp"):
                pass
            self._remove_leftovers()

    def _remove_leftovers(self) -> None:
        """Remove scratch folders of runners that are gone."""
        for folder in sorted((self.root / "tmp").iterdir()):
            owner = re.search(r"-((\d+)\.(\d+)\.\d+)-[^-]*$", folder.name)
            here = _identity(os.getpid()).split(".")[0]
            # A runner in another pid namespace, e.g. in a container, cannot be seen from here: its folders stay.
            if owner and owner.group(2) == here and _identity(int(owner.group(3))) != owner.group(1):
                remove_tree(folder)

    @property
    def logs(self) -> Path:
        """Folder of the log files."""
        return self.root / "logs"

    @contextlib.contextmanager
    def scratch(self, name: str, keep: bool = False) -> Iterator[Path]:
        """A new folder in ``tmp/``, removed at the end unless `keep`."""
        with storing("making a scratch folder", self.root):
            folder = Path(tempfile.mkdtemp(prefix=f"{name}-{_identity(os.getpid())}-", dir=self.root / "tmp"))
        try:
            yield folder
        finally:
            if not keep:
                remove_tree(folder)

    def publish(self, complete: Path, final: Path, keep_existing: bool = False) -> None:
        """Give a complete folder its final name; what had the name before is removed after.

        The storage is one file system, so both steps are renames. When another process published the same name in
        between, the later one wins; with `keep_existing` the earlier one, which may be in use: for things that are
        addressed by their content.
        """
        with storing("writing results", final):
            final.parent.mkdir(parents=True, exist_ok=True)
            if keep_existing:
                with contextlib.suppress(OSError):
                    complete.rename(final)
                if final.is_dir():
                    return
            for _ in range(5):
                aside = Path(tempfile.mkdtemp(prefix=f"replaced-{_identity(os.getpid())}-", dir=self.root / "tmp"))
                with contextlib.suppress(FileNotFoundError):
                    final.rename(aside / "old")
                try:
                    complete.rename(final)
                except OSError as err:
                    if err.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                        raise
                    continue
                finally:
                    remove_tree(aside)
                return
        raise StorageError("writing results", f"{final} keeps being replaced by another run", "run one at a time")


def _identity(pid: int) -> str:
    """Pid namespace, process id and start time, so that a reused process id is no alibi."""
    try:
        namespace = Path("/proc/self/ns/pid").stat().st_ino
        return f"{namespace}.{pid}.{Path(f'/proc/{pid}/stat').read_text().rsplit(')', 1)[1].split()[19]}"
    except (OSError, IndexError):
        return f"0.{pid}.0"


def write_text(path: Path, text: str) -> None:
    """Write a file all or nothing: a temporary neighbour, synced, then renamed.

    Raises
    ------
    StorageError, DiskFullError
        It cannot be written; no part of it is left.
    """
    neighbour = path.with_name(f".{path.name}.partial")
    try:
        with storing(f"writing {path.name}", path.parent):
            with neighbour.open("w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            neighbour.replace(path)
    finally:
        neighbour.unlink(missing_ok=True)


def folder_name(text: str, limit: int = 60) -> str:
    """A safe folder name that resembles `text`: letters, digits, ``.``, ``_`` and ``-``."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-.")[:limit] or "unnamed"


def digest_of(*parts: Any) -> str:
    """SHA-256, in hexadecimal, of JSON values; the address of a step's outputs."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def digest_tree(folder: Path) -> str:
    """SHA-256, in hexadecimal, of the names and bytes of all files below a folder."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(f"{path.relative_to(folder).as_posix()}\0{path.stat().st_size}\0".encode())
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()
