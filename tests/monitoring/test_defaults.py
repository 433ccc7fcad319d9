"""The fixed prompts as users of the base draw them: its own scheduler, steps and guidance."""

import numpy as np
import pytest
import torch
from support import pipelines
from support.trainers import RunFolder, brightness

from trainer_ext.errors import ConfigError
from trainer_ext.file_names import LORA_FILE
from trainer_ext.hub.card import adapter_card
from trainer_ext.runs.summary import PairedFigure, RunSummary

DRAWN = {"num_sample_images": 2, "sample_defaults": True}


def drawn_by_a_user(pipeline):
    """One image at a time, with nothing but a prompt and a seed."""
    images = [
        pipeline(prompt, generator=torch.Generator().manual_seed(seed)).images[0]
        for seed, prompt in enumerate(["a cat", "a dog"])
    ]
    return brightness(images, None)


def test_they_are_scored_without_the_adapter_and_with_it(make_trainer, tmp_path):
    make_trainer(learning_rate=1e-1, **DRAWN).train()
    torch.manual_seed(0)
    base = pipelines.tiny_pipeline()
    before = drawn_by_a_user(base)
    folder = RunFolder(tmp_path / "run")
    first, last = folder.default_samples()
    np.testing.assert_allclose([row["reward"] for row in first], before, atol=0.1)
    figure = RunSummary.of(folder).paired_by_default
    assert (figure.n, figure.before) == (2, np.mean([row["reward"] for row in first]))
    assert figure.after == np.mean([row["reward"] for row in last]) != figure.before
    assert len(folder.samples()) == 2  # they are none of those that the run compares through training


def test_the_adapter_is_that_which_is_saved(make_trainer, tmp_path):
    trainer = make_trainer(learning_rate=1e-1, **DRAWN)
    trainer.train()
    trainer.save_model()
    torch.manual_seed(0)
    stock = pipelines.tiny_pipeline()
    stock.load_lora_weights(tmp_path / "run", weight_name=LORA_FILE)
    rewards = [row["reward"] for row in RunFolder(tmp_path / "run").default_samples()[-1]]
    np.testing.assert_allclose(rewards, drawn_by_a_user(stock), atol=0.1)


@pytest.mark.parametrize("options", [{"full_finetuning": True}, {"num_sample_images": 0}])
def test_where_there_is_nothing_to_compare(make_trainer, options):
    with pytest.raises(ConfigError, match="sample_defaults=True needs an adapter"):
        make_trainer(**{**DRAWN, **options})


@pytest.mark.parametrize(("low", "lost"), [(0.1, False), (-0.1, True)])
def test_the_card_says_if_the_gain_is_lost(make_trainer, tmp_path, monkeypatch, low, lost):
    trainer = make_trainer()
    trainer.train()
    trainer.save_model()
    trained, default = PairedFigure(1.0, 2.0, 0.5, 1.5, 8), PairedFigure(1.0, 1.25, low, 0.4, 8)
    monkeypatch.setattr(RunSummary, "of", lambda folder: RunSummary(paired=trained, paired_by_default=default))
    card = adapter_card(RunFolder(tmp_path / "run"), "user/cats")
    assert "as most people draw: 1 without" in card
    assert f"(95 % interval {low:+.4g} to +0.4)" in card
    assert ("The gain is not found there" in card) == lost
