"""The tokenizer, whose vocabulary is the world's words, and the text encoder."""

from __future__ import annotations

import json
import string
from collections.abc import Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, trainers
from tokenizers.pre_tokenizers import Whitespace
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
    """Learn merges until every word is one token."""
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    tokenizer.pre_tokenizer = Whitespace()
    trainer = trainers.BpeTrainer(
        vocab_size=100_000,
        min_frequency=1,
        end_of_word_suffix="</w>",
        initial_alphabet=PRINTABLE,
        show_progress=False,
    )
    tokenizer.train_from_iterator([*words, *PRINTABLE], trainer)
    model = json.loads(tokenizer.to_str())["model"]
    vocabulary = {**model["vocab"]}
    for token in (*(f"{character}</w>" for character in PRINTABLE), START, END):
        vocabulary.setdefault(token, len(vocabulary))
    return vocabulary, [tuple(pair) for pair in model["merges"]]


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
