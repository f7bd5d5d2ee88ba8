"""A `transformers.Trainer` that also finds the shortcuts of the model it trains, and repairs its head."""

from hf_midrange.training.debiasing import debias
from hf_midrange.training.evaluation import MidRangeCallback
from hf_midrange.training.report import DebiasReport
from hf_midrange.training.trainer import MidRangeArguments, MidRangeTrainer


__all__ = ["DebiasReport", "MidRangeArguments", "MidRangeCallback", "MidRangeTrainer", "debias"]
