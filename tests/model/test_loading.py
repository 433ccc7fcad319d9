"""From folders to pipelines."""

import torch
from support.zoo import stable_diffusion_3

from trainer_ext import LogProbPipeline
from trainer_ext.model.loading import load_pipeline
from trainer_ext.policy.seeds import image_generators


def test_a_pipeline_that_was_saved_without_a_component_is_loaded(tmp_path):
    """Stable Diffusion 3 without its largest text encoder, as people save memory; diffusers asks for an argument then."""
    without = stable_diffusion_3()
    without.register_modules(text_encoder_3=None, tokenizer_3=None)
    without.save_pretrained(tmp_path)
    loaded = load_pipeline(str(tmp_path))
    assert loaded.components["text_encoder_3"] is None
    images = [
        LogProbPipeline(pipeline, 2, 4.0).sample(["a cat"], image_generators([1])).images
        for pipeline in (without, loaded)
    ]
    assert torch.equal(*images)
