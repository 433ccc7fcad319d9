"""`ddpo new-plugin`: what it writes builds, installs, passes its own tests, and is found."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ddpo_plugins import load_catalogue
from trainer_ext.cli import main

ROOT = Path(__file__).parents[2]
FILES = {"pyproject.toml", "README.md", "ddpo_colour_contrast/__init__.py", "ddpo_colour_contrast/rewards.py",
         "ddpo_colour_contrast/detectors.py", "ddpo_colour_contrast/prompts.py", "tests/test_plugin.py", ".github/workflows/plugin.yml"}  # fmt: skip


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    folder = tmp_path_factory.mktemp("projects")
    assert main(["new-plugin", "colour-contrast", "--folder", str(folder)]) == 0
    return folder / "ddpo-colour-contrast"


@pytest.fixture(scope="module")
def environment(project, tmp_path_factory):
    """Variables of a process that has the project installed, from a wheel, beside this project."""
    copy = tmp_path_factory.mktemp("source") / "copy"  # setuptools writes beside the sources
    shutil.copytree(project, copy)
    target = tmp_path_factory.mktemp("installed")
    command = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-build-isolation", "--no-index", "--quiet"]
    done = subprocess.run([*command, "--target", str(target), str(copy)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(target), str(ROOT)])}


def run(*arguments, env, cwd):
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, env=env, cwd=cwd)


def test_it_is_complete(project):
    files = {path.relative_to(project).as_posix() for path in project.rglob("*") if path.is_file()}
    assert files == FILES
    for file in files:
        assert "$" not in (project / file).read_text(), "every placeholder is filled in"


def test_its_tests_pass_where_it_is_installed(project, environment, tmp_path):
    shutil.copytree(project / "tests", tmp_path / "tests")
    shutil.copy(project / "pyproject.toml", tmp_path)
    done = run("-m", "pytest", "-q", "-p", "no:cacheprovider", env=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "7 passed" in done.stdout


def test_its_tests_see_a_broken_reward(project, environment, tmp_path):
    shutil.copytree(project, tmp_path / "project")
    rewards = tmp_path / "project" / "ddpo_colour_contrast" / "rewards.py"
    rewards.write_text(rewards.read_text().replace("[target] * len(images)", "[target]"))
    done = run("-m", "pytest", "-q", "-p", "no:cacheprovider", env=environment, cwd=tmp_path / "project")
    assert done.returncode == 1
    assert (
        "Reward 'colour_contrast' fails the check 'contract': called with 4 images, it raised ValueError" in done.stdout
    )


def test_ddpo_rewards_lists_it(environment, tmp_path):
    done = run("-m", "trainer_ext.cli", "rewards", env=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in done.stdout.splitlines() if line.startswith("colour_contrast")]
    assert [row[:3] for row in rows] == [
        ["colour_contrast", "reward", "ddpo-colour-contrast"],
        ["colour_contrast_flat", "detector", "ddpo-colour-contrast"],
        ["colour_contrast_prompts", "prompt", "set"],
    ]


def test_its_reward_gets_the_column_of_its_prompts(environment, tmp_path):
    """In the trainer, by name. That a stranger's plugin trains is in `test_third_party.py`."""
    code = """
import torch
from trainer_ext import prompts_from_plugin, reward_from_plugin
from trainer_ext.scoring.suite import RewardSuite
rows = list(prompts_from_plugin("colour_contrast_prompts"))
black = torch.zeros(len(rows), 8, 8, 3, dtype=torch.uint8)
print(RewardSuite([reward_from_plugin("colour_contrast", target=9)]).score(black, rows).total.round(6).tolist())
"""
    done = run("-c", code, env=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str([0.3, 0.8] * 4)


def test_it_says_what_to_do_next(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["new-plugin", "ddpo-sharpness"]) == 0
    output = capsys.readouterr().out
    for line in (
        "cd ddpo-sharpness",
        "pip install -e '.[tests]'",
        "ddpo train --reward_funcs sharpness --prompts sharpness_prompts",
    ):
        assert line in output
    assert (tmp_path / "ddpo-sharpness" / "ddpo_sharpness" / "__init__.py").is_file()


@pytest.mark.parametrize(
    "name", ["Sharpness", "1st", "a b", "é", "", "ddpo-", "a--b", "a-", "_a", "../a", "a.b", "class "]
)
def test_names_that_cannot_be(tmp_path, capsys, name):
    assert main(["new-plugin", name, "--folder", str(tmp_path)]) == 2
    assert f"{name!r} cannot be the name of a plugin. Use lower-case letters and digits" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("jpeg-compressibility", "The name 'jpeg_compressibility' is taken: `ddpo rewards` says by which plugin"),
        ("plugins", "A module 'ddpo_plugins' is installed already; choose another name than 'plugins'"),
    ],
)
def test_names_that_are_taken(tmp_path, capsys, name, message):
    assert "jpeg_compressibility" in load_catalogue().rewards
    assert main(["new-plugin", name, "--folder", str(tmp_path)]) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten(tmp_path, capsys):
    mine = tmp_path / "ddpo-sharpness"
    mine.mkdir()
    (mine / "README.md").write_text("mine")
    assert main(["new-plugin", "sharpness", "--folder", str(tmp_path)]) == 2
    assert "ddpo-sharpness exists already, and nothing is overwritten" in capsys.readouterr().err
    assert [path.read_text() for path in mine.rglob("*")] == ["mine"]


def test_a_folder_that_cannot_be(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main(["new-plugin", "sharpness", "--folder", str(tmp_path / "file" / "below")]) == 2
    assert "The project cannot be written: " in capsys.readouterr().err
