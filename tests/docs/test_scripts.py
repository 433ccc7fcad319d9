"""The scripts of `examples/scripts` run, with tiny models; so does the notebook, in a kernel of its own."""

import importlib.util
import os
import re
import sys
from pathlib import Path

import pytest
import torch
from support import zoo
from support.stand_ins import save_clip, save_head
from support.trainers import brightness

SCRIPTS = Path(__file__).parents[2] / "examples" / "scripts"
SMALL = {"num_train_epochs": 1, "num_images_per_rollout": 4, "num_images_per_prompt": 2, "rollout_batch_size": 4, "per_device_train_batch_size": 4,
         "gradient_accumulation_steps": 1, "num_inference_steps": 2, "skip_last_steps": 0, "num_sample_images": 2, "bf16": False, "use_cpu": True}  # fmt: skip


@pytest.fixture
def script(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def load(name):
        spec = importlib.util.spec_from_file_location(f"script_{name}", SCRIPTS / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


def test_no_script_is_forgotten():
    listed = re.findall(r"\]\((\w+\.\w+)\)", (SCRIPTS / "README.md").read_text())
    assert sorted(listed) == sorted(file.name for file in SCRIPTS.iterdir() if file.suffix in (".py", ".ipynb"))


def test_own_reward(script, tmp_path, capsys):
    trainer = script("own_reward").main(**SMALL)
    assert trainer.state.global_step == 1
    assert (tmp_path / "warm" / "pytorch_lora_weights.safetensors").is_file()
    assert f"{trainer.summary.paired}" in capsys.readouterr().out


def test_sd15_aesthetic(script, tmp_path, tiny_pipeline):
    torch.manual_seed(0)
    for name in ("clip", "head"):
        (tmp_path / name).mkdir()
    save_clip(tmp_path / "clip", projection_dim=768)
    save_head(tmp_path / "head")
    stand_ins = {"model": "clip", "head": "head"}
    trainer = script("sd15_aesthetic").main(tiny_pipeline(), stand_ins, **SMALL)
    assert any("eval_reward" in log for log in trainer.state.log_history)
    assert (tmp_path / "sd15-aesthetic" / "pytorch_lora_weights.safetensors").is_file()


def test_flux_lora(script, tmp_path):
    family = zoo.FAMILIES["FluxPipeline"]
    options = {**SMALL, "num_inference_steps": 3, **family.options}
    trainer = script("flux_lora").main(family.build(), brightness, **options)
    assert trainer.policy.sampler == "flow_sde"
    assert trainer.state.global_step == 1
    assert (tmp_path / "flux-lora" / "pytorch_lora_weights.safetensors").is_file()


@pytest.mark.full  # a kernel imports everything again
def test_the_notebook(tmp_path):
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    notebook = nbformat.read(SCRIPTS / "own_reward.ipynb", as_version=4)
    smaller = {
        "num_train_epochs=10": "num_train_epochs=2",
        "num_images_per_rollout=32": "num_images_per_rollout=8, rollout_batch_size=8",
    }
    for cell in notebook.cells:
        for old, new in smaller.items():
            cell.source = cell.source.replace(old, new)
    nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    *_, training = notebook.cells
    table, *pictures, paired = training.outputs
    assert "<th>reward</th>" in table["data"]["text/html"]
    assert "Training Loss" not in table["data"]["text/html"]
    assert ["image/png" in picture["data"] for picture in pictures] == [True, True]
    assert "same prompts and seeds" in paired["text"]
    assert not [
        output
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if output.get("name") == "stderr" and "transformers" in output["text"]
    ]


@pytest.mark.full  # a kernel, and a process that imports everything again
def test_the_notebook_of_reproductions(tmp_path, monkeypatch):
    """On the embedded model, in a small run; it is installed already."""
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    notebook = nbformat.read(SCRIPTS / "reproduce.ipynb", as_version=4)
    settings, install = [cell for cell in notebook.cells if cell.cell_type == "code"][:2]
    assert install.source == "%pip install -q git+https://github.com/ddpo-plugins/ddpo-plugins"
    install.source = ""
    small = (
        "--num_train_epochs 1 --num_images_per_rollout 16 --num_inference_steps 3 --num_sample_images 8 --use_cpu true"
    )
    settings.source = settings.source.replace("CompVis/stable-diffusion-v1-4", "embedded").replace("--budget 1h", small)
    nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    picture, findings = [cell for cell in notebook.cells if cell.cell_type == "code"][3:5]
    assert "image/png" in picture.outputs[0]["data"]
    printed = findings.outputs[0]["text"]
    assert "PASS         reload: in a stock pipeline, 8 of 8 pictures are the run's" in printed
    assert printed.split()[-1] in ("PASS", "FAIL", "INCONCLUSIVE")
    assert (tmp_path / "reproduced" / "reproduction.json").is_file()
