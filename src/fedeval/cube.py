"""mlcube.yaml -> frozen CubeManifest and TaskSpec. A manifest comes from a stranger: it is data, never a command.

The reading rules are those of mlcube 0.0.9 (types inferred from a trailing slash, a string is a default, a missing
default is the parameter's name); what mlcube would hand to a shell is checked against a strict form and never gets
there.
"""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedeval.contract import find_difference
from fedeval.errors import InputError, ManifestError, ParameterError, UnsafeManifestError
from fedeval.log import show_safe
from fedeval.strict_yaml import load_mapping

MANIFEST_NAME = "mlcube.yaml"
_VALUED_ARGS = ("--gpus", "--shm-size", "--cpus", "--memory", "-m", "--user", "-u")
ALLOWED_RUN_ARGS = (*_VALUED_ARGS, "--ipc=private", "--network=none", "--rm")
"""The only docker arguments a manifest may carry, for upstream's sake; the benchmark's limits decide."""

_DOCKER_KEYS = {
    "image", "docker", "env_args", "gpu_args", "cpu_args", "build_args", "build_context", "build_file",
    "build_strategy", "--network", "--security-opt", "--gpus", "--memory", "--cpuset-cpus",
}  # fmt: skip
_IMAGE = re.compile(
    r"(?:[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?(?::[0-9]{1,5})?/)?[a-z0-9]+(?:[._/-]+[a-z0-9]+)*"
    r"(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(?:@sha256:[0-9a-f]{64})?"
)
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")
_UNSAFE_TEXT = re.compile(r"[\x00-\x1f\x7f;&|`$<>\\\"'(){}*?!#~\ud800-\udfff]")
_MAX_PATH = 1000


@dataclass(frozen=True)
class ParameterSpec:
    """One parameter of a task.

    Attributes
    ----------
    name : str
        As the entrypoint takes it: ``--name=value``.
    is_output : bool
        Whether the task writes there.
    kind : str
        ``directory``, ``file`` or ``unknown`` (decided by what exists, inputs only).
    default : str
        Path relative to the cube's workspace; a basename ``null`` means "not given".
    """

    name: str
    is_output: bool
    kind: str
    default: str

    @property
    def is_null(self) -> bool:
        """Whether the default says "not given" (FeTS writes ``default: "null"``)."""
        return Path(self.default).name == "null"


@dataclass(frozen=True)
class TaskSpec:
    """One task: its parameters in the manifest's order, inputs first."""

    name: str
    parameters: tuple[ParameterSpec, ...]
    entrypoint: tuple[str, ...] = ()

    def parameter_names(self) -> tuple[str, ...]:
        """Names of all parameters."""
        return tuple(parameter.name for parameter in self.parameters)


@dataclass(frozen=True)
class CubeManifest:
    """A checked mlcube.yaml.

    Attributes
    ----------
    root : Path
        Folder of mlcube.yaml.
    name : str
        Name of the cube's folder (above ``mlcube/``), as people call it.
    image : str
        Docker image reference.
    build_context, build_file : Path
        Where the image is built, and with which Dockerfile; they need not exist.
    accelerator_count : int
        GPUs the cube asks for.
    tasks : Mapping[str, TaskSpec]
        Tasks by name.
    """

    root: Path
    name: str
    image: str
    build_context: Path
    build_file: Path
    accelerator_count: int
    tasks: Mapping[str, TaskSpec]

    @property
    def workspace(self) -> Path:
        """Folder that relative defaults refer to."""
        return self.root / "workspace"

    def task(self, name: str) -> TaskSpec:
        """The task called `name`.

        Raises
        ------
        ManifestError
            The cube has no such task.
        """
        if name not in self.tasks:
            raise ManifestError(
                f"cube {self.name}: no task {name!r} in {self.root / MANIFEST_NAME}",
                f"tasks {', '.join(self.tasks) or 'none'}; expected {name!r} among them",
                f"add the task {name!r} to mlcube.yaml; mlcubes/model/README.md shows how",
            )
        return self.tasks[name]

    def check_task(self, name: str, parameters: Iterable[str]) -> None:
        """Refuse a cube that lacks a task or parameter which the runner uses, or declares one as something else.

        Raises
        ------
        ManifestError
            The cube has no such task, or a parameter of `fedeval.contract.KINDS` is of another kind or direction.
        ParameterError
            With what is missing, and the declared name that resembles it.
        """
        task = self.task(name)
        if missing := [parameter for parameter in parameters if parameter not in task.parameter_names()]:
            raise _missing_parameters(self, task, missing)
        for spec in task.parameters:
            if difference := find_difference(name, spec.name, spec.is_output, spec.kind):
                raise ManifestError(
                    f"cube {self.name}: task {name!r}, parameter {spec.name!r} is declared as something else",
                    difference, f"correct it in {self.root / MANIFEST_NAME}",
                )  # fmt: skip


