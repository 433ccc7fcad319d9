"""GARDO's gate, its reference that moves, and advantages shaped by diversity: by hand, and through the trainer."""

import numpy as np
import pytest
import torch
from support.trainers import FOUR_ANIMALS, all_records, assert_same, brightness, logs_of, redness, trained_weights

from trainer_ext import DDPOConfig, DetectorFunction
from trainer_ext.errors import CheckpointError, ConfigError
from trainer_ext.learning.regularisation.diversity import diversity_shaped
from trainer_ext.learning.regularisation.gating import UncertaintyGate, most_overrated, uncertainty
from trainer_ext.model.earlier.reference import REFERENCE_FILE

# ---- the gate ----


def test_uncertainty_by_hand():
    """GARDO, eq. 7. Its released code scores the first image -3.0 in ranks, the smallest of all: the sign is the other way round."""
    trained, held_out = np.array([4.0, 3.0, 2.0, 1.0, 0.0]), np.array([[0.0, 1.0, 2.0, 3.0, 4.0], [1.0, 0, 2, 3, 4]]).T
    # win rates: 1, 3/4, 1/2, 1/4, 0 against the means of (0, 1/4, ...) and (1/4, 0, ...)
    expected = [1 - 0.125, 0.75 - 0.125, 0, 0.25 - 0.75, 0 - 1]
    assert uncertainty(trained, held_out).tolist() == expected
    assert uncertainty(trained, trained[:, None]).tolist() == [0] * 5, "rewards that agree"
    assert uncertainty(-trained, -held_out).tolist() == [-value for value in expected]
    assert uncertainty(np.array([1.0, 1.0]), np.array([[5.0], [6.0]])).tolist() == [0.5, -0.5], "a tie is half a win"


def test_uncertainty_where_rewards_are_missing():
    nan = np.nan
    trained, held_out = np.array([2.0, nan, 1.0, 0.0]), np.array([[1.0, 0, 0, 2], [nan, 1, nan, 2]]).T
    found = uncertainty(trained, held_out)
    assert np.isnan(found[1]), "it is not trained on"
    assert found[0] == 1 - 2 / 3, "by the other reward alone"
    assert np.isnan(uncertainty(trained, np.full((4, 1), nan))).all()


def test_the_most_overrated_by_hand():
    unsure = np.array([0.9, -0.9, 0.1, 0.5, np.nan, 0.3, 0.0])
    assert most_overrated(unsure, 0.2).tolist() == [1, 0, 0, 0, 0, 0, 0]
    assert most_overrated(unsure, 0.5).tolist() == [1, 0, 0, 1, 0, 0, 0]
    assert most_overrated(unsure, 1.0).tolist() == [1, 0, 1, 1, 0, 1, 0]
    assert not most_overrated(np.zeros(4), 0.5).any(), "rewards that agree"
    assert not most_overrated(np.array([-1.0, np.nan]), 0.5).any()


def gated(gate, overrated):
    """A rollout in which the first image is overrated the more, the more of the others beat it by the held-out reward."""
    total = np.arange(11, 0, -1.0)
    held_out = total.copy()
    held_out[0] = 11.5 - overrated
    return gate.update(np.stack([total, held_out], axis=1), total)


def test_the_share_follows_the_uncertainty_of_the_last_20_rollouts():
    gate = UncertaintyGate([1])
    first = gated(gate, 5)
    assert first.values.tolist() == [11.0, *[0.0] * 10], "1 on average"
    assert first.metrics["gate/uncertainty"] == pytest.approx(
        0.4 / 7
    )  # of the image and the six that stay where they are
    assert first.metrics["gate/images"] == pytest.approx(1 / 11)
    shares = [first.metrics["gate/share"]]
    shares += [gated(gate, overrated).metrics["gate/share"] for overrated in (7, 6, 4, 9)]
    assert shares == pytest.approx([0.1, 0.11, 0.11, 0.099, 0.1089])
    for _ in range(20):
        shares.append(gated(gate, 3).metrics["gate/share"])
    assert shares[5:] == pytest.approx([0.1089 * 0.9, *[0.1089 * 0.9] * 19])
    assert gated(gate, 4).metrics["gate/share"] == pytest.approx(0.1089 * 0.9 * 1.1), "9 is forgotten"
    resumed = UncertaintyGate([1])
    resumed.load_state_dict(gate.state_dict())
    assert gated(resumed, 8).metrics == gated(gate, 8).metrics


