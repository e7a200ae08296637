"""Write toy cases as a site would hand them over."""

import gzip
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from numpy.typing import NDArray

from toy_data.atlas import load_atlas
from toy_data.case import VERSION, ToyCase, make_case
from toy_data.errors import ToyDataError
from toy_data.grid import check_size
from toy_data.sites import compute_site_profile

DATA_FOLDER, LABELS_FOLDER, MANIFEST_NAME = "data", "labels", "toy_data.yaml"
MAX_CASES = 999


def write_cases(
    out: Path,
    *,
    site: int,
    cases: int,
    seed: int = 0,
    size: str = "full",
    on_case: Callable[[ToyCase], None] | None = None,
) -> Path:
    """Write `cases` raw cases of a site to a new folder: complete, or not at all.

    The folder holds ``data/<subject>/`` with four images each, ``labels/<subject>/`` with the reference, and
    ``toy_data.yaml``, which names what was asked for and the checksum of every array.

    Parameters
    ----------
    out : Path
        Folder to make; may exist if it is empty. Missing parents are made.
    site, seed, size
        See `toy_data.make_case`.
    cases : int
        How many, 1 .. 999: the first ones of the site.
    on_case : callable, optional
        Called with each case after it is written.

    Returns
    -------
    Path
        `out`.

    Raises
    ------
    ToyDataError
        If a value is out of range, `out` is not an empty folder or cannot be written.
    """
    _check_request(site, cases, seed, size)
    try:
        with _replace_folder(out.resolve()) as folder:
            checksums = {}
            for index in range(cases):
                case = make_case(site, index, seed, size)
                _write_case(folder, case)
                checksums[case.subject_id] = case.compute_checksums()
                if on_case is not None:
                    on_case(case)
            manifest = {"version": VERSION, "seed": seed, "site": site, "size": size, "sha256": checksums}
            (folder / MANIFEST_NAME).write_text(yaml.safe_dump(manifest, sort_keys=False), encoding="utf-8")
    except OSError as error:
        raise ToyDataError(
            f"cannot write toy cases to {out}: {error.strerror or error}; choose a writable folder with enough space"
        ) from error
    return out


def _check_request(site: int, cases: int, seed: int, size: str) -> None:
    """Find every fault that needs no case before the first folder is made."""
    check_size(size)
    compute_site_profile(site)
    if not 1 <= cases <= MAX_CASES:
        raise ToyDataError(f"cannot make {cases} cases: expected 1 to {MAX_CASES}; choose a number with --cases")
    if seed < 0:
        raise ToyDataError(f"seed {seed} is negative: expected 0 or more; choose one with --seed")
    load_atlas()


@contextmanager
def _replace_folder(out: Path) -> Iterator[Path]:
    """Give a temporary folder beside `out` that becomes `out` if all goes well, and vanishes if not."""
    existing = next(path for path in (out, *out.parents) if path.exists())
    if not existing.is_dir():
        raise ToyDataError(f"{existing} is a file: expected a folder there; choose another one with --out")
    if out.is_dir() and any(out.iterdir()):
        raise ToyDataError(f"{out} is not empty: choose another folder or empty this one; nothing was changed")
    if out == Path.cwd():
        raise ToyDataError(f"{out} is the current folder, which cannot be replaced; name a new one with --out")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(
        prefix=f".{out.name}.", suffix=".partial", dir=out.parent, ignore_cleanup_errors=True
    ) as holder:
        folder = Path(holder) / out.name
        folder.mkdir()
        yield folder
        folder.rename(out)


def _write_case(folder: Path, case: ToyCase) -> None:
    images, labels = folder / DATA_FOLDER / case.subject_id, folder / LABELS_FOLDER / case.subject_id
    images.mkdir(parents=True)
    labels.mkdir(parents=True)
    for modality, values in case.images.items():
        _write_nifti(images / case.names.images[modality], values, case)
    _write_nifti(labels / case.names.segmentation, case.segmentation, case)


def _write_nifti(path: Path, values: NDArray[Any], case: ToyCase) -> None:
    import nibabel

    image: Any = nibabel.Nifti1Image(values, case.affine)  # type: ignore[no-untyped-call]
    image.header.set_xyzt_units("mm")
    image.set_qform(case.affine, code=1)
    image.set_sform(case.affine, code=1)
    # No time stamp and, as from Python 3.13, no word on the system: the same zlib gives the same file.
    packed = gzip.compress(image.to_bytes(), compresslevel=4, mtime=0)
    path.write_bytes(packed[:9] + b"\xff" + packed[10:])