def _missing_parameters(manifest: CubeManifest, task: TaskSpec, missing: list[str]) -> ParameterError:
    close = difflib.get_close_matches(missing[0], task.parameter_names(), n=1)
    hint = f"rename {close[0]} to {missing[0]}" if close else f"declare {', '.join(missing)} under inputs or outputs"
    return ParameterError(
        f"cube {manifest.name}: task {task.name!r} lacks a parameter",
        f"{', '.join(task.parameter_names()) or 'none'}; missing {', '.join(missing)}",
        f"{hint} in {manifest.root / MANIFEST_NAME}",
    )


def find_manifest(path: Path) -> Path:
    """The mlcube.yaml that `path` means: the file itself, its folder, or the folder above (``mlcube/mlcube.yaml``).

    Raises
    ------
    InputError
        `path` does not exist or cannot be read.
    ManifestError
        There is no mlcube.yaml.
    """
    try:
        return _find_manifest(path)
    except OSError as err:  # a folder of somebody else, a name that is too long
        raise InputError(
            f"cube path {show_safe(str(path))} cannot be read", str(err.strerror), "check the path and its permissions"
        ) from err


def _find_manifest(path: Path) -> Path:
    if path.is_file():
        return path.absolute()
    if not path.is_dir():
        raise InputError(
            f"cube path {show_safe(str(path))} does not exist",
            "nothing; expected a folder that holds mlcube.yaml, or the file",
            "check the path after -m, -p or -e",
        )
    for candidate in (path / MANIFEST_NAME, path / "mlcube" / MANIFEST_NAME):
        if candidate.is_file():
            return candidate.absolute()
    raise ManifestError(
        f"no mlcube.yaml in {show_safe(str(path))}",
        f"{_listing(path)}; expected mlcube.yaml or mlcube/mlcube.yaml",
        "give the folder of your cube, e.g. -m mlcubes/model/mlcube",
    )


def _listing(folder: Path) -> str:
    names = sorted(entry.name for entry in folder.iterdir())
    return "an empty folder" if not names else "entries " + show_safe(", ".join(names[:8]), 120)


def load_cube(path: Path) -> CubeManifest:
    """Read and check the manifest at `path`.

    Raises
    ------
    ManifestError
        Missing, broken, incomplete or with an unknown key or type.
    UnsafeManifestError
        Text meant for a shell, or run arguments outside the allow-list.
    """
    file = find_manifest(path)
    content = load_mapping(file, ManifestError, "the manifest")
    if text := _interpolation(content):
        raise UnsafeManifestError(
            f"{file}: interpolation is not allowed",
            f"{show_safe(text, 80)}; expected plain text",
            "write the value out",
        )
    docker = _section(content, "docker", file)
    if unknown := sorted(set(docker) - _DOCKER_KEYS):
        raise ManifestError(
            f"{file}: unknown keys in the docker section", f"{show_safe(', '.join(map(str, unknown)))}",
            f"known keys are {', '.join(sorted(_DOCKER_KEYS))}",
        )  # fmt: skip
    _check_run_args(docker, file)
    context, build_file = _build_places(docker, file)
    _check_inside(file.parent / "workspace", file.parent, f"{file}: workspace")
    tasks = {name: _load_task(name, spec, file) for name, spec in _section(content, "tasks", file).items()}
    return CubeManifest(
        root=file.parent,
        name=_short_name(file),
        image=_check_image(docker.get("image"), file),
        build_context=context,
        build_file=build_file,
        accelerator_count=_accelerators(content, file),
        tasks=tasks,
    )


