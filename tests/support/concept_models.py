"""Tiny CLIP, SigLIP, BLIP, LLaVA and ViT models built from config and saved, for the tests of concept sources."""

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    BertTokenizer,
    BlipConfig,
    BlipForConditionalGeneration,
    BlipImageProcessor,
    BlipProcessor,
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPProcessor,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
    SiglipConfig,
    SiglipImageProcessor,
    SiglipModel,
    SiglipProcessor,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessor,
)


VOCABULARY = ["[PAD]", "[UNK]", "[BOS]", "[EOS]", "<image>", "a", "photo", "of", "red", "green", "blue", "thing"]
TINY = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
VISION = {**TINY, "image_size": 16, "patch_size": 8}
SPECIAL = {"bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0}


def tokenizer():
    backend = Tokenizer(models.WordLevel({word: k for k, word in enumerate(VOCABULARY)}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "bos_token": "[BOS]", "eos_token": "[EOS]"}
    extra = {"image_token": "<image>"}
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, model_max_length=10, extra_special_tokens=extra, **special
    )


def shaken(model):
    """Widen random weights, so that tiny models tell inputs apart."""
    torch.manual_seed(0)
    for parameter in model.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    return model


def save_clip(path):
    text = {**TINY, **SPECIAL, "vocab_size": len(VOCABULARY), "max_position_embeddings": 10}
    shaken(CLIPModel(CLIPConfig(text_config=text, vision_config=VISION, projection_dim=8))).save_pretrained(path)
    CLIPProcessor(CLIPImageProcessor(size=16, crop_size=16), tokenizer()).save_pretrained(path)


def save_siglip(path):
    text = {**TINY, **SPECIAL, "vocab_size": len(VOCABULARY), "max_position_embeddings": 10}
    shaken(SiglipModel(SiglipConfig(text_config=text, vision_config=VISION))).save_pretrained(path)
    processor = SiglipImageProcessor(size={"height": 16, "width": 16})
    SiglipProcessor(processor, tokenizer()).save_pretrained(path)


def save_blip(path):
    text = {**TINY, "vocab_size": len(VOCABULARY), "max_position_embeddings": 16, "encoder_hidden_size": 8}
    text |= {"bos_token_id": 2, "eos_token_id": 3, "sep_token_id": 3, "pad_token_id": 0}
    config = BlipConfig(text_config=text, vision_config=VISION, projection_dim=8)
    shaken(BlipForConditionalGeneration(config)).save_pretrained(path)
    (path / "vocab.txt").write_text("\n".join([*VOCABULARY[:2], "[CLS]", "[SEP]", *VOCABULARY[4:]]))
    processor = BlipImageProcessor(size={"height": 16, "width": 16})
    BlipProcessor(processor, BertTokenizer(str(path / "vocab.txt"))).save_pretrained(path)


def save_llava(path):
    text = LlamaConfig(**TINY, **SPECIAL, vocab_size=len(VOCABULARY), max_position_embeddings=64)
    vision = CLIPVisionConfig(**VISION, projection_dim=8)
    config = LlavaConfig(vision_config=vision, text_config=text, image_token_index=4, vision_feature_layer=-1)
    shaken(LlavaForConditionalGeneration(config)).save_pretrained(path)
    template = "{% for message in messages %}[BOS] <image> a photo of{% endfor %}"
    processor = CLIPImageProcessor(size=16, crop_size=16)
    options = {"patch_size": 8, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1}
    LlavaProcessor(processor, tokenizer(), chat_template=template, **options).save_pretrained(path)


LABELS = [f"thing {k}" for k in range(6)]


def save_vit(path):
    settings = {**VISION, "num_hidden_layers": 2, "id2label": dict(enumerate(LABELS))}
    torch.manual_seed(0)
    shaken(ViTForImageClassification(ViTConfig(**settings))).save_pretrained(path)
    ViTImageProcessor(size={"height": 16, "width": 16}).save_pretrained(path)


SAVERS = {"clip": save_clip, "siglip": save_siglip, "blip": save_blip, "llava": save_llava}
"""The models that read images and texts."""
