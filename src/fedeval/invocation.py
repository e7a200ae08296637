"""A task with its real paths: the arguments `mlcube run` would give, and mounts narrowed to what the task declares."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fedeval.cube import CubeManifest, ParameterSpec
from fedeval.errors import InputError, ParameterError, UnsafeManifestError
from fedeval.log import show_safe


@dataclass(frozen=True)
class Binding:
    """One path of the host seen inside: a folder, or a single file (inputs only)."""

    host: Path
    inside: str
    read_only: bool


@dataclass(frozen=True)
class Invocation:
    """Everything an engine needs to know of one call of a task.

    Attributes
    ----------
    cube, task : str
        For names and messages.
    arguments : tuple of str
        What the container gets, equal to mlcube's: the task, then ``--name=/mlcube_ioN[/file]``.
    host_arguments : tuple of str
        The same with paths of the host, for an engine without a container.
    bindings : tuple of Binding
        What is mounted, nothing else.
    output_dirs : tuple of Path
        Host folders the task may write; they exist and are empty.
    entrypoint : tuple of str
        Replaces the image's entrypoint when not empty; then the task's name is not among the arguments.
    """

    cube: str
    task: str
    arguments: tuple[str, ...]
    host_arguments: tuple[str, ...]
    bindings: tuple[Binding, ...]
    output_dirs: tuple[Path, ...]
    entrypoint: tuple[str, ...] = ()


def build_invocation(
    manifest: CubeManifest, task_name: str, given: Mapping[str, Path], scratch: Path, log_name: str | None = None
) -> Invocation:
    """Resolve a task's parameters to paths.

    Parameters
    ----------
    manifest : CubeManifest
        The cube.
    task_name : str
        One of its tasks.
    given : mapping of str to Path
        Absolute paths for some parameters. Outputs must not exist yet or be empty folders.
    scratch : Path
        Folder under which outputs that are not given get an empty folder of their own.
    log_name : str, optional
        How the cube is called in messages; its manifest's name by default.

    Raises
    ------
    ParameterError
        `given` holds a name that the task does not declare.
    InputError
        An input is missing or an empty folder.
    UnsafeManifestError
        A default of the manifest points out of the cube's workspace.
    """
    task = manifest.task(task_name)
    where = f"cube {log_name or manifest.name}, task {task_name}"
    _check_names(given, task.parameter_names(), where)
    keys: dict[str, str] = {}
    arguments: list[str] = []
    host_arguments: list[str] = []
    bindings: list[Binding] = []
    output_dirs: list[Path] = []
    for spec in task.parameters:
        path, absent = _resolve(manifest, spec, given, scratch, where)
        kind = spec.kind if spec.kind != "unknown" else "directory" if path.is_dir() else "file"
        folder = path if kind == "directory" else path.parent
        inside_folder = keys.setdefault(str(folder), f"/mlcube_io{len(keys)}")
        inside = inside_folder if kind == "directory" else f"{inside_folder}/{path.name}"
        arguments.append(f"--{spec.name}={inside}")
        host_arguments.append(f"--{spec.name}={path}")
        if spec.is_output:
            output_dirs.append(folder)
            bindings.append(Binding(folder, inside_folder, read_only=False))
        elif not absent:
            bindings.append(Binding(path, inside, read_only=True))
    head = () if task.entrypoint else (task_name,)
    return Invocation(
        log_name or manifest.name, task_name, (*head, *arguments), (*head, *host_arguments),
        tuple(dict.fromkeys(bindings)), tuple(dict.fromkeys(output_dirs)), task.entrypoint,
    )  # fmt: skip


def _check_names(given: Mapping[str, Path], known: tuple[str, ...], where: str) -> None:
    for name in given:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]!r}?" if close else "correct the name, or declare it in mlcube.yaml"
            raise ParameterError(
                f"{where}: unknown parameter {show_safe(name, 60)!r}", f"expected one of {', '.join(known)}", hint
            )


def _resolve(
    manifest: CubeManifest, spec: ParameterSpec, given: Mapping[str, Path], scratch: Path, where: str
) -> tuple[Path, bool]:
    """Host path of a parameter, and whether it stands for "not given"."""
    if spec.name in given:
        path = Path(os.path.normpath(given[spec.name]))
        if spec.is_output:
            (path if spec.kind == "directory" else path.parent).mkdir(parents=True, exist_ok=True)
        else:
            check_input(path, f"{where}: input {spec.name}")
        return path, False
    if spec.is_output:
        folder = scratch / f"unnamed_{spec.name}"
        folder.mkdir(parents=True, exist_ok=True)
        return (folder if spec.kind == "directory" else folder / Path(spec.default).name), False
    path = Path(os.path.normpath(manifest.workspace / spec.default))
    if spec.is_null and not path.exists():
        return path, True
    workspace = manifest.workspace.resolve()
    if not path.resolve().is_relative_to(workspace):
        raise UnsafeManifestError(
            f"{where}: default of {spec.name} points out of the workspace", show_safe(spec.default, 120),
            "keep what the cube needs below mlcube/workspace, or inside the image",
        )  # fmt: skip
    check_input(path, f"{where}: input {spec.name}")
    return path, False


def check_input(path: Path, what: str) -> None:
    """Refuse an input that is missing or an empty folder (plain mlcube creates it and succeeds with zero cases).

    Raises
    ------
    InputError
        With the path; it is the caller's own.
    """
    try:
        if path.is_file():
            return
        empty = not path.is_dir() or not any(path.iterdir())
    except OSError as err:
        raise InputError(f"{what} cannot be read", f"{path}: {err.strerror}", "check the permissions") from err
    if empty:
        found = "an empty folder" if path.is_dir() else "nothing"
        raise InputError(f"{what} is not there", f"{found} at {path}; expected data", "check the path")
