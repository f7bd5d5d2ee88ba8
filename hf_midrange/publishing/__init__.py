"""Publishing: curated data sets, repaired models and their cards, each in one commit on the Hub."""

from hf_midrange.publishing.cards import dataset_card, model_card
from hf_midrange.publishing.dataset import publish_dataset
from hf_midrange.publishing.facts import DatasetFacts, ModelFacts, Score
from hf_midrange.publishing.head_repository import apply_head, publish_head
from hf_midrange.publishing.model import Background, model_facts, publish_model
from hf_midrange.publishing.repository import PublishError


__all__ = [
    "Background",
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
