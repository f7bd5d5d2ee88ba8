"""What the tests publish: curated rows, findings, bands and models, with names as hostile as data can be."""

from __future__ import annotations

from pathlib import Path

import numpy as np


NAMES = ['plain: "one" | <b>', "striped\n---\n{{ 7 * 7 }} \u202e']"]
PLACES = ["<script>alert(1)</script>|", 'sea: "#1" --- \u2028{% raw %}']
GROUPS = [f"{name} @ {place}" for name in NAMES for place in PLACES]


def images(rows: int, seed: int):
    """Class 1 has a faint stripe below; a bright one above, and the place, go with it in nine rows of ten."""
    from datasets import ClassLabel, Dataset, Features, Image
    from PIL import Image as PILImage

    rng = np.random.default_rng(seed)
    labels = np.arange(rows) % 2
    above = np.where(rng.random(rows) < 0.1, 1 - labels, labels)
    pixels = rng.integers(0, 120, size=(rows, 32, 32, 3)) + rng.integers(0, 60, size=(rows, 1, 1, 1))
    pixels[:, 20:28] += 30 * labels[:, None, None, None]
    pixels[:, 4:12] += 60 * above[:, None, None, None]
    features = Features(
        {
            "image": Image(),
            "label": ClassLabel(names=NAMES),
            "place": ClassLabel(names=PLACES),
            "group": ClassLabel(names=GROUPS),
        }
    )
    pictures = [PILImage.fromarray(p.astype(np.uint8)) for p in pixels]
    columns = {"image": pictures, "label": labels, "place": above, "group": 2 * labels + above}
    return Dataset.from_dict(columns, features=features)


def image_model():
    """A tiny timm network in its transformers wrapper, its head fitted to tied rows."""
    import torch
    from transformers import TimmWrapperConfig, TimmWrapperForImageClassification

    import hf_midrange as hm

    torch.manual_seed(0)
    names = dict(enumerate(NAMES))
    config = TimmWrapperConfig(architecture="test_resnet", id2label=names, label2id={v: k for k, v in names.items()})
    model = TimmWrapperForImageClassification(config)
    cfg = model.timm_model.pretrained_cfg | {"input_size": (3, 32, 32), "crop_pct": 1.0}
    config.pretrained_cfg = model.timm_model.pretrained_cfg = model.timm_model.default_cfg = cfg
    probe = hm.curate(hm.extract(images(300, 0), model), strategy="class-balanced")
    return hm.retrain_head(probe, force=True).merge_into(model)


def vit_model(folder: Path) -> None:
    """Write a tiny vision transformer and its processor."""
    import torch
    from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

    torch.manual_seed(0)
    names = dict(enumerate(NAMES))
    labels = {"id2label": names, "label2id": {v: k for k, v in names.items()}}
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    ViTForImageClassification(ViTConfig(image_size=32, patch_size=16, **sizes, **labels)).save_pretrained(folder)
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)


def text_model(folder: Path) -> None:
    """Write a tiny BERT classifier without class names, and its tokenizer."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "good", "bad", "film"]
    tokenizer = Tokenizer(models.WordLevel({word: k for k, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    special = {"unk_token": "[UNK]", "pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, mask_token="[MASK]", **special).save_pretrained(folder)
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    BertForSequenceClassification(BertConfig(vocab_size=len(words), **sizes)).save_pretrained(folder)


def make(folder: Path) -> None:
    """Write everything: base, curated, findings, bands, head, text, vit."""
    import hf_midrange as hm
    from hf_midrange.association import save_findings

    image_model().save_pretrained(folder / "base")
    rows = hm.extract(images(600, 1), str(folder / "base"))
    bands = hm.LogitBands().fit(rows)
    rows = hm.annotate(bands.transform(rows), [hm.Annotations(["place"]), hm.ImageProperties()])
    findings = hm.associate(rows)
    curated = hm.curate(rows, findings, strategy="concepts")
    bands.save_pretrained(folder / "bands")
    curated.save_to_disk(folder / "curated")
    save_findings(findings, folder / "findings")
    hm.retrain_head(curated, hm.LinearHead.from_model(image_model())).save_pretrained(folder / "head")
    text_model(folder / "text")
    vit_model(folder / "vit")
