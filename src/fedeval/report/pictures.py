"""Pictures for the report: one axial slice a case, the scan as a PNG, the outlines as vector paths over it.

Only what is drawn is read: the reference as a whole (to choose the slice), one slice of everything else.
A picture that cannot be drawn becomes a note; nothing here raises for what a file holds.
"""

from __future__ import annotations

import base64
import io
import itertools
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import numpy.typing as npt
from nibabel.arrayproxy import ArrayProxy
from nibabel.filebasedimages import ImageFileError
from nibabel.orientations import io_orientation
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError
from PIL import Image

from fedeval.report.outlines import DataText, trace_outline

TITLES = {"flair": "FLAIR", "t1ce": "T1ce"}
OVERVIEW = "flair"
# On which modality a region is seen best: oedema on FLAIR, the core and its enhancing part on T1 with contrast agent.
BEST_SEEN = {"WT": "flair"}
OTHERWISE = "t1ce"
ENLARGE = 2  # PNG pixels per voxel edge in the overview; browsers do the rest
ZOOM_ENLARGE = 4
ZOOM_MARGIN_MM = 10.0
ZOOM_LEAST_MM = 48.0
GREY_STEP = 4  # 64 grey levels: enough for a screen, and a third smaller than 256
MAX_VOXELS = 2**27  # a header that claims more is not read
MAX_OFFSET = 2**20  # bytes of header and extensions before the voxels
MARGIN = 0.05
GRID_TOLERANCE_MM = 1e-2  # how far a corner of two grids may be apart, as for predictions that are scored

# What nibabel, numpy and zlib raise on broken, truncated or lying files.
UNREADABLE = (
    OSError, EOFError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, MemoryError, zlib.error,
    struct.error, ImageFileError, HeaderDataError, WrapStructError, np.linalg.LinAlgError,
)  # fmt: skip


@dataclass(frozen=True)
class Outline:
    """Outline of one region: `path` is SVG path data in half voxels from the corner of the slice."""

    region: str
    source: str
    path: DataText


@dataclass(frozen=True)
class Panel:
    """One view of the slice with the outlines that belong on it.

    Attributes
    ----------
    region : str
        The region that is zoomed to; empty for the overview.
    image : str
        Data URI of a PNG that fills the view.
    x, y, width, height : float
        The view in millimetres from the corner of the slice, to the right and down.
    """

    title: str
    region: str
    image: DataText
    outlines: tuple[Outline, ...]
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True)
class CasePicture:
    """What the template needs to draw one case.

    Attributes
    ----------
    scale_x, scale_y : float
        Millimetres per half voxel, to the right and down.
    caption : str
        Which slice this is and how it was chosen.
    zoom : tuple of float, or None
        The zoomed part (x, y, width, height in mm); None if nothing is there to zoom to.
    notes : tuple of str
        What could not be drawn, and why, in words of our own.
    """

    scale_x: float
    scale_y: float
    caption: str
    panels: tuple[Panel, ...]
    zoom: tuple[float, float, float, float] | None
    notes: tuple[str, ...]


_Window = tuple[slice, slice]


