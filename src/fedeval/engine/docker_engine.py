"""The docker engine, through the Engine's API. Deadline, kill and result go by the engine's own state.

A container is named and labelled, started detached, watched by this process, and always removed. Labels carry the
deadline and the runner's process, so that containers of a runner that was killed are found and removed at the next
start.
"""

from __future__ import annotations

import os
import posixpath
import shutil
import stat
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import docker
from docker.errors import APIError, BuildError, ImageNotFound, NotFound
from docker.types import LogConfig, Mount

from fedeval.cube import CubeManifest
from fedeval.engine.base import (
    ImageRecord,
    TaskCall,
    TaskOutcome,
    base_environment,
)
from fedeval.engine.container_watch import ENGINE_FAULTS, check_gone, start_error, watch_container
from fedeval.engine.gpu_limit import has_gpu
from fedeval.engine.image_build import build_image
from fedeval.errors import (
    EngineDownError,
    EngineFaultError,
    EngineForbiddenError,
    EngineMissingError,
    FedevalError,
    ImageError,
    InputError,
)
from fedeval.gpu import MPS_INSIDE, find_mps_folder, mps_environment
from fedeval.log import LOGGER, show_safe
from fedeval.trees import give_tree

LABEL = "org.fedeval.runner"
DEADLINE_LABEL = "org.fedeval.deadline"
NOBODY = 65534
_ORPHAN_GRACE_S = 600
EMULATED_HOME = "/home/fedeval"


def runner_identity(pid: int | None = None) -> str:
    """Identity of a runner process: boot, pid namespace, process id and start time (ids are reused)."""
    pid = os.getpid() if pid is None else pid
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        namespace = Path("/proc/self/ns/pid").stat().st_ino
        start = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[19]
    except (OSError, IndexError):
        return f"unknown:0:{pid}:0"
    return f"{boot}:{namespace}:{pid}:{start}"


def is_orphan(owner: str, deadline: str, now: float) -> bool:
    """Whether a container's runner is gone.

    A runner in another pid namespace cannot be seen from here; its containers count as left behind only well after
    their deadline.
    """
    fields = owner.split(":")
    if len(fields) != 4 or not fields[2].isdigit():
        return True
    if fields[:2] == runner_identity().split(":")[:2]:
        return runner_identity(int(fields[2])) != owner
    if fields[0] != runner_identity().split(":")[0]:
        return True
    return not deadline.isdigit() or now > int(deadline) + _ORPHAN_GRACE_S


def container_user() -> tuple[int, int]:
    """The uid and gid a task runs as: the caller's, but never root's."""
    uid, gid = os.getuid(), os.getgid()
    return (uid, gid) if uid else (NOBODY, NOBODY)


@dataclass(frozen=True)
class Emulation:
    """Run an image the way a converted SIF behaves: no WORKDIR, a home of its own that is empty, a small /tmp.

    Attributes
    ----------
    tmp_mb : int
        Size of /tmp, /var/tmp and the home folder: 64 as in apptainer 1.4, 16 for the stricter older versions.
    """

    tmp_mb: int = 64


