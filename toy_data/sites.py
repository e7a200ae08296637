"""What makes one site's images differ from another's: its scanners, and how it names its files."""

from collections.abc import Mapping
from dataclasses import dataclass

from toy_data.errors import ToyDataError
from toy_data.exact import RandomStream

MODALITIES = ("t1", "t1ce", "t2", "flair")

_SITE_STREAM = 7_001


@dataclass(frozen=True)
class SiteProfile:
    """The scanner of a site; the same for all its cases, whatever the seed.

    Attributes
    ----------
    gain : mapping of str to float
        Stored value of a full-scale signal, per modality.
    gamma : mapping of str to float
        Exponent of the intensity curve, per modality; 1 is linear.
    noise : float
        Standard deviation of the noise, in levels of 255.
    bias : float
        Relative standard deviation of the bias field.
    slice_thickness_mm : mapping of str to float
        Thickness of the slices that were acquired, per modality.
    """

    gain: Mapping[str, float]
    gamma: Mapping[str, float]
    noise: float
    bias: float
    slice_thickness_mm: Mapping[str, float]


def compute_site_profile(site: int) -> SiteProfile:
    """Compute the scanner profile of a site.

    Site 1 is the reference: linear curve, 1 mm slices, moderate noise and bias. Others are drawn by their number.

    Raises
    ------
    ToyDataError
        If `site` is not in 1 .. 9999.
    """
    if not 1 <= site <= 9999:
        raise ToyDataError(f"site {site} does not exist: expected a number from 1 to 9999")
    if site == 1:
        return SiteProfile(
            gain={"t1": 700.0, "t1ce": 900.0, "t2": 800.0, "flair": 600.0},
            gamma=dict.fromkeys(MODALITIES, 1.0),
            noise=3.0,
            bias=0.05,
            slice_thickness_mm=dict.fromkeys(MODALITIES, 1.0),
        )
    stream = RandomStream((_SITE_STREAM, site))
    thick = stream.choose(3)  # 0: all volumes are 3D; 1: thick T2 and FLAIR; 2: thick in all but T1ce
    thickness_mm = (3.0, 4.0, 5.0)[stream.choose(3)]
    thick_modalities = ((), ("t2", "flair"), ("t1", "t2", "flair"))[thick]
    return SiteProfile(
        gain={modality: round(stream.uniform(350.0, 2400.0)) for modality in MODALITIES},
        gamma={modality: round(stream.uniform(0.8, 1.25), 2) for modality in MODALITIES},
        noise=round(stream.uniform(2.0, 5.0), 1),
        bias=round(stream.uniform(0.03, 0.10), 2),
        slice_thickness_mm={m: thickness_mm if m in thick_modalities else 1.0 for m in MODALITIES},
    )


@dataclass(frozen=True)
class CaseNames:
    """Names of one subject's files, in a convention that sites really use.

    Attributes
    ----------
    subject_id : str
        Name of the subject's folder; may hold hyphens and spaces.
    images : mapping of str to str
        File name per modality.
    segmentation : str
        File name of the reference.
    """

    subject_id: str
    images: Mapping[str, str]
    segmentation: str


def compute_case_names(site: int, index: int) -> CaseNames:
    """Compute the names of case `index` (from 0) of a site; three conventions take turns."""
    number = index + 1
    subject_id, image_infix, segmentation_suffix = (
        (f"S{site:02d}_{number:03d}", "", "_seg"),
        (f"site{site}-{number:03d}", "_brain", "_final_seg"),
        (f"Site {site}-{number:03d}", "_brain", "_seg"),
    )[index % 3]
    images = {modality: f"{subject_id}{image_infix}_{modality}.nii.gz" for modality in MODALITIES}
    return CaseNames(subject_id, images, f"{subject_id}{segmentation_suffix}.nii.gz")
