"""Steps with noise that are drawn for each rollout."""

import pytest
import torch
from support import zoo
from support.trainers import assert_same, trained_weights
from transformers import TrainerCallback

from trainer_ext import DDPOConfig
from trainer_ext.errors import ConfigError
from trainer_ext.model.loading import load_pipeline
from trainer_ext.policy.pipeline import LogProbPipeline
from trainer_ext.rollouts.windows import NoiseWindow


class Windows(TrainerCallback):
    """Notes which steps had noise in each rollout, and which were trained."""

    def __init__(self):
        self.noisy, self.trained = [], []

    def watch(self, trainer):
        collect = trainer._collector.collect

        def watched(*arguments, **named):
            rollout = collect(*arguments, **named)
            self.noisy.append(rollout.data.table.stochastic_steps.tolist())
            self.trained.append(trainer.algorithm.steps_of(rollout).tolist())
            return rollout

        trainer._collector.collect = watched
        return trainer


def flow_trainer(make_trainer, folder, **options):
    torch.manual_seed(0)
    given = {"num_inference_steps": 6, "skip_last_steps": 1, "guidance_scale": None, "sde_window_size": 2, **options}
    watch = Windows()
    model = load_pipeline(zoo.FAMILIES["StableDiffusion3Pipeline"].build())
    return watch.watch(make_trainer(folder, model=model, **given)), watch


def test_each_rollout_has_its_own_steps_and_a_resumed_run_the_same(make_trainer):
    saving = {"num_train_epochs": 4, "save_strategy": "steps", "save_steps": 1, "save_total_limit": None}
    trainer, whole = flow_trainer(make_trainer, "whole", **saving)
    trainer.train()
    assert (
        whole.noisy
        == whole.trained
        == [list(range(first, last + 1)) for first, last in (trainer._collector._window.drawn(i, 2) for i in range(4))]
    )
    assert len({tuple(steps) for steps in whole.noisy}) > 1
    assert {len(steps) for steps in whole.noisy} == {2}
    resumed, rest = flow_trainer(make_trainer, "resumed", **saving)
    resumed.train(resume_from_checkpoint=f"{trainer.args.output_dir}/checkpoint-2")
    assert rest.noisy == whole.noisy[2:]
    assert_same(trained_weights(resumed.model), trained_weights(trainer.model))
    assert trainer.policy.table.stochastic_steps.tolist() == list(range(6))  # evaluations have noise in all


def test_starts_are_drawn_uniformly_among_the_steps_that_can_be_trained():
    window = NoiseWindow(policy=None, steps=torch.arange(1, 6), size=2, seed=3)
    drawn = [window.drawn(index, 2) for index in range(400)]
    assert drawn == [window.drawn(index, 2) for index in range(400)]
    counts = [drawn.count((first, first + 1)) for first in (1, 2, 3, 4)]
    assert sum(counts) == 400
    assert min(counts) > 70
    assert NoiseWindow(policy=None, steps=torch.arange(3), size=3, seed=0).drawn(7, 3) == (0, 2)


def test_windows_that_cannot_be(tmp_path, embedded_pipeline):
    args = DDPOConfig(output_dir=str(tmp_path), use_cpu=True, sde_window_size=4)
    with pytest.raises(
        ConfigError, match="sde_window_size is 4, and the sampler 'ddim'; windows are for .*flow matching"
    ):
        NoiseWindow.of(args, LogProbPipeline(embedded_pipeline, 3, 1.0), torch.arange(3))
    flow = LogProbPipeline(load_pipeline(zoo.FAMILIES["StableDiffusion3Pipeline"].build()), 3)
    with pytest.raises(
        ConfigError, match="sde_window_size is 4, and 3 denoising steps can be trained; it must be at most that"
    ):
        NoiseWindow.of(args, flow, torch.arange(3))


def test_a_window_within_a_window():
    """Outside of both a step is Euler's."""
    flow = LogProbPipeline(load_pipeline(zoo.FAMILIES["StableDiffusion3Pipeline"].build()), 5, sde_window=[1, 3])
    whole = flow.table
    with flow.runner.noise_within(2, 3):
        table = flow.sample(["a cat"], [torch.Generator().manual_seed(0)]).trajectory.table
    assert table.stochastic_steps.tolist() == [2, 3]
    assert table.std[2:4].tolist() == whole.std[2:4].tolist()
    assert table.latents_coef[[0, 1, 4]].tolist() == [1, 1, 1]
    after = flow.sample(["a cat"], [torch.Generator().manual_seed(0)]).trajectory.table
    assert after.stochastic_steps.tolist() == [1, 2, 3]
