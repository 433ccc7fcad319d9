"""Algorithms, KL, moving average and evaluation through the trainer."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from support.trainers import (
    FOUR_ANIMALS,
    TINY,
    all_records,
    assert_same,
    brightness,
    logs_of,
    prompts,
    redness,
    trained_weights,
)
from transformers import TrainerCallback

from trainer_ext import DDPOConfig, RewardFunction
from trainer_ext.policy.stock import stock_images
from trainer_ext.runs.samples import load_images

UNSEEN = prompts("a wolf", "two wolves")


@pytest.fixture
def run_options():
    """Two updates on each rollout."""
    batches = {"num_images_per_rollout": 8, "rollout_batch_size": 8}
    return {"dataset": FOUR_ANIMALS, "learning_rate": 1e-2, "clip_range": 1e-2, **batches}


def saved_weights(folder):
    """Of the LoRA file, by the names of the module's parameters."""
    state = load_file(Path(folder) / "pytorch_lora_weights.safetensors")
    return {
        "network.base_model.model." + name.removeprefix("unet.").replace(".weight", ".default.weight"): value
        for name, value in state.items()
    }


class Recorder(TrainerCallback):
    """Records the trained weights before training and after every update."""

    def __init__(self):
        self.weights = []

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        self.weights.append(trained_weights(model))

    def on_step_end(self, args, state, control, model=None, **kwargs):
        self.weights.append(trained_weights(model))


# ---- it learns ----

LEARNING = {
    "ddpo_sf": {"num_train_epochs": 4, "learning_rate": 2e-3, "skip_last_steps": 2},
    "rwr": {"num_train_epochs": 3, "learning_rate": 3e-3, "num_inner_epochs": 2, "rwr_beta": 1.0},
    "sparse_rwr": {"num_train_epochs": 3, "learning_rate": 3e-3, "num_inner_epochs": 2, "rwr_quantile": 0.8},
}


@pytest.mark.parametrize("algorithm", LEARNING)
def test_rewards_of_opposite_signs_drive_apart(make_trainer, tiny_pipeline, algorithm):
    """Two runs that differ in nothing else: what else a regression does to a random model is in both. For DDPO-IS: test_trainer."""
    batch = {"num_inference_steps": 4, "num_images_per_rollout": 32, "rollout_batch_size": 32}
    options = {**batch, "per_device_train_batch_size": 32, "full_finetuning": True, **LEARNING[algorithm]}
    after = {}
    for sign in (1, -1):
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


@pytest.mark.parametrize(("algorithm", "weights"), [("rwr", 8), ("sparse_rwr", 2)])
def test_a_regression_never_uses_the_same_noise_twice(make_trainer, algorithm, weights):
    """Over two passes of two batches; and the sparse one sees nothing but the best quarter, all with weight 1."""
    seen = []
    trainer = make_trainer(algorithm=algorithm, advantages="batch", rwr_quantile=0.75, num_inner_epochs=2)

    class Spy(type(trainer.algorithm)):
        def minibatch(self, *arguments):
            seen.append(super().minibatch(*arguments))
            return seen[-1]

    trainer.algorithm.__class__ = Spy
    trainer.train()
    noise = torch.cat([batch.targets for batch in seen]).flatten(1)  # epsilon prediction: the target is the noise
    assert len(noise.unique(dim=0)) == len(noise) == 2 * 8 * 2
    trained = torch.cat([batch.weights for batch in seen])
    (rows,) = all_records(trainer.args.output_dir)
    rewards = torch.tensor([row["reward"] for row in rows])
    if algorithm == "rwr":
        expected = 8 * torch.softmax(0.2 * rewards, 0)
        torch.testing.assert_close(trained.unique(), expected.unique(), rtol=1e-4, atol=1e-6)
    else:
        assert trained.tolist() == [1] * len(noise)
        assert trainer._rollout.weights.nonzero().flatten().tolist() == rewards.topk(2).indices.sort().values.tolist()


class Gradients(TrainerCallback):
    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        self.gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


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
        found[max_grad_norm] = callback.gradients
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


# ---- moving average ----


def average_by_hand(weights, decay):
    """The first update as it is; then of update n the share min(decay, n / (n + 9)) of the old average stays."""
    average = {name: value.double() for name, value in weights[1].items()}
    for n, values in enumerate(weights[2:], start=2):
        stays = min(decay, n / (n + 9))
        average = {name: stays * average[name] + (1 - stays) * values[name].double() for name in values}
    return {name: value.float() for name, value in average.items()}


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
    assert torch.equal(load_images(Path(trainer.args.output_dir) / "samples" / "rollout-00003"), drawn)


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


# ---- evaluation ----


