"""Shortcuts: what the data tie a class to, said once for each tie, in a sentence, with the rows that break it."""

from hf_midrange.ties.telling import shortcuts


__all__ = ["shortcuts"]
