"""Errors of the metrics cube.

MetricsError
├── SetupError         the call, a parameter or a folder is wrong
├── BadReferenceError  a reference cannot be used: ours to repair, never a score
└── OutputError        results.yaml cannot be written

InvalidMask is apart: it says why one file cannot be used. For a prediction it becomes that case's penalty row, for a
reference a BadReferenceError.
"""


class MetricsError(Exception):
    """A failure that ends the task; the text says what failed, found against expected, and what to do next."""

    exit_code = 1


class SetupError(MetricsError):
    """The call, the parameters or an input folder is wrong."""

    exit_code = 2


class BadReferenceError(MetricsError):
    """A reference mask is missing, ambiguous or unusable."""

    exit_code = 3


class OutputError(MetricsError):
    """The results cannot be written."""

    exit_code = 4


REASONS = {
    "missing": "no prediction file of this case",
    "ambiguous": "more than one file could be the mask of this case",
    "not_a_file": "a link, a folder or a special file instead of a regular file",
    "unreadable": "the operating system refuses to read the file",
    "not_nifti": "not a single-file NIfTI-1 or NIfTI-2 image",
    "header_invalid": "a header field that the grid depends on makes no sense",
    "type_unsupported": "a voxel type that cannot hold labels (complex, RGB, bits, 128 bit)",
    "not_3d": "not one three-dimensional volume",
    "shape_differs": "another grid size than the reference",
    "geometry_differs": "another position, direction or spacing than the reference",
    "truncated": "the file ends before the header's voxels do",
    "corrupt": "the compressed stream is damaged",
    "too_long": "more data than the header announces",
    "too_large": "more voxels than the limit allows",
    "not_finite": "NaN or infinite voxels",
    "not_integer": "voxels that are no whole numbers",
}
"""Closed vocabulary of reasons: code -> meaning. No text from a file ever becomes part of a reason."""


class InvalidMask(Exception):
    """One mask file cannot be used.

    Parameters
    ----------
    code : str
        Key of `REASONS`.
    detail : str
        Numbers from the header only (sizes, type codes, millimetres): no voxel value, no path, no text of the file.
    """

    def __init__(self, code: str, detail: str = "") -> None:
        assert code in REASONS
        super().__init__(f"{code}: {detail}" if detail else code)
        self.code = code
