"""Rules about the source that neither import-linter nor ruff can express."""

import ast
import re
from pathlib import Path

import diffusers
import pytest

PACKAGE = Path(__file__).parents[2] / "trainer_ext"
FILES = sorted(PACKAGE.rglob("*.py"))
MAX_FILES = 14  #: modules in one room, its `__init__.py` not counted


def test_no_room_has_too_many_modules():
    for folder in {file.parent for file in FILES}:
        assert len([file for file in folder.glob("*.py") if file.name != "__init__.py"]) <= MAX_FILES, folder


@pytest.fixture(scope="module", params=FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def path(request):
    return request.param


@pytest.fixture(scope="module")
def nodes(path):
    return list(ast.walk(ast.parse(path.read_text())))


@pytest.fixture(scope="module")
def pipeline_classes():
    classes = {name for name in dir(diffusers) if name.endswith("Pipeline")} - {"DiffusionPipeline"}
    assert len(classes) > 100
    return classes


def test_only_the_edge_loads_plugins(path, nodes):
    names = {alias.name for node in nodes if isinstance(node, ast.ImportFrom) for alias in node.names}
    room = path.relative_to(PACKAGE).parts[0]
    assert "load_catalogue" not in names or room in ("cli", "plugins.py")


def test_no_pipeline_class_has_code_of_its_own(nodes, pipeline_classes):
    """Neither as a name nor in a text, except for the base class of all pipelines."""
    names = {node.id for node in nodes if isinstance(node, ast.Name)}
    names |= {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    names |= {alias.name for node in nodes if isinstance(node, ast.ImportFrom) for alias in node.names}
    texts = [node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    words = {word for text in texts for word in re.findall(r"\w+", text)}
    assert not pipeline_classes & (names | words)
