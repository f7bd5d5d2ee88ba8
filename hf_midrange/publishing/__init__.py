"""Publishing: curated data sets, repaired models and their cards, each in one commit on the Hub."""

from hf_midrange.publishing.cards import dataset_card, model_card
from hf_midrange.publishing.dataset import publish_dataset
from hf_midrange.publishing.facts import DatasetFacts, ModelFacts, Score
from hf_midrange.publishing.model import Background, apply_head, model_facts, publish_head, publish_model
from hf_midrange.publishing.repository import CommitOptions, PublishError


__all__ = [
    "Background",
    "CommitOptions",
    "DatasetFacts",
    "ModelFacts",
    "PublishError",
    "Score",
    "apply_head",
    "dataset_card",
    "model_card",
    "model_facts",
    "publish_dataset",
    "publish_head",
    "publish_model",
]
