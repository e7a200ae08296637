"""Building the image of a cube whose Dockerfile is beside its manifest."""

from __future__ import annotations

import os
import re
from collections import deque
from collections.abc import Callable
from typing import Any

import docker
import requests
from docker.errors import APIError, DockerException, ImageNotFound

from fedeval.cube import CubeManifest
from fedeval.errors import ImageError
from fedeval.log import LOGGER, show_safe

LOCAL_BASE = "fedeval-base:bookworm"
"""Base image that scripts/base_image makes where no registry can be reached."""

_PASSED = ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
_ID = re.compile(r"Successfully built ([0-9a-f]{12,64})|^(sha256:[0-9a-f]{64})$")


def build_arguments(api: docker.APIClient, dockerfile: str) -> dict[str, str]:
    """Build arguments: the base image of this machine, and the site's own package index and proxy.

    ``FEDEVAL_BASE_IMAGE`` names the base; else the local one is used where it exists; else the Dockerfile's default.
    Only arguments that the Dockerfile declares are passed (proxies are always known to the engine).
    """
    declared = set(re.findall(r"^\s*ARG\s+([A-Za-z_]\w*)", dockerfile, re.MULTILINE))
    arguments = {
        name: os.environ[name]
        for name in _PASSED
        if os.environ.get(name) and (name in declared or name.endswith("PROXY"))
    }
    if "BASE_IMAGE" in declared:
        base = os.environ.get("FEDEVAL_BASE_IMAGE")
        if not base and _has_image(api, LOCAL_BASE):
            base = LOCAL_BASE
        if base:
            arguments["BASE_IMAGE"] = base
    return arguments


def _has_image(api: docker.APIClient, reference: str) -> bool:
    try:
        api.inspect_image(reference)  # type: ignore[no-untyped-call]
    except ImageNotFound:
        return False
    return True


def build_image(api: docker.APIClient, manifest: CubeManifest, on_line: Callable[[str], None]) -> str:
    """Build and tag the image of a cube; its id ``sha256:...``.

    Raises
    ------
    ImageError
        The build failed; the last lines are in the message, all lines in the run's log.
    """
    on_line(f"building {manifest.image}")
    last: deque[str] = deque(maxlen=6)
    try:
        text = manifest.build_file.read_text(encoding="utf-8", errors="replace")
        stream = api.build(
            path=str(manifest.build_context), dockerfile=str(manifest.build_file), tag=manifest.image, rm=True,
            forcerm=True, decode=True, buildargs=build_arguments(api, text),
        )  # fmt: skip
        for event in stream:
            for line in _event_lines(event):
                LOGGER.info("build %s: %s", manifest.image, show_safe(line))
                last.append(line)
            if "error" in event:
                raise _build_error(manifest, last)
        return str(api.inspect_image(manifest.image)["Id"])  # type: ignore[no-untyped-call]
    except (APIError, DockerException, requests.exceptions.RequestException, OSError) as err:
        last.append(str(err))
        raise _build_error(manifest, last) from err


def _event_lines(event: dict[str, Any]) -> list[str]:
    return [line for line in str(event.get("stream") or event.get("error") or "").splitlines() if line.strip()]


def _build_error(manifest: CubeManifest, last: deque[str]) -> ImageError:
    return ImageError(
        f"the image {manifest.image} of cube {manifest.name} cannot be built",
        " | ".join(show_safe(line, 160) for line in last),
        f"correct {manifest.build_file}; behind a registry-less network run scripts/base_image first",
    )
