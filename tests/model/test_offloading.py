"""Text encoders and VAE that are in host memory while they do not compute."""

import pytest
import torch
from support import zoo

FULL = pytest.mark.full


def offloaded(pipeline):
    """Names of the components whose layers diffusers moves, and back from which device."""
    modules = {name: part for name, part in pipeline.components.items() if isinstance(part, torch.nn.Module)}
    layers = {
        name: [layer for layer in part.modules() if "_diffusers_hook" in vars(layer)] for name, part in modules.items()
    }
    hooks = {name: [vars(layer)["_diffusers_hook"].hooks for layer in found] for name, found in layers.items()}
    return {name for name, found in hooks.items() if any("group_offloading" in names for names in found)}


def drawn(trainer):
    return trainer.policy.sample(["a cat", "a dog"], [torch.Generator().manual_seed(seed) for seed in (1, 2)]).images


def test_a_run_keeps_what_it_does_not_train_in_host_memory_and_gives_the_pipeline_back(make_trainer):
    plain, trainer = make_trainer("plain"), make_trainer(offload_components=True)
    pipeline = trainer.policy.pipeline
    assert offloaded(pipeline) == {"text_encoder", "vae"}
    assert drawn(trainer).equal(drawn(plain))
    for _ in range(2):  # the second time, it is lent again
        trainer.train()
        assert not offloaded(pipeline)
        with trainer._weights.loan.in_use():
            assert offloaded(pipeline) == {"text_encoder", "vae"}


@pytest.mark.parametrize(
    "name", [name if name == "FluxPipeline" else pytest.param(name, marks=FULL) for name in zoo.FAMILIES]
)
def test_images_of_other_pipelines_are_the_same(make_trainer, name):
    family = zoo.FAMILIES[name]

    def images(offload):
        torch.manual_seed(0)
        trainer = make_trainer(f"{offload}", model=family.build(), offload_components=offload, **family.options)
        return drawn(trainer)

    assert images(True).equal(images(False))