class DockerEngine:
    """Runs tasks in containers of a Docker (or podman) engine.

    Parameters
    ----------
    emulation : Emulation, optional
        Behave as after conversion to singularity.
    gpu : int, optional
        Hand out this GPU alone; else as many as a cube asks for.

    Raises
    ------
    EngineMissingError, EngineDownError, EngineForbiddenError
        On construction, when no engine can be used: three different answers.
    """

    name = "docker"
    not_enforced: tuple[str, ...] = ()

    def __init__(self, emulation: Emulation | None = None, gpu: int | None = None) -> None:
        self._gpu = gpu
        self._emulation = emulation
        self._client = _connect()
        version = self._client.version()
        self.version = str(version.get("Version", "unknown"))
        self._live: set[str] = set()
        self.remove_orphans()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for container in sorted(self._live):
            self._remove(container)
        self._client.close()

    def get_image(self, manifest: CubeManifest, build: bool, on_line: Callable[[str], None]) -> ImageRecord:
        """Build when a Dockerfile is beside the cube, else take the image that is present, else pull.

        A build on unchanged sources is answered by the engine's cache, so the image is never older than its sources.

        Raises
        ------
        ImageError
            None of the three works.
        """
        if build and manifest.build_file.is_file():
            digest = build_image(self._client.api, manifest, on_line)
            return ImageRecord(manifest.image, digest, "built")
        try:
            return ImageRecord(manifest.image, str(self._client.images.get(manifest.image).id), "present")
        except ImageNotFound:
            on_line(f"pulling {manifest.image}")
        try:
            self._client.images.pull(manifest.image)
            return ImageRecord(manifest.image, str(self._client.images.get(manifest.image).id), "pulled")
        except ENGINE_FAULTS as err:
            raise ImageError(
                f"image {manifest.image} of cube {manifest.name} is not on this machine and cannot be pulled",
                show_safe(str(err), 200),
                f"correct docker.image in mlcube.yaml, or put a Dockerfile at {manifest.build_file}",
            ) from err

    def run(self, call: TaskCall) -> TaskOutcome:
        """Run one task; see `fedeval.engine.base.Engine`."""
        called = time.monotonic()
        for binding in call.invocation.bindings:
            if binding.read_only:
                check_readable(binding.host, f"{call.invocation.cube}, task {call.invocation.task}")
        for folder in call.invocation.output_dirs:
            _give(folder, *container_user())
        try:
            container = self._create(call)
            try:
                outcome = watch_container(self._client.api, container, call, called, self._gpu)
            finally:
                self._remove(container)
            check_gone(container)
            return outcome
        except ENGINE_FAULTS as err:
            raise EngineFaultError(
                f"the docker engine failed during {call.invocation.cube}, task {call.invocation.task}",
                show_safe(str(err), 300),
                "run the same command again; this is not counted against the submission",
            ) from err
        finally:
            for folder in call.invocation.output_dirs:
                if os.getuid() == 0:
                    give_tree(folder, os.getuid(), os.getgid())

    def remove_orphans(self) -> list[str]:
        """Remove containers whose runner is dead; their names."""
        removed = []
        try:
            for container in self._client.containers.list(all=True, filters={"label": LABEL}, ignore_removed=True):
                labels = container.labels
                if is_orphan(labels.get(LABEL, ""), labels.get(DEADLINE_LABEL, ""), time.time()):
                    self._remove(str(container.id))
                    removed.append(str(container.name))
        except ENGINE_FAULTS as err:
            LOGGER.warning("orphans could not be looked for: %s", show_safe(str(err)))
        for name in removed:
            LOGGER.warning("removed container %s of a runner that is gone", name)
        return removed

    def _create(self, call: TaskCall) -> str:
        api, limits = self._client.api, call.limits
        uid, gid = container_user()
        gpus, gpu_environment, gpu_mounts = _gpu_settings(call, self._gpu)
        emulation = self._emulation
        tmp_mb = emulation.tmp_mb if emulation else limits.tmp_mb
        tmpfs = dict.fromkeys(("/tmp", "/var/tmp"), f"size={tmp_mb}m,mode=1777,nosuid,nodev")
        for path in _image_volumes(api, call):  # as the engine makes them, they are disk without a limit
            tmpfs.setdefault(path, f"size={tmp_mb}m,mode=1777,nosuid,nodev")
        if emulation:
            tmpfs[EMULATED_HOME] = f"size={tmp_mb}m,uid={uid},gid={gid},mode=700,nosuid,nodev"
        host = api.create_host_config(
            mounts=[
                Mount(binding.inside, str(binding.host), type="bind", read_only=binding.read_only)
                for binding in call.invocation.bindings
            ] + gpu_mounts,
            network_mode="none", read_only=True, init=True, cap_drop=["ALL"], security_opt=["no-new-privileges"],
            tmpfs=tmpfs,
            mem_limit=f"{limits.memory_mb}m", memswap_limit=f"{limits.memory_mb}m", pids_limit=limits.pids,
            shm_size=f"{limits.shm_mb}m", nano_cpus=int(limits.cpus * 1e9) if limits.cpus else None,
            log_config=LogConfig(type="json-file", config={"max-size": f"{limits.log_mb}m", "max-file": "1"}),
            device_requests=gpus or None,
        )  # fmt: skip
        try:
            made = api.create_container(
                call.image.digest, command=list(call.invocation.arguments), host_config=host, user=f"{uid}:{gid}",
                entrypoint=list(call.invocation.entrypoint) or None,
                environment={**base_environment(EMULATED_HOME if emulation else "/tmp"), **gpu_environment},
                working_dir="/tmp" if emulation else None,
            use_config_proxy=False,  # a proxy of the host may carry a password
                name=f"fedeval-{call.invocation.task.replace('_', '-')}-{uuid.uuid4().hex[:12]}", network_disabled=True,
                labels={LABEL: runner_identity(), DEADLINE_LABEL: f"{time.time() + call.budget_s:.0f}"},
            )  # fmt: skip
        except APIError as err:
            raise start_error(call, err) if err.status_code == 400 else err from err
        self._live.add(made["Id"])
        return str(made["Id"])

    def _remove(self, container: str) -> None:
        """Kill and remove; asked again until the engine has forgotten it."""
        for _ in range(10):
            try:
                self._client.api.remove_container(container, force=True, v=True)
            except NotFound:
                break
            except ENGINE_FAULTS as err:
                LOGGER.warning("removal of %s: %s", container[:12], show_safe(str(err)))
                time.sleep(0.5)
        self._live.discard(container)