def test_the_share_has_limits():
    for way, limit in ((1, 0.2), (-1, 0.02)):
        gate = UncertaintyGate([1])
        for step in range(40):
            gate._adapt(float(way * step))
        assert gate.share == limit


# ---- through the trainer ----

#: Two rollouts, and two updates on each.
RUN = {
    "dataset": FOUR_ANIMALS,
    "num_images_per_rollout": 8,
    "rollout_batch_size": 8,
    "per_device_train_batch_size": 4,
    "learning_rate": 1e-2,
    "clip_range": 1e-2,
    "advantages": "batch",
    "num_train_epochs": 2,
    "logging_strategy": "steps",
    "logging_steps": 1,
}


def darkness(images, prompts, **columns):
    return [-value for value in brightness(images, prompts)]


def test_the_distance_counts_for_the_image_that_is_overrated_most(make_trainer):
    gate = {"reward": [brightness, darkness], "reward_weights": [1.0, 0.0], "kl_gate": True, "beta": 1.0}
    trainer = make_trainer(**gate, **RUN, save_strategy="steps", save_steps=1, save_total_limit=None)
    trainer.train()
    rewards = torch.tensor([row["reward"] for row in all_records(trainer.args.output_dir)[-1]])
    brightest = torch.nn.functional.one_hot(
        rewards.argmax(), 8
    )  # of four with U = 2 w - 1 above 0, the share is a tenth
    assert trainer._rollout.distance_weights.tolist() == (8 * brightest).tolist()
    first, second = (log["gate/uncertainty"] for log in logs_of(trainer, "gate/uncertainty"))
    assert first == second == pytest.approx(4 / 7)
    again = make_trainer("again", **gate, **RUN)
    again.train(resume_from_checkpoint=f"{trainer.args.output_dir}/checkpoint-3")  # in the second rollout
    assert again.algorithm.gate.state_dict() == trainer.algorithm.gate.state_dict()
    assert_same(trained_weights(again.model), trained_weights(trainer.model))


def kl_of(trainer):
    return [log["kl"] for log in logs_of(trainer, "kl")]


@pytest.fixture
def resetting(make_trainer):
    """Train three rollouts with a rule."""

    def train(folder, **rule):
        trainer = make_trainer(folder, **{**RUN, "num_train_epochs": 3, "beta": 10.0, **rule})
        trainer.train()
        return trainer

    return train


def test_the_reference_is_reset_at_the_end_of_a_rollout(resetting):
    rules = {
        "fixed": {},
        "never": {"reference_reset": 50, "reference_reset_kl": 1e9},
        "each": {"reference_reset": 1},
        "second": {"reference_reset": 2},
        "far": {"reference_reset_kl": 1e-12, "reference_reset": 50},
    }
    trainers = {name: resetting(name, **rule) for name, rule in rules.items()}
    fixed, never, each, second, far = map(kl_of, trainers.values())
    assert fixed == never
    assert_same(*(trained_weights(trainers[name].model) for name in ("fixed", "never")))
    assert [value == 0 for value in fixed] == [True, *[False] * 5]
    assert [value == 0 for value in each] == [True, False] * 3, "the reference is the policy that begins the rollout"
    assert [value == 0 for value in second] == [True, *[False] * 3, True, False]
    assert far == each, "the second update of each rollout was farther than that"
    assert fixed[:2] == each[:2], "the first reference is the model before training"


@pytest.mark.parametrize("updates", [*(pytest.param(each, marks=pytest.mark.full) for each in (1, 4)), 3])
def test_a_run_that_is_resumed_after_a_reset(make_trainer, resetting, updates):
    rule = {"reference_reset": 2, "reference_reset_kl": 1e-12, "ema_decay": 0.5}
    saving = {"save_strategy": "steps", "save_steps": 1, "save_total_limit": None}
    whole = resetting("whole", **rule, **saving)
    again = make_trainer("again", **{**RUN, "num_train_epochs": 3, "beta": 10.0, **rule})
    again.train(resume_from_checkpoint=f"{whole.args.output_dir}/checkpoint-{updates}")
    assert_same(trained_weights(again.model), trained_weights(whole.model))
    assert_same(again._weights.moving.values, whole._weights.moving.values)
    assert again._weights.moving.memory == whole._weights.moving.memory


