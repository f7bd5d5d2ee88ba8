"""Associations: which concepts fill which band of which unit, and how sure that is."""

from hf_midrange.association.findings import findings_table, load_findings, provenance, save_findings
from hf_midrange.association.mislabels import suspected_mislabels
from hf_midrange.association.schema import findings_schema
from hf_midrange.association.search import associate


__all__ = [
    "associate",
    "findings_schema",
    "findings_table",
    "load_findings",
    "provenance",
    "save_findings",
    "suspected_mislabels",
]
