"""One toy case, from its numbers to its arrays."""

import hashlib
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toy_data.anatomy import Streams, Window, compute_atlas_positions, compute_tissue, compute_window
from toy_data.appearance import (
    Scanner,
    TumourLook,
    compute_bias,
    compute_noise,
    compute_scan,
    compute_signal,
    compute_tumour_look,
    draw_noise,
    make_scanner,
)
from toy_data.atlas import load_atlas
from toy_data.errors import ToyDataError
from toy_data.exact import FloatArray, RandomStream
from toy_data.grid import Grid, check_size
from toy_data.sites import MODALITIES, CaseNames, compute_case_names, compute_site_profile
from toy_data.tumour import (
    TumourPlan,
    compute_labels,
    compute_pushed_positions,
    compute_tumour_plan,
    compute_tumour_window,
)

VERSION = 1
"""Changes whenever the voxels of any case change."""

LABELS_KEY = "seg"

_SLAB_PLANES = 30


@dataclass(frozen=True)
class ToyCase:
    """One synthetic subject.

    Attributes
    ----------
    names : CaseNames
        The subject's id and the names of its files.
    site, index, seed : int
        What the case is made from; `index` counts from 0.
    size : str
        ``full`` or ``ci``.
    images : mapping of str to ndarray of int16
        One array per modality (t1, t1ce, t2, flair); exactly 0 outside the brain, positive inside.
    segmentation : ndarray of uint8
        0 background, 1 necrosis, 2 oedema, 4 enhancing tumour.
    affine : ndarray of float64, shape (4, 4)
        Voxel index to RAS+ position in mm.
    spacing_mm : tuple of float
        Voxel size along each axis.
    """

    names: CaseNames
    site: int
    index: int
    seed: int
    size: str
    images: Mapping[str, NDArray[np.int16]]
    segmentation: NDArray[np.uint8]
    affine: FloatArray
    spacing_mm: tuple[float, float, float]

    @property
    def subject_id(self) -> str:
        """Name of the subject's folder."""
        return self.names.subject_id

    def compute_checksums(self) -> dict[str, str]:
        """Compute the SHA-256 of each array (see `compute_array_checksum`), by modality and ``seg``."""
        arrays: dict[str, NDArray[Any]] = {**self.images, LABELS_KEY: self.segmentation}
        return {name: compute_array_checksum(values) for name, values in arrays.items()}


def make_case(site: int, index: int, seed: int, size: str) -> ToyCase:
    """Make one case. It depends on these four values and nothing else.

    Parameters
    ----------
    site : int
        1 .. 9999; decides the scanner.
    index : int
        Number of the case at the site, from 0.
    seed : int
        Not negative; other seeds give other subjects of the same site.
    size : str
        ``full`` (240 x 240 x 155 at 1 mm) or ``ci`` (96 x 96 x 64 at 2.5 mm): the same subject on another grid.

    Raises
    ------
    ToyDataError
        If a value is out of range, or nilearn or scipy is missing.
    """
    grid = check_size(size)
    profile = compute_site_profile(site)
    if index < 0 or seed < 0:
        raise ToyDataError(f"seed and case index must not be negative: found seed {seed}, index {index}")
    streams = _make_streams(seed, site, index)
    atlas = load_atlas()
    window = compute_window(grid)
    plan = compute_tumour_plan(atlas, streams, size_class=(index + site) % 3)
    part = compute_tumour_window(plan, window, streams)
    labels = compute_labels(atlas, plan, part, streams)
    segmentation = np.zeros(grid.shape, dtype=np.uint8)
    segmentation[window.slices][part.slices] = labels
    look = compute_tumour_look(labels, part, grid, streams)
    scanners = {modality: make_scanner(modality, profile, grid) for modality in MODALITIES}
    images = _compute_images(grid, window, plan, look, scanners, streams)
    spacing = (grid.spacing_mm, grid.spacing_mm, grid.spacing_mm)
    names = compute_case_names(site, index)
    return ToyCase(names, site, index, seed, size, images, segmentation, grid.affine, spacing)


def _compute_images(
    grid: Grid, window: Window, plan: TumourPlan, look: TumourLook, scanners: Mapping[str, Scanner], streams: Streams
) -> dict[str, NDArray[np.int16]]:
    """Compute all images slab by slab, which takes half the memory that whole arrays take, and less time."""
    atlas = load_atlas()
    images = {modality: np.zeros(grid.shape, dtype=np.int16) for modality in scanners}
    drawn = {modality: draw_noise(modality, grid, window, streams) for modality in scanners}
    for slab in window.split(_SLAB_PLANES):
        along = slab.slices[0]
        tissue = compute_tissue(atlas, compute_pushed_positions(plan, compute_atlas_positions(slab, streams)))
        for modality, scanner in scanners.items():
            signal = compute_signal(modality, tissue, look.crop(along), slab, streams)
            noise = compute_noise(drawn[modality][along.start : along.stop + 2])
            bias = compute_bias(modality, slab, streams)
            scan = compute_scan(signal, tissue.brain, noise, bias, scanner)
            images[modality][window.slices][slab.slices] = scan
    return images


def compute_array_checksum(values: NDArray[Any]) -> str:
    """Compute the SHA-256 of an array's type, shape and little-endian values in C order, as hexadecimal digits."""
    little = np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("<"))
    digest = hashlib.sha256(f"{values.dtype.name} {values.shape}".encode())
    digest.update(little.tobytes())
    return digest.hexdigest()


def _make_streams(seed: int, site: int, index: int) -> Streams:
    # CRC-32 gives each purpose its own number, so that a new purpose does not shift the others' streams.
    return lambda purpose: RandomStream((VERSION, seed, site, index, zlib.crc32(purpose.encode())))
