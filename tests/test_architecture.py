"""Imports point one way: cli -> trainer -> callbacks, rewards -> policy, advantages, losses -> errors."""

import ast
import re
from pathlib import Path

import diffusers
import pytest

PACKAGE = Path(__file__).parents[1] / "trainer_ext"

# What each module of trainer_ext may import of it; a folder counts as one module, errors may be imported by all.
ALLOWED = {
    "errors": set(),
    "options": set(),
    "losses": set(),
    "interrupts": set(),
    "quiet": set(),
    "progress": set(),
    "advantages": set(),
    "data": set(),
    "loading": set(),
    "denoiser": set(),
    "guidance_rules": set(),
    "policy": {"guidance_rules"},
    "adapters": {"denoiser", "policy"},
    "files": set(),
    "sealing": {"files"},
    "ema": set(),
    "flow": set(),
    "generators": set(),
    "metrics": set(),
    "moment": {"generators", "metrics"},
    "lockstep": {"interrupts"},
    "weighting": {"advantages", "options"},
    "rollout": {"policy"},
    "algorithms": {"advantages", "losses", "options", "policy", "rollout", "weighting"},
    "config": {"algorithms", "options", "policy", "stopping", "weighting"},
    "sharding": {"config"},
    "threads": set(),
    "provenance": set(),
    "functions": {"provenance"},
    "calling": {"functions", "threads"},
    "rewards": {"advantages", "calling", "functions"},
    "scoring": {"calling", "interrupts", "threads"},
    "stopping": set(),
    "records": {"advantages", "files", "rewards", "rollout"},
    "samples": {"calling", "files", "policy", "rollout"},
    "checkpoint": {"denoiser", "policy", "rollout"},
    "plugins": {"functions", "provenance"},
    "callbacks": {"config", "generators", "policy", "records", "rewards", "samples", "scoring"},
    "run_record": {"advantages", "config", "files", "functions", "options", "rewards"},
    "evaluation": {"functions", "policy", "rewards", "rollout", "scoring"},
    "replay_check": {"denoiser", "policy"},
    "collector": {"algorithms", "config", "denoiser", "lockstep", "policy", "replay_check", "progress", "rewards", "rollout", "scoring"},
    "rollout_maker": {"advantages", "algorithms", "collector", "config", "metrics", "records", "rewards", "rollout", "stopping"},
    "learner": {"algorithms", "denoiser", "losses", "policy", "rollout"},
    "trainer": {"algorithms", "callbacks", "calling", "checkpoint", "collector", "config", "data", "denoiser", "ema", "evaluation",
                "flow", "functions", "interrupts", "learner", "loading", "lockstep", "metrics", "moment", "policy", "progress", "rewards",
                "rollout", "rollout_maker", "run_record", "scoring", "sealing", "sharding", "stopping"},
    "findings": set(),
    "twin": {"loading", "policy"},
    "doctor": {"collector", "config", "denoiser", "findings", "loading", "policy", "replay_check", "rollout"},
    "cli": {"adapters", "checkpoint", "config", "data", "denoiser", "doctor", "findings", "guidance_rules", "loading", "options", "plugins",
            "quiet", "samples", "trainer",
            "twin"},
}  # fmt: skip


def module_of(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports_of(path):
    """Modules of trainer_ext that a file imports, by their first name."""
    depth = len(path.relative_to(PACKAGE).parts)
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level == depth:
            yield from [node.module.split(".")[0]] if node.module else [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module.startswith("trainer_ext"):
            pytest.fail(f"{path} imports {node.module} by its full name")


FILES = [path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_arrows(path):
    assert set(imports_of(path)) - {"errors"} <= ALLOWED[module_of(path)]


def test_every_module_is_listed():
    assert {module_of(path) for path in FILES} == set(ALLOWED)


def test_the_arrows_have_no_cycle():
    done = set()
    while len(done) < len(ALLOWED):
        ready = {name for name, needs in ALLOWED.items() if needs <= done} - done
        assert ready, f"a cycle among {set(ALLOWED) - done}"
        done |= ready


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_only_the_edge_loads_plugins(path):
    names = {
        alias.name
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert "load_catalogue" not in names or module_of(path) in ("cli", "plugins")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_pipeline_class_has_code_of_its_own(path):
    """Neither as a name nor as a text, but for the base of all."""
    classes = {name for name in dir(diffusers) if name.endswith("Pipeline")} - {"DiffusionPipeline"}
    assert len(classes) > 100
    nodes = list(ast.walk(ast.parse(path.read_text())))
    names = {node.id for node in nodes if isinstance(node, ast.Name)}
    names |= {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    names |= {alias.name for node in nodes if isinstance(node, ast.ImportFrom) for alias in node.names}
    texts = [node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    words = {word for text in texts for word in re.findall(r"\w+", text)}
    assert not classes & (names | words)
