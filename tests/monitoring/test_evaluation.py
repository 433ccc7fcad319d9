"""Evaluations in training: other prompts, other rewards, and the best model by either."""

import numpy as np
import pytest
import torch
from support.averages import Recorder, average_by_hand, saved_weights
from support.trainers import (
    CAT_AND_DOG,
    FOUR_ANIMALS,
    TINY,
    all_records,
    assert_same,
    logs_of,
    prompts,
    redness,
    trained_weights,
)

from trainer_ext import DDPOConfig, RewardFunction
from trainer_ext.errors import ConfigError

UNSEEN = prompts("a wolf", "two wolves")
PIXELS = {f"pixels/{name}" for name in ("darkness", "edges", "entropy", "saturation", "brightness")}
MEASURED = {"kl", *PIXELS}  #: without a model before training to compare with


@pytest.fixture
def run_options():
    """Two updates on each rollout."""
    batches = {"num_images_per_rollout": 8, "rollout_batch_size": 8}
    return {"dataset": FOUR_ANIMALS, "learning_rate": 1e-2, "clip_range": 1e-2, **batches}


def test_rewards_of_evaluations_are_reported_and_never_trained_on(make_trainer):
    seen = []

    def watched(images, prompts, trainer_state, **columns):
        seen.append(trainer_state.global_step)
        return redness(images, prompts)

    options = {"num_train_epochs": 2, "eval_dataset": UNSEEN, "eval_strategy": "epoch"}
    trainer = make_trainer(eval_reward_funcs=[RewardFunction("redness", watched)], **options)
    trainer.train()
    assert seen == [0, 2, 4], "only in evaluations"
    without = make_trainer(**options, folder="without")
    without.train()
    assert_same(trained_weights(trainer.model), trained_weights(without.model))
    (*_, log), (*_, other) = (logs_of(each, "eval_reward") for each in (trainer, without))
    assert log.pop("eval_rewards/redness/mean") == redness_of(trainer)
    del log["eval_gold"], log["eval_disagreement"]
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
    suffixes = {"reward", "reward_std", "rewards/brightness/mean", "rewards/redness/mean", *MEASURED}
    of_the_run = {*suffixes, "gold", "disagreement"}
    assert set(metrics) == {f"eval_{name}_{suffix}" for name in ("seen", "unseen") for suffix in of_the_run}
    for name, dataset in (("seen", FOUR_ANIMALS), ("unseen", UNSEEN)):
        alone = trainer.evaluate(dataset)
        assert not {"eval_gold", "eval_disagreement"} & alone.keys(), "no base of this dataset"
        assert {suffix: metrics[f"eval_{name}_{suffix}"] for suffix in suffixes} == {
            suffix: alone[f"eval_{suffix}"] for suffix in suffixes
        }
        (_, log, _) = logs_of(trainer, f"eval_{name}_reward")
        assert log.items() >= {key: value for key, value in metrics.items() if f"eval_{name}_" in key}.items()
    assert metrics["eval_seen_reward"] != metrics["eval_unseen_reward"]


@pytest.mark.parametrize("ema_decay", [None, 0.25])
def test_the_best_model_by_a_reward_of_the_evaluation(make_trainer, ema_decay):
    """The rollouts end with updates 2, 4, 6, 8; the second is called the best."""
    called = {0: 9.0, 2: 1.0, 4: 3.0, 6: 2.0, 8: 2.5}

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


def test_a_dataset_whose_name_is_too_long_for_a_folder_is_refused(make_trainer):
    make_trainer(eval_dataset={"動物" * 5: CAT_AND_DOG})
    with pytest.raises(ConfigError, match="too long for a folder: it has 30 characters"):
        make_trainer(eval_dataset={"動物園" * 10: CAT_AND_DOG})
