"""Values in a config file: scalars where lists belong, and numbers that YAML reads as texts."""

import pytest

from trainer_ext import DDPOConfig
from trainer_ext.cli import main
from trainer_ext.cli.options import LoraOptions, RunOptions
from trainer_ext.cli.parse import load_preset, parse

SCALARS = """
reward_funcs: jpeg_compressibility
eval_prompts: animals
detectors: blank
lora_target_modules: to_q
stop_when: reward>100
reward_weights: 2.0
detector_weights: "-1"
num_images_per_rollout: 64.0
num_images_per_prompt: "2"
learning_rate: 1e-4
gradient_accumulation_steps: 8
use_cpu: true
"""


def test_scalars_stand_for_lists_of_one(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text(SCALARS)
    run, lora, config = parse((RunOptions, LoraOptions, DDPOConfig), ["--config", str(file)], "ddpo train", {})
    assert (run.reward_funcs, run.eval_prompts, run.detectors) == (["jpeg_compressibility"], ["animals"], ["blank"])
    assert lora.lora_target_modules == ["to_q"]
    assert (config.stop_when, config.reward_weights, config.detector_weights) == (["reward>100"], [2.0], [-1.0])
    assert (config.num_images_per_rollout, config.num_images_per_prompt, config.learning_rate) == (64, 2, 1e-4)


@pytest.mark.parametrize("name", ["detectors", "eval_prompts", "eval_reward_funcs"])
def test_none_turns_off_what_a_preset_names(name):
    preset = load_preset(["--preset", "embedded"])
    kinds = (RunOptions, LoraOptions, DDPOConfig)
    named, *_ = parse(kinds, [], "ddpo train", preset)
    off, *_ = parse(kinds, [f"--{name}", "none"], "ddpo train", preset)
    assert vars(named)[name]
    assert vars(off)[name] == []


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("prompts: [animals, simple]", "prompts is ['animals', 'simple'] (list); it must be a text, such as 'animals'"),
        ("sde_window: 0", "sde_window is [0]; it must be two steps"),
        ("seed: -1", "seed is -1; it must be from 0 to 2**32 - 1"),
        ("report_to: wandbb", "report_to is 'wandbb'; it must be 'none', 'all', or some of"),
        ("pipeline_kwargs: {prompt: a cat}", "pipeline_kwargs has 'prompt', which is not passed on"),
        ("auto_find_batch_size: true", "auto_find_batch_size is True, and DDPO cannot do that"),
        ("reward_kwargs: [sk-1234]", "reward_kwargs is a list; it must be a mapping, or JSON"),
    ],
)
def test_other_values_are_one_line(tmp_path, capsys, line, message):
    file = tmp_path / "run.yaml"
    file.write_text(f"reward_funcs: jpeg_compressibility\noutput_dir: {tmp_path / 'run'}\n{line}\n")
    assert main(["train", "--config", str(file), "--use_cpu", "true"]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.strip().splitlines()) == 1
    assert "sk-1234" not in error
