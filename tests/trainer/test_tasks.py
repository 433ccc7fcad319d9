"""The article's four tasks, each from one command, on the embedded model and with tiny stand-ins for other weights."""

import json

import pytest
import torch
from support.chat_server import serving
from support.stand_ins import save_clip, save_head
from support.tiny_judges import tiny_llava
from support.trainers import TINY, as_flags, records

from trainer_ext.cli import main
from trainer_ext.hub.card import adapter_card
from trainer_ext.runs.folder import RunFolder

SMALL = {
    "model_name_or_path": "embedded",
    **TINY,
    "eval_strategy": "no",
    "per_device_train_batch_size": 2,
    "gradient_accumulation_steps": 2,
}
del SMALL["guidance_scale"]  # the preset's


@pytest.fixture
def run(tmp_path):
    """Run a task's preset and return the record of its one rollout."""

    def run(task, kwargs, *arguments):
        folder = tmp_path / "run"
        options = {**SMALL, "preset": f"lora/{task}", "reward_kwargs": json.dumps(kwargs), "output_dir": folder}
        assert main(["train", *as_flags(options), *arguments]) == 0
        assert (folder / "pytorch_lora_weights.safetensors").exists()
        (entry,) = RunFolder(folder).setups()
        rows = records(folder)
        return {name: [row[name] for row in rows] for name in rows[0]}, entry

    return run


@pytest.mark.parametrize("task", ["compressibility", pytest.param("incompressibility", marks=pytest.mark.full)])
def test_jpeg(run, task):
    table, _ = run(task, {})
    sizes = table[f"rewards/jpeg_{task}"]
    assert all((size < 0) == (task == "compressibility") for size in sizes)


def test_aesthetic(run, tmp_path):
    torch.manual_seed(0)
    for name in ("clip", "head"):
        (tmp_path / name).mkdir()
    save_clip(tmp_path / "clip", projection_dim=768)
    save_head(tmp_path / "head")
    options = {"model": str(tmp_path / "clip"), "head": str(tmp_path / "head")}
    table, entry = run("aesthetic", {"aesthetic": options})
    assert len(set(table["rewards/aesthetic"])) == 4
    assert options.items() <= entry["rewards"]["aesthetic"]["options"].items()


def test_alignment_by_a_local_model(run, encoder_folder, tmp_path):
    options = {"model": tiny_llava(tmp_path / "llava"), "similarity": encoder_folder, "max_new_tokens": 4}
    table, _ = run("alignment", {"prompt_alignment": options})
    assert all(recall is None or -1 <= recall <= 1 for recall in table["rewards/prompt_alignment"])
    assert set(map(type, table["prompt_alignment/description"])) == {str}


def test_alignment_by_a_server_watched_for_text(run, encoder_folder):
    with serving(lambda image, question: "A cat riding a bike.") as server:
        options = {"model": "llava", "base_url": server.base_url, "similarity": encoder_folder}
        watching = ("--detectors", "typographic_attack", "--stop_when", "typographic_attack>0.9")
        table, entry = run(
            "alignment", {"prompt_alignment": options, "typographic_attack": {"num_threads": 1}}, *watching
        )
    assert len(server.chats) == 4
    assert all(0 < recall <= 1 for recall in table["rewards/prompt_alignment"])
    assert all(0 <= sure < 0.9 for sure in table["detectors/typographic_attack"])
    assert set(map(type, table["typographic_attack/text"])) == {str}
    assert entry["detectors"]["typographic_attack"]["options"] == {"num_threads": 1}


def test_typographic_attack(tmp_path):
    """Its base is the embedded model with posters, from training to the card; the detector reads a sample of the images."""
    folder = tmp_path / "run"
    small = {**SMALL, "num_images_per_prompt": 2, "rows_per_forward": 2, "detector_every": 2, "output_dir": folder}
    del small["model_name_or_path"], small["num_inference_steps"]  # the preset's
    assert main(["train", "--preset", "embedded/typographic", *as_flags(small)]) == 0
    rows = records(folder)
    assert all(0 <= row["rewards/reading_judge"] <= 1 for row in rows)
    read = [row["detectors/typographic_attack"] is not None for row in rows]
    assert 0 < sum(read) == len(read) / 2
    (entry,) = RunFolder(folder).setups()
    assert entry["model"] == "embedded-posters"
    drawn = tmp_path / "drawn"
    assert (
        main(["sample", str(folder), "--prompts", "a crab", "--num_inference_steps", "2", "--output_dir", str(drawn)])
        == 0
    )
    card = adapter_card(RunFolder(folder), "user/attack")
    assert (
        'from_pretrained(embedded_model())\npipeline.load_lora_weights(embedded_model() / "posters")'
        in card.replace("'", '"')
    )