def _short_name(file: Path) -> str:
    folder = file.resolve().parent
    return show_safe(folder.parent.name if folder.name == "mlcube" else folder.name, 60)


def _build_places(docker: Mapping[str, Any], file: Path) -> tuple[Path, Path]:
    """Build context and Dockerfile, resolved; both belong to the cube.

    Everything below the context is sent to a build, which has a network and runs a stranger's commands: it must not
    reach the host's other files. Trust in a checkout goes by the context, so a Dockerfile from elsewhere is refused.
    """
    top = file.resolve().parent.parent if file.resolve().parent.name == "mlcube" else file.parent
    where = f"{file}: docker.build_context"
    context = _check_inside(file.parent / _check_path(docker.get("build_context", "."), where), top, where)
    where = f"{file}: docker.build_file"
    return context, _check_inside(context / _check_path(docker.get("build_file", "Dockerfile"), where), context, where)


def _check_inside(path: Path, top: Path, where: str) -> Path:
    """`path` with its links followed; refused when it leaves `top`."""
    try:
        resolved, allowed = path.resolve(), top.resolve()
    except (OSError, RuntimeError) as err:  # RuntimeError: links in a circle, before Python 3.13
        raise ManifestError(f"{where} cannot be followed", type(err).__name__, "remove links in a circle") from err
    if not resolved.is_relative_to(allowed):
        raise UnsafeManifestError(
            f"{where} leads out of the cube", f"{show_safe(str(resolved), 200)}; expected a path below {allowed}",
            "keep everything of a cube in one folder: <cube>/mlcube/mlcube.yaml beside <cube>/project/",
        )  # fmt: skip
    return resolved


def _section(content: Mapping[str, Any], key: str, file: Path) -> dict[str, Any]:
    value = content.get(key)
    if not isinstance(value, dict) or not value:
        found = "nothing" if value is None else type(value).__name__
        raise ManifestError(f"{file}: section {key!r} is missing", f"{found}; expected a mapping", f"add {key}: to it")
    return value


