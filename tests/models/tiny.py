"""A tiny model of every class in transformers' two auto mappings that can be built from its configuration alone."""

import re
from collections.abc import Callable, Iterator
from typing import Any

import timm
import torch
import transformers
from torch import nn
from transformers import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES,
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
)


MOST, MOST_OF_TIMM = 40_000_000, 140_000_000
"""Parameters above which a model is not tried."""

SCALARS = {
    "hidden_size": 32, "d_model": 32, "n_embd": 32, "dim": 32, "emb_dim": 32, "embed_dim": 32, "embedding_size": 32,
    "word_embed_proj_dim": 32, "num_hidden_layers": 2, "n_layer": 2, "n_layers": 2, "num_layers": 2,
    "encoder_layers": 2, "decoder_layers": 2, "num_decoder_layers": 2, "num_attention_heads": 4, "n_head": 4,
    "n_heads": 4, "num_heads": 4, "encoder_attention_heads": 4, "decoder_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "intermediate_size": 64, "ffn_dim": 64, "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64, "d_ff": 64, "d_kv": 8, "hidden_dim": 64, "n_inner": 64, "vocab_size": 64,
    "max_position_embeddings": 64, "n_positions": 64, "image_size": 32, "patch_size": 8, "num_experts": 2,
    "num_local_experts": 2, "num_experts_per_tok": 1, "moe_intermediate_size": 32, "pad_token_id": 0,
    "bos_token_id": 2, "eos_token_id": 3, "decoder_start_token_id": 2, "sliding_window": 8, "n_words": 64,
}  # fmt: skip

WIDTHS = tuple(key for key in SCALARS if not key.endswith("token_id") and "layer" not in key and key != "vocab_size")
"""Settings of width, which some configurations keep in lists."""


LINEAR: dict[str, Any] = {
    "layer_types": ["linear_attention", "full_attention"], "linear_num_key_heads": 2, "linear_num_value_heads": 4,
    "linear_key_head_dim": 8, "linear_value_head_dim": 8, "shared_expert_intermediate_size": 32,
}  # fmt: skip
"""For models whose layers have linear attention."""

LATENT: dict[str, Any] = {
    "num_key_value_heads": 4, "q_lora_rank": 16, "kv_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8,
    "v_head_dim": 8, "head_dim": 8, "n_routed_experts": 2, "n_group": 1, "topk_group": 1, "n_shared_experts": 1,
    "first_k_dense_replace": 1, "num_experts_per_tok": 1,
}  # fmt: skip
"""For models whose attention is over latent keys and values."""

EXTRA: dict[str, dict[str, Any]] = {
    "efficientnet": {"width_coefficient": 0.25, "depth_coefficient": 0.25, "hidden_dim": 320, "image_size": 64},
    "perceiver": {"num_latents": 8, "d_latents": 32, "d_model": 32, "num_self_attends_per_block": 1, "num_blocks": 1,
                  "num_self_attention_heads": 4, "num_cross_attention_heads": 1, "image_size": 32, "vocab_size": 64,
                  "max_position_embeddings": 64},
    "esm": {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
            "intermediate_size": 64, "max_position_embeddings": 64, "pad_token_id": 0, "mask_token_id": 1},
    "funnel": {"vocab_size": 64, "block_sizes": [1, 1], "d_model": 32, "n_head": 4, "d_head": 8, "d_inner": 64},
    "gpt_neo": {"vocab_size": 64, "hidden_size": 32, "num_layers": 2, "attention_types": [[["global", "local"], 1]],
                "num_heads": 4, "max_position_embeddings": 64, "pad_token_id": 0},
    "luke": {"entity_vocab_size": 16, "entity_emb_size": 16},
    "xlnet": {"vocab_size": 64, "d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 64, "pad_token_id": 0},
    "hunyuan_v1_dense": {"head_dim": 8}, "hunyuan_v1_moe": {"head_dim": 8}, "ministral": {"head_dim": 8},
    "nemotron": {"num_key_value_heads": 2, "head_dim": 8},
    "xmod": {"languages": ["en_XX"]},
    "swin": {"embed_dim": 32, "depths": [1, 1], "num_heads": [2, 4], "window_size": 4, "image_size": 32,
             "patch_size": 4},
    "levit": {"image_size": 64, "hidden_sizes": [32, 48, 64], "num_attention_heads": [2, 3, 4], "depths": [1, 1, 1],
              "key_dim": [8, 8, 8], "drop_path_rate": 0},
    "mobilevitv2": {"image_size": 64},
    "t5": {"decoder_start_token_id": 0},
    "gptj": {"rotary_dim": 4},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2, "mamba_d_state": 4,
              "mamba_dt_rank": 4, "use_mamba_kernels": False},
    "qwen3_5_text": LINEAR, "qwen3_next": LINEAR,
    **dict.fromkeys(("axk1", "axk2", "deepseek_v2", "deepseek_v3", "minicpm3", "mistral4"), LATENT),
    "zamba": {"num_hidden_layers": 4, "layer_types": ["mamba", "hybrid"] * 2, "mamba_d_state": 4, "mamba_dt_rank": 4,
              "use_mamba_kernels": False},
    "esmc": {"vocab_size": 64, "d_model": 32, "hidden_size": 32, "n_heads": 4, "n_layers": 2, "num_hidden_layers": 2,
             "num_attention_heads": 4, "pad_token_id": 0},
}  # fmt: skip
"""What some configurations need besides, by model type."""


