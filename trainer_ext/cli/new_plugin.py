"""`ddpo new-plugin`: writes a plugin project that builds, installs and passes its tests, as a starting point."""

from __future__ import annotations

import re
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from string import Template

from ddpo_plugins import Catalogue, load_catalogue

from ..errors import ConfigError
from .screens.pages import CommandParser

PREFIX = "ddpo-"

#: Files of a project, and the templates they are made from.
FILES = {
    "pyproject.toml": "pyproject.toml.template",
    "README.md": "README.md.template",
    "$module/__init__.py": "init.py.template",
    "$module/rewards.py": "rewards.py.template",
    "$module/detectors.py": "detectors.py.template",
    "$module/prompts.py": "prompts.py.template",
    "tests/test_plugin.py": "test_plugin.py.template",
    ".github/workflows/plugin.yml": "workflow.yml.template",
}


def run(arguments: list[str]) -> int:
    """Run the command."""
    parser = CommandParser(
        prog="ddpo new-plugin",
        description="Write a plugin project: a reward, a detector, prompts, and tests that check their contracts.",
    )
    parser.add_argument("name", help="Name of the reward, such as 'daylight'; the project is then 'ddpo-daylight'.")
    parser.add_argument("--folder", default=".", help="Where the project's folder is made; here by default.")
    options = parser.parse_args(arguments)
    name = check_name(options.name, load_catalogue())
    project = write_project(name, Path(options.folder))
    print(
        f"{project}\n\nIts README.md says what is in it. To try it:\n\n  cd {project}\n  pip install -e '.[tests]'\n"
        f"  pytest\n  ddpo rewards\n  ddpo train --reward_funcs {name} --prompts {name}_prompts --output_dir {name}\n\n"
        f"The embedded model, which is trained there, does not know the sentences of {name}_prompts: it draws animals. Name\n"
        "a larger model with --model_name_or_path, or take --prompts animals."
    )
    return 0


def check_name(given: str, catalogue: Catalogue) -> str:
    """
    Return the reward's name for the name that the user gave: `my_reward` for `ddpo-my-reward` and for `my-reward`.

    Raises:
        [`ConfigError`]: the name has the wrong form, or is taken.
    """
    name = given.removeprefix(PREFIX).replace("-", "_")
    if re.fullmatch("[a-z][a-z0-9]*(_[a-z0-9]+)*", name) is None:
        raise ConfigError(
            f"{given!r} cannot be the name of a plugin. Use lower-case letters and digits, starting with a letter, in words "
            "joined by hyphens: 'daylight', 'colour-contrast'."
        )
    offers = (
        (catalogue.rewards, name),
        (catalogue.detectors, f"{name}_flat"),
        (catalogue.prompt_sets, f"{name}_prompts"),
    )
    for offered, wanted in offers:
        if wanted in offered or wanted in offered.clashes:
            raise ConfigError(f"The name {wanted!r} is taken: `ddpo rewards` says by which plugin. Choose another.")
    if find_spec(_module(name)) is not None:
        raise ConfigError(f"A module {_module(name)!r} is installed already; choose another name than {given!r}.")
    return name


def write_project(name: str, folder: Path) -> Path:
    """
    Write the project of a plugin into a new folder below `folder`.

    Raises:
        [`ConfigError`]: it exists, or cannot be written.
    """
    distribution = f"{PREFIX}{name.replace('_', '-')}"
    values = {"name": name, "module": _module(name), "distribution": distribution}
    project = folder / distribution
    templates = files("trainer_ext") / "templates"
    try:
        project.mkdir(parents=True)
        for path, template in FILES.items():
            file = project / Template(path).substitute(values)
            file.parent.mkdir(parents=True, exist_ok=True)
            text = (templates / template).read_text(encoding="utf-8")
            file.write_text(Template(text).substitute(values), encoding="utf-8")
    except FileExistsError as error:
        raise ConfigError(
            f"{error.filename} exists already, and nothing is overwritten. Remove it, choose another name, or --folder."
        ) from error
    except OSError as error:
        raise ConfigError(f"The project cannot be written: {error}. Choose another --folder.") from error
    return project


def _module(name: str) -> str:
    return f"{PREFIX}{name}".replace("-", "_")
