"""Images that are decoded in parts, for decoders that need much memory."""

import pytest
import torch

from trainer_ext.errors import ConfigError


@pytest.fixture
def pipeline(tiny_pipeline):
    return tiny_pipeline()


def decoded(pipeline):
    """How many images the decoder gets at once, and whether the VAE works in tiles then."""
    seen = []
    pipeline.vae.decoder.register_forward_pre_hook(
        lambda module, arguments: seen.append((len(arguments[0]), pipeline.vae.use_tiling))
    )
    return seen


@pytest.mark.parametrize(
    ("options", "expected"),
    [({}, {(2, False)}), ({"vae_slicing": True}, {(1, False)}), ({"vae_tiling": True}, {(2, True)})],
    ids=str,
)
def test_a_run_decodes_in_parts_and_gives_the_pipeline_back(make_trainer, pipeline, options, expected):
    vars(pipeline.vae)["_tiled_decode"] = lambda latents: pipeline.vae.decoder(
        latents
    )  # these images are smaller than a tile
    trainer = make_trainer(model=pipeline, **options)
    seen = decoded(pipeline)
    trainer.train()
    assert set(seen) == expected
    assert (pipeline.vae.use_slicing, pipeline.vae.use_tiling) == (False, False)


def test_what_the_user_turned_on_stays_on(make_trainer, pipeline):
    pipeline.vae.enable_slicing()
    trainer = make_trainer(model=pipeline)
    seen = decoded(pipeline)
    trainer.train()
    assert set(seen) == {(1, False)}
    assert pipeline.vae.use_slicing


def test_slices_are_the_images(make_trainer):
    """Up to the rounding of a decoder that gets them in another batch."""
    drawn = [make_trainer(name, vae_slicing=name == "sliced") for name in ("whole", "sliced")]
    whole, sliced = (
        trainer.policy.sample(["a cat", "a dog"], [torch.Generator().manual_seed(s) for s in (1, 2)]).images.int()
        for trainer in drawn
    )
    assert (whole - sliced).abs().max() <= 1


@pytest.mark.parametrize("option", ["vae_slicing", "vae_tiling"])
def test_a_vae_that_cannot_is_refused(make_trainer, pipeline, option):
    del vars(pipeline.vae)[option.replace("vae", "use")]
    with pytest.raises(
        ConfigError, match=f"{option} is set, and the VAE of this StableDiffusionPipeline .AutoencoderTiny. cannot"
    ):
        make_trainer(model=pipeline, **{option: True})