def classes() -> list[tuple[str, str, str]]:
    """Return auto task, model type and class name of every entry of the two mappings."""
    found = []
    for task, mapping in (
        ("image", MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES),
        ("text", MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES),
    ):
        for kind, names in mapping.items():
            found += [(task, kind, name) for name in ((names,) if isinstance(names, str) else names)]
    return found


def built(kind: str, name: str, works: Callable[[nn.Module], object]) -> nn.Module:
    """Return a model with three labels and random weights that runs; the last error where no attempt succeeds."""
    error: Exception = ValueError("no attempt")
    for scalars in _attempts(kind, CONFIG_MAPPING[kind]):
        try:
            config = CONFIG_MAPPING[kind](**scalars, num_labels=3)
            for part in ("vision_config", "text_config", "encoder", "decoder"):
                _shrink(getattr(config, part, None))
            made = getattr(transformers, name)
            with torch.device("meta"):
                size = sum(parameter.numel() for parameter in made(config).parameters())
            if size > MOST:
                raise ValueError(f"{size:,} parameters")
            torch.manual_seed(0)
            model = made(config).eval()
            if hasattr(model, "set_default_language"):
                model.set_default_language("en_XX")
            works(model)
            return model
        except Exception as fault:
            error = fault
    raise error


def _shrink(config: Any) -> None:
    for key, value in SCALARS.items():
        if isinstance(getattr(config, key, None), int):
            setattr(config, key, value)
    if isinstance(getattr(config, "layer_types", None), list):
        config.layer_types = config.layer_types[: SCALARS["num_hidden_layers"]]


def _attempts(kind: str, config_class: Any) -> Iterator[dict[str, Any]]:
    default = config_class()
    own = {
        key: value
        for key, value in SCALARS.items()
        if isinstance(getattr(default, key, None), int) or (key.endswith("token_id") and hasattr(default, key))
    }
    yield own | EXTRA.get(kind, {})
    yield EXTRA.get(kind, {})
    for left_out in (("head_dim",), ("head_dim", "patch_size"), ("head_dim", "patch_size", "image_size"), WIDTHS):
        yield {key: value for key, value in own.items() if key not in left_out}
    yield {key: value for key, value in own.items() if key.endswith("token_id")}


VIT = {"embed_dim": 64, "depth": 2, "num_heads": 4}
SMALLER: dict[str, dict[str, Any]] = dict.fromkeys(
    ("beit", "deepseek_vit", "gemma4_vit", "naflexvit", "qwen3_vit", "vision_transformer_sam"), VIT
)
"""Settings of timm's families that have no small model, by module."""


def families() -> dict[str, tuple[str, dict[str, Any]]]:
    """Return a small architecture of every module of timm with its settings, by the module's name."""
    found = {}
    for module in sorted(timm.list_modules()):
        names = [name for name in timm.list_models(module=module) if not name.startswith("test_")]
        if names:
            found[module] = min(names, key=_size), SMALLER.get(module, {})
    return found


def _size(name: str) -> tuple[int, int, str]:
    """Return what names of small models are smaller in."""
    words = "atto femto pico zepto nano tiny xx _xs micro small _s mini lite b0".split()
    place = next((number for number, word in enumerate(words) if word in name), len(words))
    return place, sum(int(part) for part in re.findall(r"\d+", name)), name
