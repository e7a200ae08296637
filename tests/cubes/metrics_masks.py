"""Masks for the tests of the metrics: drawn ones, random ones, and the kernel built from today's sources."""

import functools
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from metrics_cube.build import run_build
from metrics_cube.header import Header
from metrics_cube.kernel_sources import LIBRARY
from metrics_cube.labels import IDENTITY
from metrics_cube.native import Kernel
from numpy.typing import NDArray
from scipy import ndimage

Mask = NDArray[np.bool_]
Spacing = tuple[float, float, float]
ISOTROPIC: Spacing = (1.0, 1.0, 1.0)


@functools.cache
def build_kernel() -> Kernel:
    """The native kernel, built from today's sources and loaded from a folder that is gone again."""
    if not any(map(shutil.which, ("cc", "gcc", "clang"))):
        pytest.skip("no C compiler")
    with tempfile.TemporaryDirectory() as folder:
        return Kernel(run_build(Path(folder) / LIBRARY.name))


def choose_kernel(name: str) -> Kernel | None:
    """The kernel for ``native``, none for ``scipy``."""
    return build_kernel() if name == "native" else None


def draw(*slices: str) -> Mask:
    """A mask from drawings: one string a slice (first axis), a line a row (second axis), `#` for a voxel."""
    return np.array([[[char == "#" for char in line.strip()] for line in part.split()] for part in slices])


def make_header(shape: tuple[int, int, int], spacing_mm: Spacing = ISOTROPIC) -> Header:
    """A header of the given grid."""
    rows = tuple(tuple(spacing_mm[i] * (i == j) for j in range(4)) for i in range(3))
    return Header(shape, spacing_mm, rows, "<u1", 352, 1.0, 0.0)  # type: ignore[arg-type]


def make_volume(rng: np.random.Generator, shape: tuple[int, ...]) -> Mask:
    """A random mask: noise, blobs, one voxel, a box to the border, blobs with a far voxel, or nothing."""
    kind = rng.integers(6)
    if kind == 0:
        return np.asarray(rng.random(shape) < rng.uniform(0.002, 0.6))
    mask = np.zeros(shape, dtype=bool)
    if kind in (1, 4):
        field = ndimage.gaussian_filter(rng.normal(size=shape), rng.uniform(0.7, 2.5))
        mask = np.asarray(field > np.quantile(field, rng.uniform(0.3, 0.97)))
    if kind == 2:
        box = [sorted(rng.integers(0, n + 1, 2)) for n in shape]
        mask[tuple(slice(low, max(low + 1, high)) for low, high in box)] = True
    if kind in (3, 4):
        mask[tuple(rng.integers(0, n) for n in shape)] = True
    return mask


def iterate_pairs(seed: int, count: int, largest: int = 22) -> Iterator[tuple[Mask, Mask, Spacing]]:
    """Random pairs of masks with spacings: equal, dyadic, rounded to single precision as in headers, or any."""
    rng = np.random.default_rng([11, seed])
    for _ in range(count):
        shape = tuple(int(n) for n in rng.integers(1, largest, 3))
        reference = make_volume(rng, shape)
        prediction = make_volume(rng, shape)
        if rng.random() < 0.2:
            prediction = reference.copy()
            prediction[tuple(rng.integers(0, n) for n in shape)] ^= True
        header_like = tuple(float(np.float32(edge)) for edge in rng.choice([0.7, 0.9375, 1.2, 3.0], 3))
        spacings = [ISOTROPIC, (0.5, 2.0, 1.0), header_like, tuple(10 ** rng.uniform(-1, 1, 3))]
        a, b, c = spacings[rng.integers(4)]
        yield reference, prediction, (float(a), float(b), float(c))


def score_natively(
    reference: Mask, prediction: Mask, spacing_mm: Spacing, order: Any = "F"
) -> tuple[tuple[int, int, int, int], float, float]:
    """Counts, P and D of one pair of masks by the kernel."""
    kernel = build_kernel()
    packed = [kernel.pack(np.asarray(mask, np.uint8, order=order), IDENTITY, 1) for mask in (reference, prediction)]
    (c,), ((pooled, directed),) = kernel.score(packed[0], packed[1], spacing_mm, 2)
    return (c.tp, c.fp, c.tn, c.fn), pooled, directed


def import_peer(name: str, load: Callable[[str], Any]) -> Any:
    """Import a peer whose own warnings are not ours."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return load(name)
