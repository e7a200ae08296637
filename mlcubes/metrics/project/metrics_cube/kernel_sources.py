"""Where the native kernel's sources and its built library are. Imports next to nothing: the image's build uses it."""

import hashlib
from pathlib import Path

SOURCES = Path(__file__).parent / "kernel"
LIBRARY = Path(__file__).parent / "_kernel.so"


def compute_source_digest() -> str:
    """Digest of the kernel's sources; the library carries it, and the loader refuses another."""
    digest = hashlib.sha256()
    for path in sorted(SOURCES.iterdir()):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]