def _image_volumes(api: docker.APIClient, call: TaskCall) -> list[str]:
    """Folders that the image declares with VOLUME, but for those where the task's own paths are mounted."""
    found = api.inspect_image(call.image.digest)["Config"].get("Volumes") or {}  # type: ignore[no-untyped-call]
    own = {binding.inside for binding in call.invocation.bindings}
    return sorted({posixpath.normpath("/" + path.strip("/")) for path in found} - own)


def _gpu_settings(
    call: TaskCall, gpu: int | None
) -> tuple[list[docker.types.DeviceRequest], dict[str, str], list[Mount]]:
    """Device request, environment and mounts of a task: no GPU unless its cube asks for one and there is one.

    An MPS daemon's pipes are mounted only where the site points to them with ``CUDA_MPS_PIPE_DIRECTORY``: half a set-up
    makes CUDA fail.
    """
    count = call.manifest.accelerator_count
    if not count or not has_gpu():
        return [], {"NVIDIA_VISIBLE_DEVICES": "void"}, []  # also where nvidia is the engine's default runtime
    folder = find_mps_folder(container_user()[0]) if os.environ.get("CUDA_MPS_PIPE_DIRECTORY") else None
    if folder is None:
        return [_device_request(count, gpu)], {}, []
    mount = Mount(MPS_INSIDE, str(folder), type="bind", read_only=True)
    return [_device_request(count, gpu)], mps_environment(call.limits.gpu_memory_mb, MPS_INSIDE, count), [mount]


def _device_request(count: int, gpu: int | None) -> docker.types.DeviceRequest:
    if gpu is None:
        return docker.types.DeviceRequest(count=count, capabilities=[["gpu"]])
    return docker.types.DeviceRequest(device_ids=[str(gpu)], capabilities=[["gpu"]])


def _connect() -> docker.DockerClient:
    try:
        client = docker.from_env(timeout=120)
        client.ping()
        return client
    except ENGINE_FAULTS as err:
        raise _connection_error(err) from err


def _connection_error(err: Exception) -> FedevalError:
    text = str(err)
    process = "or run without containers: --platform=process"
    if "Permission denied" in text or "PermissionError" in text:
        return EngineForbiddenError(
            "Docker does not let this user in", f"user id {os.getuid()} may not open the engine's socket",
            f"ask for membership of the group 'docker' and log in again, {process}",
        )  # fmt: skip
    installed = any(shutil.which(program) for program in ("docker", "dockerd", "podman"))
    if not installed and not os.environ.get("DOCKER_HOST"):
        return EngineMissingError(
            "Docker is not installed", "no docker program on PATH; expected Docker Engine",
            f"install it (Debian, Ubuntu: apt-get install docker.io), {process}",
        )  # fmt: skip
    return EngineDownError(
        "Docker does not answer", show_safe(text, 160),
        f"start it (systemctl start docker, or scripts/docker_engine), {process}",
    )  # fmt: skip


def check_readable(path: Path, what: str) -> None:
    """Refuse inputs that the container's user may not read, where the caller is root and the container is not.

    Without this check a model would fail with PermissionError, and take the blame.

    Raises
    ------
    InputError
        Without naming the file, which may hold a patient's id.
    """
    if os.getuid() != 0:
        return
    for place in [path, *path.rglob("*")] if path.is_dir() else [path]:
        state = place.lstat()
        needed = stat.S_IROTH | (stat.S_IXOTH if stat.S_ISDIR(state.st_mode) else 0)
        if not stat.S_ISLNK(state.st_mode) and state.st_mode & needed != needed:
            raise InputError(
                f"{what}: an input may not be read by the container's user ({NOBODY})",
                f"mode {stat.S_IMODE(state.st_mode):o} below {path}; expected readable by others",
                "chmod -R a+rX on the folder, or run as the user who owns it",
            )


def _give(path: Path, uid: int, gid: int) -> None:
    """Hand a path to a user, where the caller is root; symbolic links are never followed."""
    if os.getuid() == 0:
        os.lchown(path, uid, gid)


__all__ = ["BuildError", "DockerEngine"]
