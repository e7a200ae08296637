"""The MNI152 maps that every toy brain is made from."""

import functools
import hashlib
import importlib.util
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from toy_data.errors import ToyDataError

_FILE_PATTERN = "mni_icbm152_{tissue}_tal_nlin_sym_09a_converted.nii.gz"
_SHA256 = {
    "t1": "a42242e3dc051f80e18cf23eb12618a6f09ff951defa2d1e9687d8dcb8810bbf",
    "gm": "31aecb7be828c1bfb9ff518f94fe76c463e4ec834ac96c2de3449ec2122711f5",
    "wm": "b0a50397bf25b0f407ca29e2cfefa2f49f094d06bc0aa2722f2f0b72fcd9b645",
}


@dataclass(frozen=True)
class Atlas:
    """ICBM 152 nonlinear symmetric 2009a average brain at 1 mm, skull-stripped.

    Attributes
    ----------
    t1, gm, wm : ndarray of uint8, shape (197, 233, 189)
        T1 intensity, grey-matter and white-matter fraction (255 is 1). Axes run right, forward, up.
    deep_white : ndarray of int16, shape (n, 3)
        Voxel indices deep in the white matter of the cerebrum, 4 mm apart: where a tumour may start.
    """

    t1: NDArray[np.uint8]
    gm: NDArray[np.uint8]
    wm: NDArray[np.uint8]
    deep_white: NDArray[np.int16]


@functools.cache
def load_atlas() -> Atlas:
    """Load the maps from the installed nilearn package; no network.

    The files are read in place because importing ``nilearn.datasets`` takes seconds; checking their
    checksums replaces the promise that its functions would make.

    Raises
    ------
    ToyDataError
        If nilearn is missing or carries other maps.
    """
    t1, gm, wm = (_load_map(tissue) for tissue in ("t1", "gm", "wm"))
    return Atlas(t1, gm, wm, _compute_deep_white(wm))


def _load_map(tissue: str) -> NDArray[np.uint8]:
    spec = importlib.util.find_spec("nilearn")
    if spec is None or spec.origin is None or importlib.util.find_spec("scipy") is None:
        raise ToyDataError("toy data need nilearn and scipy, which are not installed: pip install 'fedeval[toy]'")
    path = Path(spec.origin).parent / "datasets" / "data" / _FILE_PATTERN.format(tissue=tissue)
    if not path.is_file():
        raise ToyDataError(f"nilearn carries no {path.name}: expected nilearn >= 0.10.4; pip install -U nilearn")
    import nibabel

    try:
        values = np.ascontiguousarray(nibabel.Nifti1Image.from_filename(path).dataobj, dtype=np.uint8)
    except (OSError, EOFError, zlib.error, nibabel.filebasedimages.ImageFileError) as error:
        raise ToyDataError(f"nilearn's {path.name} cannot be read ({error}); install nilearn again") from error
    digest = hashlib.sha256(values.tobytes()).hexdigest()
    if digest != _SHA256[tissue]:
        raise ToyDataError(
            f"nilearn's {path.name} has other voxels than this generator was made for: found sha256 {digest}, "
            f"expected {_SHA256[tissue]}; install nilearn 0.14"
        )
    return values


def _compute_deep_white(wm: NDArray[np.uint8]) -> NDArray[np.int16]:
    step = 4
    coarse = wm[::step, ::step, ::step].astype(np.int32)
    total = np.zeros_like(coarse)
    for shift in ((0, 0, 0), (1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0), (0, 0, 1), (0, 0, -1)):
        total += np.roll(coarse, shift, axis=(0, 1, 2))
    index = np.argwhere(total >= 7 * 150) * step
    # Off the midline (index 98) and above brain stem and cerebellum.
    keep = (np.abs(index[:, 0] - 98) >= 16) & (index[:, 2] >= 60)
    return index[keep].astype(np.int16)
