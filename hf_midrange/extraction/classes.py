"""Which of a model's logits belong to which class of a dataset: by name where both name them, else by number."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import NamedTuple

from datasets import ClassLabel, Features
from torch import nn

from hf_midrange.classifier import class_order, given_names, label_names
from hf_midrange.columns import LABEL, class_label


class Classes(NamedTuple):
    """The classes that logits are given for."""

    label: ClassLabel
    """The feature of `prediction`: the dataset's classes, else the model's names, else numbers."""
    order: list[int] | None
    """Which of the model's labels each class is; None: all of them, in order."""


def classes_of(features: Features, model: nn.Module, labels: int, *, match: bool) -> Classes:
    """Return the classes of a dataset with these features as a model of so many labels has them.

    Args:
        features: of the dataset.
        model: the classifier.
        labels: how many logits it has.
        match: whether the classes may be some of the model's labels.

    Raises:
        ValueError: if the model has another number of labels, or, to be matched, lacks a class.
    """
    if LABEL not in features:
        names = label_names(model)
        fits = names is not None and len(names) == labels
        return Classes(ClassLabel(names=names) if fits else ClassLabel(num_classes=labels), None)
    label = class_label(features)
    order = class_order(label.names, model)
    if order is None and match:
        known = _some(label_names(model) or [])
        raise ValueError(
            f"not all classes of column {LABEL!r} ({_some(label.names)}) are among the model's labels ({known}); set "
            "`model.config.id2label`, or leave out `classes='match'`"
        )
    if label.num_classes != labels and not match:
        raise ValueError(
            f"the model has {labels} labels but column {LABEL!r} has {label.num_classes} ({_some(label.names)}); "
            "use a model fine-tuned on these classes, or remove the column for a pure extraction: "
            f"`ds.remove_columns({LABEL!r})`"
            + ("; `classes='match'` takes the logits of these classes, which the model names too" if order else "")
        )
    return Classes(label, None if order == list(range(labels)) else order)


def warn_of_names(features: Features, model: nn.Module) -> None:
    """Warn where the model gives its classes other names than the dataset: nobody can tell whether they fit."""
    names = given_names(model)
    if names is None or LABEL not in features:
        return
    label = class_label(features)
    if class_order(label.names, model) is None:
        warnings.warn(
            f"the model's classes are {_some(names)}, the dataset's {_some(label.names)}: they are taken to be the "
            "same in this order. If they are, name them alike in `model.config.id2label`; if not, the logits are "
            "scored against the wrong classes",
            stacklevel=4,
        )


def _some(names: Sequence[str]) -> str:
    return f"{', '.join(names[:5])}{', ...' if len(names) > 5 else ''}"