def _interpolation(value: Any) -> str | None:
    """The first text with an omegaconf interpolation, which could read the environment of the host."""
    if isinstance(value, str):
        return value if "${" in value else None
    children = [*value.keys(), *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else []
    return next((text for child in children if (text := _interpolation(child))), None)


def _check_image(image: Any, file: Path) -> str:
    if not isinstance(image, str) or not image:
        raise ManifestError(
            f"{file}: docker.image is missing", f"{image!r}; expected name:tag", "add docker: image: NAME:TAG"
        )
    if len(image) > 255 or not _IMAGE.fullmatch(image):
        raise UnsafeManifestError(
            f"{file}: docker.image is not an image reference",
            f"{show_safe(image, 120)!r}; expected e.g. name/model:1.0",
            "correct docker.image",
        )
    return image


def _check_run_args(docker: Mapping[str, Any], file: Path) -> None:
    next_step = f"remove it; a manifest may only carry {', '.join(ALLOWED_RUN_ARGS)}"
    for key in ("cpu_args", "gpu_args"):
        text = docker.get(key) or ""
        if not isinstance(text, str) or _UNSAFE_TEXT.search(text):
            raise UnsafeManifestError(
                f"{file}: docker.{key} holds text meant for a shell", show_safe(str(text)), next_step
            )
        words = shlex.split(text)
        for position, word in enumerate(words):
            previous = words[position - 1] if position else ""
            is_value = not word.startswith("-") and previous in _VALUED_ARGS
            if not is_value and word not in ALLOWED_RUN_ARGS and word.split("=")[0] not in _VALUED_ARGS:
                raise UnsafeManifestError(
                    f"{file}: docker.{key} asks for an argument that is not allowed", show_safe(word, 120), next_step
                )
    if docker.get("--network") not in (None, "none") or docker.get("--security-opt") not in (None, "no-new-privileges"):
        raise UnsafeManifestError(
            f"{file}: docker section loosens the isolation", "--network or --security-opt", next_step
        )
    if docker.get("docker", "docker") not in ("docker", "podman"):
        raise UnsafeManifestError(
            f"{file}: docker.docker names a program", show_safe(str(docker["docker"]), 80), "remove the key"
        )


def _check_path(value: Any, where: str) -> str:
    if not isinstance(value, str) or not value:
        raise ManifestError(f"{where} is not a path", f"{value!r}; expected text")
    if _UNSAFE_TEXT.search(value) or len(value) > _MAX_PATH:
        raise UnsafeManifestError(f"{where} holds text meant for a shell", show_safe(value, 120), "use a plain path")
    return value


def _accelerators(content: Mapping[str, Any], file: Path) -> int:
    platform = content.get("platform") or {}
    count = platform.get("accelerator_count", 0) if isinstance(platform, dict) else platform
    count = 0 if count is None else count
    if isinstance(count, bool) or not isinstance(count, int) or not 0 <= count <= 64:
        raise ManifestError(f"{file}: platform.accelerator_count", f"{count!r}; expected a whole number from 0 to 64")
    return count


def _load_task(name: str, spec: Any, file: Path) -> TaskSpec:
    where = f"{file}: task {show_safe(str(name), 60)!r}"
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise UnsafeManifestError(f"{where}: not a task name", "", "use letters, digits, '_' and '-'")
    spec = {} if spec is None else spec
    if not isinstance(spec, dict) or (unknown := sorted(map(str, set(spec) - {"parameters", "entrypoint"}))):
        found = type(spec).__name__ if not isinstance(spec, dict) else show_safe(", ".join(unknown))
        raise ManifestError(f"{where}: unexpected content", found, "a task holds parameters: and, rarely, entrypoint:")
    parameters = spec.get("parameters") or {}
    if not isinstance(parameters, dict) or set(parameters) - {"inputs", "outputs"}:
        raise ManifestError(f"{where}: parameters", "unexpected content; expected inputs: and outputs:")
    inputs, outputs = parameters.get("inputs") or {}, parameters.get("outputs") or {}
    if not isinstance(inputs, dict) or not isinstance(outputs, dict):
        raise ManifestError(f"{where}: inputs and outputs", "a list or text; expected mappings name: default")
    if twice := sorted(map(str, set(inputs) & set(outputs))):
        raise ManifestError(f"{where}: parameter both input and output", show_safe(", ".join(twice)))
    loaded = [_load_parameter(key, value, False, where) for key, value in inputs.items()]
    loaded += [_load_parameter(key, value, True, where) for key, value in outputs.items()]
    entrypoint = spec.get("entrypoint") or ""
    if not isinstance(entrypoint, str) or _UNSAFE_TEXT.search(entrypoint):
        raise UnsafeManifestError(f"{where}: entrypoint holds text meant for a shell", show_safe(str(entrypoint), 120))
    return TaskSpec(name, tuple(loaded), tuple(shlex.split(entrypoint)))


def _load_parameter(name: Any, spec: Any, is_output: bool, task: str) -> ParameterSpec:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise UnsafeManifestError(f"{task}: not a parameter name", show_safe(str(name), 60), "use letters, digits, '_'")
    where = f"{task}: parameter {name!r}"
    spec = {"default": spec} if isinstance(spec, str) else {} if spec is None else spec
    if not isinstance(spec, dict) or set(spec) - {"type", "default", "opts", "description"}:
        raise ManifestError(f"{where}: unexpected content", show_safe(str(spec), 120), "use type:, default:, opts:")
    default = spec.get("default") or name
    kind = spec.get("type") or "unknown"
    if kind not in ("file", "directory", "unknown"):
        raise ManifestError(
            f"{where}: unknown parameter type", f"{show_safe(str(kind), 60)!r}; expected 'file' or 'directory'",
            "correct type: in mlcube.yaml",
        )  # fmt: skip
    default = _check_path(default, where)
    if kind == "unknown" and default.endswith("/"):
        kind = "directory"
    if kind == "unknown" and is_output:
        raise ManifestError(
            f"{where}: an output needs a type", f"default {default!r}; expected type: file or directory, or a final /",
            "add type: in mlcube.yaml",
        )  # fmt: skip
    return ParameterSpec(name, is_output, kind, default)
