"""Seeded toy cases with real anatomy: brain-tumour MRI as a FeTS site would hold it.

``python -m toy_data cases --site 1 --cases 3 --seed 0 --out DIR`` writes them; `make_case` makes one in memory.
"""

from toy_data.case import VERSION, ToyCase, compute_array_checksum, make_case
from toy_data.errors import ToyDataError
from toy_data.grid import GRIDS, Grid
from toy_data.sites import MODALITIES, CaseNames, SiteProfile, compute_case_names, compute_site_profile
from toy_data.writing import DATA_FOLDER, LABELS_FOLDER, MANIFEST_NAME, write_cases

__all__ = [
    "DATA_FOLDER",
    "GRIDS",
    "LABELS_FOLDER",
    "MANIFEST_NAME",
    "MODALITIES",
    "VERSION",
    "CaseNames",
    "Grid",
    "SiteProfile",
    "ToyCase",
    "ToyDataError",
    "compute_array_checksum",
    "compute_case_names",
    "compute_site_profile",
    "make_case",
    "write_cases",
]
