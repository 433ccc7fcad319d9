import ast
import dataclasses
import inspect
import sys
from pathlib import Path

import pytest

import ddpo_plugins
from ddpo_plugins import (
    ContractError,
    DDPOError,
    DetectorSpec,
    GuidanceSpec,
    InvalidSpecError,
    PluginError,
    PromptSetSpec,
    RewardError,
    RewardSpec,
    hookspecs,
)
from ddpo_plugins import UnknownNameError as Unknown
from ddpo_plugins.manager import new_plugin_manager

ROOT = Path(__file__).parents[2]


def build(device):
    return lambda images, prompts, **columns: [0.0] * len(images)


@pytest.mark.parametrize("spec_type", [RewardSpec, DetectorSpec])
def test_what_a_spec_says_by_default(spec_type):
    spec = spec_type("name", build)
    assert (spec.name, spec.factory, spec.description, spec.images) == ("name", build, "", "pil")
    assert spec_type("name", build, "text", "pt").images == "pt"


def test_what_a_guidance_rule_says_by_default():
    spec = GuidanceSpec("name", build)
    assert (spec.rule, spec.description, spec.pipelines, spec.num_outputs) == (build, "", (), 2)
    assert GuidanceSpec("name", build, num_outputs=None).num_outputs is None


@pytest.mark.parametrize("pipelines", ["ZImagePipeline", ["ZImagePipeline"], (GuidanceSpec,), None])
def test_pipelines_are_class_names(pipelines):
    with pytest.raises(
        InvalidSpecError, match=r"'name': pipelines must be a tuple of class names; got .*ZImagePipeline"
    ):
        GuidanceSpec("name", build, pipelines=pipelines)


@pytest.mark.parametrize("number", [0, -1, 1.5, "2"])
def test_numbers_of_outputs_that_are_refused(number):
    with pytest.raises(InvalidSpecError, match=f"'name': num_outputs must be 1 or more; got {number!r}"):
        GuidanceSpec("name", build, num_outputs=number)


@pytest.mark.parametrize("spec_type", [RewardSpec, DetectorSpec, PromptSetSpec, GuidanceSpec])
def test_specs_are_frozen(spec_type):
    spec = spec_type("name", build)
    with pytest.raises(dataclasses.FrozenInstanceError):
        spec.name = "other"


@pytest.mark.parametrize("spec_type", [RewardSpec, DetectorSpec, PromptSetSpec, GuidanceSpec])
@pytest.mark.parametrize("name", ["a", "jpeg_compressibility", "clip_l14_336"])
def test_names_that_are_allowed(spec_type, name):
    assert spec_type(name, build).name == name


@pytest.mark.parametrize("spec_type", [RewardSpec, DetectorSpec, PromptSetSpec, GuidanceSpec])
@pytest.mark.parametrize(
    "name", ["", "Redness", "red-ness", "red ness", "1st", "_red", "red\n", "röte", "a/b", 3, None]
)
def test_names_that_are_refused(spec_type, name):
    with pytest.raises(InvalidSpecError) as caught:
        spec_type(name, build)
    message = str(caught.value)
    assert message.startswith(f"{spec_type.__name__}: name must be lower-case letters, digits and underscores")
    assert f"got {name!r}. Rename it." in message


@pytest.mark.parametrize(
    ("spec_type", "field", "example"),
    [
        (RewardSpec, "factory", "factory=lambda device: my_reward"),
        (DetectorSpec, "factory", "factory=lambda device: my_detector"),
        (PromptSetSpec, "rows", "rows=lambda: "),
        (GuidanceSpec, "rule", "rule=lambda outputs, guidance_scale, arguments: ..."),
    ],
)
@pytest.mark.parametrize("value", [None, 0.5, [{"prompt": "a cat"}]])
def test_what_is_not_callable_is_refused(spec_type, field, example, value):
    with pytest.raises(InvalidSpecError) as caught:
        spec_type("name", value)
    assert f"{spec_type.__name__} 'name': {field} must be callable; got {value!r}" in str(caught.value)
    assert example in str(caught.value)


