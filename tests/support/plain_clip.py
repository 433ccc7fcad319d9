"""Oracle: CLIP in plain torch and Pillow, from the paper and the names of its weights."""

import math

import numpy as np
import torch
from PIL import Image

MEAN = torch.tensor([0.48145466, 0.4578275, 0.40821073])  # of OpenAI's training images
STD = torch.tensor([0.26862954, 0.26130258, 0.27577711])


def prepare(image, size):
    """Short side to `size` by bicubic interpolation, the middle, normalised: `(3, size, size)`."""
    scale = size / min(image.size)
    image = image.resize((int(image.width * scale), int(image.height * scale)), Image.Resampling.BICUBIC)
    left, top = (image.width - size) // 2, (image.height - size) // 2
    pixels = np.asarray(image.crop((left, top, left + size, top + size)), np.float32) / 255
    return ((torch.tensor(pixels) - MEAN) / STD).permute(2, 0, 1)


def linear(state, name, x):
    return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]


def norm(state, name, x):
    centred = x - x.mean(-1, keepdim=True)
    variance = (centred**2).mean(-1, keepdim=True)
    return centred / (variance + 1e-5).sqrt() * state[f"{name}.weight"] + state[f"{name}.bias"]


def attention(state, name, x, heads, mask):
    query, key, value = (
        linear(state, f"{name}.{part}_proj", x).unflatten(-1, (heads, -1)).transpose(0, 1) for part in "qkv"
    )
    weights = (query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1]) + mask).softmax(-1)
    return linear(state, f"{name}.out_proj", (weights @ value).transpose(0, 1).flatten(1))


def encode(state, name, x, mask, heads=4, layers=2):
    for layer in range(layers):
        prefix = f"{name}.encoder.layers.{layer}"
        x = x + attention(state, f"{prefix}.self_attn", norm(state, f"{prefix}.layer_norm1", x), heads, mask)
        hidden = linear(state, f"{prefix}.mlp.fc1", norm(state, f"{prefix}.layer_norm2", x))
        x = x + linear(state, f"{prefix}.mlp.fc2", hidden * torch.sigmoid(1.702 * hidden))
    return x


def embed_image(state, image, size=32, patch=8):
    """Unit vector `(D,)`."""
    embeddings = "vision_model.embeddings"
    patches = prepare(image, size).unfold(1, patch, patch).unfold(2, patch, patch).permute(1, 2, 0, 3, 4).flatten(2)
    tokens = patches.flatten(0, 1) @ state[f"{embeddings}.patch_embedding.weight"].flatten(1).T
    tokens = torch.cat([state[f"{embeddings}.class_embedding"][None], tokens])
    tokens = norm(state, "vision_model.pre_layrnorm", tokens + state[f"{embeddings}.position_embedding.weight"])
    pooled = norm(state, "vision_model.post_layernorm", encode(state, "vision_model", tokens, mask=0.0)[0])
    return unit(pooled @ state["visual_projection.weight"].T)


def embed_text(state, ids):
    """Unit vector `(D,)` of one text's token ids, from start to end mark."""
    embeddings = "text_model.embeddings"
    tokens = state[f"{embeddings}.token_embedding.weight"][ids]
    tokens = tokens + state[f"{embeddings}.position_embedding.weight"][: len(ids)]
    causal = torch.full((len(ids), len(ids)), -math.inf).triu(1)
    pooled = norm(state, "text_model.final_layer_norm", encode(state, "text_model", tokens, causal))[-1]
    return unit(pooled @ state["text_projection.weight"].T)


def unit(x):
    return x / (x**2).sum().sqrt()


def head(state, x, keys):
    for key in keys:
        x = linear(state, key, x)
    return x.item()