def test_rewards_of_evaluations_are_reported_and_never_trained_on(make_trainer):
    seen = []

    def watched(images, prompts, trainer_state, **columns):
        seen.append(trainer_state.global_step)
        return redness(images, prompts)

    options = {"num_train_epochs": 2, "eval_dataset": UNSEEN, "eval_strategy": "epoch"}
    trainer = make_trainer(eval_reward_funcs=[RewardFunction("redness", watched)], **options)
    trainer.train()
    assert seen == [2, 4], "only in evaluations"
    without = make_trainer(**options, folder="without")
    without.train()
    assert_same(trained_weights(trainer.model), trained_weights(without.model))
    (*_, log), (*_, other) = (logs_of(each, "eval_reward") for each in (trainer, without))
    assert log.pop("eval_rewards/redness/mean") == redness_of(trainer)
    assert log == other
    assert log["eval_reward"] == log["eval_rewards/brightness/mean"]
    assert not [log for log in logs_of(trainer, "reward") if any("redness" in key for key in log)]
    assert not any("rewards/redness" in row for rows in all_records(trainer.args.output_dir) for row in rows)


def redness_of(trainer):
    """Evaluated by hand: the number of a row is its image's seed."""
    generators = [torch.Generator().manual_seed(row) for row in range(len(UNSEEN))]
    images = trainer.policy.sample(UNSEEN["prompt"], generators, denoiser=trainer.model).images
    return np.mean(redness(images.numpy(), None))


def test_several_evaluation_datasets(make_trainer):
    trainer = make_trainer(
        eval_dataset={"seen": FOUR_ANIMALS, "unseen": UNSEEN}, eval_strategy="epoch", eval_reward_funcs=redness
    )
    trainer.train()
    metrics = trainer.evaluate()
    del metrics["epoch"]
    suffixes = ("reward", "reward_std", "rewards/brightness/mean", "rewards/redness/mean")
    assert set(metrics) == {f"eval_{name}_{suffix}" for name in ("seen", "unseen") for suffix in suffixes}
    for name, dataset in (("seen", FOUR_ANIMALS), ("unseen", UNSEEN)):
        alone = trainer.evaluate(dataset)
        assert {suffix: metrics[f"eval_{name}_{suffix}"] for suffix in suffixes} == {
            suffix: alone[f"eval_{suffix}"] for suffix in suffixes
        }
        (log, _) = logs_of(trainer, f"eval_{name}_reward")
        assert log.items() >= {key: value for key, value in metrics.items() if f"eval_{name}_" in key}.items()
    assert metrics["eval_seen_reward"] != metrics["eval_unseen_reward"]


@pytest.mark.parametrize("ema_decay", [None, 0.25])
def test_the_best_model_by_a_reward_of_the_evaluation(make_trainer, ema_decay):
    """The rollouts end with updates 2, 4, 6, 8; the second is called the best."""
    called = {2: 1.0, 4: 3.0, 6: 2.0, 8: 2.5}

    def judgement(images, prompts, trainer_state, **columns):
        return [called[trainer_state.global_step]] * len(images)

    recorder = Recorder()
    trainer = make_trainer(
        ema_decay=ema_decay,
        callbacks=[recorder],
        eval_dataset=UNSEEN,
        eval_reward_funcs=judgement,
        num_train_epochs=4,
        eval_strategy="epoch",
        save_strategy="epoch",
        save_total_limit=1,
        load_best_model_at_end=True,
        metric_for_best_model="eval_rewards/judgement/mean",
    )
    trainer.train()
    assert trainer.state.best_metric == 3.0
    assert trainer.state.best_global_step == 4
    expected = recorder.weights[4] if ema_decay is None else average_by_hand(recorder.weights[:5], ema_decay)
    trainer.save_model()
    for found in (trained_weights(trainer.model), saved_weights(trainer.args.output_dir)):
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-7)
    (log,) = [log for log in logs_of(trainer, "eval_reward") if log["step"] == 4]
    called[8] = 0.0
    assert trainer.evaluate()["eval_reward"] == log["eval_reward"]


def test_the_best_model_is_that_of_the_highest_reward_unless_told_otherwise():
    def config(**options):
        return DDPOConfig(**{**TINY, "eval_strategy": "epoch", "save_strategy": "epoch", **options})

    best = config(load_best_model_at_end=True)
    assert (best.metric_for_best_model, best.greater_is_better) == ("reward", True)
    told = config(load_best_model_at_end=True, metric_for_best_model="eval_rewards/size/mean", greater_is_better=False)
    assert (told.metric_for_best_model, told.greater_is_better) == ("eval_rewards/size/mean", False)
    assert config().metric_for_best_model is None
