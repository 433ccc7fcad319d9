"""Gradients that are taken while images are sampled: the update of replaying them, in every way that a run can be made."""

import re

import pytest
import torch
from peft import LoraConfig
from support import zoo
from support.trainers import (
    CHECKPOINTING,
    Gradients,
    all_records,
    assert_same,
    train_with_gradients,
    trained_weights,
)

from ddpo_plugins.errors import RewardError
from trainer_ext.learning.fused.memory import ImageGradients
from trainer_ext.learning.policy_gradient import PolicyGradient, ScoreFunction
from trainer_ext.policy.recording.trajectory import Trajectory


@pytest.fixture
def run_options():
    """One update on a rollout of two batches, in two batches of training."""
    batches = {"num_images_per_rollout": 4, "rollout_batch_size": 2, "per_device_train_batch_size": 2}
    return {
        "num_inference_steps": 3,
        "guidance_scale": 3.0,
        "gradient_accumulation_steps": 2,
        "max_grad_norm": 0.0,
        "fused": True,
        **batches,
    }


class AwayFromTheStart(Gradients):
    def on_train_begin(self, args, state, control, model=None, **kwargs):
        """Away from where adapters begin, with half of their gradients 0."""
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for name, value in model.named_parameters():
                if "lora_B" in name:
                    value.copy_(0.05 * torch.randn(value.shape, generator=generator))


def trained(make_trainer, folder, **options):
    """The trainer, the gradient of its update, what was logged, and the figures of each denoising step."""
    trainer, gradients, figures, steps = train_with_gradients(make_trainer, folder, AwayFromTheStart(), **options)
    return trainer, gradients[-1], figures, steps


def flow_matching():
    torch.manual_seed(0)
    return zoo.FAMILIES["StableDiffusion3Pipeline"].build()


KINDS = {
    "ddpo_is": {},
    "ddpo_sf, steps left out": {"algorithm": "ddpo_sf", "skip_last_steps": 1},
    "convolutions, biases": {"peft_config": {"target_modules": ["conv1", "proj_in"], "lora_bias": True}},
    "checkpointing": {CHECKPOINTING: True},
    "a window of flow matching": {"model": flow_matching, "sde_window": [0, 1]},
}
SLOW = {"checkpointing"}


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=[pytest.mark.full] if kind in SLOW else []) for kind in KINDS]
)
def test_the_update_is_that_of_replaying(make_trainer, kind):
    options = {**KINDS[kind]}
    model = options.pop("model", lambda: None)
    adapter = options.pop("peft_config", None)
    if adapter is not None:
        options["peft_config"] = LoraConfig(r=2, lora_alpha=2, **adapter)
    replayed, expected, expected_log, expected_steps = trained(
        make_trainer, "one", model=model(), **options, fused=False
    )
    trainer, found, log, steps = trained(make_trainer, "fused", model=model(), **options)
    assert isinstance(replayed._rollout.data, Trajectory)
    assert isinstance(trainer._rollout.data, ImageGradients)
    assert expected.norm() > 0
    assert (found - expected).norm() < 1e-4 * expected.norm()
    for row, other in zip(*(all_records(each.args.output_dir)[0] for each in (trainer, replayed)), strict=True):
        assert row["seed"] == other["seed"]
        assert row["reward"] == pytest.approx(
            other["reward"], rel=1e-3
        )  # convolutions may round differently with gradients
    assert log == pytest.approx(expected_log, rel=1e-4, abs=1e-6)
    assert log["ratio"] == 1.0
    for rows, wanted in zip(steps, expected_steps, strict=True):
        for row, other in zip(rows, wanted, strict=True):
            assert row == pytest.approx(other, rel=1e-4, abs=1e-6)


class OwnLoss(PolicyGradient):
    def loss(self, minibatch, prediction):
        return ScoreFunction().loss(minibatch, prediction)


OBSTACLES = {
    "beta": ({"beta": 0.1}, "beta is 0.1, and the KL term needs"),
    "all weights": (
        {"full_finetuning": True, "learning_rate": 1e-5},
        "full_finetuning has a gradient as large as the model",
    ),
    "a share of the steps": ({"timestep_fraction": 0.7}, "timestep_fraction is 0.7"),
    "larger batches": (
        {"rollout_batch_size": 4},
        r"a rollout has 8 rows, and .* 4: .* set rows_per_forward=8 or a smaller",
    ),
    "other layers": (
        {"peft_config": LoraConfig(r=2, use_dora=True, target_modules=["to_q"])},
        "lora_magnitude_vector.* plain",
    ),
}


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.full] if n != "other layers" else []) for n in OBSTACLES]
)
def test_where_it_is_impossible_the_log_says_why(make_trainer, caplog, name):
    options, reason = OBSTACLES[name]
    trainer = make_trainer(**options)
    (message,) = [record.getMessage() for record in caplog.records if "Gradients are not taken" in record.getMessage()]
    assert re.search(reason, message), message
    trainer.train()
    assert isinstance(trainer._rollout.data, Trajectory)


@pytest.mark.parametrize(
    "options",
    [{"gradient_accumulation_steps": 1}, {"algorithm": OwnLoss()}, {"algorithm": "rwr", "advantages": "batch"}],
)
def test_where_it_would_be_another_gradient_nothing_is_said(make_trainer, caplog, options):
    make_trainer(**options)
    assert "Gradients are not taken" not in caplog.text


#: What a denoiser may do with the rows of a layer, which replaying does as well: before it, and after it.
ROWS = {
    "another order": (lambda rows: rows.flip(0), lambda rows: rows.flip(0), "those of the first step are off by"),
    "a row too many": (
        lambda rows: torch.cat([rows.flatten(0, 1), rows[0, :1]])[None],
        lambda rows: rows[0, :-1].unflatten(0, (-1, 16)),
        "a trained layer is called with 65 rows for 2 images in 2 branches",
    ),
}


@pytest.mark.parametrize("rows", ROWS)
def test_gradients_that_replaying_does_not_give_are_not_used(tiny_pipeline, make_trainer, caplog, rows):
    before, after, reason = ROWS[rows]
    trainers = {}
    for fused in (False, True):
        torch.manual_seed(0)
        pipeline = tiny_pipeline()
        for name, module in pipeline.unet.named_modules():
            if name.endswith("attn1"):
                module.register_forward_pre_hook(lambda _, args: (before(args[0]), *args[1:]))
                module.register_forward_hook(lambda _, args, output: after(output))
        trainers[fused] = make_trainer(model=pipeline, fused=fused, folder=str(fused))
        trainers[fused].train()
    assert reason in caplog.text
    assert isinstance(trainers[True]._rollout.data, Trajectory)
    assert_same(*(trained_weights(trainer.model) for trainer in trainers.values()))


def test_weights_are_trainable_again_after_a_failure(make_trainer):
    """And have no gradient of a rollout that is given up."""

    def reward(images, prompts, **columns):
        raise OSError("no")

    trainer = make_trainer(reward=reward)
    names = set(trained_weights(trainer.model))
    with pytest.raises(RewardError):
        trainer.train()
    assert set(trained_weights(trainer.model)) == names
    assert all(value.grad is None for value in trainer.model.parameters())
