"""The proof that a repaired model stays repaired: saved, loaded again as a user would, and run on real rows."""

from __future__ import annotations

import copy
import tempfile
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torch import nn
from transformers import PreTrainedModel

from hf_midrange import columns
from hf_midrange.head.linear_head import LinearHead


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
    """Check that a model with a new head, saved and loaded again as a user would, has that head and the same logits.

    It is saved into a temporary folder, which takes its size on disk, and loaded beside the given one.

    Args:
        merged: what `head.merge_into(model)` returned.
        rows: rows of the data, with what the model reads; None: the head alone is compared.
        processor: as `extract` takes it.
        head: name of the model's last linear layer, where several could be it.

    Raises:
        NotRepairedError: if the loaded model has another head or gives other logits.
    """
    from hf_midrange.extraction import extract

    if not (isinstance(merged, PreTrainedModel) or hasattr(merged, "peft_config")):
        return  # its weights are all that there is to save
    loaded = reloaded(merged, head)
    own, found = LinearHead.from_model(merged, head), LinearHead.from_model(loaded, head)
    if not (torch.equal(own.weight, found.weight) and torch.equal(own.bias, found.bias)):
        raise NotRepairedError(f"the model has another head after it is saved and loaded{_remedy(merged)}")
    if rows is None:
        return
    names = [name for name in (columns.IMAGE, columns.TEXT, columns.TEXT_PAIR) if name in rows.features]
    some = rows.select_columns(names).select(range(min(ROWS, len(rows))))
    before, after = (
        columns.matrix(extract(some, model, processor, head=head), columns.LOGITS) for model in (merged, loaded)
    )
    half = next(merged.parameters()).dtype in (torch.float16, torch.bfloat16)
    apart = float(np.abs(before - after).max() / max(1.0, float(np.abs(before).max())))
    if not apart <= (1e-2 if half else EQUAL):
        raise NotRepairedError(f"logits differ by {apart:.1e} after the model is saved and loaded{_remedy(merged)}")


def reloaded(model: Any, head: str | None = None) -> nn.Module:  # noqa: ANN401 - peft's models are no PreTrainedModel
    """Return a model of transformers or peft as it is after its own saving and loading.

    Args:
        model: the classifier. Of one of peft's the adapter is saved alone, and loaded onto a base without head.
        head: name of the last linear layer, where several could be it.
    """
    from hf_midrange.classifier import heads

    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        if not hasattr(model, "peft_config"):
            return type(model).from_pretrained(folder, trust_remote_code=False)
        from peft import PeftModel

        base = copy.deepcopy(model).unload()
        last = heads(base, head)
        last.put(*(torch.zeros_like(part) for part in last.weights()))
        return PeftModel.from_pretrained(base, folder, trust_remote_code=False)


def _remedy(model: nn.Module) -> str:
    if hasattr(model, "peft_config"):
        return (
            ": its adapter does not save the classifier; name it in `modules_to_save` of the adapter's configuration, "
            "or merge the adapter first (`model.merge_and_unload()`)"
        )
    return "; its class does not load what it saves, so that nobody else would get the repaired model"
