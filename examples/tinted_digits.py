"""A small network learns the colour of the paper instead of the digit on it; then its head is repaired."""

import numpy as np
from datasets import ClassLabel, Dataset, Features, Image
from PIL import Image as Picture
from sklearn.datasets import load_digits
from transformers import ConvNextImageProcessor, ResNetConfig, ResNetForImageClassification, set_seed

import hf_midrange as hm

NAMES, PAPER = ["three", "eight"], np.array([[255, 225, 120], [120, 180, 255]])  # yellow, blue


def digits(rows, tied, seed):
    """Threes on yellow paper and eights on blue, but for a share of 1 - tied; half of the digits for each seed."""
    rng = np.random.default_rng(seed)
    pixels, digit = load_digits(return_X_y=True)
    labels = rng.integers(0, 2, rows)
    papers = np.where(rng.random(rows) < tied, labels, 1 - labels)
    chosen = [rng.choice(np.flatnonzero(digit == (3, 8)[k])[seed % 2 :: 2]) for k in labels]
    ink = pixels[chosen].reshape(rows, 8, 8, 1) / 16
    paper = PAPER[papers][:, None, None] + rng.normal(0, 25, (rows, 8, 8, 3))
    image = np.clip((1 - ink) * paper + ink * rng.integers(0, 120, (rows, 1, 1, 3)), 0, 255).astype(np.uint8)
    groups = [f"{name} on {paper}" for name in NAMES for paper in ("yellow", "blue")]
    features = Features({"image": Image(), "label": ClassLabel(names=NAMES), "group": ClassLabel(names=groups)})
    columns = {"image": [Picture.fromarray(i).resize((32, 32)) for i in image], "label": labels}
    return Dataset.from_dict(columns | {"group": 2 * labels + papers}, features=features)


if __name__ == "__main__":
    set_seed(0)
    config = ResNetConfig(embedding_size=16, hidden_sizes=[16, 32, 64], depths=[1, 1, 1], layer_type="basic",
                          id2label=dict(enumerate(NAMES)), label2id={"three": 0, "eight": 1})  # fmt: skip
    args = hm.MidRangeArguments("out", num_train_epochs=2, learning_rate=1e-3, per_device_train_batch_size=32,
                                curation_fraction=0.4, disable_tqdm=True)  # fmt: skip
    processor = ConvNextImageProcessor(size={"shortest_edge": 32}, crop_pct=1.0)
    trainer = hm.MidRangeTrainer(model=ResNetForImageClassification(config), args=args, processing_class=processor,
                                 train_dataset=digits(2000, 0.95, 0), eval_dataset=digits(600, 0.5, 1))  # fmt: skip
    trainer.train()  # a part of the training rows is held out, for the next line
    print(trainer.debias())  # the head is corrected in place, if that is shown to pay