@pytest.mark.parametrize("spec_type", [RewardSpec, DetectorSpec])
@pytest.mark.parametrize("images", ["np", "PIL", "", None, ["pil"]])
def test_image_formats_that_do_not_exist_are_refused(spec_type, images):
    with pytest.raises(InvalidSpecError) as caught:
        spec_type("name", build, images=images)
    assert f"{spec_type.__name__} 'name': images must be 'pil'" in str(caught.value)
    assert f"or 'pt' (float32 tensor (B, 3, H, W) in [0, 1]); got {images!r}" in str(caught.value)


def test_errors_are_a_tree():
    assert issubclass(InvalidSpecError, PluginError)
    assert issubclass(ddpo_plugins.DuplicateNameError, PluginError)
    assert issubclass(Unknown, PluginError)
    assert issubclass(Unknown, LookupError)
    assert issubclass(PluginError, DDPOError)
    assert issubclass(RewardError, DDPOError)
    assert not issubclass(RewardError, PluginError)
    assert issubclass(ContractError, DDPOError)
    assert issubclass(ContractError, AssertionError)


def test_the_tree_in_the_docstring_has_every_error():
    errors = [name for name, _ in inspect.getmembers(ddpo_plugins.errors, inspect.isclass)]
    assert len(errors) == 7
    for name in errors:
        assert name in ddpo_plugins.errors.__doc__
        assert name in ddpo_plugins.__all__


@pytest.mark.parametrize(
    ("hook", "signature"),
    [
        ("ddpo_register_rewards", "() -> 'Iterable[RewardSpec]'"),
        ("ddpo_register_detectors", "() -> 'Iterable[DetectorSpec]'"),
        ("ddpo_register_prompts", "() -> 'Iterable[PromptSetSpec]'"),
        ("ddpo_register_guidance", "() -> 'Iterable[GuidanceSpec]'"),
    ],
)
def test_hooks(hook, signature):
    function = dict(inspect.getmembers(hookspecs, inspect.isfunction))[hook]
    assert str(inspect.signature(function)) == signature
    for part in ("Called once per process", "Returns:", "Raises:"):
        assert part in function.__doc__


def test_there_are_no_other_hooks():
    known = {name for name in vars(new_plugin_manager().hook) if name.startswith("ddpo_")}
    assert known == set(hookspecs.HOOK_NAMES)
    assert len(hookspecs.HOOK_NAMES) == 4


class RunTimeImports(ast.NodeVisitor):
    """Top-level packages that a module imports when it runs, also inside its functions."""

    def __init__(self, package):
        self.found = set()
        self.package = package

    def visit_If(self, node):
        if not (isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"):
            self.generic_visit(node)

    def visit_Import(self, node):
        self.found |= {alias.name.split(".")[0] for alias in node.names}

    def visit_ImportFrom(self, node):
        self.found.add(self.package if node.level else node.module.split(".")[0])


def imports_of(package, pattern="**/*.py"):
    visitor = RunTimeImports(package)
    for file in (ROOT / package).glob(pattern):
        visitor.visit(ast.parse(file.read_text(encoding="utf-8")))
    return visitor.found - set(sys.stdlib_module_names)


def test_the_host_imports_pluggy_and_the_standard_library():
    assert imports_of("ddpo_plugins", "*.py") == {"ddpo_plugins", "pluggy"}
    assert imports_of("ddpo_plugins", "testing/*.py") == {"ddpo_plugins", "PIL", "torch"}, "inside its functions"
    assert imports_of("ddpo_plugins", "wire/*.py") == {"PIL", "ddpo_plugins"}, "inside its functions"


def test_the_built_ins_import_only_what_a_stranger_may():
    assert imports_of("reward_plugins") <= {
        "reward_plugins",
        "ddpo_plugins",
        "PIL",
        "httpx",  # of an extra
        "inflect",
        "numpy",
        "onnxruntime",  # of extras, as those below but for two
        "openai",
        "safetensors",
        "rapidfuzz",
        "rapidocr",
        "torch",
        "transformers",
    }


def test_the_trainer_does_not_import_the_built_ins():
    assert "ddpo_plugins" in imports_of("trainer_ext")
    assert "reward_plugins" not in imports_of("trainer_ext")
