"""The process engine: a cube's mlcube.py run by this Python, where no container engine is at hand.

Isolation is a process group, a scrubbed environment, resource limits of single processes and a deadline; with
bubblewrap also namespaces. That is less than a container: so the engine refuses cubes that do not come from this
checkout unless it is told otherwise, and says what is not enforced.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from fedeval.cube import CubeManifest
from fedeval.engine.base import ImageRecord, TaskCall, TaskOutcome, base_environment
from fedeval.engine.child import ChildRunner
from fedeval.engine.gpu_limit import has_gpu, mps_settings
from fedeval.engine.sandbox import find_bubblewrap, sandbox_command
from fedeval.errors import ImageError, UnsafeManifestError

_LIBRARIES = ("numpy", "scipy", "nibabel", "SimpleITK", "deflate")
_SKIPPED = {"__pycache__", ".pytest_cache", "build"}


class ProcessEngine:
    """Runs ``mlcube.py`` of a cube as a child process in a group of its own.

    Parameters
    ----------
    trusted : Path
        Cubes below it may run.
    storage : Path
        Hidden from the cubes, but for the folders of a task.
    allow_foreign : bool
        Trust all others too.
    """

    name = "process"
    version = ".".join(map(str, sys.version_info[:3]))

    def __init__(self, trusted: Path, storage: Path, allow_foreign: bool = False) -> None:
        self.not_enforced: tuple[str, ...] = ("memory of all processes together", "number of processes")
        if has_gpu():
            self.not_enforced += ("memory of a process",)
        if find_bubblewrap() is None:
            self.not_enforced += ("network isolation", "read-only inputs", "hidden labels", "temporary space")
        hidden = [Path("/run"), Path("/tmp"), storage]
        with contextlib.suppress(RuntimeError):  # a user without a home folder
            hidden.append(Path.home())
        self._hidden = tuple(dict.fromkeys(hidden))
        self._trusted = trusted.resolve()
        self._allow_foreign = allow_foreign
        self._child = ChildRunner()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._child.stop()

    def get_image(self, manifest: CubeManifest, build: bool, on_line: Callable[[str], None]) -> ImageRecord:
        """Digest of the cube's code and of the libraries it runs with.

        Raises
        ------
        UnsafeManifestError
            The cube does not come from this checkout.
        ImageError
            There is no mlcube.py to run.
        """
        folder = manifest.build_context
        if not self._allow_foreign and not folder.resolve().is_relative_to(self._trusted):
            raise UnsafeManifestError(
                f"cube {manifest.name} is not one of this checkout's, and the process engine cannot isolate it",
                f"{folder}; expected a folder below {self._trusted}",
                "use --platform=docker, or --allow-foreign-code if you wrote it yourself",
            )
        script = folder / "mlcube.py"
        if not script.is_file():
            raise ImageError(
                f"cube {manifest.name} cannot run without a container",
                f"no {script}; expected the program that the image starts",
                "use --platform=docker",
            )
        return ImageRecord(f"{manifest.name} (checkout)", code_digest(folder), "checkout")

    def run(self, call: TaskCall) -> TaskOutcome:
        """Run one task; see `fedeval.engine.base.Engine`."""
        program = str(call.manifest.build_context / "mlcube.py")
        environment = {
            "PATH": os.environ.get("PATH", os.defpath),
            "PYTHONDONTWRITEBYTECODE": "1",
            **base_environment("/tmp"),
            **mps_settings(call),
        }
        command = [sys.executable, program, *call.invocation.host_arguments]
        return self._child.run(call, [*sandbox_command(call, self._hidden), *command], environment)


def code_digest(folder: Path) -> str:
    """SHA-256 over the names and bytes of a cube's code, the Python version and the versions of its libraries."""
    digest = hashlib.sha256(sys.version.encode())
    for library in _LIBRARIES:
        try:
            digest.update(f"{library}=={importlib.metadata.version(library)}\n".encode())
        except importlib.metadata.PackageNotFoundError:
            continue
    for file in sorted(folder.rglob("*")):
        if file.is_file() and file.suffix != ".so" and not _SKIPPED & set(file.relative_to(folder).parts):
            digest.update(f"{file.relative_to(folder).as_posix()}\0{file.stat().st_size}\0".encode())
            digest.update(file.read_bytes())
    return f"sha256:{digest.hexdigest()}"
