"""Commands in the manual exist, and so do their options."""

import argparse
import re
import tomllib
from dataclasses import fields

import pytest
import yaml
from support.pages import MANUAL, PYTHON, ROOT, all_blocks, blocks, ddpo_arguments, lines, prose, read, spans

from ddpo_plugins import load_catalogue
from trainer_ext import DDPOConfig
from trainer_ext.cli import COMMANDS, main
from trainer_ext.cli.audit import AuditOptions
from trainer_ext.cli.doctor import DoctorOptions
from trainer_ext.cli.export import FORMATS, ExportOptions
from trainer_ext.cli.options import LoraOptions, RunOptions
from trainer_ext.cli.pages.compare import CompareOptions
from trainer_ext.cli.pages.report import ReportOptions
from trainer_ext.cli.parse import load_preset, parse, parse_own
from trainer_ext.cli.push import PushOptions
from trainer_ext.cli.reproducing.options import ReproduceOptions, check_options
from trainer_ext.cli.sample import SampleOptions
from trainer_ext.cli.services.serve_reward import make_parser

PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
OF_TRAIN = (RunOptions, LoraOptions, DDPOConfig)
OTHERS = {"accelerate", "cd", "git", "hf", "pip", "pytest", "torchrun", "vllm", "npm", "twine"}
OF_OTHERS = (
    "pip",
    "accelerate",
    "torchrun",
    "twine",
    "ruff",
    "git",
    ".ci",
    "python -m sglang",
    "transformers serve",
    "vllm",
    "examples/embedded_model",
    "--index-url",
    "--no-python",
)
COMMANDS_OF_PAGES = [
    pytest.param(words, id=f"{block}: {' '.join(words)[:60]}") for block in all_blocks("bash") for words in lines(block)
]


@pytest.fixture(autouse=True)
def in_tmp(tmp_path, monkeypatch):
    """Where the files that the quickstart shows are."""
    monkeypatch.chdir(tmp_path)
    (file,) = blocks("docs/quickstart.md", "yaml")
    (tmp_path / "run.yaml").write_text(file.text)


@pytest.mark.parametrize("words", COMMANDS_OF_PAGES)
def test_command(words):
    arguments = ddpo_arguments(words)
    if arguments is not None:
        CHECKS[arguments[0]](arguments[1:])
    elif words[0] in PYTHON and words[1] != "-m":
        assert (ROOT / words[1]).is_file()
    elif "/" in words[0] and not words[0].startswith(".venv/"):
        assert (ROOT / words[0]).is_file()
    elif words[0] not in PYTHON:
        assert words[0] in OTHERS or words[0].startswith(".venv/bin/"), words


def check_train(arguments):
    options, _, config = parse(OF_TRAIN, [*arguments, "--use_cpu", "true"], "ddpo train", load_preset(arguments))
    mine = "daylight" in arguments  # the plugin that the page has written by then
    assert mine or set(options.reward_funcs) <= set(load_catalogue().rewards) | {"redness"}
    assert mine or options.prompts in load_catalogue().prompt_sets
    assert set(options.eval_prompts or ()) <= set(load_catalogue().prompt_sets)
    assert set(options.eval_reward_funcs or ()) <= set(load_catalogue().rewards)
    assert set(options.detectors or ()) <= set(load_catalogue().detectors)
    assert config.updates_per_rollout >= 1


def check_doctor(arguments):
    kinds = (RunOptions, LoraOptions, DoctorOptions, DDPOConfig)
    parse(kinds, ["--model_name_or_path", *arguments, "--use_cpu", "true"], "ddpo doctor", load_preset(arguments))


def check_audit(arguments):
    (options,) = parse((AuditOptions,), ["--reward_funcs", *arguments], "ddpo audit", {})
    assert set(options.reward_funcs) <= set(load_catalogue().rewards) | {"daylight"}
    assert set(options.detectors or ()) <= set(load_catalogue().detectors)


def check_serve_reward(arguments):
    options = make_parser().parse_args(arguments)
    catalogue = load_catalogue()
    assert set(options.names) <= {*catalogue.rewards, *catalogue.detectors, "image_reward"}  # a stranger's


def check_sample(arguments):
    run = [] if arguments[0].startswith("-") else ["--adapter"]
    parse((SampleOptions,), [*run, *arguments], "ddpo sample", {})


def check_export(arguments):
    (options,) = parse((ExportOptions,), ["--run", *arguments], "ddpo export", {})
    assert options.format in FORMATS


def check_push(arguments):
    parse((PushOptions,), ["--run", *arguments], "ddpo push", {})


def check_report(arguments):
    parse((ReportOptions,), ["--run", *arguments], "ddpo report", {})


def check_compare(arguments):
    (options,) = parse((CompareOptions,), ["--runs", *arguments], "ddpo compare", {})
    assert len(options.runs) > 1


