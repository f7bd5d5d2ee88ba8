"""What another classifier sees in the rows: the labels it puts first, as concepts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from datasets import Dataset, Features, List, Value
from scipy import sparse

from hf_midrange import columns
from hf_midrange.concepts.map_steps import Batch
from hf_midrange.concepts.model_source import Classifier, ModelLike, ModelSource, classifier, evaluating
from hf_midrange.concepts.source import IMAGE, TEXT, refuse_constant, refuse_outside, require_feature
from hf_midrange.concepts.vocabularies import imagenet_lemmas


MOST_LABELS = 1_000_000


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
        inputs = found.inputs(self.column, batch[self.column])
        with evaluating(found.model):
            output = found(inputs)
        logits = getattr(output, "logits", output).float()
        return {self._top: list(logits.topk(min(self.top, logits.shape[1])).indices.cpu().numpy().astype(np.int32))}

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
