"""What logits mean: one of several classes, yes or no, several labels a row, or a number; and which of them is whose.

Every later step knows rows of one class each. Rows with several labels are viewed as those of one label at a time:
two classes, `not x` and `x`, with the label's logit z mirrored to -z/2 and z/2, as a model with one logit has them.
Rows with a number are viewed as those of one class, whose one logit is the signed error.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
from datasets import ClassLabel, Dataset, Features, List, Value

from hf_midrange import columns
from hf_midrange.columns import LABEL, LOGITS, PREDICTION, Splits, class_label, facts, listed, over_splits, with_facts


if TYPE_CHECKING:
    from torch import nn

    from hf_midrange.classifier import Head


class Classes(NamedTuple):
    """The classes that logits are given for."""

    prediction: ClassLabel | List | Value
    """The feature of `prediction`: the dataset's classes, else the model's names, else numbers; a list of several; or
    a number."""
    order: list[int] | None
    """Which of the model's labels each class is; None: all of them, in order."""

    @property
    def size(self) -> int:
        """Number of logits."""
        return 1 if isinstance(self.prediction, Value) else _names(self.prediction).num_classes


def classes_of(features: Features, model: nn.Module, head: Head, *, match: bool) -> Classes:
    """Return the classes of a dataset with these features as a model has them.

    Args:
        features: of the dataset.
        model: the classifier.
        head: its last linear layer.
        match: whether the classes may be some of the model's labels.

    Raises:
        TypeError: if the labels are neither classes, lists of them nor numbers.
        ValueError: if the model has another number of labels, or, to be matched, lacks a class.
    """
    from hf_midrange.classifier import class_order, given_names, has_several_labels, label_names

    if LABEL not in features:
        names = given_names(model) or label_names(model) or []
        fits = len(names) == head.classes
        own = ClassLabel(names=names) if fits else ClassLabel(num_classes=head.classes)
        return Classes(List(own) if has_several_labels(model) and not head.has_one_output else own, None)
    feature = _label_feature(features)
    if isinstance(feature, Value):
        if not head.has_one_output:
            raise ValueError(f"column {LABEL!r} holds numbers, and the model has {head.classes} outputs for classes")
        return Classes(Value("float32"), None)
    label = _names(feature)
    if isinstance(feature, List) and head.has_one_output:
        raise ValueError(f"a model with one logit tells two classes apart; make column {LABEL!r} a ClassLabel of two")
    order = class_order(label.names, model)
    if order is None and match:
        known = listed(label_names(model) or [])
        raise ValueError(
            f"not all classes of column {LABEL!r} ({listed(label.names)}) are among the model's labels ({known}); set "
            "`model.config.id2label`, or leave out `classes='match'`"
        )
    if label.num_classes != head.classes and not match:
        raise ValueError(
            f"the model has {head.classes} labels but column {LABEL!r} has {label.num_classes} "
            f"({listed(label.names)}); use a model fine-tuned on these classes, or remove the column for a pure "
            f"extraction: `ds.remove_columns({LABEL!r})`"
            + ("; `classes='match'` takes the logits of these classes, which the model names too" if order else "")
        )
    return Classes(feature, None if order == list(range(head.classes)) else order)


def warn_of_names(features: Features, model: nn.Module) -> None:
    """Warn where the model gives its classes other names than the dataset: nobody can tell whether they fit."""
    from hf_midrange.classifier import class_order, given_names

    names = given_names(model)
    if names is None or LABEL not in features or isinstance(features[LABEL], Value):
        return
    label = _names(_label_feature(features))
    if class_order(label.names, model) is None:
        warnings.warn(
            f"the model's classes are {listed(names)}, the dataset's {listed(label.names)}: they are taken to be the "
            "same in this order. If they are, name them alike in `model.config.id2label`; if not, the logits are "
            "scored against the wrong classes",
            stacklevel=4,
        )


def predictions(logits: np.ndarray, feature: Any) -> pa.Array:  # noqa: ANN401 - a feature
    """Return the class of the largest of each row's logits, the labels whose logits are positive, or the number."""
    if isinstance(feature, Value):
        return pa.array(logits[:, 0], pa.float32())
    if isinstance(feature, List):
        return columns.concept_arrow(logits > 0, feature.feature.names)
    return pa.array(logits.argmax(axis=1), pa.int64())


