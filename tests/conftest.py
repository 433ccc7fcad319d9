import copy
import os
import subprocess
import sys

os.environ["HF_HUB_OFFLINE"] = "1"  # read when the Hub client is imported: no test needs the network
os.environ["OMP_NUM_THREADS"] = "1"  # of the processes that tests start, as of their own

import pytest
import torch
from diffusers import AutoencoderTiny, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTokenizer

from trainer_ext.model.loading import DTYPE_ARGUMENT, embedded_model, load_pipeline


@pytest.fixture(autouse=True)
def seed():
    torch.set_num_threads(1)  # models this small gain nothing from a second one, and lose 100x to a busy core
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def tiny_pipeline():
    """Make a pipeline with a tiny random UNet: 8 x 8 latents, 32 x 32 images. Prompts are padded to 16 tokens."""
    folder = embedded_model()
    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    text_encoder = CLIPTextModel.from_pretrained(folder / "text_encoder", dtype=torch.float32)
    vae = AutoencoderTiny.from_pretrained(folder / "vae", **{DTYPE_ARGUMENT: torch.float32})

    def make(prediction_type="epsilon", **scheduler_kwargs):
        unet = UNet2DConditionModel(
            sample_size=8,
            block_out_channels=(8, 16),
            layers_per_block=1,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            attention_head_dim=4,
            norm_num_groups=4,
            cross_attention_dim=text_encoder.config.hidden_size,
        )
        options = {"clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1, **scheduler_kwargs}
        pipeline = StableDiffusionPipeline(
            tokenizer=tokenizer,
            text_encoder=copy.deepcopy(text_encoder),
            vae=copy.deepcopy(vae),
            unet=unet.eval(),
            scheduler=DDIMScheduler(prediction_type=prediction_type, **options),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
        return load_pipeline(pipeline)

    return make


@pytest.fixture
def embedded_pipeline():
    return load_pipeline("embedded")


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Pretend that a distribution with one plugin module is installed."""
    monkeypatch.syspath_prepend(tmp_path)
    modules = []

    def install(distribution, entry_point, source, version="1.0"):
        module = f"{distribution.replace('-', '_')}_module"
        modules.append(module)
        (tmp_path / f"{module}.py").write_text(source)
        info = tmp_path / f"{distribution}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
        (info / "entry_points.txt").write_text(f"[ddpo_plugins]\n{entry_point} = {module}\n")

    yield install
    for module in modules:
        sys.modules.pop(module, None)


@pytest.fixture(scope="session")
def torchrun():
    """Run a script in two processes, as users do. Returns when both have ended, or fails the test."""

    def run(*arguments, timeout=600, on_start=lambda launcher: None):
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
        launcher = subprocess.Popen(
            [*command, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        try:
            on_start(launcher)
            output, _ = launcher.communicate(timeout=timeout)
        except BaseException as error:
            launcher.terminate()  # which ends the two
            output, _ = launcher.communicate(timeout=60)
            if isinstance(error, subprocess.TimeoutExpired):
                pytest.fail(f"{arguments} did not end:\n{output}")
            raise
        return subprocess.CompletedProcess(command, launcher.returncode, output)

    return run


@pytest.fixture(scope="session")
def encoder_folder(tmp_path_factory):
    """A tiny random encoder of texts."""
    from support.tiny_judges import tiny_encoder

    torch.manual_seed(0)
    return tiny_encoder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture(scope="session")
def llava_folder(tmp_path_factory):
    """A tiny random LLaVA."""
    from support.tiny_judges import tiny_llava

    torch.manual_seed(0)
    return tiny_llava(tmp_path_factory.mktemp("llava"))
