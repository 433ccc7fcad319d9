"""What must hold whatever is trained, where no other file asks it."""

import pytest
import torch
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from support.trainers import brightness, logs_of
from transformers import CLIPConfig, CLIPTextConfig, CLIPVisionConfig

from trainer_ext import LogProbPipeline
from trainer_ext.errors import PipelineError
from trainer_ext.model.denoiser import TrainedDenoiser
from trainer_ext.model.loading import load_pipeline
from trainer_ext.model.lora import default_lora_config
from trainer_ext.policy.deviations import Replayed
from trainer_ext.policy.seeds import image_generators
from trainer_ext.policy.self_check import check_compiled, gradient_tolerance


@pytest.fixture
def run_options():
    return {"num_inference_steps": 4, "guidance_scale": 3.0, "rollout_batch_size": 4}


def first_ratio(trainer):
    trainer.train()
    (log,) = logs_of(trainer, "ratio")
    return log["ratio"]


def test_dropout_is_off_in_rollout_and_training(tiny_pipeline, make_trainer):
    """A UNet with dropout in every attention projection, left in training mode by its owner."""
    pipeline = tiny_pipeline()
    for module in pipeline.unet.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.5
    pipeline.unet.train()
    assert sum(isinstance(module, torch.nn.Dropout) for module in pipeline.unet.modules()) > 4
    assert first_ratio(make_trainer(model=pipeline)) == 1.0


def test_sampling_with_other_steps_in_between_changes_no_ratio(tiny_pipeline, make_trainer):
    """A reward that uses the pipeline: tables are the rollout's own, never what the scheduler says now."""
    pipeline = tiny_pipeline()

    def reward(images, prompts, **columns):
        pipeline(["a house"], num_inference_steps=7, generator=torch.Generator().manual_seed(0))
        return brightness(images, prompts)

    trainer = make_trainer(model=pipeline, reward=reward)
    assert first_ratio(trainer) == 1.0
    assert trainer._rollout.data.table.num_steps == 4


def test_the_safety_checker_is_off_and_the_log_says_so(tiny_pipeline, caplog):
    """Its black images would be rewarded like any other."""
    small = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = CLIPConfig(
        text_config=CLIPTextConfig(**small).to_dict(),
        vision_config=CLIPVisionConfig(**small, image_size=32, patch_size=16).to_dict(),
        projection_dim=8,
    )
    pipeline = tiny_pipeline()
    pipeline.register_modules(safety_checker=StableDiffusionSafetyChecker(config))
    assert load_pipeline(pipeline).safety_checker is None
    assert "safety checker is off in training" in caplog.text


class Compiled(torch.nn.Module):
    """As a compiler may make it: the same values, but a layer's gradient is lost. So did inductor."""

    def __init__(self, denoiser):
        super().__init__()
        self.denoiser = denoiser

    def forward(self, *args, **kwargs):
        (attention,) = self.denoiser.base.mid_block.attentions  # half of what is trained: attn1 keeps its gradient
        layer = attention.transformer_blocks[0].attn2
        hook = layer.register_forward_hook(lambda module, inputs, output: output.detach())
        try:
            return self.denoiser(*args, **kwargs)
        finally:
            hook.remove()


def test_wrong_gradients_of_compiled_code_are_noticed(tiny_pipeline):
    pipeline = tiny_pipeline()
    policy = LogProbPipeline(pipeline, 4, 3.0)
    pipeline.unet.requires_grad_(False)
    denoiser = TrainedDenoiser(pipeline.unet, "unet", default_lora_config(pipeline.unet))
    trajectory = policy.sample(["a cat", "a dog"], image_generators([1, 2]), denoiser=denoiser).trajectory
    replayed = Replayed.as_sampled(trajectory)
    check_compiled(policy, denoiser, denoiser, replayed)
    with pytest.raises(PipelineError, match="gradient is wrong: it is off by .* Train without torch_compile"):
        check_compiled(policy, Compiled(denoiser), denoiser, replayed)


@pytest.mark.parametrize(("dtype", "allowed"), [(torch.float32, 0.05), (torch.bfloat16, 0.15), (torch.float16, 0.15)])
def test_gradients_of_half_precision_may_be_off_by_rounding(tiny_pipeline, dtype, allowed):
    assert gradient_tolerance(LogProbPipeline(tiny_pipeline().to(dtype), 4, 3.0)) == allowed


def test_a_run_that_is_compiled_wrongly_is_refused(make_trainer, monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda module, **kwargs: Compiled(module))
    with pytest.raises(PipelineError, match="gradient is wrong"):
        make_trainer(torch_compile=True).train()
