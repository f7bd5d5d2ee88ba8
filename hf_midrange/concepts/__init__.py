"""Concepts: everything that is present or absent in a row and has a name, from wherever a user has it."""

from hf_midrange.concepts.annotation import annotate
from hf_midrange.concepts.captions import Captions
from hf_midrange.concepts.early_features import EarlyFeatures
from hf_midrange.concepts.latent import LatentConcepts
from hf_midrange.concepts.metadata import Annotations
from hf_midrange.concepts.ngrams import NGrams
from hf_midrange.concepts.pictures import ImageProperties, Thumbnail
from hf_midrange.concepts.predictions import Kinds, Predictions
from hf_midrange.concepts.source import Source
from hf_midrange.concepts.text_views import TextStyle, TextTopics
from hf_midrange.concepts.usual import load_source
from hf_midrange.concepts.zero_shot import ZeroShot


__all__ = [
    "Annotations",
    "Captions",
    "EarlyFeatures",
    "ImageProperties",
    "Kinds",
    "LatentConcepts",
    "NGrams",
    "Predictions",
    "Source",
    "TextStyle",
    "TextTopics",
    "Thumbnail",
    "ZeroShot",
    "annotate",
    "load_source",
]
