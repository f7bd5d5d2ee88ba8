"""Reporting: what was found and what was done, as one page that opens anywhere and the same facts as JSON."""

from hf_midrange.reporting.document import Report, report


__all__ = ["Report", "report"]
