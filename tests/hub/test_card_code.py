"""What strangers do with an adapter on the Hub: the code on its card, in a process that never saw the run."""

import json
import subprocess
import sys
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline
from support import pipelines, trainers, zoo
from support.loopback_hub import LoopbackHub
from support.processes import environment
from transformers import T5Config

from trainer_ext.hub.card import adapter_card, adapter_files
from trainer_ext.hub.client import Hub
from trainer_ext.policy.stock import stock_images
from trainer_ext.runs.folder import RunFolder

PROMPTS, SEEDS = ["a cat", "a dog"], [1, 2]


def of_the_zoo(name):
    family = zoo.FAMILIES[name]
    return family.build(), family.options


def sd3():
    """With all its text encoders: `from_pretrained` insists on them."""
    pipeline, options = of_the_zoo("StableDiffusion3Pipeline")
    encoder = zoo.t5(lambda **config: T5Config(**{**config, "d_model": 2 * zoo.WIDTH}))
    pipeline.register_modules(text_encoder_3=encoder.eval(), tokenizer_3=zoo.byte_tokenizer())
    return pipeline, options


CASES = {
    "stable": (lambda: (pipelines.tiny_pipeline(), {}), {}),
    "sd3": (sd3, {}),
    "pixart": (lambda: of_the_zoo("PixArtAlphaPipeline"), {}),  # PEFT's own file: it has no load_lora_weights
    "flux": (lambda: of_the_zoo("FluxPipeline"), {}),
    "full": (lambda: (pipelines.tiny_pipeline(), {}), {"full_finetuning": True, "learning_rate": 1e-2}),
}

SCRIPT = """
import json, re, sys
import numpy as np
from diffusers import DiffusionPipeline
from diffusers.loaders.lora_base import LoraBaseMixin
from huggingface_hub import ModelCard
from trainer_ext.policy.stock import stock_images

folder, cases = sys.argv[1], json.loads(sys.argv[2])
for name, kwargs in cases.items():
    card = ModelCard.load(f"user/{name}")
    (code,) = re.findall(r"```python\\n(.*?)```", card.text, re.DOTALL)
    found = {}
    exec(code, found)
    assert found["image"].size[0] > 0
    pipeline = found["pipeline"]
    np.save(f"{folder}/{name}.npy", stock_images(pipeline, ["a cat", "a dog"], [1, 2], 2, kwargs).numpy())
    if isinstance(pipeline, LoraBaseMixin) and name != "full":
        plain = DiffusionPipeline.from_pretrained(card.data.base_model)
        plain.load_lora_weights(f"user/{name}")
        np.save(f"{folder}/{name}-plain.npy", stock_images(plain, ["a cat", "a dog"], [1, 2], 2, kwargs).numpy())
"""


@dataclass
class Loaded:
    """The images of a stranger, of the pipeline that was trained, and of the base."""

    strangers: list
    ours: np.ndarray
    base: np.ndarray


def push(hub, name, folder):
    """Train a pipeline a little, and push it with its base. Returns how images are made, and the images of base and result."""
    make, options = CASES[name]
    torch.manual_seed(0)
    pipeline, kwargs = make()
    pipeline.save_pretrained(folder / "base")
    base = folder / "base"
    files = {path.relative_to(base).as_posix(): path for path in base.rglob("*") if path.is_file()}
    hub.commit(hub.create(f"user/base-{name}"), files, "base")
    before = DiffusionPipeline.from_pretrained(base)
    trainer = trainers.make_trainer(
        pipeline,
        folder / "run",
        **{**trainers.TINY, "learning_rate": 1e-1, "num_sample_images": 1, **kwargs, **options},
    )
    trainer.train()
    trainer.save_model()
    sampling = trainer.policy.sampling_kwargs
    setup = json.loads((folder / "run" / "run.json").read_text())
    setup["runs"][-1]["model"] = f"user/base-{name}"
    (folder / "run" / "run.json").write_text(json.dumps(setup))
    run = RunFolder(folder / "run")
    card = adapter_card(run, f"user/{name}").encode()
    hub.commit(hub.create(f"user/{name}"), {**adapter_files(run), "README.md": card}, "run")
    images = [stock_images(one, PROMPTS, SEEDS, 2, sampling).numpy() for one in (before, trainer.policy.pipeline)]
    return sampling, *images


@pytest.fixture(scope="module")
def loaded(tmp_path_factory, request):
    """Load some cases, all in one process."""
    import huggingface_hub.constants

    folder = tmp_path_factory.mktemp("loading")
    names = {item.callspec.params["name"] for item in request.session.items if item.module is request.module}
    with pytest.MonkeyPatch.context() as patch, LoopbackHub(folder / "hub") as loopback:
        patch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
        patch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
        hub = Hub(loopback.token, loopback.url)
        pushed = {name: push(hub, name, folder / name) for name in sorted(names)}
        variables = {**environment(), **loopback.environment, "HF_HOME": str(folder / "cache")}
        cases = json.dumps({name: kwargs for name, (kwargs, *_) in pushed.items()})
        command = [sys.executable, "-c", SCRIPT, str(folder), cases]
        done = subprocess.run(command, env=variables, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]
    return {
        name: Loaded([np.load(path) for path in sorted(folder.glob(f"{name}*.npy"))], after, before)
        for name, (_, before, after) in pushed.items()
    }


@pytest.mark.parametrize(
    "name", [name if name in ("stable", "pixart") else pytest.param(name, marks=pytest.mark.full) for name in CASES]
)
def test_the_card_s_code_makes_our_images(loaded, name):
    """Bit for bit, also by `load_lora_weights` without a name where the pipeline has it."""
    one = loaded[name]
    assert len(one.strangers) == (1 if name in ("pixart", "full") else 2)
    for images in one.strangers:
        np.testing.assert_array_equal(images, one.ours)
    assert not np.array_equal(one.ours, one.base)
