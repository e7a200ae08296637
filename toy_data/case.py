"""One toy case, from its numbers to its arrays."""

import hashlib
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toy_data.anatomy import Streams, Tissue, Window, compute_atlas_positions, compute_tissue, compute_window
from toy_data.appearance import TumourLook, compute_scan, compute_signal, compute_tumour_look
from toy_data.atlas import load_atlas
from toy_data.errors import ToyDataError
from toy_data.exact import FloatArray, RandomStream
from toy_data.grid import Grid, check_size
from toy_data.sites import MODALITIES, CaseNames, compute_case_names, compute_site_profile
from toy_data.tumour import (
    compute_labels,
    compute_pushed_positions,
    compute_squared_distance,
    compute_tumour_plan,
    compute_tumour_window,
)

VERSION = 1
"""Changes whenever the voxels of any case change."""

LABELS_KEY = "seg"


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
    window = compute_window(grid)
    head = _compute_head(grid, window, _make_streams(seed, site, index), size_class=(index + site) % 3)
    images = {}
    for modality in MODALITIES:
        signal = compute_signal(modality, head.tissue, head.tumour, window, head.streams)
        scan = compute_scan(modality, signal, head.tissue.brain, profile, grid, window, head.streams)
        images[modality] = _paste(scan, grid.shape, window.slices)
    spacing = (grid.spacing_mm, grid.spacing_mm, grid.spacing_mm)
    names = compute_case_names(site, index)
    segmentation = _paste(head.labels, grid.shape, window.slices)
    return ToyCase(names, site, index, seed, size, images, segmentation, grid.affine, spacing)


@dataclass(frozen=True)
class _Head:
    """What a scanner would look at: tissue and tumour on a window's voxels."""

    streams: Streams
    tissue: Tissue
    labels: NDArray[np.uint8]
    tumour: TumourLook


def _compute_head(grid: Grid, window: Window, streams: Streams, size_class: int) -> _Head:
    atlas = load_atlas()
    positions = compute_atlas_positions(window, streams)
    plan = compute_tumour_plan(atlas, streams, size_class)
    squared_mm2 = compute_squared_distance(plan, positions)
    tissue = compute_tissue(atlas, compute_pushed_positions(plan, positions, squared_mm2))
    part = compute_tumour_window(plan, squared_mm2, window, margin=grid.smoothing)
    labels = compute_labels(plan, squared_mm2[part.slices], tissue.crop(part.slices), part, streams)
    tumour = compute_tumour_look(labels, part, grid, streams)
    return _Head(streams, tissue, _paste(labels, window.shape, part.slices), tumour)


def compute_array_checksum(values: NDArray[Any]) -> str:
    """Compute the SHA-256 of an array's type, shape and little-endian values in C order, as hexadecimal digits."""
    little = np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("<"))
    digest = hashlib.sha256(f"{values.dtype.name} {values.shape}".encode())
    digest.update(little.tobytes())
    return digest.hexdigest()


def _make_streams(seed: int, site: int, index: int) -> Streams:
    # CRC-32 gives each purpose its own number, so that a new purpose does not shift the others' streams.
    return lambda purpose: RandomStream((VERSION, seed, site, index, zlib.crc32(purpose.encode())))


def _paste(part: NDArray[Any], shape: tuple[int, int, int], slices: tuple[slice, slice, slice]) -> NDArray[Any]:
    whole = np.zeros(shape, dtype=part.dtype)
    whole[slices] = part
    return whole
