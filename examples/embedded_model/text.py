"""The tokenizer, whose vocabulary is the world's words, and the text encoder."""

from __future__ import annotations

import json
import string
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from .words import ACTIVITIES, COLOURS, SUBJECTS

LENGTH = 16  #: tokens of a prompt, its two ends included
START, END = "<|startoftext|>", "<|endoftext|>"
GRAMMAR = ("a", "an", "and", "background", "on", "sign", "that", "says", "the")
PRINTABLE = sorted(set(string.printable) - set(string.whitespace))


def words() -> list[str]:
    """Return all words of captions."""
    phrases = (*SUBJECTS, *ACTIVITIES, *COLOURS, *GRAMMAR)
    return sorted({word for phrase in phrases for word in phrase.split()})


def make_tokenizer(folder: Path) -> CLIPTokenizer:
    """Write a CLIP tokenizer that has a token for each word, and one for each printable character besides."""
    vocabulary, merges = _byte_pairs(words())
    folder.mkdir(parents=True, exist_ok=True)
    folder.joinpath("vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False), encoding="utf-8")
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges), ""]
    folder.joinpath("merges.txt").write_text("\n".join(lines), encoding="utf-8")
    tokenizer = CLIPTokenizer.from_pretrained(folder, model_max_length=LENGTH)
    tokenizer.save_pretrained(folder)
    return tokenizer


def _byte_pairs(words: list[str]) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """
    Merge the commonest pair until every word is one token.

    `tokenizers` has a trainer, but it breaks ties at random, and a training that is resumed needs the same tokens.
    """
    spelled = [[*word[:-1], f"{word[-1]}</w>"] for word in words]
    merges: list[tuple[str, str]] = []
    while pairs := Counter(pair for parts in spelled for pair in pairwise(parts)):
        merges.append(min(pairs, key=lambda pair: (-pairs[pair], pair)))
        spelled = [_merge(parts, merges[-1]) for parts in spelled]
    tokens = [*PRINTABLE, *(f"{character}</w>" for character in PRINTABLE), *map("".join, merges), START, END]
    return {token: number for number, token in enumerate(dict.fromkeys(tokens))}, merges


def _merge(parts: list[str], pair: tuple[str, str]) -> list[str]:
    merged: list[str] = []
    for part in parts:
        if merged and (merged[-1], part) == pair:
            merged[-1] += part
        else:
            merged.append(part)
    return merged


def make_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """Return an untrained text encoder."""
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        projection_dim=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=LENGTH,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    encoder = CLIPTextModel(config)
    # CLIP's own start, 0.02, is far too small here: words have to be told apart early.
    embeddings = encoder.get_input_embeddings()
    assert isinstance(embeddings, nn.Embedding)
    nn.init.normal_(embeddings.weight, std=0.3)
    return encoder


def tokenize(tokenizer: CLIPTokenizer, captions: Sequence[str]) -> Tensor:
    """Return token ids (N, 16) int64. Captions repeat: each is tokenized once."""
    known = sorted(set(captions))
    ids = torch.tensor(tokenizer(known, padding="max_length", max_length=LENGTH, truncation=True).input_ids)
    place = {caption: row for row, caption in enumerate(known)}
    return ids[torch.tensor([place[caption] for caption in captions])]
