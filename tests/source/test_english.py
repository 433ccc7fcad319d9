"""Docstrings that a reader does not stumble over: patterns that were wrong once and must not come back."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = sorted(
    file for package in ("ddpo_plugins", "reward_plugins", "trainer_ext") for file in (ROOT / package).rglob("*.py")
)
IDS = [str(file.relative_to(ROOT)) for file in FILES]

# "name (`type`):" followed by a description that begins with a preposition has no noun of its own.
BARE = re.compile(
    r"^ +[\w, *`]+\(.*\)(?:, [\w`*]+ \(.*\))*:\n +((?:Of|Whose|As in|To|From|By|That|Where to|For|With|Whether it)\b.*)$",
    re.M,
)
WORDS = re.compile(r"\b(anew|whatever|for a while|for ever|in the making|likewise|mends?|somebody|takes? up)\b", re.I)


@pytest.fixture(scope="module", params=FILES, ids=IDS)  # every test of one file, then of the next: each is parsed once
def path(request):
    return request.param


@pytest.fixture(scope="module")
def nodes(path):
    return list(ast.walk(ast.parse(path.read_text())))


@pytest.fixture(scope="module")
def documented(nodes):
    kinds = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    return [(node, ast.get_docstring(node) or "") for node in nodes if isinstance(node, kinds)]


def test_every_class_has_a_summary(documented):
    for node, text in documented:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            assert re.match(r"(?!Args:|Parameters:)[\w\[`]", text), node.name


def test_no_parameter_is_described_by_a_bare_preposition(path, documented):
    found = [f"{getattr(node, 'name', path.name)}: {text}" for node, doc in documented for text in BARE.findall(doc)]
    assert not found


def test_words_that_readers_stumble_over(path, nodes):
    texts = [node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    comments = re.findall(r"#.*", path.read_text())
    assert not [match for text in [*texts, *comments] for match in WORDS.findall(text)]
