"""Algorithms, clipping and KL through the trainer."""

import dataclasses

import numpy as np
import pytest
import torch
from support.trainers import FOUR_ANIMALS, Gradients, all_records, brightness, logs_of, prompts

from trainer_ext import RewardFunction
from trainer_ext.learning.algorithms import ALGORITHMS
from trainer_ext.options import DDPOOptions


@pytest.fixture
def run_options():
    """Two updates on each rollout."""
    batches = {"num_images_per_rollout": 8, "rollout_batch_size": 8}
    return {"dataset": FOUR_ANIMALS, "learning_rate": 1e-2, "clip_range": 1e-2, **batches}


# ---- it learns ----

LEARNING = {
    "ddpo_sf": {"num_train_epochs": 4, "learning_rate": 2e-3, "skip_last_steps": 2},
    "rwr": {"num_train_epochs": 3, "learning_rate": 3e-3, "num_inner_epochs": 2, "rwr_beta": 1.0, "rwr_resample": True},
    "awm": {"num_train_epochs": 3, "learning_rate": 3e-3, "num_inner_epochs": 2},
    "nft": {"num_train_epochs": 6, "learning_rate": 2e-3, "num_inner_epochs": 2},
    "sparse_rwr": {"num_train_epochs": 3, "learning_rate": 2e-3, "num_inner_epochs": 2, "rwr_quantile": 0.8},
}


SLOW = {"awm", "nft", "sparse_rwr"}  # the regressions but one; that awm learns is in learning/test_matching.py too


@pytest.mark.parametrize(
    "algorithm", [pytest.param(name, marks=[pytest.mark.full] if name in SLOW else []) for name in LEARNING]
)
def test_rewards_of_opposite_signs_drive_apart(make_trainer, tiny_pipeline, algorithm):
    """Two runs that differ in nothing else: what else a regression does to a random model is in both. For DDPO-IS: test_trainer."""
    batch = {"num_inference_steps": 4, "num_images_per_rollout": 32, "rollout_batch_size": 32}
    options = {**batch, "per_device_train_batch_size": 32, "full_finetuning": True, **LEARNING[algorithm]}
    after = {}
    for sign in (1, -1):
        torch.manual_seed(0)  # of the network
        trainer = make_trainer(
            model=tiny_pipeline("v_prediction"),
            reward=RewardFunction("signed", lambda images, prompts, **_: sign * np.array(brightness(images, prompts))),
            algorithm=algorithm,
            advantages="batch",
            folder=str(sign),
            **options,
        )
        trainer.train()
        after[sign] = sign * trainer.evaluate(prompts(*["a cat"] * 16))["eval_reward"]
    assert after[1] > after[-1] + 5  # of 255


# ---- what is trained on ----


@pytest.mark.parametrize(
    ("algorithm", "options"), [("rwr", {}), ("rwr", {"rwr_resample": True}), ("sparse_rwr", {"rwr_quantile": 0.75})]
)
def test_a_regression_never_uses_the_same_noise_twice(make_trainer, algorithm, options):
    """Over two passes of two batches; and the sparse one sees nothing but the best quarter, all with weight 1."""
    seen = []

    class Spy(ALGORITHMS[algorithm].kind):
        def minibatch(self, *arguments):
            seen.append(super().minibatch(*arguments))
            return seen[-1]

    spy = Spy(*dataclasses.astuple(ALGORITHMS[algorithm].build(DDPOOptions(**options))))
    trainer = make_trainer(algorithm=spy, advantages="batch", num_inner_epochs=2)
    trainer.train()
    noise = torch.cat([batch.targets for batch in seen]).flatten(1)  # epsilon prediction: the target is the noise
    assert len(noise.unique(dim=0)) == len(noise) == 2 * 8 * 2
    trained = torch.cat([batch.weights for batch in seen])
    (rows,) = all_records(trainer.args.output_dir)
    rewards = torch.tensor([row["reward"] for row in rows])
    if "rwr_resample" in options:
        torch.testing.assert_close(trained, torch.ones(len(noise)), rtol=1e-6, atol=0)
    elif algorithm == "rwr":
        expected = 8 * torch.softmax(0.2 * rewards, 0)
        torch.testing.assert_close(trained.unique(), expected.unique(), rtol=1e-4, atol=1e-6)
    else:
        assert trained.tolist() == [1] * len(noise)
        assert trainer._rollout.weights.nonzero().flatten().tolist() == rewards.topk(2).indices.sort().values.tolist()


def test_the_gradient_is_clipped_to_its_norm(make_trainer):
    found = {}
    for max_grad_norm in (0.0, 1e-4):
        callback = Gradients()
        trainer = make_trainer(
            callbacks=[callback],
            max_grad_norm=max_grad_norm,
            per_device_train_batch_size=8,
            folder=str(max_grad_norm),
        )
        trainer.train()
        found[max_grad_norm] = callback.of_updates[-1]
    norm = torch.cat([value.flatten() for value in found[0.0].values()]).norm()
    assert norm > 1e-3
    for name, value in found[0.0].items():
        torch.testing.assert_close(found[1e-4][name], value * 1e-4 / norm, rtol=1e-4, atol=1e-12)
    (log,) = logs_of(trainer, "grad_norm")
    assert log["grad_norm"] == pytest.approx(norm.item(), rel=1e-5)


# ---- KL ----


def test_kl_is_logged_and_held_small_by_beta(make_trainer):
    last = {}
    for beta in (1e-3, 10.0):
        trainer = make_trainer(beta=beta, num_train_epochs=3, folder=str(beta))
        trainer.train()
        last[beta] = logs_of(trainer, "ratio")[-1]["kl"]
    assert 0 < last[10.0] < last[1e-3] / 2
