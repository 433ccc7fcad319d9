"""The package's metadata says what the source needs, and workflows run what the scripts do."""

import ast
import functools
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tomllib

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from support.pages import ROOT

PACKAGES = ("ddpo_plugins", "reward_plugins", "trainer_ext")
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = PYPROJECT["project"]
UNIX_ONLY = {"fcntl", "grp", "pwd", "resource", "termios"}


def names(requirements):
    return {canonicalize_name(Requirement(requirement).name) for requirement in requirements}


DEPENDENCIES = names(PROJECT["dependencies"])
EXTRAS = {extra: names(requirements) for extra, requirements in PROJECT["optional-dependencies"].items()}
GROUPS = {group: names(requirements) for group, requirements in PYPROJECT["dependency-groups"].items()}


def imported(nodes):
    """Top-level names of the modules that statements import."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module.split(".")[0]


@functools.cache
def modules(*folders):
    """Third-party modules that are imported anywhere below folders, or in functions."""
    trees = [ast.parse(file.read_text()) for folder in folders for file in (ROOT / folder).rglob("*.py")]
    return {name for tree in trees for name in imported(ast.walk(tree)) if name not in sys.stdlib_module_names}


all_distributions = functools.cache(importlib.metadata.packages_distributions)  # takes a second, so not at import


def distributions(module):
    return {canonicalize_name(name) for name in all_distributions().get(module, ())}


def test_what_is_imported_is_declared():
    """In one test, so that the sources are not parsed by every process that only asks which tests there are."""
    declared = DEPENDENCIES.union(*EXTRAS.values())
    found = {module: distributions(module) for module in modules(*PACKAGES) - set(PACKAGES)}
    assert [module for module, names in found.items() if not names] == []  # what is not installed
    assert {module: names for module, names in found.items() if not names & declared} == {}


def test_what_is_declared_is_imported():
    provided = {name for module in modules(*PACKAGES) for name in distributions(module)}
    assert DEPENDENCIES - provided == set()


def test_what_tests_import_is_declared():
    own = {file.stem for folder in ("tests", "benchmarks") for file in (ROOT / folder).rglob("*.py")}
    own |= {*PACKAGES, "support", "embedded_model", "ddpo_zimage_guidance", "toy_plugin"}
    declared = DEPENDENCIES.union(*EXTRAS.values(), GROUPS["test"])
    for module in modules("tests", "benchmarks") - own:
        through = {"tokenizers": "transformers"}  # which needs exactly one version of it
        assert distributions(module) & declared or through.get(module) in declared, module


def test_tools_are_in_groups_and_not_in_what_is_published():
    assert set(EXTRAS) == {"detectors", "offline-similarity", "quantization", "remote", "serve", "server"}
    assert {"pytest", "pytest-timeout", "pytest-xdist"} <= GROUPS["test"]
    assert {"import-linter", "mypy", "ruff"} <= GROUPS["lint"]
    assert {"build", "twine"} <= GROUPS["release"]


def test_the_lowest_python_is_everywhere_the_same():
    lowest = PROJECT["requires-python"].removeprefix(">=")
    assert f"Programming Language :: Python :: {lowest}" in PROJECT["classifiers"]
    assert PYPROJECT["tool"]["ruff"]["target-version"] == f"py{lowest.replace('.', '')}"
    assert f"Python {lowest} or newer is needed" in (ROOT / ".ci" / "setup").read_text()
    others = [*(ROOT / "examples").glob("*/pyproject.toml"), ROOT / "trainer_ext/templates/pyproject.toml.template"]
    assert all(f'requires-python = ">={lowest}"' in file.read_text() for file in others)
    assert len(others) == 3


def test_the_notices_are_among_the_licences():
    notices = {file.relative_to(ROOT).as_posix() for package in PACKAGES for file in (ROOT / package).rglob("NOTICE")}
    assert set(PROJECT["license-files"]) == {"LICENSE", *notices}
    assert len(notices) == 4
    recipe = (ROOT / "examples" / "embedded_model" / "NOTICE").read_text()
    assert all((ROOT / notice).read_text() == recipe for notice in notices)


@pytest.mark.parametrize("package", PACKAGES)
def test_nothing_needs_unix_to_be_imported(package):
    for file in (ROOT / package).rglob("*.py"):
        assert not UNIX_ONLY & set(imported(ast.parse(file.read_text()).body)), file


def test_the_peak_memory_is_asked_of_windows_too(monkeypatch):
    import psutil
    import torch

    from trainer_ext.doctor.cost import peak_bytes

    here = peak_bytes(torch.device("cpu"))
    assert 2**26 < psutil.Process().memory_info().rss < here * 1.01
    monkeypatch.setattr(sys, "platform", "win32")
    memory = type("Memory", (), {"peak_wset": 123})
    monkeypatch.setattr(psutil.Process, "memory_info", lambda process: memory)
    assert peak_bytes(torch.device("cpu")) == 123


WORKFLOWS = {file.stem: yaml.safe_load(file.read_text()) for file in (ROOT / ".github" / "workflows").glob("*.yml")}


def commands(job):
    return [step["run"] for step in job["steps"] if "run" in step]


def test_ci_runs_what_developers_run():
    (job,) = WORKFLOWS["ci"]["jobs"].values()
    assert commands(job) == [".ci/run"]
    script = (ROOT / ".ci" / "run").read_text()
    steps = ['/ruff" check', '/ruff" format --check', '/mypy"', '/lint-imports"', ".ci/test"]
    assert [script.index(step) for step in steps] == sorted(script.index(step) for step in steps)


@pytest.mark.parametrize(
    ("arguments", "venv", "given"),
    [
        ([], ".venv", ""),
        (["-m", "full"], ".venv", " -m full"),
        (["other", "-x"], "other", " -x"),
        (["tests/scoring"], ".venv", " tests/scoring"),
        (["tests/test_new.py::test_one"], ".venv", " tests/test_new.py::test_one"),
    ],
)
def test_the_tests_of_one_room(tmp_path, arguments, venv, given):
    """A folder of tests is no virtual environment: none is made in it."""
    (tmp_path / ".ci").mkdir()
    shutil.copy(ROOT / ".ci" / "test", tmp_path / ".ci")
    (tmp_path / "tests" / "scoring").mkdir(parents=True)
    for folder in (".venv", "other"):
        python = tmp_path / folder / "bin" / "python"
        python.parent.mkdir(parents=True)
        python.write_text(f'#!/bin/sh\necho {folder} "$@"\n')
        python.chmod(0o755)
    command = ["bash", str(tmp_path / ".ci" / "test"), *arguments]
    out = subprocess.run(
        command, env={**os.environ, "IS_SET_UP": "1"}, capture_output=True, text=True, check=True
    ).stdout
    assert out.startswith(f"{venv} -m pytest ")
    assert out.endswith(f" --durations 5{given}\n")


@pytest.mark.parametrize(
    ("options", "preset"),
    [
        ([], "--preset embedded/quick "),
        (["--reward_funcs", "jpeg_compressibility"], "--preset embedded/quick "),
        (["--preset", "embedded/aesthetic"], ""),
        (["--preset=embedded/aesthetic"], ""),
        (["--config", "mine.yaml"], ""),
        (["--model_name_or_path", "another"], ""),
    ],
)
def test_the_main_job_is_quick_unless_other_settings_are_named(tmp_path, options, preset):
    """Settings of the embedded model are not those of another one, and win over no preset in a file."""
    (tmp_path / "examples").mkdir()
    shutil.copy(ROOT / "examples" / "main_job", tmp_path / "examples")
    for name, text in (".ci/setup", ""), (".venv/bin/ddpo", '#!/bin/sh\necho "$@"\n'):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    command = ["bash", str(tmp_path / "examples" / "main_job"), *options]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert out.strip() == f"train {preset}{' '.join(options)}".strip()


def test_only_the_job_that_publishes_may_ask_for_an_identity():
    release = WORKFLOWS["release"]
    build, publish = release["jobs"]["build"], release["jobs"]["publish"]
    assert release["permissions"] == {"contents": "read"}
    assert "permissions" not in build
    assert publish["permissions"] == {"id-token": "write"}
    assert publish["needs"] == "build"
    assert "tag" in publish["if"]
    assert commands(build)[0] == ".ci/package dist"
    assert commands(publish) == []
    actions = [step["uses"] for step in publish["steps"]]
    assert [action.split("@")[0] for action in actions] == ["actions/download-artifact", "pypa/gh-action-pypi-publish"]
    text = (ROOT / ".github" / "workflows" / "release.yml").read_text()
    assert not re.search(r"secrets\.|password", text)
