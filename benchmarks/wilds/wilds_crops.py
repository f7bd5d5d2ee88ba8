"""Random crops and flips of training images, as the published recipes of Waterbirds and CelebA have them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import transformers
from datasets import Dataset
from torchvision.transforms import v2
from transformers import Trainer
from transformers.training_args import OptimizerNames

from hf_midrange.columns import IMAGE
from hf_midrange.training import MidRangeArguments


SCALE, RATIO = (0.7, 1.0), (0.75, 4 / 3)
"""Share of the image that a crop keeps, and its width over its height.

Source: the training transform of the code of arXiv 2210.11369.
"""


@dataclass(frozen=True)
class Augmented:
    """A transform of rows with `image`: a random crop of the model's input size, flipped half of the time.

    Attributes:
        processor: the model's image processor, which scales and normalises what was cropped.
        size: height and width of the crop, in pixels.
    """

    processor: Any
    size: tuple[int, int]

    def __call__(self, rows: dict[str, list]) -> dict[str, Any]:
        """Return `pixel_values` and the other columns of a batch of rows."""
        change = v2.Compose([v2.RandomResizedCrop(self.size, SCALE, RATIO), v2.RandomHorizontalFlip()])
        images = [change(image.convert("RGB")) for image in rows[IMAGE]]
        whole = {"do_resize": False, "do_center_crop": False}
        pixels = self.processor(images=images, return_tensors="pt", **whole)["pixel_values"]
        return {**{name: values for name, values in rows.items() if name != IMAGE}, "pixel_values": list(pixels)}


def augmented(rows: Dataset, processor: Any, args: MidRangeArguments) -> Dataset:  # noqa: ANN401 - of many classes
    """Return training rows whose images are cropped and flipped anew each time that they are read.

    Raises:
        ValueError: if there are no images, rows are to be held out of them, or the processor states no size.
    """
    if IMAGE not in rows.column_names:
        raise ValueError(f"crops are of images; the training split has {rows.column_names}")
    if args.curation_fraction:
        raise ValueError(
            "all training rows are cropped, and those of --curation_fraction would be debiased on crops; name a "
            "--curation_split instead"
        )
    size = getattr(processor, "crop_size", None) or getattr(processor, "size", None) or {}
    edge = size.get("shortest_edge")
    height, width = size.get("height", edge), size.get("width", edge)
    if not height or not width:
        raise ValueError(f"the image processor states no input size to crop to, but {dict(size)}")
    return rows.with_transform(Augmented(processor, (height, width)))


def refuse_lost_momentum(args: MidRangeArguments) -> None:
    """Early versions of transformers 5 train with plain SGD, silently, whatever momentum `optim_args` names."""
    wanted = args.optim == OptimizerNames.SGD and "momentum" in (args.optim_args or "")
    if wanted and "momentum" not in Trainer.get_optimizer_cls_and_kwargs(args)[1]:
        raise ValueError(
            f"optim_args is {args.optim_args!r}, but transformers {transformers.__version__} does not read a momentum "
            "for sgd; install a newer one"
        )
