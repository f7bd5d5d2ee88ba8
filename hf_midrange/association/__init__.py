"""Associations: which concepts fill which band of which unit, and how sure that is."""

from hf_midrange.association.associate import associate
from hf_midrange.association.findings import findings_table, load_findings, provenance, save_findings


__all__ = ["associate", "findings_table", "load_findings", "provenance", "save_findings"]
