"""What an editor and `help()` show: names, descriptions, and types that hold for a user's own code."""

import inspect
import json
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

import trainer_ext
from trainer_ext import DDPOConfig
from trainer_ext.options import DDPOOptions, TrainerDefaults

ROOT = Path(__file__).parents[2]

USER_CODE = """
from typing import Any

from datasets import Dataset
from PIL.Image import Image

from ddpo_plugins import RewardSpec, hookimpl
from trainer_ext import DDPOConfig, DDPOTrainer, RewardFunction, prompts_from_plugin, reward_from_plugin


def warmth(images: list[Image], prompts: list[str], **columns: Any) -> list[float | None]:
    return [0.0 for _ in images]


@hookimpl
def ddpo_register_rewards() -> list[RewardSpec]:
    return [RewardSpec("warmth", lambda device: warmth, "Warmth.")]


config = DDPOConfig(output_dir="warm", num_train_epochs=2, algorithm="ddpo_is", detectors_weights=[1.0])
rewards: list[RewardFunction] = [reward_from_plugin("jpeg_compressibility"), RewardFunction("warmth", warmth)]
trainer = DDPOTrainer("embedded", rewards, config, prompts_from_plugin("animals"))
trainer.train()
paired = trainer.summary.paired
difference: str = paired.difference if paired is not None else 0.0
"""


def test_completion_offers_the_public_names():
    """`from trainer_ext import <tab>`."""
    assert set(trainer_ext.__all__) <= set(dir(trainer_ext))
    assert not [name for name in dir(trainer_ext) if name.startswith("_") and name != "__version__"]


def test_help_describes_every_option_of_ours():
    text = inspect.getdoc(DDPOConfig)
    assert (
        text.splitlines()[0]
        == "`transformers.TrainingArguments` with DDPO's own options, which [`DDPOOptions`] describes."
    )
    written = {  # the parser of the command line replaces the types of fields by what they stand for
        name: kind
        for base in (*DDPOOptions.__mro__, *TrainerDefaults.__mro__)
        for name, kind in vars(base).get("__annotations__", {}).items()
    }
    for item in (*fields(DDPOOptions), *fields(TrainerDefaults)):
        assert f"\n    {item.name} (`{written[item.name]}`, *optional*, defaults to `" in text
        assert item.metadata["help"][:40] in " ".join(text.split())
    assert max(map(len, text.splitlines())) <= 130


def checked(tmp_path, tool, *options):
    """What a type checker prints about the code of a user."""
    pytest.importorskip(tool)
    code = tmp_path / "user.py"
    code.write_text(USER_CODE)
    command = [sys.executable, "-m", tool, *options, str(code)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout


@pytest.mark.full  # mypy reads torch and transformers, unless its cache has them
def test_types_hold_for_the_code_of_a_user(tmp_path):
    """Two mistakes are found: an option that does not exist, and a number that is no text. Nothing else is."""
    options = ["--strict", "--follow-imports", "silent", "--config-file", "pyproject.toml"]
    found = checked(tmp_path, "mypy", *options, "--cache-dir", str(ROOT / ".mypy_cache")).splitlines()
    errors = [line.partition("error: ")[2] for line in found if "user.py:" in line and "error: " in line]
    assert len(errors) == 2, found
    assert 'Unexpected keyword argument "detectors_weights" for "DDPOConfig"' in errors[0]
    assert "Incompatible types in assignment" in errors[1]


@pytest.mark.full
def test_pyright_finds_the_same_two_mistakes(tmp_path):
    """What Visual Studio Code shows to a user."""
    found = json.loads(checked(tmp_path, "pyright", "--pythonpath", sys.executable, "--outputjson"))
    rules = [row["rule"] for row in found["generalDiagnostics"]]
    assert rules == ["reportCallIssue", "reportAssignmentType"], found
    assert 'No parameter named "detectors_weights"' in found["generalDiagnostics"][0]["message"]
