"""The proof that a repaired model stays repaired: saved, loaded again as a user would, and run on real rows."""

from __future__ import annotations

import copy
import tempfile
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torch import nn
from transformers import PreTrainedModel

from hf_midrange import columns
from hf_midrange.classifier import heads, unparallel
from hf_midrange.extraction import extract
from hf_midrange.extraction.inputs import Collated, preparation


ROWS = 8
"""Rows whose logits are compared."""

EQUAL = 1e-5
"""Most that a logit may differ after loading, in float32, relative to the largest; in half precision 1e-2."""


class NotRepairedError(ValueError):
    """What a user would load is not the model that was repaired."""


def prove_repaired(
    merged: nn.Module,
    rows: Dataset | None = None,
    processor: Any = None,  # noqa: ANN401 - what `extract` takes
    head: str | None = None,
) -> None:
    """Check that a model with a new head, saved and loaded again as a user would, has the same weights and logits.

    It is saved into a temporary folder, which takes its size on disk, and loaded beside the given one.

    Args:
        merged: what `head.merge_into(model)` returned.
        rows: rows of the data; None, or rows without what the model reads: the weights alone are compared.
        processor: as `extract` takes it.
        head: name of the model's last linear layer, where several could be it.

    Raises:
        NotRepairedError: if the loaded model has other weights or gives other logits.
    """
    model = unparallel(merged)
    if not (isinstance(model, PreTrainedModel) or hasattr(model, "peft_config")):
        return  # its weights are all that there is to save
    loaded = reloaded(model, head)
    saved, found = _weights(model), _weights(loaded)
    odd = [name for name, tensor in saved.items() if not _is_same(tensor, found.get(name))]
    if odd:
        raise NotRepairedError(f"{odd[:3]} differ after the model is saved and loaded{_remedy(model)}")
    inputs = (columns.IMAGE, columns.TEXT, columns.TEXT_PAIR)
    if rows is None or not (isinstance(processor, Collated) or {*inputs} & {*rows.column_names}):
        return
    some = rows.select(range(min(ROWS, len(rows))))
    made = preparation(model, processor)  # once: what is loaded no longer knows where it came from
    reader: Any
    if isinstance(made, Collated):
        some, reader = (
            Dataset.from_dict({"row": range(len(some))}),
            replace(made, rows=made.rows.select(range(len(some)))),
        )
    else:
        names = [name for name in inputs if name in rows.column_names]
        some, reader = some.select_columns(names), made.processor
    before, after = (
        columns.matrix(extract(some, each, reader, head=head), columns.LOGITS) for each in (model, loaded)
    )
    half = next(model.parameters()).dtype in (torch.float16, torch.bfloat16)
    apart = float(np.abs(before - after).max() / max(1.0, float(np.abs(before).max())))
    if not apart <= (1e-2 if half else EQUAL):
        raise NotRepairedError(f"logits differ by {apart:.1e} after the model is saved and loaded{_remedy(model)}")


def reloaded(model: Any, head: str | None = None) -> nn.Module:  # noqa: ANN401 - peft's models are no PreTrainedModel
    """Return a model of transformers or peft as it is after its own saving and loading.

    Args:
        model: the classifier. Of one of peft's the adapter is saved alone, and loaded onto a base without head.
        head: name of the last linear layer, where several could be it.
    """
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        if not hasattr(model, "peft_config"):
            return type(model).from_pretrained(folder, trust_remote_code=False)
        from peft import PeftModel

        base = copy.deepcopy(model).unload()
        last = heads(base, head)
        last.put(*(torch.zeros_like(part) for part in last.weights()))
        return PeftModel.from_pretrained(base, folder, trust_remote_code=False)


def _weights(model: nn.Module) -> dict[str, Any]:
    """Return the state of a model, but for what an adapter replaces."""
    return {name: value for name, value in model.state_dict().items() if ".original_module." not in name}


def _is_same(tensor: Any, other: Any) -> bool:  # noqa: ANN401 - tensors, and what quantizers keep beside them
    if not isinstance(tensor, torch.Tensor):
        return True
    return other is not None and torch.equal(tensor, other.to(tensor.device))


def _remedy(model: nn.Module) -> str:
    if hasattr(model, "peft_config"):
        return (
            ": its adapter does not save them; name the classifier in `modules_to_save` of the adapter's "
            "configuration, or merge the adapter first (`model.merge_and_unload()`)"
        )
    return "; its class does not load what it saves, so that nobody else would get the repaired model"