def test_a_checkpoint_without_a_reference(resetting, make_trainer):
    trainer = resetting("run", save_strategy="epoch", num_train_epochs=1)
    with pytest.raises(CheckpointError, match=f"no weights of a reference that moves .{REFERENCE_FILE}."):
        make_trainer("again", **RUN, beta=10.0, reference_reset=2).train(
            resume_from_checkpoint=f"{trainer.args.output_dir}/checkpoint-2"
        )


# ---- diversity ----


def test_shaped_advantages_by_hand():
    advantages, similarities = np.array([2.0, 2.0, 2.0, -2.0, 0.0, 1.0]), np.array([1.0, 0.75, 0, 1, 0.5, np.nan])
    assert diversity_shaped(advantages, similarities).tolist() == [0, 0.5, 2, -2, 0, 1]


def test_a_good_image_counts_by_its_distance_from_the_others(make_trainer):
    similar = [0.25, 1.0, 0.0, None, 0.5, 0.5, 0.5, 0.5]
    detectors = DetectorFunction("alike", lambda images, prompts, **columns: similar)
    run = {"reward": redness, "num_images_per_prompt": 4, **RUN, "num_train_epochs": 1}
    shaped = make_trainer("shaped", detectors=detectors, diversity_shaping="alike", **run)
    plain = make_trainer("plain", **run)
    for trainer in (shaped, plain):
        trainer.train()
    advantages, before = (
        np.array([row["advantage"] for row in all_records(trainer.args.output_dir)[0]]) for trainer in (shaped, plain)
    )
    kept = np.array([0.75, 0, 1, 1, 0.5, 0.5, 0.5, 0.5])
    assert advantages.tolist() == pytest.approx(np.where(before > 0, before * kept, before).tolist())
    assert 0 < (before > 0).sum() < 8
    torch.testing.assert_close(shaped._rollout.weights, torch.from_numpy(advantages).float())


# ---- refusals ----


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kl_gate": True}, "beta is 0 and kl_gate=True.*Set beta above 0"),
        ({"reference_reset": 3, "reference_reset_kl": 0.1}, "beta is 0 and reference_reset=3, reference_reset_kl=0.1"),
        ({"kl_gate": True, "beta": 0.1}, "reward_weights is None; it must have a 0"),
        (
            {"kl_gate": True, "beta": 0.1, "reward": [redness, darkness], "reward_weights": [0.0, 0.0]},
            r"reward_weights is \[0.0, 0.0\]; it must have a 0 for each .*, and another weight",
        ),
        (
            {"kl_gate": True, "beta": 0.1, "reward": [redness, darkness], "reward_weights": [1.0, -1.0]},
            r"reward_weights is \[1.0, -1.0\]; it must have a 0",
        ),
        (
            {"diversity_shaping": "alike", "num_images_per_prompt": 2},
            "'alike', which is no detector of this run.*there are none",
        ),
        ({"diversity_shaping": "alike"}, "compares the images of a prompt, and num_images_per_prompt is 1"),
        (
            {"diversity_shaping": "alike", "algorithm": "rwr", "num_images_per_prompt": 2},
            "the algorithm is 'rwr', which has no advantages",
        ),
        ({"diversity_shaping": "alike", "rollout_batch_size": 2, "num_images_per_prompt": 4}, "at least as large"),
        (
            {"diversity_shaping": "alike", "detector_every": 2, "num_images_per_prompt": 2},
            "detector_every is 2; it must be 1",
        ),
        ({"reference_reset": 0}, "reference_reset is 0; it must be at least 1"),
        ({"reference_reset_kl": 0.0}, "reference_reset_kl is 0.0; it must be greater than 0"),
    ],
)
def test_options_that_cannot_work(make_trainer, options, message):
    with pytest.raises(ConfigError, match=message):
        make_trainer(**{**RUN, **options})


def test_a_gate_without_rewards_to_compare_is_refused_before_a_model_is_loaded():
    with pytest.raises(ConfigError, match="reward_weights is None"):
        DDPOConfig(kl_gate=True, beta=0.1, use_cpu=True)
    held_out = {"reward_weights": [0.0], "detector_weights": [-1.0]}  # a detector is what is trained on
    assert DDPOConfig(kl_gate=True, beta=0.1, use_cpu=True, **held_out).kl_gate
