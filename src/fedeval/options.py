"""Settings of one invocation: default < environment < argument, merged once, then frozen."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fedeval.errors import UsageError

PLATFORMS = ("docker", "singularity", "process")
LOG_LEVELS = ("debug", "info", "warning", "error")
TOY_SIZES = ("full", "ci")


@dataclass(frozen=True)
class Options:
    """What holds for a whole invocation.

    Attributes
    ----------
    storage : Path
        Folder of data, results and logs; ``~/.medperf`` by default.
    platform : str or None
        ``docker``, ``singularity`` or ``process``; None chooses docker where an engine answers, else process.
    log_level : str
        Level of the log file: ``debug``, ``info``, ``warning`` or ``error``.
    cleanup : bool
        Whether scratch folders (containers' raw outputs) are removed at the end.
    json : bool
        One machine-readable document on stdout, nothing else there.
    toy_size : str or None
        Overrides the size of the benchmark's toy cases: ``full`` or ``ci``.
    allow_foreign : bool
        Lets the process engine run cubes that do not come from this checkout.
    resume : bool
        Whether what an interrupted run had finished is taken.
    as_singularity : bool
        Docker images run as they would after conversion to singularity.
    tmp : str or None
        Size of /tmp there, e.g. ``16m``.
    require_gpu : bool
        Refuse to run a cube that asks for a GPU where none is present.
    """

    storage: Path
    platform: str | None = None
    log_level: str = "info"
    cleanup: bool = True
    json: bool = False
    toy_size: str | None = None
    allow_foreign: bool = False
    resume: bool = True
    as_singularity: bool = False
    tmp: str | None = None
    require_gpu: bool = False


def merge_options(arguments: Mapping[str, object], environment: Mapping[str, str] | None = None) -> Options:
    """Merge defaults, environment and arguments (None means "not given") into frozen options.

    Environment: ``MEDPERF_STORAGE``, ``MEDPERF_PLATFORM``, ``MEDPERF_LOGLEVEL``, ``MEDPERF_TOY_SIZE``.

    Raises
    ------
    UsageError
        A value is none of the allowed ones.
    """
    env = os.environ if environment is None else environment
    names = {"platform": "MEDPERF_PLATFORM", "log_level": "MEDPERF_LOGLEVEL", "toy_size": "MEDPERF_TOY_SIZE"}
    merged: dict[str, object] = {key: env[name] for key, name in names.items() if env.get(name)}
    merged["storage"] = env.get("MEDPERF_STORAGE") or "~/.medperf"
    merged.update({key: value for key, value in arguments.items() if value is not None})
    _check_choice("--platform", merged.get("platform"), PLATFORMS)
    _check_choice("--log", merged.get("log_level"), LOG_LEVELS)
    _check_choice("--toy-size", merged.get("toy_size"), TOY_SIZES)
    if merged.get("tmp") is not None and not re.fullmatch(r"[1-9]\d{0,5}m", str(merged["tmp"])):
        raise UsageError("--tmp is not a size", f"{merged['tmp']!r}; expected MiB, e.g. 64m or 16m")
    if merged.get("as_singularity") and merged.get("platform") not in (None, "docker"):
        raise UsageError("--as-singularity runs docker images", f"--platform={merged['platform']}; expected docker")
    merged["storage"] = _storage(str(merged["storage"]))
    return Options(**merged)  # type: ignore[arg-type]


def _storage(text: str) -> Path:
    try:
        return Path(text).expanduser().absolute()
    except RuntimeError as err:
        raise UsageError(
            "this user has no home folder", f"storage {text!r}, and neither HOME nor an entry in /etc/passwd",
            "name a folder: --storage DIR or MEDPERF_STORAGE",
        ) from err  # fmt: skip


def _check_choice(option: str, value: object, allowed: tuple[str, ...]) -> None:
    if value is not None and value not in allowed:
        raise UsageError(f"{option} has an unknown value", f"{value!r}; expected one of {', '.join(allowed)}")
