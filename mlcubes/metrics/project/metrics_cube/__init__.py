"""Segmentation metrics for benchmark 1 and any benchmark of the same shape.

The arithmetic (`counts`, `hausdorff`, `surfels`, `lesions`) is pure functions on arrays and needs no cube; the cube
itself (`evaluate`) reads folders of NIfTI masks and writes results.yaml. Definitions: docs/metrics.md.
"""

__version__ = "0.1.0"