@dataclass(frozen=True)
class _Plane:
    """One axial plane of a voxel grid, and how to turn it for the screen.

    Attributes
    ----------
    affine : ndarray, float64, shape (4, 4)
        Voxel indices to RAS+ millimetres.
    orientation : ndarray, float64, shape (3, 2)
        nibabel's orientation: for each voxel axis the nearest RAS axis and its sign.
    """

    shape: tuple[int, ...]
    affine: npt.NDArray[np.float64]
    orientation: npt.NDArray[np.float64]
    index: int

    @property
    def axis(self) -> int:
        """The voxel axis that runs from the feet to the head."""
        return int(np.flatnonzero(self.orientation[:, 0] == 2)[0])

    @property
    def number(self) -> int:
        """Number of the slice counted from the feet, the first is 1."""
        upwards = self.orientation[self.axis, 1] > 0
        return self.index + 1 if upwards else self.shape[self.axis] - self.index

    @property
    def spacing_mm(self) -> tuple[float, float]:
        """Voxel size on the screen: down, to the right."""
        sizes = np.sqrt((self.affine[:3, :3] ** 2).sum(axis=0))
        rows, columns = (int(np.flatnonzero(self.orientation[:, 0] == target)[0]) for target in (1, 0))
        return float(sizes[rows]), float(sizes[columns])

    def turn(self, values: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
        """`values` of this plane as seen on screen: anterior up, the patient's right on the left."""
        remaining = [axis for axis in range(3) if axis != self.axis]
        if self.orientation[remaining[0], 0] == 0:
            values, remaining = values.T, remaining[::-1]
        # Rows run to posterior and columns to the patient's left: against the signs of RAS.
        steps = tuple(slice(None, None, -1 if self.orientation[axis, 1] > 0 else 1) for axis in remaining)
        return values[steps]


def draw_case(
    case: str, data_dir: Path, labels_dir: Path, predictions_dir: Path, regions: Mapping[str, Sequence[int]]
) -> CasePicture | str:
    """Draw the slice with the largest reference, with the outlines of reference and prediction.

    Parameters
    ----------
    case : str
        Case id. It may come from a stranger: anything but a plain file name is refused.
    data_dir, labels_dir, predictions_dir : Path
        Prepared case folders, references and predictions, named as the benchmark says.
    regions : mapping
        Region name to its labels.

    Returns
    -------
    CasePicture or str
        The picture, or a short note why there is none. The note holds no path and no text from a file.
    """
    if not _is_plain_name(case):
        return "no picture: the case id is not a plain file name"
    try:
        reference = _open_volume(labels_dir / f"{case}_final_seg.nii.gz", links=True)
        plane, how = _choose_plane(reference, predictions_dir / f"{case}.nii.gz", regions)
        masks = {"reference": plane.turn(_read_plane(reference, plane))}
    except UNREADABLE:
        return "no picture: the reference is missing or cannot be read"
    notes = []
    try:
        masks["prediction"] = _load_aligned(predictions_dir / f"{case}.nii.gz", plane)
    except UNREADABLE:
        notes.append("no prediction is drawn: none is there that lies on the grid of the reference")
    scans: dict[str, npt.NDArray[np.generic]] = {}
    for modality, title in TITLES.items():
        try:
            scans[modality] = _load_aligned(data_dir / case / f"{case}_brain_{modality}.nii.gz", plane, links=True)
        except UNREADABLE:
            notes.append(f"{title} is not drawn: missing, unreadable or on another grid")
    return _compose(plane, how, masks, scans, regions, notes)


def _is_plain_name(case: str) -> bool:
    return case not in ("", ".", "..") and "\0" not in case and Path(case).name == case


def _open_volume(path: Path, links: bool = False) -> nib.Nifti1Image:
    """The image with its header read. OSError or ValueError if it is no regular file or claims too much.

    The site's own files may be links; a submission's may not.
    """
    if not path.is_file() or (path.is_symlink() and not links):
        raise FileNotFoundError("not a regular file")
    volume = nib.load(path)
    if not isinstance(volume, nib.Nifti1Image) or len(volume.shape) != 3 or 0 in volume.shape:
        raise ValueError("not a volume")
    # The loaded header forgets the offset of the voxels; the array proxy keeps it.
    offset = volume.dataobj.offset if isinstance(volume.dataobj, ArrayProxy) else 0
    if np.prod(volume.shape, dtype=np.float64) > MAX_VOXELS or offset > MAX_OFFSET:
        raise ValueError("too large to be drawn")
    return volume


def _choose_plane(
    reference: nib.Nifti1Image, prediction: Path, regions: Mapping[str, Sequence[int]]
) -> tuple[_Plane, str]:
    """The axial plane with most reference voxels of any region; without any, of the prediction; else the middle."""
    affine = np.asarray(reference.affine, dtype=np.float64)
    orientation = np.asarray(io_orientation(affine), dtype=np.float64)  # type: ignore[no-untyped-call]
    if not np.isfinite(orientation).all() or not np.isfinite(affine).all():
        raise ValueError("affine without three axes")
    plane = _Plane(tuple(reference.shape), affine, orientation, 0)
    labels = sorted({label for group in regions.values() for label in group})
    areas = _count_areas(np.asanyarray(reference.dataobj), labels, plane.axis)
    how = "the largest tumour area of the reference"
    if not areas.any():
        how = "the middle of the scan: neither reference nor prediction shows a tumour"
        areas[areas.size // 2] = 1
        try:
            predicted = _open_volume(prediction)
            if _same_grid(predicted, plane):
                found = _count_areas(np.asanyarray(predicted.dataobj), labels, plane.axis)
                if found.any():
                    areas, how = found, "the largest predicted area: the reference shows no tumour"
        except UNREADABLE:
            how = "the middle of the scan: the reference shows no tumour"
    return _Plane(plane.shape, affine, orientation, int(np.argmax(areas))), how


def _count_areas(mask: npt.NDArray[np.generic], labels: Sequence[int], axis: int) -> npt.NDArray[np.intp]:
    others = tuple(other for other in range(3) if other != axis)
    return np.asarray(np.count_nonzero(np.isin(mask, labels), axis=others))


def _same_grid(volume: nib.Nifti1Image, plane: _Plane) -> bool:
    if tuple(volume.shape) != plane.shape:
        return False
    corners = np.array([(*corner, 1) for corner in itertools.product(*((0, size) for size in plane.shape))])
    shifts_mm = corners @ (np.asarray(volume.affine, dtype=np.float64) - plane.affine).T
    return bool(np.abs(shifts_mm).max() <= GRID_TOLERANCE_MM)


def _read_plane(volume: nib.Nifti1Image, plane: _Plane) -> npt.NDArray[np.generic]:
    where: list[slice | int] = [slice(None)] * 3
    where[plane.axis] = plane.index
    return np.asarray(volume.dataobj[tuple(where)])


def _load_aligned(path: Path, plane: _Plane, links: bool = False) -> npt.NDArray[np.generic]:
    """The plane of another volume, turned for the screen. ValueError if it lies on another grid."""
    volume = _open_volume(path, links)
    if not _same_grid(volume, plane):
        raise ValueError("another grid")
    return plane.turn(_read_plane(volume, plane))


def _compose(
    plane: _Plane,
    how: str,
    masks: Mapping[str, npt.NDArray[np.generic]],
    scans: Mapping[str, npt.NDArray[np.generic]],
    regions: Mapping[str, Sequence[int]],
    notes: list[str],
) -> CasePicture:
    """Overview with the outlines of the first region, then one zoomed view a region."""
    labels = sorted({label for group in regions.values() for label in group})
    tumours = [np.isin(mask, labels) for mask in masks.values()]
    whole = compute_crop(np.logical_or.reduce([*tumours, *(np.nan_to_num(scan) != 0 for scan in scans.values())]))
    # Stray predicted voxels are seen in the overview; the zoom goes to the reference if there is one.
    target = next((tumour for tumour in tumours if tumour.any()), None)
    near = whole if target is None else compute_zoom(target, whole, plane.spacing_mm)
    outlines = {region: _trace(region, list(labels_of), masks, notes) for region, labels_of in regions.items()}
    views = [(OVERVIEW, "", next(iter(outlines.values()), ()))]
    views += [(BEST_SEEN.get(region, OTHERWISE), region, lines) for region, lines in outlines.items()]
    down_mm, right_mm = plane.spacing_mm
    images: dict[tuple[str, bool], DataText] = {}
    panels = []
    for modality, region, lines in views:
        if modality not in scans:
            continue
        window, enlarge = (near, ZOOM_ENLARGE) if region else (whole, ENLARGE)
        key = (modality, bool(region))
        if key not in images:
            images[key] = encode_png(scans[modality], window, enlarge, down_mm / right_mm)
        panels.append(Panel(TITLES[modality], region, images[key], lines, *_view_mm(window, plane.spacing_mm)))
    caption = f"Axial slice {plane.number} of {plane.shape[plane.axis]}, counted from the feet: {how}"
    zoom = None if target is None else _view_mm(near, plane.spacing_mm)
    scales = (round(right_mm / 2, 5), round(down_mm / 2, 5))
    return CasePicture(*scales, caption, tuple(panels), zoom, tuple(dict.fromkeys(notes)))


def _trace(
    region: str, labels: list[int], masks: Mapping[str, npt.NDArray[np.generic]], notes: list[str]
) -> tuple[Outline, ...]:
    """Outlines of one region, the reference first so that the prediction lies on top."""
    outlines = []
    for source, mask in masks.items():
        path = trace_outline(np.isin(mask, labels))
        if path is None:
            notes.append(f"{source} of {region} is not outlined: it falls into too many small pieces")
        elif path:
            outlines.append(Outline(region, source, path))
    return tuple(outlines)


def _view_mm(window: _Window, spacing_mm: tuple[float, float]) -> tuple[float, float, float, float]:
    (rows, columns), (down, right) = window, spacing_mm
    corner = (columns.start * right, rows.start * down)
    size = ((columns.stop - columns.start) * right, (rows.stop - rows.start) * down)
    return round(corner[0], 3), round(corner[1], 3), round(size[0], 3), round(size[1], 3)


def compute_crop(shown: npt.NDArray[np.bool_]) -> _Window:
    """Rows and columns around what is shown, with a margin; the whole plane if nothing is."""
    parts = []
    for axis, size in enumerate(shown.shape):
        filled = np.flatnonzero(shown.any(axis=1 - axis))
        margin = max(2, round(size * MARGIN))
        first, last = (int(filled[0]), int(filled[-1])) if filled.size else (0, size)
        parts.append(slice(max(0, first - margin), min(size, last + margin + 1)))
    return parts[0], parts[1]


def compute_zoom(target: npt.NDArray[np.bool_], whole: _Window, spacing_mm: tuple[float, float]) -> _Window:
    """The part of `whole` around `target`, of the same proportions as `whole` so that views line up."""
    filled = [np.flatnonzero(target.any(axis=1 - axis)) for axis in (0, 1)]
    sizes = [(part.stop - part.start) * step for part, step in zip(whole, spacing_mm, strict=True)]
    wanted = [
        max(ZOOM_LEAST_MM, (int(at[-1]) + 1 - int(at[0])) * step + 2 * ZOOM_MARGIN_MM)
        for at, step in zip(filled, spacing_mm, strict=True)
    ]
    share = min(1.0, max(want / size for want, size in zip(wanted, sizes, strict=True)))
    parts = []
    for at, part in zip(filled, whole, strict=True):
        length = max(1, round(share * (part.stop - part.start)))
        start = (int(at[0]) + int(at[-1]) + 1 - length) // 2
        start = min(max(start, part.start), part.stop - length)
        parts.append(slice(start, start + length))
    return parts[0], parts[1]


def encode_png(
    scan: npt.NDArray[np.generic], window: _Window, enlarge: int = ENLARGE, row_stretch: float = 1.0
) -> DataText:
    """Part of a slice as an 8-bit grey PNG in a data URI; black to white is the 1st to 99.7th percentile of tissue.

    Parameters
    ----------
    scan : ndarray, shape (rows, columns), any real dtype
        Intensities of the whole slice; NaN and infinities count as zero, zero is background.
    window : tuple of slice
        Rows and columns to encode.
    enlarge : int
        PNG pixels per voxel edge.
    row_stretch : float
        Row spacing over column spacing: thick slices get more pixel rows.
    """
    values = np.nan_to_num(np.asarray(scan, dtype=np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    tissue = values[values != 0]
    low, high = (float(level) for level in np.percentile(tissue, (1, 99.7))) if tissue.size else (0.0, 1.0)
    span = high - low if high > low else 1.0
    grey = np.where(values == 0, 0.0, np.clip((values - low) / span, 0.0, 1.0) * 225 + 30)[window]
    columns = grey.shape[1] * enlarge
    rows = max(1, min(4 * columns, round(grey.shape[0] * enlarge * row_stretch)))
    picture = Image.fromarray(np.round(grey).astype(np.uint8)).resize((columns, rows), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    levels = np.asarray(picture) // GREY_STEP * GREY_STEP
    Image.fromarray(levels.astype(np.uint8)).save(buffer, "PNG")
    return DataText("data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii"))
