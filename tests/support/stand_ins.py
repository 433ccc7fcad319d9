"""Tiny models with random weights, in folders that load like the real ones."""

import logging

import torch
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPTokenizer,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessor,
)

from trainer_ext.shipped import embedded_model

SIZE = 32  # of the images that the models see
LAYERS = [(768, 1024), (1024, 128), (128, 64), (64, 16), (16, 1)]  # of the published aesthetic head
HEAD_KEYS = ["layers.0", "layers.2", "layers.4", "layers.6", "layers.7"]


def save_clip(folder, projection_dim=32, positions=16):
    """CLIP of two layers, whose text encoder reads 16 tokens."""
    tokenizer = CLIPTokenizer.from_pretrained(embedded_model() / "tokenizer")
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    text = {
        **sizes,
        "vocab_size": len(tokenizer),
        "max_position_embeddings": positions,
        "eos_token_id": tokenizer.eos_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    vision = {**sizes, "image_size": SIZE, "patch_size": 8}
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=projection_dim)
    model = CLIPModel(config)
    torch.manual_seed(0)  # versions differ in what they draw before
    for parameter in model.parameters():  # at the usual initialisation all embeddings are nearly the same
        torch.nn.init.normal_(parameter, std=0.3 if parameter.ndim > 1 else 0.1)
    torch.nn.init.constant_(model.logit_scale, 4.0)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    _save_image_processor(CLIPImageProcessor, folder, {"shortest_edge": SIZE})
    return model.state_dict()


def save_head(folder, layers=LAYERS, keys=HEAD_KEYS):
    folder.mkdir(exist_ok=True)
    state = {}
    for key, (width, next_width) in zip(keys, layers, strict=True):
        state[f"{key}.weight"] = torch.randn(next_width, width) / (1 if width == layers[0][0] else width**0.5)
        state[f"{key}.bias"] = torch.randn(next_width) / 10
    torch.save(state, folder / "aesthetic-model.pth")
    return state


def save_classifier(folder, labels, problem_type=None):
    config = ViTConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        image_size=SIZE,
        patch_size=8,
        id2label=dict(enumerate(labels)),
        label2id={label: index for index, label in enumerate(labels)},
        problem_type=problem_type,
        initializer_range=0.3,
    )
    model = ViTForImageClassification(config)
    model.save_pretrained(folder)
    _save_image_processor(ViTImageProcessor, folder, {"height": SIZE, "width": SIZE})
    return model.eval()


def _save_image_processor(kind, folder, size):
    logging.getLogger("transformers").setLevel(logging.ERROR)
    kind(size=size, crop_size={"height": SIZE, "width": SIZE}).save_pretrained(folder)
