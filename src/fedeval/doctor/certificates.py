"""``medperf doctor``: the bundles of certificate authorities that a TLS-inspecting proxy makes necessary.

Nothing is connected to: the files are read, here and in the cubes' base image.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import ssl
import tarfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
from docker.errors import ImageNotFound, NotFound

from fedeval.doctor.finding import Finding, judge
from fedeval.engine.docker_engine import LABEL, runner_identity
from fedeval.engine.image_build import LOCAL_BASE
from fedeval.log import show_safe

VARIABLES = ("PIP_CERT", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
SYSTEM_BUNDLES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt")
PUBLIC_BUNDLE = 20
"""A larger bundle is a public one; those carry authorities that have expired, which does no harm."""

_BLOCK = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)


@dataclass(frozen=True)
class Certificate:
    """One certificate of a bundle: SHA-256 of its DER form, last part of the subject, end of validity (Unix time)."""

    fingerprint: str
    subject: str
    ends: float


def load_bundle(text: str) -> tuple[Certificate, ...]:
    """The certificate authorities of a PEM bundle.

    Raises
    ------
    ValueError
        No certificate authority in it, or a block that is no certificate.
    """
    blocks = _BLOCK.findall(text)
    if not blocks:
        raise ValueError("no certificate in it")
    found = []
    for number, block in enumerate(blocks, 1):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        try:
            der = ssl.PEM_cert_to_DER_cert(block)
            context.load_verify_locations(cadata=block)
        except (ssl.SSLError, ValueError) as err:
            raise ValueError(f"block {number} is no certificate") from err
        for fields in context.get_ca_certs():  # empty for a certificate that is no authority
            subject: Any = fields["subject"]
            ends = ssl.cert_time_to_seconds(str(fields["notAfter"]))
            found.append(Certificate(hashlib.sha256(der).hexdigest(), show_safe(str(subject[-1][0][1]), 60), ends))
    if not found:
        raise ValueError("no certificate authority in it")
    return tuple(found)


def check_bundles(environment: Mapping[str, str], now: float | None = None) -> Iterator[Finding]:
    """The bundles that variables name, each once: there, readable, and not expired."""
    named: dict[str, list[str]] = {}
    for variable in VARIABLES:
        if environment.get(variable):
            named.setdefault(environment[variable], []).append(variable)
    proxy = any(environment.get(name) or environment.get(name.lower()) for name in ("HTTPS_PROXY", "ALL_PROXY"))
    if not named:
        yield Finding(
            "ca_bundle", "ok", "no variable names one" + (", a proxy is set" if proxy else ""),
            "where a proxy inspects TLS: PIP_CERT, SSL_CERT_FILE and REQUESTS_CA_BUNDLE",
        )  # fmt: skip
    for path, variables in named.items():
        yield _check_bundle(Path(path), " ".join(variables), time.time() if now is None else now)


def _check_bundle(path: Path, variables: str, now: float) -> Finding:
    expected = "a readable file of certificates that have not expired"
    advice = f"set {variables} to the bundle with your proxy's authority (ask your network administrators), or unset it"
    try:
        found = load_bundle(path.read_text(encoding="ascii", errors="replace"))
    except (OSError, ValueError) as err:
        reason = err.strerror if isinstance(err, OSError) else str(err)
        return judge("ca_bundle", False, f"{variables}: {path}: {reason}", expected, advice)
    expired = [certificate.subject for certificate in found if certificate.ends < now]
    measured = f"{variables}: {len(found)} certificates"
    if expired:
        measured += f", {len(expired)} expired (e.g. {expired[0]})"
    return judge(
        "ca_bundle", not expired or len(expired) < len(found) > PUBLIC_BUNDLE, measured, expected, advice,
        "failed" if len(expired) == len(found) else "warning",
    )  # fmt: skip


def host_bundle(environment: Mapping[str, str]) -> Path | None:
    """The bundle that scripts/base_image copies into the base image."""
    wanted = (environment.get("FEDEVAL_CA_BUNDLE"), environment.get("PIP_CERT"), *SYSTEM_BUNDLES)
    return next((Path(path) for path in wanted if path and Path(path).is_file()), None)


def check_image_bundle(client: docker.DockerClient, environment: Mapping[str, str]) -> Finding:
    """Whether the cubes' base image trusts what this machine trusts, so that pip works while an image is built."""
    expected = "every authority of this machine's bundle"
    reference = environment.get("FEDEVAL_BASE_IMAGE") or LOCAL_BASE
    here = host_bundle(environment)
    try:
        attributes = client.images.get(reference).attrs
    except ImageNotFound:
        return Finding("ca_image", "ok", f"no {reference} here: nothing to compare", expected)
    if here is None:
        return Finding("ca_image", "ok", "this machine has no bundle: nothing to compare", expected)
    pairs = (str(entry).partition("=") for entry in (attributes.get("Config") or {}).get("Env") or ())
    inside = {name: value for name, _, value in pairs}.get("PIP_CERT") or SYSTEM_BUNDLES[0]
    advice = "make the base image anew: FEDEVAL_REBUILD_BASE=1 scripts/base_image (FEDEVAL_CA_BUNDLE names the bundle)"
    try:
        trusted = {found.fingerprint for found in load_bundle(_read_from_image(client, str(attributes["Id"]), inside))}
    except (NotFound, ValueError, KeyError, tarfile.TarError) as err:
        return judge("ca_image", False, f"{reference}: {inside}: {type(err).__name__}", expected, advice, "warning")
    own = load_bundle(here.read_text(encoding="ascii", errors="replace"))
    lacking = sorted(found.subject for found in own if found.fingerprint not in trusted)
    measured = f"{reference} lacks {len(lacking)} of {len(own)}" if lacking else f"{reference} has all {len(own)}"
    return judge(
        "ca_image", not lacking, measured + (f" (e.g. {lacking[0]})" if lacking else ""), expected, advice, "warning"
    )


def _read_from_image(client: docker.DockerClient, image: str, path: str) -> str:
    """A text file of an image, through a container that is never started."""
    made = client.api.create_container(
        image, command=["true"], network_disabled=True, name=f"fedeval-ca-{os.getpid()}",
        labels={LABEL: runner_identity()},
    )  # fmt: skip
    try:
        chunks, _ = client.api.get_archive(made["Id"], path)
        with tarfile.open(fileobj=io.BytesIO(b"".join(chunks))) as archive:
            member = next(iter(archive))
            file = archive.extractfile(member)
            if file is None:
                raise ValueError("not a file")
            return file.read(64 << 20).decode("ascii", "replace")
    finally:
        client.api.remove_container(made["Id"], force=True)
