"""Tables and outputs in the manual are those of the code."""

import ast
import inspect
import re
import runpy
import tomllib
from dataclasses import fields

import pytest
from support import measure_zoo, zoo
from support.pages import MANUAL, ROOT, blocks, prose, read, section, spans, table

from ddpo_plugins import hookspecs, load_catalogue
from trainer_ext.cli import main
from trainer_ext.config import CHOICES
from trainer_ext.learning.advantages import win_rates
from trainer_ext.learning.algorithms import ALGORITHMS
from trainer_ext.options import DDPOOptions, TrainerDefaults
from trainer_ext.policy.transitions.samplers import SAMPLERS

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.mark.parametrize("name", hookspecs.HOOK_NAMES)
def test_hooks_have_the_signature_of_the_page(name):
    signature = f"`{name}{inspect.signature(getattr(hookspecs, name))}`".replace("'", "")
    assert signature in section("docs/write-a-plugin.md", "Hooks")


def test_the_shortest_plugin_is_the_example():
    example = (ROOT / "examples" / "ddpo-redness" / "ddpo_redness.py").read_text()
    assert blocks("docs/write-a-plugin.md", "python")[0].text.strip() == example.strip()
    (entry_point,) = blocks("docs/write-a-plugin.md", "toml")
    assert entry_point.text in (ROOT / "examples" / "ddpo-redness" / "pyproject.toml").read_text()


def test_the_options_are_what_the_generator_writes():
    page = read("docs/options.md")
    assert runpy.run_path(ROOT / "docs" / "write_options.py")["rewritten"](page) == page


def test_the_lines_of_code_of_algorithms_are_counted():
    page = read("docs/algorithms.md")
    writer = runpy.run_path(ROOT / "docs" / "write_lines.py")
    assert writer["rewritten"](page) == page
    rows = table("docs/algorithms.md", "algorithm | its class | functions of its formulas | what it shares")
    assert [name for row in rows for name in spans(row[0])] == list(ALGORITHMS)
    assert writer["num_lines"](win_rates) == 6  # without its four lines of docstring


def test_the_tables_of_options_are_complete_and_true():
    rows = dict(
        re.findall(r"^\| `(\w+)` \| `(.*?)` \|", read("docs/options.md").split("## ddpo sample")[0], re.MULTILINE)
    )
    options = {field.name: field.default for kind in (DDPOOptions, TrainerDefaults) for field in fields(kind)}
    assert {name: str(default) for name, default in options.items()}.items() <= rows.items()


def test_the_rewards_have_their_revisions():
    rows = table("docs/rewards.md", "name | higher is better | weights and their revisions")
    for row in rows:
        for name in spans(row[0]):
            parameters = inspect.signature(load_catalogue().rewards[name].spec.factory).parameters
            revisions = {value.default for key, value in parameters.items() if "revision" in key} - {"main"}
            said = set(re.findall(r"at `(\w{8})`", row[2]))
            assert said == ({revision[:8] for revision in revisions} if "not pinned" not in row[2] else set()), name
    judges = table("docs/rewards.md", "reward | value")
    listed = [name for row in rows + judges for name in spans(row[0])]
    assert sorted(listed) == sorted(name for name, offer in built_in(load_catalogue().rewards))


def test_all_detectors_are_described():
    rows = table("docs/detectors.md", "detector | question | score | evidence, by `log_extra`")
    assert sorted(name for row in rows for name in spans(row[0])) == sorted(
        name for name, offer in built_in(load_catalogue().detectors)
    )


def built_in(offers):
    return [(name, offers[name]) for name in offers if offers[name].distribution == "ddpo-plugins"]


def test_all_algorithms_and_samplers_are_described():
    page = "docs/algorithms.md"
    assert [spans(row[0])[0] for row in table(page, "algorithm | | options of its own")] == list(CHOICES["algorithm"])
    flow = table(page, "`sampler` | from")
    assert ["ddim", *(spans(row[0])[0] for row in flow), "own"] == list(SAMPLERS)
    assert set(CHOICES["advantages"]) <= set(spans(read(page)))


def test_what_the_doctor_says_of_the_embedded_model(capsys):
    """But for time and memory, and the two parts of the pipeline that the page leaves out."""
    assert main(["doctor", "embedded", "--guidance_scale", "5", "--disable_tqdm", "true", "--use_cpu", "true"]) == 0
    said = capsys.readouterr().out.splitlines()
    (block,) = [block for block in blocks("docs/pipelines.md", "") if block.text.startswith("pipeline    ")]
    for line, expected in zip(said, block.text.strip().splitlines(), strict=True):
        if line.split()[0] not in ("pipeline", "replay", "cost", "memory", "time", "whole"):
            assert line == expected
        assert line.split(" ")[0] == expected.split(" ")[0]


