"""The demonstration: a real pretrained network, a tie in its training data, the shortcut found, the head repaired."""

from hf_midrange.demo.domino_trial import run_demo


__all__ = ["run_demo"]
