"""Training rows for tests of several rooms."""

import numpy as np
import torch
from datasets import Value
from support.trainer_parts import bert, pictures, processor, resnet, tokenizer
from torch.nn import functional

import hf_midrange as hm
from hf_midrange import columns


QUIET = {"disable_tqdm": True, "report_to": "none", "save_strategy": "no", "logging_strategy": "no"}


def arguments(folder, kind=hm.MidRangeArguments, **options):
    defaults = {"per_device_train_batch_size": 8, "per_device_eval_batch_size": 8, "max_steps": 3, "use_cpu": True}
    return kind(str(folder), **{**QUIET, **defaults, **options})


def as_transformed(ds, only_new=False):
    """A dataset as image scripts make it: pixel values come from a transform, when a row is read."""
    prepare = processor()

    def transform(batch):
        pixels = prepare(images=batch["image"], return_tensors="pt")["pixel_values"]
        new = {"pixel_values": list(pixels), "labels": batch["label"]}
        return new if only_new else {**batch, **new}

    return ds.with_transform(transform)


def stacked(rows):
    """A collator as image scripts have it."""
    pixels = torch.stack([row["pixel_values"] for row in rows])
    return {"pixel_values": pixels, "labels": torch.tensor([row["labels"] for row in rows])}


def tokenised(ds):
    """A dataset as text scripts make it."""
    encode = tokenizer()
    return ds.map(lambda batch: encode(batch["text"], truncation=True), batched=True)


def weights_of(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def assert_same(left, right, atol=0.0):
    assert left.keys() == right.keys()
    for name, value in left.items():
        torch.testing.assert_close(value, right[name], atol=atol, rtol=0, msg=name)


def weighted(ds, weight, keep=None):
    extra = {"weight": (np.asarray(weight, np.float32), Value("float32"))}
    if keep is not None:
        extra["keep"] = (np.asarray(keep, bool), Value("bool"))
    return columns.with_columns(ds, extra)


def sgd_step_by_hand(ds, weight, smoothing=0.0, rate=0.5):
    """The weights of a fresh model after one step of gradient descent on the weighted loss of all rows."""
    model = bert().eval()  # as no dropout is set below
    encoded = tokenizer()(ds["text"][:], padding=True, return_tensors="pt")
    each = functional.cross_entropy(
        model(**encoded).logits, torch.tensor(ds["label"][:]), reduction="none", label_smoothing=smoothing
    )
    weight = torch.tensor(weight)
    used = weight > 0
    loss = (each * weight)[used].sum() / weight.sum()
    loss.backward()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter -= rate * parameter.grad
    return weights_of(model), float(loss.detach())


def without_dropout():
    model = bert()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return model


WEIGHTS = np.where(np.arange(24) % 6 == 0, 0, np.random.default_rng(0).uniform(0.2, 3, 24)).astype(np.float32)


def trained(folder, **options):
    args = arguments(folder, max_steps=40, per_device_train_batch_size=32, learning_rate=3e-3, **options)
    trainer = hm.MidRangeTrainer(
        resnet(),
        args,
        train_dataset=pictures(600, 0.95),
        eval_dataset=pictures(200, 0.5, seed=6),
        curation_dataset=pictures(240, 0.95, seed=5),
        processing_class=processor(),
    )
    trainer.train()
    return trainer
