"""What the doctor says that a training will take, against arithmetic by hand and against torch."""

from dataclasses import replace

import pytest
import torch
from support.trainers import CHECKPOINTING, TINY

from trainer_ext import DDPOConfig
from trainer_ext.doctor.activations import SavedTensors
from trainer_ext.doctor.cost import Effort
from trainer_ext.doctor.estimate import EstimateFacts, Shapes, estimate
from trainer_ext.doctor.examine import examine

SHAPES = Shapes(
    weights_bytes=4_000_000,
    trained_parameters=1000,
    retained_bytes=500,
    conditioning_bytes=100,
    num_branches=2,
    trained_steps=5,
    activation_bytes=10_000,
    block_bytes=1_000,
    sampling_seconds=2.0,
    training_seconds=0.5,
)


@pytest.fixture
def config(tmp_path):
    return lambda **options: DDPOConfig(output_dir=str(tmp_path / "run"), **{**TINY, **options})


def test_by_hand(config):
    """16 images of 4 prompts, 8 rows a pass: 3 rollouts of 16 * 2 s and 16 * 2 passes * 5 steps * 0.5 s."""
    given = {"num_images_per_rollout": 16, "num_images_per_prompt": 4, "num_train_epochs": 3, "num_inner_epochs": 2}
    found = estimate(config(**given), SHAPES)
    assert found.rollout_bytes == 16 * 500 + 4 * 100
    assert found.training_bytes == 4_000_000 + 1000 * 12 + 4 * 2 * 10_000
    assert found.checkpointed_bytes == 4_000_000 + 1000 * 12 + 4 * 2 * 1_000
    assert (found.sampling_seconds, found.training_seconds, found.num_rollouts) == (32, 80, 3)
    assert found.hours == pytest.approx(3 * 112 / 3600)


@pytest.mark.parametrize(
    ("options", "more"),
    [
        ({"ema_decay": 0.9}, 4 * 1000),
        ({"rows_per_forward": 16}, 8 * 10_000),
        ({"per_device_train_batch_size": 2}, -4 * 10_000),
    ],
    ids=str,
)
def test_what_options_change(config, options, more):
    assert estimate(config(**options), SHAPES).training_bytes - estimate(config(), SHAPES).training_bytes == more


def test_a_denoiser_without_checkpoints(config):
    found = estimate(config(), replace(SHAPES, block_bytes=None))
    assert found.checkpointed_bytes is None
    assert "gradient_checkpointing" not in found.lines()[0][1]


def test_saved_tensors_are_counted_once_and_without_weights():
    """Two linear layers with a ReLU: saved are the inputs of the layers and the ReLU's result, which is the second input."""
    model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 4))
    saved = SavedTensors(model)
    with saved.counting():
        model(torch.randn(5, 8))
    assert saved.num_bytes == 4 * 5 * (8 + 16)


def test_the_doctor_measures_a_model(tiny_pipeline, config):
    pipeline = tiny_pipeline()
    report = examine(pipeline, config(num_images_per_rollout=8, num_images_per_prompt=2))
    (found,) = report.to_dict()["estimate"]
    latents = 4 * 4 * 8 * 8  # bytes
    assert report.can_be_trained
    assert found["rollout_bytes"] >= 8 * 5 * latents
    assert found["checkpointed_bytes"] < found["training_bytes"]
    assert not pipeline.unet.is_gradient_checkpointing
    assert any(label == "memory" for facts in report.facts for label, _ in facts.lines())


def test_a_run_is_measured_in_its_own_batches(tiny_pipeline, config):
    """A row keeps as many bytes in a batch of the run's as in the smallest one, and fewer with checkpoints."""
    run = {"rollout_batch_size": 4, "num_images_per_rollout": 4, "rows_per_forward": 8}
    found = {
        name: examine(tiny_pipeline(), config(**run, **more), as_run=as_run).one(EstimateFacts)
        for name, as_run, more in [("fewest", False, {}), ("run", True, {}), ("less", True, {CHECKPOINTING: True})]
    }
    assert found["run"].training_bytes == pytest.approx(found["fewest"].training_bytes, rel=0.01)
    assert found["less"].training_bytes == pytest.approx(found["run"].checkpointed_bytes, rel=0.2)


@pytest.mark.parametrize(("options", "pairs"), [({"rows_per_forward": 8}, 4), ({"per_device_train_batch_size": 2}, 2)])
def test_the_batches_of_a_run(config, options, pairs):
    assert Effort.of_run(config(**options), num_branches=2) == Effort(2, pairs, warm_ups=1)
