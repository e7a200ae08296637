"""``medperf doctor``: the container engine, the images, and something to try the limits with."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import docker
import requests
from docker.errors import DockerException, ImageNotFound

from fedeval.cube import CubeManifest
from fedeval.doctor.finding import Finding, judge
from fedeval.doctor.image import FLAGS, build_archive
from fedeval.doctor.limits import PROBE, Prober
from fedeval.engine.base import Engine, ImageRecord
from fedeval.engine.image_build import LOCAL_BASE
from fedeval.errors import EngineDownError

PATIENCE_S = 10
"""How long the engine may take to answer."""

_OLDEST_API = (1, 40)


def connect(timeout_s: int = PATIENCE_S) -> docker.DockerClient:
    """A client whose engine answered within `timeout_s`.

    Raises
    ------
    EngineDownError
        It accepts connections and does not answer.
    DockerException, RequestException
        There is none.
    """
    try:
        client = docker.from_env(timeout=timeout_s)
        client.ping()
    except (requests.exceptions.RequestException, DockerException) as err:
        if not any(isinstance(cause, requests.exceptions.Timeout) for cause in (err, err.__cause__)):
            raise
        raise EngineDownError(
            "Docker does not answer", f"nothing within {timeout_s:g} s", "restart the engine: systemctl restart docker"
        ) from err
    return client


@dataclass(frozen=True)
class EngineFacts:
    """What the engine says of itself, and this machine's time just before and after it was asked."""

    version: Mapping[str, Any]
    info: Mapping[str, Any]
    before: float
    after: float

    @property
    def root(self) -> Path | None:
        """Where it keeps images, if that is a folder of this machine."""
        folder = Path(str(self.info.get("DockerRootDir") or "/nonexistent"))
        return folder if folder.is_dir() else None

    @property
    def runtimes(self) -> frozenset[str]:
        """What could hand GPUs to containers: runtimes, and NVIDIA's programs on PATH."""
        programs = ("nvidia-container-runtime-hook", "nvidia-container-cli")
        found = [program for program in programs if shutil.which(program)]
        found += ["cdi"] if self.info.get("CDISpecDirs") else []
        return frozenset([*(self.info.get("Runtimes") or {}), *found])


def load_facts(client: docker.DockerClient) -> EngineFacts:
    """Ask the engine for its version and state."""
    version = client.version()
    before = time.time()
    info: Mapping[str, Any] = client.info()
    return EngineFacts(version, info, before, time.time())


def check_engine(facts: EngineFacts) -> Iterator[Finding]:
    """Version, storage driver, cgroups, and the engine's clock beside this machine's."""
    version, info = facts.version, facts.info
    api = tuple(map(int, str(version.get("ApiVersion", "0.0")).split(".")[:2]))
    yield judge(
        "engine", api >= _OLDEST_API,
        f"docker {version.get('Version')}, API {version.get('ApiVersion')}, storage driver {info.get('Driver')}",
        "an engine that answers, API 1.40 or later (Docker 19.03)", "bring the engine up to date",
    )  # fmt: skip
    yield from _check_cgroups(info)
    yield _check_engine_clock(str(info.get("SystemTime", "")), facts.before, facts.after)


def _check_cgroups(info: Mapping[str, Any]) -> Iterator[Finding]:
    lacking = [name for name, key in (("memory", "MemoryLimit"), ("pids", "PidsLimit")) if not info.get(key, False)]
    measured = f"cgroup v{info.get('CgroupVersion', '1')}, driver {info.get('CgroupDriver')}"
    yield judge(
        "cgroup", not lacking, measured + (f", no limit of {', '.join(lacking)}" if lacking else ""),
        "memory and pids can be limited",
        "enable these controllers: systemd.unified_cgroup_hierarchy=1 on the kernel's command line"
        " (rootless engines: delegate them to the user)",
    )  # fmt: skip
    if str(info.get("CgroupVersion", "1")) == "1":
        yield judge(
            "cgroup_swap", bool(info.get("SwapLimit", False)),
            "swap can be limited" if info.get("SwapLimit") else "swap cannot be limited",
            "memory limits include swap", "boot with swapaccount=1, or turn swap off: swapoff -a", "warning",
        )  # fmt: skip


def _check_engine_clock(stated: str, before: float, after: float) -> Finding:
    engine = datetime.fromisoformat(stated[:19] + "+00:00").timestamp() if stated.endswith("Z") else None
    engine = datetime.fromisoformat(stated).timestamp() if engine is None else engine
    apart = max(before - engine - 1, engine - after, 0.0)  # the engine's answer is cut to whole seconds
    return judge(
        "clock_engine", apart <= 2, f"{apart:.1f} s apart", "the engine's clock within 2 s of this machine's",
        "let both follow the same time server; a virtual machine of the engine may need a restart",
        "failed" if apart > 60 else "warning",
    )  # fmt: skip


def check_images(client: docker.DockerClient, cubes: Mapping[str, CubeManifest]) -> Iterator[Finding]:
    """Whether the cubes' images are here, or what it takes to get them."""
    for role, cube in cubes.items():
        try:
            size = int(client.images.get(cube.image).attrs["Size"])
            yield Finding(f"image_{role}", "ok", f"{cube.image}, {size / 1e6:.0f} MB", "present")
        except ImageNotFound:
            buildable = cube.build_file.is_file()
            way = "built" if buildable else "pulled"
            yield Finding(
                f"image_{role}", "warning", f"{cube.image} is not here; it will be {way}", "present",
                "scripts/build_cubes (without a registry: scripts/base_image first)" if buildable
                else f"docker pull {cube.image}, while there is a network",
            )  # fmt: skip


@contextmanager
def open_prober(
    client: docker.DockerClient, engine: Engine, references: Iterable[str], folder: Path
) -> Iterator[Prober]:
    """A prober with the first image that is here; with none, one that is made of this machine's Python."""
    for reference in references:
        try:
            attributes = client.images.get(reference).attrs
        except ImageNotFound:
            continue
        config = attributes.get("Config") or {}
        started = (config.get("Entrypoint") or config.get("Cmd") or ["python3"])[0]
        python = started if "python" in Path(started).name else "python3"
        names = frozenset(str(entry).split("=", 1)[0] for entry in config.get("Env") or ())
        yield Prober(engine, ImageRecord(reference, str(attributes["Id"]), "present"), (python,), names, folder)
        return
    tag = f"fedeval-doctor:{os.getpid()}"
    client.api.import_image_from_data(build_archive(PROBE), *tag.split(":"))
    try:
        command = (os.path.realpath(sys.executable), *FLAGS)
        yield Prober(engine, ImageRecord(tag, str(client.images.get(tag).id), "built"), command, frozenset(), folder)
    finally:
        client.images.remove(tag, force=True)


def probe_images(cubes: Mapping[str, CubeManifest]) -> list[str]:
    """Images to try the limits with, in order."""
    own = [cubes[role].image for role in ("metrics", "data_prep", "model") if role in cubes]
    return [*own, os.environ.get("FEDEVAL_BASE_IMAGE") or LOCAL_BASE]
