"""The command `ddpo`, as users run it."""

import csv
import gc
import json
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import trl
from diffusers.loaders.lora_base import LoraBaseMixin
from packaging.version import Version
from PIL import Image
from support import zoo
from support.trainers import checkpoints, records

from trainer_ext.cli import main
from trainer_ext.cli import train as train_command
from trainer_ext.cli.screens.starting import stage, started, starting
from trainer_ext.errors import ProcessLostError
from trainer_ext.model.denoiser import TrainedDenoiser
from trainer_ext.model.loading import load_pipeline
from trainer_ext.model.lora import default_lora_config
from trainer_ext.policy.pipeline import LogProbPipeline
from trainer_ext.policy.stock import stock_images
from trainer_ext.runs.folder import RunFolder

FAST = ["--num_train_epochs", "1", "--num_images_per_rollout", "4", "--num_images_per_prompt", "2", "--rollout_batch_size", "4", "--per_device_train_batch_size",
        "4", "--gradient_accumulation_steps", "1", "--skip_last_steps", "0", "--num_inference_steps", "2", "--num_sample_images", "2", "--eval_strategy", "no", "--disable_tqdm", "true"]  # fmt: skip

SECOND_JUDGE = Path(__file__).parents[2] / "benchmarks" / "second_judge"


@pytest.fixture(autouse=True)
def in_tmp(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def train(tmp_path):
    def train(*arguments):
        return main(["train", *FAST, "--output_dir", str(tmp_path / "run"), *arguments])

    return train


@pytest.mark.skipif(Version(trl.__version__).major < 1, reason="TrlParser imported transformers")
@pytest.mark.parametrize(
    "command",
    [
        ["--help"],
        ["train", "--help"],
        ["sample", "--help"],
        ["doctor", "--help"],
        ["rewards"],
        ["new-plugin", "--help"],
    ],
)
def test_help_imports_nothing_heavy(command):
    code = (
        "import sys; from trainer_ext.cli import main\n"
        f"try: main({command})\nexcept SystemExit: pass\n"
        "print(*({'torch', 'transformers', 'diffusers', 'datasets', 'peft', 'matplotlib'} & set(sys.modules)), file=sys.stderr)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stderr.split() == []
    assert result.stdout


def test_help_shows_the_options_and_where_the_others_are(capsys):
    assert main(["train", "--help"]) == 0
    text = capsys.readouterr().out
    for option in (
        "--model_name_or_path",
        "--reward_funcs",
        "--prompts",
        "--clip_range",
        "--lora_r",
        "--learning_rate",
        "--help_all",
    ):
        assert option in text


def test_help_all_lists_the_trainers_options(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["train", "--help_all"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert "--max_grad_norm" in text
    assert "--clip_range" in text


def test_rewards_lists_what_is_installed(capsys):
    assert main(["rewards"]) == 0
    lines = capsys.readouterr().out.splitlines()
    (line,) = [line for line in lines if line.startswith("jpeg_compressibility ")]
    assert line.split()[1:4] == ["reward", "ddpo-plugins", "0.1.0"]
    assert "kB" in line
    assert any(line.split()[:3] == ["animals", "prompt", "set"] for line in lines)


def test_sample_of_a_pipeline_without_load_lora_weights(tmp_path):
    """Its adapter is a folder of PEFT's."""
    pipeline = zoo.FAMILIES["PixArtSigmaPipeline"].build()
    assert not isinstance(pipeline, LoraBaseMixin)
    pipeline.save_pretrained(tmp_path / "model")
    policy = LogProbPipeline(pipeline, 2, **zoo.FAMILIES["PixArtSigmaPipeline"].options)
    denoiser = TrainedDenoiser(policy.denoiser, "transformer", default_lora_config(policy.denoiser))
    for name, parameter in denoiser.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    denoiser.save(tmp_path / "run", pipeline)
    call = {"use_resolution_binning": False, "max_sequence_length": 24, "clean_caption": False}
    arguments = [
        "--model_name_or_path",
        tmp_path / "model",
        "--adapter",
        tmp_path / "run",
        "--prompts",
        "a cat",
        "--seeds",
        "3",
    ]
    arguments += [
        "--num_inference_steps",
        "2",
        "--output_dir",
        tmp_path / "drawn",
        "--pipeline_kwargs",
        json.dumps(call),
    ]
    assert main(["sample", *map(str, arguments)]) == 0
    without, with_adapter = (
        np.asarray(Image.open(tmp_path / "drawn" / name / "00.png")) for name in ("without", "with")
    )
    settings = {"num_inference_steps": 2, "guidance_scale": 5.0, "eta": 1.0, **call}
    assert np.array_equal(with_adapter, stock_images(pipeline, ["a cat"], [3], 1, settings)[0])
    assert not np.array_equal(without, with_adapter)


def test_train_then_sample(train, tmp_path, capsys):
    assert train() == 0
    run = tmp_path / "run"
    assert "reward of the fixed samples: " in capsys.readouterr().out
    for name in (
        "pytorch_lora_weights.safetensors",
        "reward_curve.png",
        "samples/before_after.png",
        "rollouts/rollout-00000.parquet",
    ):
        assert (run / name).is_file(), name
    assert (
        "num_inference_steps" in RunFolder(run).setups()[-1]["options"]
    )  # 2, and guidance 1: `ddpo sample` reads them
    drawn = tmp_path / "drawn"
    arguments = ["--prompts", "a cat", "a dog", "--seeds", "3", "4", "--output_dir", str(drawn)]
    assert main(["sample", str(run), *arguments, "--reward_funcs", "jpeg_incompressibility"]) == 0
    pipeline = load_pipeline("embedded")
    settings = {"num_inference_steps": 2, "guidance_scale": 1.0, "eta": 1.0}
    for label in ("without", "with"):
        if label == "with":
            pipeline.load_lora_weights(run)
        expected = stock_images(pipeline, ["a cat", "a dog"], [3, 4], 2, settings)
        pictures = [np.asarray(Image.open(drawn / label / f"{index:02d}.png")) for index in range(2)]
        assert np.array_equal(pictures, expected)
    assert (drawn / "sheet.png").is_file()
    _, *rows = csv.reader((drawn / "scores.csv").read_text().splitlines())
    assert [row[:2] for row in rows] == [["a cat", "3"], ["a dog", "4"]]
    before, after = np.mean([[float(value) for value in row[2:]] for row in rows], axis=0)
    assert f"jpeg_incompressibility: {before:.4g} -> {after:.4g}" in capsys.readouterr().out


def test_sample_of_a_run_that_trained_all_weights(train, tmp_path):
    """Its folder holds a whole pipeline; flags win over the run's record."""
    assert train("--full_finetuning", "true", "--num_sample_images", "0", "--learning_rate", "0.01") == 0
    arguments = ["--prompts", "a cat", "--num_inference_steps", "1", "--output_dir", str(tmp_path / "drawn")]
    assert main(["sample", str(tmp_path / "run"), *arguments]) == 0
    settings = {"num_inference_steps": 1, "guidance_scale": 1.0, "eta": 1.0}
    for label, model in (("without", "embedded"), ("with", tmp_path / "run")):
        expected = stock_images(load_pipeline(model), ["a cat"], [0], 1, settings)[0]
        assert np.array_equal(np.asarray(Image.open(tmp_path / "drawn" / label / "00.png")), expected)


def test_a_training_says_what_it_does_in_plain_lines(train, capsys):
    """Into a file: that it starts, what it is about to do, a line for each rollout, and what to do next."""
    assert train("--disable_tqdm", "false") == 0
    out, error = capsys.readouterr()
    first, setting, *_ = out.splitlines()
    rollout, _, *following = error.splitlines()
    assert first == "ddpo train: loading libraries"
    for part in ("embedded on cpu", "jpeg_incompressibility", "prompts animals", "1 rollouts of 4 images", "1 updates"):
        assert part in setting
    assert setting.endswith(f"into {Path('run').absolute()}")
    mean = np.mean([record["reward"] for record in records("run")])
    assert rollout.startswith(f"rollout 0: reward {mean:.4g} (fixed ")  # as its file is called: rollout-00000
    assert [line.split("   ")[0] for line in following] == [
        "Next:",
        "ddpo sample run",
        "ddpo push run",
        "ddpo report run",
    ]
    assert "\r" not in out + error
    assert "\x1b" not in out + error


@pytest.mark.parametrize(("command", "waits"), [("train", True), ("doctor", False), ("rewards", False)])
def test_no_garbage_is_collected_until_a_long_command_has_started(command, waits):
    """Looking through all that imports make is a fifth of their time; commands that never say that they have started collect."""
    with starting(command, []):
        assert gc.isenabled() is not waits
        started()
        assert gc.isenabled()
        stage("the next part")
        assert not gc.isenabled()
    assert gc.isenabled()  # after a mistake too


def test_files_that_are_not_there_are_not_named(train, capsys):
    assert train("--num_sample_images", "0", "--resume_from_checkpoint=false") == 0
    out = capsys.readouterr().out
    named = [line.split("   ")[0] for line in out.splitlines() if "   " in line]
    assert "before_after.png" not in out
    assert named
    assert all(Path(name).exists() for name in named)


def test_flags_win_over_config_which_wins_over_the_preset(train, tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text("learning_rate: 0.5\nlora_r: 3\nreward_funcs: [jpeg_compressibility]\n")
    assert train("--config", str(config), "--lora_r", "2", "--logging_strategy", "epoch") == 0
    rows = records(tmp_path / "run")
    assert all(record["rewards/jpeg_compressibility"] < 0 for record in rows)  # of the config, not of the preset
    from safetensors.torch import load_file

    adapter = load_file(tmp_path / "run" / "pytorch_lora_weights.safetensors")
    assert {value.shape[0] for key, value in adapter.items() if "lora_A" in key} == {2}


def logged(folder):
    return RunFolder(folder).logs()


def test_of_several_presets_the_last_wins(train, tmp_path):
    assert train("--preset", "embedded", "embedded/rwr", "--num_inner_epochs", "1") == 0
    (log,) = [log for log in logged(tmp_path / "run") if "denoising_loss" in log]  # of RWR
    assert log["rewards/jpeg_incompressibility/mean"] > 0  # of the preset before


def test_evaluation_on_several_prompt_sets_and_other_rewards(train, tmp_path):
    (tmp_path / "two.txt").write_text("a cat\na dog\n")
    (tmp_path / "one.txt").write_text("a house\n")
    sets = [str(tmp_path / name) for name in ("two.txt", "one.txt")]
    options = ["--eval_reward_funcs", "jpeg_compressibility", "--eval_strategy", "epoch"]
    assert train("--eval_prompts", *sets, *options) == 0
    logs = logged(tmp_path / "run")
    metrics = {name: value for log in logs for name, value in log.items()}
    for name in sets:
        assert metrics[f"eval_{name}_reward"] == -metrics[f"eval_{name}_rewards/jpeg_compressibility/mean"]
    assert train("--eval_prompts", sets[0], *options, "--output_dir", str(tmp_path / "other")) == 0
    assert any("eval_reward" in log for log in logged(tmp_path / "other"))


def test_several_rewards_with_weights(train, tmp_path):
    assert train("--reward_funcs", "jpeg_compressibility", "jpeg_incompressibility", "--reward_weights", "1", "3") == 0
    for record in records(tmp_path / "run"):
        assert record["reward"] == pytest.approx(
            record["rewards/jpeg_compressibility"] + 3 * record["rewards/jpeg_incompressibility"]
        )


def test_prompts_from_a_text_file(train, tmp_path):
    (tmp_path / "prompts.txt").write_text("a red cat\n\n  a blue dog  \n")
    assert train("--prompts", str(tmp_path / "prompts.txt")) == 0
    rows = records(tmp_path / "run")
    assert {record["prompt"] for record in rows} == {"a red cat", "a blue dog"}


def test_it_resumes(train, tmp_path, capsys):
    assert train("--save_strategy", "epoch") == 0
    assert train() == 2
    assert "already holds a run" in capsys.readouterr().err
    assert train("--num_train_epochs", "2", "--resume_from_checkpoint", "true") == 0
    assert len(list((tmp_path / "run" / "rollouts").iterdir())) == 2


def test_other_options_of_a_held_out_reward_are_named_by_the_verdict(train, tmp_path, capsys):
    """What it says of the pictures before and after the resume cannot be compared, though it is the same reward by name."""
    (tmp_path / "two.txt").write_text("a cat\na dog\n")
    evaluated = ["--eval_prompts", str(tmp_path / "two.txt"), "--eval_reward_funcs", "embedded_judge"]
    options = [*evaluated, "--eval_strategy", "epoch", "--save_strategy", "epoch", "--num_sample_images", "0"]
    assert train(*options) == 0
    other = {"embedded_judge": {"folder": str(SECOND_JUDGE)}}
    resumed = ["--num_train_epochs", "2", "--resume_from_checkpoint", "true", "--reward_kwargs", json.dumps(other)]
    capsys.readouterr()
    assert train(*options, *resumed) == 0
    assert (
        "\nNot judged: the held-out reward embedded_judge changed at update 1, so that evaluations before and after cannot be "
        "compared. To judge a reward, begin a new run in another output_dir.\n" in capsys.readouterr().out
    )


@pytest.mark.parametrize(
    ("arguments", "messages"),
    [
        (["--reward_funcs", "jpeg_compresibility"], ["Unknown reward 'jpeg_compresibility'", "jpeg_compressibility"]),
        (["--prompts", "animal"], ["Unknown prompt set 'animal'", "animals"]),
        (["--prompts", "no-such-file.txt"], ["--prompts no-such-file.txt: there is no such file"]),
        (["--clip_rang", "1"], ["--clip_rang: did you mean --clip_range"]),
        (["--eta", "0"], ["eta is 0.0; it must be in (0, 1]"]),
        (["--guidance", "cgf"], ["Unknown guidance rule 'cgf'"]),
        (
            ["--preset", "lora/paint"],
            [
                "There is no preset 'lora/paint'; there are: awm, budget/1h, budget/8h, embedded, embedded/aesthetic, ",
                "lora/aesthetic",
            ],
        ),
        (["--preset", "lora/aesthetic"], ["could not build reward 'aesthetic'", "huggingface.co"]),
        (
            ["--preset", "none"],
            ["No reward is named; give one with --reward_funcs NAME. Installed: aesthetic, classifier, clip_score"],
        ),
        (
            ["--model_name_or_path", "./nowhere", "--reward_funcs", "jpeg_compressibility"],
            ["No pipeline could be loaded from './nowhere'"],
        ),
        (["--config", "nowhere.yaml"], ["The config file nowhere.yaml cannot be read"]),
        (["--bf16", "true"], ["doesn't support bf16"]),
    ],
)
def test_mistakes(train, capsys, tmp_path, arguments, messages):
    assert train(*arguments) == 2
    error = capsys.readouterr().err
    for message in messages:
        assert message in error
    assert "Traceback" not in error
    assert not (tmp_path / "run" / "rollouts").exists()
    assert gc.isenabled()


def test_an_empty_prompts_file(train, capsys, tmp_path):
    (tmp_path / "empty.txt").write_text("\n \n")
    assert train("--prompts", str(tmp_path / "empty.txt")) == 2
    assert "is empty" in capsys.readouterr().err


def test_a_dataset_file_without_prompts_of_the_hub_is_named(train, capsys, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    assert train("--prompts", "nobody/nothing") == 2
    assert "No dataset could be loaded from 'nobody/nothing'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--seeds", "1", "2", "3"], "--seeds has 3 values for 4 prompts"),
        (["--adapter", "nowhere"], "The adapter 'nowhere' does not load: there is no folder '"),
        (["nowhere"], "The adapter 'nowhere' does not load: there is no folder '"),
        (["./no/where"], "The adapter './no/where' does not load: there is no folder '"),
        ([str(Path(__file__).parent)], "the folder holds none of pytorch_lora_weights.safetensors"),
        (["--model_name_or_path", "nowhere"], "No pipeline could be loaded from 'nowhere': there is no folder '"),
        (["--prompts", " "], "--prompts has an empty prompt"),
    ],
)
def test_mistakes_in_sample(capsys, arguments, message):
    assert main(["sample", *arguments, "--num_inference_steps", "1"]) == 2
    assert message in capsys.readouterr().err


def test_unknown_command(capsys):
    assert main(["trian"]) == 2
    assert "there is no command 'trian'" in capsys.readouterr().err
    assert main([]) == 0


def test_ctrl_c_tells_how_to_resume(forked, tmp_path):
    """A process of its own and a real signal, in the second rollout."""
    arguments = ["train", *FAST, "--num_train_epochs", "50", "--output_dir", str(tmp_path / "run")]
    status, log = forked.command(arguments, at="trainer_ext.scoring.suite.RewardSuite.score", call=4)
    assert status == 130
    assert log.rstrip().endswith(
        f"{shlex.join(['ddpo', *arguments])} --resume_from_checkpoint true\n\nddpo train: interrupted."
    )
    assert f"ddpo report {tmp_path / 'run'}   " in log
    assert "before_after.png" not in log
    assert len(records(tmp_path / "run")) == 4
    assert checkpoints(tmp_path / "run")


def test_the_exit_status_says_that_another_process_died(monkeypatch, capsys):
    """A cluster tries again; 2 would tell it that the command is wrong."""

    def run(arguments):
        raise ProcessLostError("Another process of this run was killed.")

    monkeypatch.setattr(train_command, "run", run)
    assert main(["train"]) == 1
    assert capsys.readouterr().err == "\nddpo train: Another process of this run was killed.\n"
