"""Forward passes of training with several denoising steps of an image, or with fewer images than a batch: the same update."""

import pytest
import torch
from support import zoo
from support.trainers import CHECKPOINTING, Gradients, logs_of, train_with_gradients

from trainer_ext.errors import ConfigError, PipelineError
from trainer_ext.policy.pipeline import LogProbPipeline


@pytest.fixture
def run_options():
    """Two updates on a rollout; each batch has 2 images x 4 steps x 2 branches of guidance."""
    batches = {"num_images_per_rollout": 4, "rollout_batch_size": 4, "per_device_train_batch_size": 2}
    return {"num_inference_steps": 4, "guidance_scale": 3.0, "max_grad_norm": 0.0, "clip_range": 0.1, **batches}


def trained(make_trainer, folder, **options):
    """Gradients of the updates, what was logged, and the figures of each denoising step."""
    _, gradients, figures, steps = train_with_gradients(make_trainer, folder, Gradients(), **options)
    return gradients, figures, [row for rows in steps for row in rows]


def flow_matching():
    torch.manual_seed(0)
    return zoo.FAMILIES["StableDiffusion3Pipeline"].build()


full = pytest.mark.full

KINDS = {
    "ddpo_is, several steps of each image": {"rows_per_forward": 6},  # 3 pairs: 3 + 3 + 2
    "ddpo_is, all at once": {"rows_per_forward": 1000},
    "ddpo_is, fewer than a batch": {"rows_per_forward": 2},
    "kl, accumulated": {
        "rows_per_forward": 6,
        "beta": 0.5,
        "per_device_train_batch_size": 1,
        "gradient_accumulation_steps": 2,
    },
    "ddpo_sf, a share of the steps": {
        "rows_per_forward": 8,
        "algorithm": "ddpo_sf",
        "gradient_accumulation_steps": 2,
        "skip_last_steps": 1,
        "timestep_fraction": 0.7,
    },
    "rwr": {"rows_per_forward": 6, "algorithm": "rwr", "advantages": "batch"},
    "sparse rwr": {"rows_per_forward": 10, "algorithm": "sparse_rwr", "advantages": "batch", "rwr_quantile": 0.5},
    "checkpointing": {"rows_per_forward": 6, CHECKPOINTING: True},
    "all weights": {"rows_per_forward": 6, "full_finetuning": True, "learning_rate": 1e-5},
    "a window of flow matching": {"rows_per_forward": 6, "model": flow_matching, "sde_window": [1, 2]},
}
SLOW = {"ddpo_is, all at once", "ddpo_is, fewer than a batch", "sparse rwr", "checkpointing", "all weights"}


@pytest.mark.parametrize("kind", [pytest.param(kind, marks=[full] if kind in SLOW else []) for kind in KINDS])
def test_the_update_is_that_of_one_step_at_a_time(make_trainer, kind):
    options = dict(KINDS[kind])
    rows, model = options.pop("rows_per_forward"), options.pop("model", lambda: None)
    expected, expected_log, expected_steps = trained(make_trainer, "one", model=model(), **options)
    found, log, steps = trained(make_trainer, "several", model=model(), rows_per_forward=rows, **options)
    assert len(found) == len(expected) >= 1
    for gradient, wanted in zip(found, expected, strict=True):
        assert (gradient - wanted).norm() < 1e-3 * wanted.norm(), (gradient - wanted).norm() / wanted.norm()
    assert log.keys() == expected_log.keys()
    assert log == pytest.approx(expected_log, rel=1e-3, abs=1e-5)
    for row, wanted in zip(steps, expected_steps, strict=True):
        assert row == pytest.approx(wanted, rel=1e-3, abs=1e-5)


def test_ratios_are_one_before_any_update(make_trainer):
    trainer = make_trainer(rows_per_forward=6, gradient_accumulation_steps=2)
    trainer.train()
    (log,) = logs_of(trainer, "ratio")
    assert log["ratio"] == pytest.approx(1, abs=1e-5)


def test_noise_of_regressions_does_not_depend_on_the_rows(make_trainer):
    losses = []
    for rows in (None, 6):
        trainer = make_trainer(
            algorithm="rwr", advantages="batch", rows_per_forward=rows, folder=str(rows), learning_rate=1e-30
        )
        trainer.train()
        losses.append(logs_of(trainer, "denoising_loss")[0]["denoising_loss"])
    assert losses == pytest.approx([losses[0]] * 2, rel=1e-5)


def test_a_pass_has_at_most_so_many_rows(make_trainer):
    sizes = []
    trainer = make_trainer(rows_per_forward=7)  # 3 pairs of 2 rows
    forward = trainer.model.forward

    def counted(sample, *args, **kwargs):
        if torch.is_grad_enabled():
            sizes.append(len(sample))
        return forward(sample, *args, **kwargs)

    trainer.model.forward = counted
    trainer.train()
    assert sizes == [6] + [6, 6, 4] * 2  # the check before the first update, and both updates


def test_one_step_of_one_image_must_fit(make_trainer):
    with pytest.raises(
        ConfigError, match="rows_per_forward is 1, and one denoising step of one image takes 2, one for each"
    ):
        make_trainer(rows_per_forward=1)
    make_trainer(rows_per_forward=1, guidance_scale=1.0, folder="unguided")


class RoundsByShape(torch.nn.Module):
    """As kernels in half precision: another rounding in a batch of another size."""

    def __init__(self, denoiser, error):
        super().__init__()
        self.denoiser = denoiser
        self.error = error

    def forward(self, sample, *args, **kwargs):
        output = self.denoiser(sample, *args, **kwargs)
        return (output[0] * (1 + self.error * len(sample)), *output[1:])


@pytest.mark.parametrize("options", [{"rows_per_forward": 4}, {"per_device_train_batch_size": 1}])
def test_other_rounding_in_the_shape_of_training_is_refused(make_trainer, monkeypatch, options):
    trainer = make_trainer(num_inference_steps=2, clip_range=1e-4, **options)
    model = RoundsByShape(trainer.model, 0.01)
    monkeypatch.setattr(trainer._collector, "_sample_and_score", _with(trainer._collector._sample_and_score, model))
    with pytest.raises(
        PipelineError, match=r"of \d rows, .* sampled with 8 rows .* Set rows_per_forward=8, or use a larger"
    ):
        trainer.train()


def _with(method, model):
    return lambda _, *args, **kwargs: method(model, *args, **kwargs)


def test_replaying_does_not_look_through_all_modules(make_trainer, monkeypatch):
    """`pipeline.device` does, 3 ms each time."""
    trainer = make_trainer()
    asked = []
    device = type(trainer.policy.pipeline).device
    monkeypatch.setattr(
        type(trainer.policy.pipeline), "device", property(lambda self: asked.append(1) or device.fget(self))
    )
    sample = LogProbPipeline.sample
    monkeypatch.setattr(
        LogProbPipeline, "sample", lambda *args, **kw: (sample(*args, **kw), asked.clear())[0]
    )  # the pipeline itself may
    trainer.train()
    assert not asked