def test_the_table_of_pipelines_is_the_zoo():
    rows = [
        [cell.replace("`", "") for cell in row] for row in table("docs/pipelines.md", measure_zoo.HEADER.strip("| "))
    ]
    assert {name: rule for name, rule, *_ in rows} == {family.name: family.guidance for family in zoo.KNOWN}
    for name, _, same, mixed, bfloat16 in rows:
        assert float(same) == float(bfloat16) == 0, name
        assert float(mixed) < 1e-5, name
    again = [cell.strip(" `") for cell in measure_zoo.row(zoo.FAMILIES["StableDiffusion3Pipeline"]).split("|")]
    assert again[1:3] in [row[:2] for row in rows]
    classes = {family.kind for family in zoo.KNOWN}
    assert len(classes) == 19
    assert "Nineteen pipeline classes" in read("README.md")


def test_the_floors_are_those_of_the_contracts():
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (layers,) = [contract["layers"] for contract in contracts if contract["type"] == "layers"]
    for page in ("docs/how-it-works.md", "CONTRIBUTING.md"):
        (block,) = [block for block in blocks(page, "") if block.text.startswith("cli ")]
        assert [re.split(r" {2,}", line)[0] for line in block.text.splitlines()] == layers


def test_every_room_is_on_the_map():
    rows = table("docs/how-it-works.md", "room |")
    rooms = {
        file.parent.relative_to(ROOT / "trainer_ext").as_posix() for file in (ROOT / "trainer_ext").rglob("__init__.py")
    }
    assert {name for row in rows for name in spans(row[0])} == rooms - {"."}


def defined():
    """Names of all classes, functions and modules of the three packages."""
    for package in ("ddpo_plugins", "reward_plugins", "trainer_ext"):
        for file in (ROOT / package).rglob("*.py"):
            yield file.stem
            kinds = (ast.ClassDef, ast.FunctionDef)
            yield from (node.name for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, kinds))


@pytest.mark.parametrize("page", ["docs/how-it-works.md", "CONTRIBUTING.md"])
def test_classes_and_files_that_are_named_exist(page):
    known = set(defined())
    strangers = {"TrainingArguments", "Trainer", "LoraConfig"}
    names = {span for span in spans(prose(page)) if re.fullmatch(r"(?:[A-Z][a-z]+){2,}|DDPO\w+|\w+\.py", span)}
    assert len(names) > 5
    assert {name.removesuffix(".py") for name in names} - known - strangers == set()


@pytest.mark.parametrize("page", MANUAL)
def test_modules_that_are_named_exist(page):
    for name in {span for span in spans(prose(page)) if re.fullmatch(r"(trainer_ext|ddpo_plugins)(\.\w+)+", span)}:
        module, _, attribute = name.rpartition(".")
        path = ROOT / name.replace(".", "/")
        if not (path.is_dir() or path.with_suffix(".py").is_file()):
            assert hasattr(__import__(module, fromlist=[attribute]), attribute), name


@pytest.mark.parametrize("page", MANUAL)
def test_paths_that_are_named_exist(page):
    for span in spans(prose(page)):
        for path in re.findall(
            r"(?<![\w/.])(?:tests|benchmarks|examples|docs|trainer_ext|\.ci|\.github)/[\w./-]+", span
        ):
            assert (ROOT / path).exists(), f"{page}: {path}"


def lowest():
    requirements = [
        *PROJECT["dependencies"],
        *(r for extra in PROJECT["optional-dependencies"].values() for r in extra),
    ]
    return dict(
        re.match(r"([\w-]+)>=([\d.]+)", requirement).groups() for requirement in requirements if ">=" in requirement
    )


def test_the_lowest_versions_are_those_of_the_package():
    rows = table("docs/support-matrix.md", "package | lowest | newest")
    for package, low, _ in rows:
        assert f"{low.split()[0]}.".startswith(f"{lowest()[package]}."), package
    said = dict(re.findall(r"(\w+)\s([\d.]+\d)", section("README.md", "Versions").replace(" or newer", "")))
    assert said.pop("Python") == PROJECT["requires-python"].removeprefix(">=")
    assert said == {package: lowest()[package] for package in said}
    assert len(said) >= 7
