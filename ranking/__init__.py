"""Ranking of submissions over sites: files in, files out.

``python ranking/compute_ranking.py DATA_DIR`` and ``python -m ranking DATA_DIR`` are the same program. As a library the
package is pure functions on arrays; :mod:`ranking.document` describes the one JSON that holds every number of a
ranking.
"""

__version__ = "0.1.0"