def one_label(ds: Splits, name: str, *, others: bool = False) -> Splits:
    """Return rows with several labels as those of one label, for all later steps: bands, findings, curation, heads.

    `label` becomes one of the classes `not <name>` and `<name>`. If `extract` has run, `logits` are -z/2 and z/2 of
    the label's logit z, whose softmax is its sigmoid, and `prediction` is the class of the larger. A head that is
    retrained on such rows knows whose it is: `head.merge_into(model)` changes this label's row of the classifier
    alone, so that the heads of several labels can be merged one after the other.

    Args:
        ds: a dataset whose `label` is a `List(ClassLabel)`: which labels a row has.
        name: one of them.
        others: add the other labels as concepts, in a column `concepts_labels`.

    Raises:
        TypeError: if `label` is no list of classes.
        ValueError: if there is no such label, or a row's list is null.

    Examples:
        >>> from datasets import ClassLabel, Dataset, Features, List
        >>> faces = Features({"label": List(ClassLabel(names=["smiling", "young"]))})
        >>> rows = Dataset.from_dict({"label": [[0], [0, 1], []]}, features=faces)
        >>> one_label(rows, "young").features["label"].names, one_label(rows, "young")["label"][:]
        (['not young', 'young'], [0, 1, 0])
    """
    return over_splits(ds, lambda split: _of_one(split, name, others))


def _of_one(ds: Dataset, name: str, others: bool) -> Dataset:
    from hf_midrange.classifier import absence

    feature = _label_feature(ds.features)
    if not isinstance(feature, List):
        raise TypeError(f"column {LABEL!r} must be a List(ClassLabel), several labels a row, but is {feature}")
    names = _names(feature).names
    if name not in names:
        raise ValueError(f"{name!r} is none of the labels {listed(names, 20)}")
    missing = ds.select_columns([LABEL]).with_format("arrow")[:][LABEL].null_count
    if missing:
        raise ValueError(f"column {LABEL!r} is null in {missing} rows; a row without labels has an empty list")
    number, present = names.index(name), columns.presence(ds, LABEL)
    label = ClassLabel(names=[absence(name), name])
    made: dict[str, tuple[Any, Any]] = {LABEL: (present[:, [number]].toarray().ravel().astype(np.int64), label)}
    if LOGITS in ds.features:
        logit = columns.some_units(ds, LOGITS, [number])
        known = facts(ds.features, LOGITS)
        pair = with_facts(columns.vector(2), **known, of_label=(known.get("order") or range(len(names)))[number])
        made[LOGITS] = np.concatenate([-logit / 2, logit / 2], axis=1), pair
        made[PREDICTION] = (logit[:, 0] > 0).astype(np.int64), label
    if others:
        rest = [each for each in range(len(names)) if each != number]
        words = [names[each] for each in rest]
        made[f"{columns.CONCEPTS_PREFIX}labels"] = (
            columns.concept_arrow(present[:, rest], words), columns.concept_list(words)
        )  # fmt: skip
    return columns.with_columns(ds, made)


def signed_error(ds: Splits) -> Splits:
    """Return rows of a model of a number as those of one class, whose logit is the signed error.

    `logits` become prediction minus label, of shape `(1,)`; `label` and `prediction` the only class, `signed error`.
    In bands by `LogitBands("quantile")`, low are rows predicted too low and high those predicted too high; findings
    are then on the signed error, and `repair_regression` corrects the head.

    Args:
        ds: what `extract` gave for a dataset whose `label` is a float and a model with one output.

    Raises:
        KeyError: if a column is missing.
        TypeError: if `label` holds no numbers.
        ValueError: if a label is null or not finite.
    """
    return over_splits(ds, _of_error)


def _of_error(ds: Dataset) -> Dataset:
    columns.require(ds, LABEL, LOGITS)
    if not isinstance(_label_feature(ds.features), Value):
        raise TypeError(f"column {LABEL!r} holds no numbers but is {ds.features[LABEL]}")
    wanted = columns.numbers(ds, LABEL)
    bad = np.flatnonzero(~np.isfinite(wanted))
    if bad.size:
        raise ValueError(f"column {LABEL!r} has no number in {bad.size} rows, first in row {bad[0]}; filter them out")
    only, same = ClassLabel(names=["signed error"]), np.zeros(len(ds), np.int64)
    error = (columns.matrix(ds, LOGITS)[:, 0] - wanted).astype(np.float32)
    made = {LOGITS: (error[:, None], ds.features[LOGITS]), LABEL: (same, only), PREDICTION: (same, only)}
    return columns.with_columns(ds, made)


def _label_feature(features: Features) -> ClassLabel | List | Value:
    """Return what rows are labelled with: a class, a list of labels, or a number."""
    feature = features[LABEL]
    if isinstance(feature, List) and isinstance(feature.feature, ClassLabel):
        return feature
    if isinstance(feature, Value) and feature.dtype.startswith("float"):
        return feature
    return class_label(features)


def _names(feature: Any) -> ClassLabel:  # noqa: ANN401 - a ClassLabel or a list of them
    return feature.feature if isinstance(feature, List) else feature
