"""The singularity engine: apptainer or singularity on PATH. Argument lists, never a shell string.

The docker image is converted once to a SIF file, kept by the digest of the image, and run with a clean environment,
contained file systems, no network and no home folder.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from fedeval.cube import CubeManifest
from fedeval.engine.base import ImageRecord, TaskCall, TaskOutcome
from fedeval.engine.child import ChildRunner
from fedeval.engine.docker_engine import DockerEngine
from fedeval.engine.gpu_limit import has_gpu
from fedeval.errors import EngineDownError, EngineForbiddenError, EngineMissingError, ImageError
from fedeval.invocation import Binding
from fedeval.log import show_safe


class SingularityEngine:
    """Runs tasks with apptainer or singularity.

    Parameters
    ----------
    cache : Path
        Folder of the SIF files.

    Raises
    ------
    EngineMissingError
        Neither program is on PATH.
    """

    name = "singularity"
    not_enforced: tuple[str, ...] = ("memory", "processes", "CPU share", "shared memory")

    def __init__(self, cache: Path) -> None:
        self._program, self.version = _find_program()
        self._cache = cache
        self._child = ChildRunner()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._child.stop()

    def get_image(self, manifest: CubeManifest, build: bool, on_line: Callable[[str], None]) -> ImageRecord:
        """Convert the docker image: from the docker engine where one answers (built there when a Dockerfile is beside
        the cube), else from the registry.

        Raises
        ------
        ImageError
            The image cannot be found or converted.
        """
        try:
            with DockerEngine() as docker:
                record = docker.get_image(manifest, build, on_line)
            source, key = f"docker-daemon:{manifest.image}", record.digest.removeprefix("sha256:")
        except (EngineMissingError, EngineDownError, EngineForbiddenError):
            record, source = None, f"docker://{manifest.image}"
            key = hashlib.sha256(manifest.image.encode()).hexdigest()
        sif = self._cache / f"{key}.sif"
        if not sif.is_file():
            self._convert(source, sif, manifest, on_line)
        if record is not None:
            return record
        with sif.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return ImageRecord(manifest.image, f"sha256:{digest}", "pulled")

    def _convert(self, source: str, sif: Path, manifest: CubeManifest, on_line: Callable[[str], None]) -> None:
        on_line(f"converting {source}")
        sif.parent.mkdir(parents=True, exist_ok=True)
        # A name of its own: two runners may convert the same image at once, and the later one wins.
        with tempfile.TemporaryDirectory(prefix=".converting-", dir=sif.parent) as folder:
            partial = Path(folder) / "image.sif"
            command = [self._program, "build", "--force", str(partial), source]
            done = subprocess.run(command, capture_output=True, text=True, errors="replace", stdin=subprocess.DEVNULL)
            if done.returncode or not partial.is_file():
                last = (done.stderr.strip().splitlines() or ["no output"])[-1]
                raise ImageError(
                    f"the image {manifest.image} of cube {manifest.name} cannot be converted", show_safe(last, 200),
                    "check free space in the storage and in APPTAINER_TMPDIR, and that the image exists",
                )  # fmt: skip
            partial.replace(sif)

    def run(self, call: TaskCall) -> TaskOutcome:
        """Run one task; see `fedeval.engine.base.Engine`."""
        environment = {"PATH": os.environ.get("PATH", os.defpath), "LANG": "C.UTF-8"}
        return self._child.run(call, self._command(call), environment)

    def _command(self, call: TaskCall) -> list[str]:
        sif = self._cache / f"{call.image.digest.removeprefix('sha256:')}.sif"
        if not sif.is_file():  # pulled from a registry: kept by the name's digest
            sif = self._cache / f"{hashlib.sha256(call.manifest.image.encode()).hexdigest()}.sif"
        verb = ["exec"] if call.invocation.entrypoint else ["run"]
        options = ["--cleanenv", "--containall", "--no-home", "--net", "--network", "none", "--pwd", "/"]
        options += ["--env", "PYTHONUNBUFFERED=1"]
        if call.manifest.accelerator_count and has_gpu():
            options.append("--nv")
        for binding in call.invocation.bindings:
            options += _bind(binding)
        return [self._program, *verb, *options, str(sif), *call.invocation.entrypoint, *call.invocation.arguments]


def _find_program() -> tuple[str, str]:
    """Path and version of apptainer or singularity; Debian's `singularity` is a game."""
    found = "neither apptainer nor singularity on PATH"
    for program in filter(None, map(shutil.which, ("apptainer", "singularity"))):
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            told = subprocess.run(
                [program, "--version"], capture_output=True, text=True, errors="replace", stdin=subprocess.DEVNULL,
                timeout=30,
            ).stdout  # fmt: skip
            if version := re.match(r"(?:apptainer|singularity\S*) version (\S+)", told):
                return program, show_safe(version.group(1), 40)
        found = f"{program} does not tell a version as apptainer does"
    raise EngineMissingError("Singularity is not installed", found, "install apptainer, or use --platform=docker")


def _bind(binding: Binding) -> list[str]:
    """Options for one mount: in the form that every version knows, unless the path holds what separates its parts."""
    host, inside = str(binding.host), binding.inside
    if not set(":,\\") & set(host):
        return ["--bind", f"{host}:{inside}:{'ro' if binding.read_only else 'rw'}"]
    quoted = [f'"{part}"' for part in (f"source={host}".replace('"', '""'), f"destination={inside}")]
    return ["--mount", ",".join(["type=bind", *quoted, *(["ro"] if binding.read_only else [])])]


__all__ = ["SingularityEngine"]
