"""The moving average of the trained weights: what it is, and where it is used."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from support.averages import Recorder, average_by_hand, saved_weights
from support.trainers import (
    FOUR_ANIMALS,
    assert_same,
    logs_of,
    prompts,
    trained_weights,
)

from trainer_ext.policy.stock import stock_images
from trainer_ext.runs.pictures.sheets import load_images

UNSEEN = prompts("a wolf", "two wolves")


@pytest.fixture
def run_options():
    """Two updates on each rollout."""
    batches = {"num_images_per_rollout": 8, "rollout_batch_size": 8}
    return {"dataset": FOUR_ANIMALS, "learning_rate": 1e-2, "clip_range": 1e-2, **batches}


def test_the_average_is_what_is_saved_drawn_and_evaluated_and_not_what_is_trained(make_trainer, tmp_path):
    """Decay 0.25: the first three of six updates come before it, with 0, 2/11 and 3/12."""
    recorder, options = Recorder(), {"num_train_epochs": 3}
    drawing = {"num_sample_images": 2, "sample_every": 1}
    trainer = make_trainer(
        ema_decay=0.25, callbacks=[recorder], eval_dataset=UNSEEN, eval_strategy="epoch", **options, **drawing
    )
    trainer.train()
    trainer.save_model()
    plain = make_trainer(**options, folder="plain", eval_dataset=UNSEEN)
    plain.train()
    assert_same(trained_weights(plain.model), trained_weights(trainer.model))
    assert_same(recorder.weights[-1], trained_weights(trainer.model))

    saved, expected = saved_weights(trainer.args.output_dir), average_by_hand(recorder.weights, 0.25)
    assert saved.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(saved[name], value, rtol=1e-5, atol=1e-7)
    assert any(not torch.allclose(saved[name], value, rtol=1e-3) for name, value in recorder.weights[-1].items())

    trained = plain.evaluate()
    plain.model.load(Path(trainer.args.output_dir))
    averaged, reported = plain.evaluate(), logs_of(trainer, "eval_reward")[-1]
    assert reported["eval_reward"] == trainer.evaluate()["eval_reward"] == averaged["eval_reward"]
    assert averaged["eval_reward"] != trained["eval_reward"]
    policy = plain.policy
    drawn = stock_images(policy.pipeline, ["a cat", "a lion"], range(2), 8, policy.sampling_kwargs)
    assert torch.equal(load_images(Path(trainer.args.output_dir) / "samples" / "update-00006"), drawn)


def test_the_average_of_all_weights(make_trainer, tmp_path):
    recorder = Recorder()
    trainer = make_trainer(ema_decay=0.9, full_finetuning=True, learning_rate=1e-3, callbacks=[recorder])
    trainer.train()
    trainer.save_model()
    (saved,) = [load_file(file) for file in Path(trainer.args.output_dir, "unet").glob("*.safetensors")]
    expected = average_by_hand(recorder.weights, 0.9)
    assert {f"network.{name}" for name in saved} == set(expected)
    for name, value in saved.items():
        torch.testing.assert_close(value, expected[f"network.{name}"], rtol=1e-5, atol=1e-7)
    assert_same(trained_weights(trainer.model), recorder.weights[-1])
