"""Find the shortcuts a classifier learnt in the middle of its logits, and repair its head without group labels."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from hf_midrange import logging as logging


if TYPE_CHECKING:
    from hf_midrange.association import associate as associate
    from hf_midrange.association import findings_schema as findings_schema
    from hf_midrange.bands import LogitBands as LogitBands
    from hf_midrange.checking import check as check
    from hf_midrange.concepts import Annotations as Annotations
    from hf_midrange.concepts import Captions as Captions
    from hf_midrange.concepts import EarlyFeatures as EarlyFeatures
    from hf_midrange.concepts import ImageProperties as ImageProperties
    from hf_midrange.concepts import Kinds as Kinds
    from hf_midrange.concepts import LatentConcepts as LatentConcepts
    from hf_midrange.concepts import NGrams as NGrams
    from hf_midrange.concepts import Predictions as Predictions
    from hf_midrange.concepts import TextStyle as TextStyle
    from hf_midrange.concepts import TextTopics as TextTopics
    from hf_midrange.concepts import Thumbnail as Thumbnail
    from hf_midrange.concepts import ZeroShot as ZeroShot
    from hf_midrange.concepts import annotate as annotate
    from hf_midrange.concepts import load_source as load_source
    from hf_midrange.curation import curate as curate
    from hf_midrange.curation import curation_report as curation_report
    from hf_midrange.explorer import explore as explore
    from hf_midrange.extraction import extract as extract
    from hf_midrange.extraction import merge_shards as merge_shards
    from hf_midrange.extraction import one_label as one_label
    from hf_midrange.extraction import signed_error as signed_error
    from hf_midrange.head import LinearHead as LinearHead
    from hf_midrange.head import group_errors as group_errors
    from hf_midrange.head import repair_regression as repair_regression
    from hf_midrange.head import retrain_head as retrain_head
    from hf_midrange.publishing import apply_head as apply_head
    from hf_midrange.publishing import dataset_card as dataset_card
    from hf_midrange.publishing import model_card as model_card
    from hf_midrange.publishing import publish_dataset as publish_dataset
    from hf_midrange.publishing import publish_head as publish_head
    from hf_midrange.publishing import publish_model as publish_model
    from hf_midrange.reporting import Report as Report
    from hf_midrange.reporting import report as report
    from hf_midrange.scoring import group_metrics as group_metrics
    from hf_midrange.ties import shortcuts as shortcuts
    from hf_midrange.training import DebiasReport as DebiasReport
    from hf_midrange.training import MidRangeArguments as MidRangeArguments
    from hf_midrange.training import MidRangeCallback as MidRangeCallback
    from hf_midrange.training import MidRangeTrainer as MidRangeTrainer
    from hf_midrange.training import debias as debias

__version__ = "0.1.0"

# Module -> the public names that it holds. Modules are imported on first use: torch and transformers take seconds.
_NAMES = {
    "association": ("associate", "findings_schema"),
    "bands": ("LogitBands",),
    "checking": ("check",),
    "concepts": (
        "Annotations", "Captions", "EarlyFeatures", "ImageProperties", "Kinds", "LatentConcepts", "NGrams",
        "Predictions", "TextStyle", "TextTopics", "Thumbnail", "ZeroShot", "annotate", "load_source",
    ),
    "curation": ("curate", "curation_report"),
    "explorer": ("explore",),
    "extraction": ("extract", "merge_shards", "one_label", "signed_error"),
    "head": ("LinearHead", "group_errors", "repair_regression", "retrain_head"),
    "publishing": ("apply_head", "dataset_card", "model_card", "publish_dataset", "publish_head", "publish_model"),
    "reporting": ("Report", "report"),
    "scoring": ("group_metrics",),
    "ties": ("shortcuts",),
    "training": ("DebiasReport", "MidRangeArguments", "MidRangeCallback", "MidRangeTrainer", "debias"),
}  # fmt: skip
_HOMES = {name: home for home, names in _NAMES.items() for name in names}

__all__ = sorted(_HOMES)  # noqa: PLE0605 - computed from the one list above


logging.obey_environment()


def __getattr__(name: str) -> Any:  # noqa: ANN401 - the attribute's own type is declared above
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(sorted(_HOMES))}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
