"""``report.html``: one self-contained page for a run."""

from fedeval.report.page import write_report

__all__ = ["write_report"]