def check_reproduce(arguments):
    options, others = parse_own(ReproduceOptions, ["--task", *arguments], "ddpo reproduce")
    check_options(options, others)


CHECKS = {
    "reproduce": check_reproduce,
    "compare": check_compare,
    "report": check_report,
    "push": check_push,
    "train": check_train,
    "audit": check_audit,
    "doctor": check_doctor,
    "sample": check_sample,
    "export": check_export,
    "serve-reward": check_serve_reward,
    "rewards": lambda arguments: main(["rewards", *arguments]),
    "presets": lambda arguments: main(["presets", *arguments]),
    "completion": lambda arguments: main(["completion", *arguments]),
    "env": lambda arguments: main(["env", *arguments]),
    "new-plugin": lambda arguments: main(["new-plugin", *arguments]),
}


def test_all_commands_are_in_the_manual():
    used = {ddpo_arguments(words)[0] for block in all_blocks("bash") for words in lines(block) if ddpo_arguments(words)}
    assert used == set(COMMANDS) == set(CHECKS)
    assert {span.split()[1] for span in inline("ddpo ")} - {"COMMAND", "--help"} <= set(COMMANDS)


def inline(start):
    return [span for page in MANUAL for span in spans(prose(page)) if span.startswith(start)]


def test_options_in_the_text_exist():
    kinds = (
        *OF_TRAIN,
        SampleOptions,
        AuditOptions,
        DoctorOptions,
        ReproduceOptions,
        ExportOptions,
        PushOptions,
        ReportOptions,
        CompareOptions,
    )
    known = {field.name for kind in kinds for field in fields(kind)} | {"config", "help", "help_all", "folder"}
    known |= {action.dest for action in make_parser()._actions}
    for page in MANUAL:
        for span in spans(prose(page)):
            if not span.startswith(OF_OTHERS):
                assert set(re.findall(r"(?<![\w-])--(\w+)", span)) <= known, f"{page}: {span}"


def test_extras_and_groups_that_are_installed_exist():
    text = "".join(read(page) for page in MANUAL)
    extras = {name for found in re.findall(r"pip install '\.\[([\w,-]+)\]'", text) for name in found.split(",")}
    assert extras - {"tests"} <= set(PYPROJECT["project"]["optional-dependencies"])  # `tests` is the new plugin's
    assert set(re.findall(r"--group (\w+)", text)) <= set(PYPROJECT["dependency-groups"])


def test_the_two_scripts_are_in_the_readme():
    (block,) = [block for block in blocks("README.md", "bash") if "examples/main_job" in block.text]
    assert [words[0] for words in lines(block)] == ["examples/main_job", ".ci/test"]


def test_no_option_at_all_is_the_demonstration():
    """`ddpo train` rewards, prompts and trains what the README says."""
    options, lora, config = parse(OF_TRAIN, ["--use_cpu", "true"], "ddpo train", load_preset([]))
    assert (options.model_name_or_path, options.reward_funcs, options.prompts) == (
        "embedded",
        ["jpeg_incompressibility"],
        "animals",
    )
    assert (config.folder.name, config.num_train_epochs, config.num_images_per_rollout) == ("ddpo-output", 14, 64)
    assert lora.lora_r == 16


def test_the_demonstration_runs_without_saying_what_to_reward(tmp_path, capsys):
    """With fewer images and steps, and no other option."""
    fewer = "--max_steps 1 --num_images_per_rollout 8 --num_inference_steps 3 --num_sample_images 2 --disable_tqdm true"
    assert main(["train", *fewer.split(), "--use_cpu", "true"]) == 0
    out = capsys.readouterr().out
    assert "ddpo-output/samples/before_after.png" in out
    assert "rewards/embedded_judge of the evaluation: " in out
    assert "Not judged: no" not in out
    for file in ("pytorch_lora_weights.safetensors", "samples/before_after.png", "reward_curve.png"):
        assert (tmp_path / "ddpo-output" / file).is_file()


@pytest.mark.parametrize("block", blocks("docs/distributed.md", "yaml"), ids=str)
def test_accelerate_reads_the_configurations(block, tmp_path):
    from accelerate.commands.config.config_args import load_config_from_file

    (tmp_path / "accelerate.yaml").write_text(block.text)
    config = load_config_from_file(str(tmp_path / "accelerate.yaml"))
    assert config.num_processes == 8
    assert config.distributed_type.value == yaml.safe_load(block.text)["distributed_type"]


def test_accelerate_takes_the_options_of_fsdp():
    from accelerate.commands.launch import launch_command_parser

    _, block = blocks("docs/distributed.md", "yaml")
    actions = {
        action.dest for action in launch_command_parser()._actions if not isinstance(action, argparse._HelpAction)
    }
    assert set(yaml.safe_load(block.text)["fsdp_config"]) <= actions
