"""Seeded synthetic cases in the shape of BraTS for the benchmarks of the metrics cube.

Twelve typical cases: whole tumours of 13 to 245 cm3, nested labels 2 (oedema), 4 (enhancing) and 1 (necrosis) with
rough borders; the prediction is the same tumour with its borders moved by smooth noise (Dice about 0.75 to 0.95),
plus a few false-positive islands far away. Edge and adversarial cases beside them.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

SHAPE = (240, 240, 155)
BRAIN_CENTRE = np.array([120.0, 125.0, 75.0])
BRAIN_RADII = np.array([66.0, 82.0, 62.0])
TYPICAL_CM3 = np.round(np.geomspace(13.0, 245.0, 12), 1)
TYPICAL_ISLANDS = (3, 1, 6, 2, 4, 8, 2, 5, 3, 12, 4, 6)

Labels = NDArray[np.uint8]
Field = NDArray[np.float32]


@dataclass(frozen=True)
class BenchCase:
    """A reference and a prediction: uint8, shape `SHAPE`, Fortran order, 1 mm."""

    name: str
    reference: Labels
    prediction: Labels


def make_typical(count: int = 12) -> list[BenchCase]:
    """The typical cases, spread evenly over the sizes where fewer than 12 are asked for."""
    chosen = np.unique(np.linspace(0, len(TYPICAL_CM3) - 1, count).round().astype(int))
    return [make_case(int(i), float(TYPICAL_CM3[i]), TYPICAL_ISLANDS[i]) for i in chosen]


def make_case(seed: int, whole_cm3: float, islands: int) -> BenchCase:
    """One typical case."""
    rng = np.random.default_rng([4, seed])
    half = int(np.ceil(1.9 * (whole_cm3 * 1000 * 3 / 4 / np.pi) ** (1 / 3))) + 6
    centre = _place(rng, half)
    fields = _make_fields(rng, half)
    cuts = _make_cuts(fields, whole_cm3 * 1000)
    moved = [
        f + np.float32(rng.uniform(0.03, 0.10)) * _smooth_noise(rng, f.shape, 3.5)
        + np.float32(rng.normal(0, 0.02))
        for f in fields
    ]  # fmt: skip
    reference, prediction = (_paste(_label(f, cuts), centre, half) for f in (fields, moved))
    for _ in range(islands):
        _add_island(rng, prediction, centre)
    return BenchCase(f"typical {whole_cm3:g} cm3", reference, prediction)


def make_edge_cases() -> list[BenchCase]:
    """Cases where a formula ends: empty masks, one voxel, equal masks, the whole image."""
    typical = make_case(2, 40.0, 2).reference
    empty, voxel, full = (np.zeros(SHAPE, np.uint8, order="F") for _ in range(3))
    voxel[7, 200, 100] = 4
    full[...] = 4
    return [
        BenchCase("both empty", empty, empty),
        BenchCase("reference empty", empty, typical),
        BenchCase("prediction empty", typical, empty),
        BenchCase("single voxel far away", typical, voxel),
        BenchCase("equal", typical, typical),
        BenchCase("prediction fills the image", typical, full),
    ]


def make_adversarial_cases() -> list[BenchCase]:
    """Cases made to be slow: two large tumours that do not meet, and 2 % salt noise."""
    rng = np.random.default_rng([4, 99])
    half = 46
    boxes = [_label(f, _make_cuts(f, 120e3)) for f in (_make_fields(rng, half), _make_fields(rng, half))]
    left = _paste(boxes[0], np.array([60, 120, 77]), half)
    right = _paste(boxes[1], np.array([180, 120, 77]), half)
    salted = left.copy(order="F")
    hit = rng.random(SHAPE, dtype=np.float32) < 0.02
    salted[hit] = rng.choice(np.array([1, 2, 4], np.uint8), size=int(hit.sum()))
    salt = np.where(hit, salted, 0).astype(np.uint8, order="F")
    return [
        BenchCase("disjoint tumours", left, right),
        BenchCase("2 % salt noise over the prediction", left, salted),
        BenchCase("2 % salt noise alone", left, salt),
        BenchCase("2 % salt noise as the reference", salt, left),
    ]


def _place(rng: np.random.Generator, half: int) -> NDArray[np.int64]:
    """Centre of a tumour: inside the brain, its box inside the image."""
    spot = BRAIN_CENTRE + BRAIN_RADII * rng.uniform(-0.45, 0.45, 3)
    return np.asarray(np.clip(spot.round().astype(int), half // 3, np.array(SHAPE) - half // 3))


def _make_fields(rng: np.random.Generator, half: int) -> list[Field]:
    """Three bumpy distance-like fields (whole tumour, core, necrosis); smaller is further inside."""
    axes = np.ogrid[-half : half + 1, -half : half + 1, -half : half + 1]
    shape = (2 * half + 1,) * 3
    scale = half / 1.9
    fields = []
    for drift, rough in ((0.0, 0.22), (0.15, 0.25), (0.2, 0.3)):
        stretch = rng.uniform(0.8, 1.25, 3)
        shift = rng.uniform(-1, 1, 3) * drift * scale
        squares = [((axis - s) / (scale * k)) ** 2 for axis, s, k in zip(axes, shift, stretch, strict=True)]
        radius = np.sqrt(squares[0] + squares[1] + squares[2]).astype(np.float32)
        noise = rough * _smooth_noise(rng, shape, half / 5) + 0.04 * _smooth_noise(rng, shape, 1.5)
        fields.append((radius + noise).astype(np.float32))
    return fields


def _smooth_noise(rng: np.random.Generator, shape: tuple[int, ...], sigma: float) -> Field:
    """Gaussian noise of unit variance, correlated over `sigma` voxels."""
    noise = ndimage.gaussian_filter(rng.standard_normal(shape, dtype=np.float32), sigma, mode="wrap")
    return np.asarray(noise / noise.std(), dtype=np.float32)


def _make_cuts(fields: list[Field], whole_mm3: float) -> tuple[float, float, float]:
    """Thresholds that give the wanted whole-tumour volume and usual shares of core (35 %) and necrosis (40 % of it)."""
    whole = float(np.partition(fields[0], int(whole_mm3), axis=None)[int(whole_mm3)])
    core_field = np.where(fields[0] < whole, fields[1], np.inf)
    core = float(np.partition(core_field, int(0.35 * whole_mm3), axis=None)[int(0.35 * whole_mm3)])
    dead_field = np.where(core_field < core, fields[2], np.inf)
    dead = float(np.partition(dead_field, int(0.14 * whole_mm3), axis=None)[int(0.14 * whole_mm3)])
    return whole, core, dead


def _label(fields: list[Field], cuts: tuple[float, float, float]) -> Labels:
    whole = fields[0] < cuts[0]
    core = whole & (fields[1] < cuts[1])
    labels = np.zeros(whole.shape, np.uint8)
    labels[whole] = 2
    labels[core] = 4
    labels[core & (fields[2] < cuts[2])] = 1
    return labels


def _paste(box: Labels, centre: NDArray[np.int64], half: int) -> Labels:
    """The box at its place in an empty image, cut where it sticks out."""
    image = np.zeros(SHAPE, np.uint8, order="F")
    low, high = np.maximum(centre - half, 0), np.minimum(centre + half + 1, SHAPE)
    inside = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    part = tuple(slice(int(a), int(b)) for a, b in zip(low - centre + half, high - centre + half, strict=True))
    image[inside] = box[part]
    return image


def _add_island(rng: np.random.Generator, image: Labels, away_from: NDArray[np.int64]) -> None:
    """A bumpy false-positive blob of some 5 to 1500 voxels in the brain, at least 40 mm from the tumour's centre."""
    while True:
        spot = (BRAIN_CENTRE + BRAIN_RADII * rng.uniform(-0.8, 0.8, 3)).round().astype(int)
        if np.linalg.norm(spot - away_from) > 40:
            break
    half = int(rng.integers(2, 9))
    axes = np.ogrid[-half : half + 1, -half : half + 1, -half : half + 1]
    radius = np.sqrt(sum(axis**2 for axis in axes)) / half
    blob = radius + 0.2 * _smooth_noise(rng, radius.shape, 1.2) < 0.8
    label = np.uint8(rng.choice([1, 2, 2, 4]))
    around = tuple(slice(max(int(s) - half, 0), int(s) + half + 1) for s in spot)
    part = image[around]
    low = [max(half - int(s), 0) for s in spot]
    cut = tuple(slice(a, a + n) for a, n in zip(low, part.shape, strict=True))
    part[blob[cut]] = label
