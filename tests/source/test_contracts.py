"""The import contracts see a forbidden import: each is planted in a copy of the source, and must be reported."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("ddpo_plugins", "reward_plugins", "trainer_ext")

PLANTED = {
    "trainer to built-ins": ("trainer_ext/trainer.py", "import reward_plugins.jpeg", "come through the public door"),
    "losses to trainer": ("trainer_ext/learning/losses.py", "import trainer_ext.trainer", "stand on floors"),
    "host to trainer": ("ddpo_plugins/specs.py", "import trainer_ext.errors", "The plugin host knows neither"),
    "host to torch": ("ddpo_plugins/manager.py", "import torch", "The plugin host knows neither"),
    "built-ins to trainer": ("reward_plugins/jpeg.py", "import trainer_ext.images", "know the host only"),
    "side by side": ("trainer_ext/runs/setup.py", "import trainer_ext.doctor.facts", "stand on floors"),
    "folder to torch": ("trainer_ext/runs/folder.py", "import torch", "What reads a run's folder"),
    "a module on no floor": ("trainer_ext/cellar.py", "", "stand on floors"),
}


@pytest.fixture
def copied(tmp_path):
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for package in PACKAGES:
        shutil.copytree(
            ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("*.safetensors", "__pycache__")
        )
    return tmp_path


def lint(folder):
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()"]
    ended = subprocess.run(
        [*command, "--no-cache"], cwd=folder, capture_output=True, text=True, env={"PYTHONPATH": "."}
    )
    return ended.returncode, " ".join(ended.stdout.split())


def test_the_contracts_are_kept(copied):
    assert lint(copied)[0] == 0


@pytest.mark.parametrize("plant", PLANTED)
def test_a_planted_import_is_reported(copied, plant):
    file, line, contract = PLANTED[plant]
    with (copied / file).open("a") as source:
        source.write(f"\n{line}\n")
    status, report = lint(copied)
    assert status == 1
    broken = report.split("Broken contracts")[1]
    assert contract in broken
