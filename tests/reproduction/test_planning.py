"""What is decided before anything is loaded: presets, the variant for a card, rollouts for a budget, downloads, consent."""

import shutil
from collections import namedtuple

import pytest

from trainer_ext.cli.parse import preset_files
from trainer_ext.cli.reproducing.checks import agree, check_disk, download_bytes
from trainer_ext.cli.reproducing.options import ReproduceOptions, check_options, told
from trainer_ext.errors import ConfigError
from trainer_ext.reproduction.planning import (
    BUDGETS,
    CARDS_GB,
    OF_EMBEDDED,
    TASKS,
    Card,
    affordable_rollouts,
    memory_for,
    presets_for,
)


def test_all_presets_are_there():
    named = {
        name
        for task in TASKS
        for memory in CARDS_GB
        for budget in BUDGETS
        for name in presets_for(task, None, budget, memory)
    }
    assert named | set(OF_EMBEDDED.values()) <= set(preset_files())


@pytest.mark.parametrize(
    ("gigabytes", "chosen"), [(7.6, 8), (15.8, 16), (25.4, 24), (42.4, 24), (85.0, 80), (150.0, 80)]
)
def test_the_variant_of_a_card(gigabytes, chosen):
    card = Card(True, int(gigabytes * 1e9), True)
    assert memory_for(card, None) == chosen
    assert memory_for(card, "embedded") is None
    assert memory_for(Card(False, card.num_bytes, True), None) is None


def test_a_card_that_is_too_small():
    with pytest.raises(ConfigError, match=r"The card has 4 GB, and the smallest variant is for 8 GB"):
        memory_for(Card(True, int(4e9), True), None)


@pytest.mark.parametrize(("budget", "rollouts"), [("full", 100), ("8h", 46), ("1h", 4)])
def test_rollouts_of_a_budget(budget, rollouts):
    """At 10 minutes a rollout and 20 for evaluations."""
    assert affordable_rollouts(budget, 100, lambda rollouts: rollouts * 600 + 1200) == rollouts
    assert affordable_rollouts(budget, 2, lambda rollouts: rollouts * 600 + 1200) == 2


def test_a_budget_that_is_too_short():
    with pytest.raises(
        ConfigError, match=r"1h is too short on this machine: a single rollout .* takes 1.5 h\. Use a larger --budget"
    ):
        affordable_rollouts("1h", 100, lambda rollouts: rollouts * 5400.0)


def test_downloads_count_each_component_once():
    """Of Stable Diffusion's repositories, what `from_pretrained` takes: no variants, no second format, no whole checkpoints."""
    sizes = {
        "model_index.json": 1,
        "v1-5-pruned.safetensors": 7000,
        "v1-5-pruned.ckpt": 7000,
        "unet/config.json": 2,
        "unet/diffusion_pytorch_model.safetensors": 3000,
        "unet/diffusion_pytorch_model.bin": 3000,
        "unet/diffusion_pytorch_model.fp16.safetensors": 1500,
        "vae/diffusion_pytorch_model.bin": 300,
        "text_encoder/model-00001-of-00002.safetensors": 100,
        "text_encoder/model-00002-of-00002.safetensors": 50,
    }
    assert download_bytes(sizes) == 1 + 2 + 3000 + 300 + 150
    assert (
        download_bytes({"config.json": 1, "model.safetensors": 500, "pytorch_model.bin": 500}) == 501
    )  # of transformers


def test_a_disk_that_is_too_full(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda place: namedtuple("Usage", "total used free")(9, 9, int(5e9)))
    check_disk(tmp_path / "not there yet", 3e9, "the run")
    with pytest.raises(ConfigError, match=r"has 5 GB free, and the run needs 4 GB"):
        check_disk(tmp_path / "not there yet", 4e9, "the run")


@pytest.mark.parametrize(("answer", "goes_on"), [("y", True), ("YES ", True), ("", False), ("n", False)])
def test_long_work_is_asked_for(monkeypatch, answer, goes_on):
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("builtins.input", lambda question: answer)
    if goes_on:
        agree("That is about 9 hours.", yes=False)
    else:
        with pytest.raises(ConfigError, match="Nothing was started"):
            agree("That is about 9 hours.", yes=False)


def test_without_a_terminal_it_must_be_said(monkeypatch):
    monkeypatch.setattr("sys.stdin.isatty", lambda: False)
    with pytest.raises(ConfigError, match=r"That is about 9 hours\. Nobody can be asked here: start it with --yes"):
        agree("That is about 9 hours.", yes=False)
    agree("That is about 9 hours.", yes=True)


MISTAKES = [
    ({}, [], "No task is named: ddpo reproduce compressibility"),
    ({"task": "compression"}, [], "task is 'compression'; it must be one of compressibility, incompressibility"),
    ({"budget": "2h"}, [], "budget is '2h'; it must be one of 1h, 8h, full"),
    ({"memory": 12}, [], "memory is 12; it must be one of 8, 16, 24, 80"),
    ({"memory": 16, "model": "embedded"}, [], "the embedded model fits every card"),
    ({}, ["--preset", "paper/sf"], "--preset is decided by the task"),
    ({}, ["--model-name-or-path=mine"], "--model_name_or_path is decided by the task"),
]


@pytest.mark.parametrize(("given", "others", "message"), MISTAKES, ids=str)
def test_mistakes(given, others, message):
    task = {} if "No task" in message else {"task": "compressibility"}
    with pytest.raises(ConfigError, match=message):
        check_options(ReproduceOptions(**{**task, **given}), others)


def test_what_the_embedded_model_lacks():
    with pytest.raises(ConfigError, match="has no task 'counting'; it has compressibility"):
        presets_for("counting", "embedded", "full", None)


def test_options_that_are_named_in_the_result():
    """Not where it was written, nor a token."""
    given = ["--output_dir", "/home/me", "--learning_rate", "0", "--hub-token=secret", "--reward_funcs", "a", "b"]
    assert told(given) == ["--learning_rate", "0", "--reward_funcs", "a", "b"]
