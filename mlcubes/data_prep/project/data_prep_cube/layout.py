"""File names of raw and prepared cases: the one place where they are written down."""

from pathlib import Path

MODALITIES = ("t1", "t1ce", "t2", "flair")
REFERENCE = "reference"
PARTS = (*MODALITIES, REFERENCE)

# Regions of the benchmark as sets of labels: whole tumour, tumour core, enhancing tumour.
REGIONS: dict[str, tuple[int, ...]] = {"WT": (1, 2, 4), "TC": (1, 4), "ET": (4,)}

RAW_SUFFIXES = (".nii.gz", ".nii")
# Earlier names win: a skull-stripped image before a plain one, a final segmentation before a draft.
_RAW_REFERENCE_STEMS = ("final_seg", "brain_final_seg", "seg", "brain_seg")


def raw_names(subject: str, part: str) -> list[str]:
    """File names under which a site may keep one part of a subject, the preferred one first."""
    stems = _RAW_REFERENCE_STEMS if part == REFERENCE else (f"brain_{part}", part)
    return [f"{subject}_{stem}{suffix}" for stem in stems for suffix in RAW_SUFFIXES]


def image_name(case: str, modality: str) -> str:
    """File name of a prepared image."""
    return f"{case}_brain_{modality}.nii.gz"


def reference_name(case: str) -> str:
    """File name of a prepared reference, directly below the labels folder."""
    return f"{case}_final_seg.nii.gz"


def prepared_path(data_path: Path, labels_path: Path, case: str, part: str) -> Path:
    """Place of one part of a prepared case.

    A reference in a folder of its own (``<case>/<case>_final_seg.nii.gz``) is taken if the flat file is absent.
    """
    if part != REFERENCE:
        return data_path / case / image_name(case, part)
    flat = labels_path / reference_name(case)
    nested = labels_path / case / reference_name(case)
    return nested if nested.exists() and not flat.exists() else flat
