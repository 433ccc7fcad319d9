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
from trainer_ext.doctor.training_facts import CostFacts
from trainer_ext.doctor.whole_run import Batches, Costs, Counts, Judging, seconds_by_part

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


# ---- a whole run ----


@pytest.mark.parametrize(
    ("batches", "judging", "seconds"),
    [
        (Batches(8, 4), Judging(), 8 * 2),
        (
            Batches(8, 4),
            Judging(computing=0.5),
            8 * 2 + 8 * 0.5,
        ),  # nothing is gained where the processor is what both need
        (Batches(8, 4), Judging(waiting=0.5), 8 * 2 + 4 * 0.5),  # the first batch's is hidden, the last one's is not
        (Batches(8, 4), Judging(waiting=3.0), 4 * 2 + 8 * 3),  # now sampling is hidden, but for the first batch's
        (Batches(8, 4), Judging(0.5, 3.0), 4 * 2 + 8 * 3 + 8 * 0.5),
        (Batches(8, 4, overlapping=False), Judging(0.5, 3.0), 8 * (2 + 3.5)),
        (Batches(8, 8), Judging(0.5, 3.0), 8 * (2 + 3.5)),  # of one batch nothing overlaps
        (Batches(6, 4), Judging(waiting=0.5), 6 * 2 + 3 * 0.5),
        (Batches(0, 4), Judging(0.5, 3.0), 0),
    ],
    ids=str,
)
def test_batches_by_hand(batches, judging, seconds):
    """Two seconds to sample an image."""
    assert batches.seconds(2.0, judging) == pytest.approx(seconds)


def test_a_run_by_hand():
    """Three rollouts of 8 images and 4 updates each; 5 images evaluated twice, 3 of them compared with the base; 2 drawn 4 times."""
    counts = Counts(
        rollout=Batches(8, 8),
        evaluation=Batches(5, 8),
        rollouts=3,
        updates=12,
        evaluations=2,
        checkpoints=2,
        divergences=3,
        drawn=2,
        drawings=4,
        drawn_by_default=4,
    )
    costs = Costs(
        image=1.0,
        step=0.1,
        default_image=7.0,
        training=20.0,
        update=0.5,
        rewards=Judging(0.25, 0.25),
        judges=Judging(1.0, 1.0),
        sheet=3.0,
        checkpoint=4.0,
    )
    assert seconds_by_part(counts, costs) == pytest.approx(
        {
            "rollouts": 3 * 8 * 1.5,
            "training": 3 * 20 + 12 * 0.5,
            "evaluations": 2 * (5 * 3 + 3 * 0.1),
            "pictures": 4 * 2 * 1.5 + 4 * 7.5 + (4 + 3) * 3,
            "checkpoints": 8,
        }
    )


def test_an_update_is_measured_and_changes_nothing(tiny_pipeline, config):
    """By the run's own optimizer, only where the run's batches are measured; all weights are trained here."""
    pipeline, facts, images = tiny_pipeline(), [], []
    before = {name: value.clone() for name, value in pipeline.unet.state_dict().items()}
    for as_run in (False, True):
        options = config(full_finetuning=True, rollout_batch_size=4, num_images_per_rollout=4)
        report = examine(pipeline, options, as_run=as_run, on_images=images.append)
        facts.append(report.one(CostFacts))
    assert facts[0].update_seconds == 0
    assert facts[1].update_seconds > 0
    assert [len(each) for each in images] == [2, 4]
    assert all(torch.equal(value, before[name]) for name, value in pipeline.unet.state_dict().items())
