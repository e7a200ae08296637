"""Seeded resampling that is the same on every platform, for any number of workers and any release of numpy.

numpy promises the raw numbers of a bit generator for ever, but not what ``Generator.integers`` makes of them; so
indices are made from the raw numbers here. Every site has its own stream, named by the site, so the order of the work
does not matter.
"""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt

Counts = npt.NDArray[np.int32]


def make_stream(seed: int, *names: str) -> np.random.PCG64:
    """Bit generator of a named stream: the same names give the same numbers."""
    digest = hashlib.sha256("\0".join(names).encode()).digest()
    words = [int.from_bytes(digest[start : start + 4], "little") for start in range(0, 16, 4)]
    return np.random.PCG64(np.random.SeedSequence([seed, *words]))


def draw_indices(stream: np.random.PCG64, size: int, bound: int) -> npt.NDArray[np.int64]:
    """Draw ``size`` integers from 0 to ``bound`` - 1.

    The upper 32 bits of a raw number, scaled; the bias is below bound / 2**32.
    """
    raw = np.asarray(stream.random_raw(size), dtype=np.uint64)
    return (((raw >> np.uint64(32)) * np.uint64(bound)) >> np.uint64(32)).astype(np.int64)


def draw_uniform(stream: np.random.PCG64, size: int) -> npt.NDArray[np.float64]:
    """Draw ``size`` doubles, uniform on the open interval (0, 1)."""
    raw = np.asarray(stream.random_raw(size), dtype=np.uint64)
    return ((raw >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53


def draw_counts(stream: np.random.PCG64, draws: int, items: int) -> Counts:
    """How often each item is drawn when as many as there are are drawn with replacement.

    Returns
    -------
    ndarray of int32, shape (draws, items)
        Every row sums to ``items``.
    """
    picks = draw_indices(stream, draws * items, items)
    cells = np.repeat(np.arange(draws), items) * items + picks
    return np.bincount(cells, minlength=draws * items).reshape(draws, items).astype(np.int32)
