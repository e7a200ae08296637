"""Watching what a running task writes: size and number of files, and space that no file shows."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from pathlib import Path

from fedeval.engine.base import Breach
from fedeval.errors import DiskFullError
from fedeval.limits import Limits
from fedeval.trees import measure_tree

_FREE_SHARE = 0.1
"""When less than this share of the space that was free at the start is left, a container may be the cause unseen: what
it wrote to a deleted file that is still open shows in no folder."""


class OutputWatch:
    """Counts the output folders of one task against its limits.

    Parameters
    ----------
    folders : sequence of Path
        Existing folders on one file system; their sizes are added up.
    limits : Limits
        For the size and number of files.
    """

    def __init__(self, folders: Sequence[Path], limits: Limits) -> None:
        self._folders, self._limits = folders, limits
        self._next_look = 0.0
        self._free_at_start = self._free()
        self._hidden: tuple[int, int] | None = None  # bytes that no file shows, and bytes that were free then

    def look(self, now: float) -> Breach | None:
        """The breached limit, if one is; looks at most a tenth of the time. `now` is `time.monotonic()`."""
        if now < self._next_look or not self._folders:
            return None
        limits, size, files = self._limits, 0, 0
        for folder in self._folders:
            more_size, more_files = measure_tree(folder, limits.output_mb << 20, limits.output_files)
            size, files = size + more_size, files + more_files
        free = self._free()
        self._next_look = now + 10 * (time.monotonic() - now)
        if size > limits.output_mb << 20:
            return Breach("output_size", round(size / 2**20, 1), limits.output_mb, "MiB")
        if files > limits.output_files:
            return Breach("output_files", files, limits.output_files, "files")
        hidden = self._free_at_start - free - size
        if hidden > limits.output_mb << 20 and free < self._free_at_start * _FREE_SHARE:
            self._hidden = (hidden, free)
            return Breach("output_size", round(hidden / 2**20, 1), limits.output_mb, "MiB")
        return None

    def check_space_back(self) -> None:
        """After a breach for space that no file shows: once the task is gone, its space must be there again.

        Raises
        ------
        DiskFullError
            It is not, so somebody else took it: a fault of the platform, never of the submission.
        """
        if self._hidden is None:
            return
        missing, free = self._hidden
        came_back = self._free() - free
        if came_back < missing // 2:
            raise DiskFullError(
                "the disk of the storage filled up while a submission ran, and not by it",
                f"{free >> 20} MiB were free, {max(came_back, 0) >> 20} MiB came back when it was ended",
                "free some space, or choose another disk with --storage DIR; the same command continues",
            )

    def _free(self) -> int:
        return shutil.disk_usage(self._folders[0]).free if self._folders else 0
