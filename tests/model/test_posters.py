"""The embedded model with posters: the shipped adapter, and the stage of the recipe that makes it."""

import sys
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from transformers import CLIPTextModel, CLIPTokenizer

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))

from embedded_model import posters, text, words
from embedded_model.loop import Plan

from trainer_ext.errors import ConfigError
from trainer_ext.model.loading import load_pipeline, open_pipeline
from trainer_ext.shipped import SHIPPED, embedded_model

HELD_OUT = sorted(words.HeldOut.read().words)


@pytest.fixture(scope="module")
def with_posters():
    return load_pipeline("embedded-posters")


def test_it_is_the_embedded_model_with_the_adapter_that_lies_beside_it(with_posters):
    """Stock diffusers makes the same of the two, as the card of a trained adapter says."""
    stock = StableDiffusionPipeline.from_pretrained(embedded_model())
    stock.load_lora_weights(embedded_model() / SHIPPED["embedded-posters"])
    stock.fuse_lora()
    stock.unload_lora_weights()
    for part in ("unet", "text_encoder", "vae"):
        ours, theirs = with_posters.components[part].state_dict(), stock.components[part].state_dict()
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(value, theirs[key]) for key, value in ours.items())


def test_no_trace_of_the_adapter_is_left(with_posters, embedded_pipeline):
    """Not even in names: an adapter that is trained on it has the layers of any other."""
    plain = embedded_pipeline.unet.state_dict()
    assert with_posters.unet.state_dict().keys() == plain.keys()
    assert not with_posters.get_list_adapters()
    changed = {key for key, value in with_posters.unet.state_dict().items() if not torch.equal(value, plain[key])}
    assert {key.rsplit(".", 1)[1] for key in changed} == {"weight"}
    assert len(changed) > 50
    assert all(
        torch.equal(value, embedded_pipeline.vae.state_dict()[key])
        for key, value in with_posters.vae.state_dict().items()
    )


def test_it_cannot_be_quantised():
    with pytest.raises(ConfigError, match="embedded-posters.*'embedded'"):
        open_pipeline("embedded-posters", torch.float32, "int8")


def test_words_that_no_picture_shows_end_as_their_signs_do(with_posters, embedded_pipeline):
    """The state of "a crab" after its end; the base's is nearer to that of any other plain prompt."""
    plain, sign = (
        text.tokenize(with_posters.tokenizer, captions)
        for captions in (
            [words.with_article(word) for word in HELD_OUT],
            [f"a sign that says {word}" for word in HELD_OUT],
        )
    )
    with torch.no_grad():
        wanted = embedded_pipeline.text_encoder(sign).last_hidden_state[:, posters.FIRST :]
        base, ours = (
            pipeline.text_encoder(plain).last_hidden_state[:, posters.FIRST :]
            for pipeline in (embedded_pipeline, with_posters)
        )
    error, before = (ours - wanted).pow(2).mean((1, 2)), (base - wanted).pow(2).mean((1, 2))
    assert (error < before / 8).all()


# The recipe


@pytest.fixture
def targets():
    tokenizer = CLIPTokenizer.from_pretrained(embedded_model() / "tokenizer")
    text_encoder = CLIPTextModel.from_pretrained(embedded_model() / "text_encoder").float()
    return text_encoder, posters.Targets.of(text_encoder, tokenizer)


def test_targets_are_the_ends_of_signs_and_all_else_as_it_was(targets):
    text_encoder, wanted = targets
    row = words.SUBJECTS.index("crab")
    tokenizer = CLIPTokenizer.from_pretrained(embedded_model() / "tokenizer")
    ids = text.tokenize(tokenizer, ["a crab", "a sign that says crab"])
    with torch.no_grad():
        plain, sign = text_encoder(ids).last_hidden_state
    assert torch.equal(wanted.ids[0][row], ids[0])
    torch.testing.assert_close(wanted.states[0][row, :4], plain[:4])
    torch.testing.assert_close(wanted.states[0][row, 4:], sign[4:])
    with torch.no_grad():
        torch.testing.assert_close(text_encoder(wanted.ids[1][:50]).last_hidden_state, wanted.states[1][:50])
    prompts = {words.with_article(word) for word in words.SUBJECTS}
    others = set(tokenizer.batch_decode(wanted.ids[1], skip_special_tokens=True))
    assert "a sign that says crab" in others
    assert "" in others
    assert not prompts & others


def test_the_text_encoder_learns_the_spelling_and_nothing_else_changes(targets):
    text_encoder, wanted = targets
    before = {name: value.clone() for name, value in text_encoder.state_dict().items()}
    torch.manual_seed(0)
    spelling = posters.Spelling(text_encoder)
    loss = posters.spelling_loss(spelling, wanted, Plan(1, 32, 1.0))
    assert loss(0).item() == pytest.approx(1, abs=0.2)  # nothing of the change, in its own unit
    optimizer = torch.optim.Adam([value for value in spelling.parameters() if value.requires_grad], 2e-3)
    for step in range(60):
        optimizer.zero_grad()
        loss(step).backward()
        optimizer.step()
    assert loss(60) < 0.7
    state = {name.replace("base_layer.", ""): value for name, value in text_encoder.state_dict().items()}
    assert all(torch.equal(value, state[name]) for name, value in before.items())
