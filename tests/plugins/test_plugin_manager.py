import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

import ddpo_plugins
from ddpo_plugins import (
    DetectorSpec,
    DuplicateNameError,
    GuidanceSpec,
    InvalidSpecError,
    PluginError,
    PromptSetSpec,
    RewardSpec,
    UnknownNameError,
    hookimpl,
    load_catalogue,
)
from ddpo_plugins.catalogue import Origin
from ddpo_plugins.manager import collect, new_plugin_manager

REDNESS = Path(__file__).parents[2] / "examples" / "ddpo-redness"
IMPORTS = "from ddpo_plugins import DetectorSpec, GuidanceSpec, PromptSetSpec, RewardSpec, hookimpl\n"
OFFER = IMPORTS + "@hookimpl\ndef ddpo_register_rewards():\n    return [RewardSpec({!r}, lambda device: {!r})]\n"


class Rewards:
    """A plugin registered by hand."""

    def __init__(self, *names):
        self.names = names

    @hookimpl
    def ddpo_register_rewards(self):
        return [RewardSpec(name, lambda device: None) for name in self.names]


@pytest.fixture
def manager():
    return new_plugin_manager()


def all_offers(catalogue):
    return catalogue.rewards, catalogue.detectors, catalogue.prompt_sets, catalogue.guidance_rules


def failures_of(catalogue, plugin):
    return [failure for failure in catalogue.failures if failure.plugin == plugin]


def test_an_installed_plugin_offers_under_its_name_and_version(install):
    install("ddpo-theirs", "theirs", OFFER.format("their_reward", "built"), version="2.5")
    catalogue = load_catalogue()
    offer = catalogue.rewards["their_reward"]
    assert (offer.kind, offer.plugin, offer.distribution, offer.version) == ("reward", "theirs", "ddpo-theirs", "2.5")
    assert offer.spec.factory(device="cpu") == "built"
    assert failures_of(catalogue, "theirs") == []


def test_each_hook_has_its_own_names(install):
    install(
        "all",
        "all_kinds",
        IMPORTS
        + "@hookimpl\ndef ddpo_register_rewards(): return [RewardSpec('same', lambda device: None)]\n"
        + "@hookimpl\ndef ddpo_register_detectors(): return (DetectorSpec('same', lambda device: None),)\n"
        + "@hookimpl\ndef ddpo_register_prompts():\n    yield PromptSetSpec('same', lambda: [{'prompt': 'a cat'}])\n"
        + "@hookimpl\ndef ddpo_register_guidance(): return [GuidanceSpec('same', max, pipelines=('Mine',))]\n",
    )
    catalogue = load_catalogue()
    assert type(catalogue.rewards["same"].spec) is RewardSpec
    assert type(catalogue.detectors["same"].spec) is DetectorSpec
    assert type(catalogue.prompt_sets["same"].spec) is PromptSetSpec
    assert type(catalogue.guidance_rules["same"].spec) is GuidanceSpec
    kinds = [offers["same"].kind for offers in all_offers(catalogue)]
    assert kinds == ["reward", "detector", "prompt set", "guidance rule"]


LOAD_ADVICE = r"`python -c 'import bad_dist_module'` shows where; upgrade it, or `pip uninstall bad-dist`"
HOOK_ADVICE = r"Correct ddpo_register_rewards if the plugin is yours; if not, upgrade it, or `pip uninstall bad-dist`"
HOOK = IMPORTS + "@hookimpl\ndef ddpo_register_rewards():\n    "


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        pytest.param("import no_such_module", ModuleNotFoundError, f"no_such_module.*{LOAD_ADVICE}", id="import"),
        pytest.param("def oops(:", SyntaxError, LOAD_ADVICE, id="syntax"),
        pytest.param("import sys; sys.exit(3)", SystemExit, f"3.*{LOAD_ADVICE}", id="exit"),
        pytest.param(
            "class Panic(BaseException): ...\nraise Panic", BaseException, f"Panic.*{LOAD_ADVICE}", id="panic"
        ),
        pytest.param(
            "def ddpo_register_rewards(): ...",
            PluginError,
            "implements no hook.*Decorate its function with `@ddpo_plugins.hookimpl`",
            id="undecorated",
        ),
        pytest.param(
            IMPORTS + "@hookimpl\ndef ddpo_register_detectors(): return [DetectorSpec('fine', lambda device: None)]\n"
            "@hookimpl\ndef ddpo_register_rewards(config): return []",
            Exception,
            f"PluginValidationError.*config.*{LOAD_ADVICE}",
            id="argument",
        ),
        pytest.param(HOOK + "raise OSError('no disk')", OSError, f"no disk.*{HOOK_ADVICE}", id="hook"),
        pytest.param(HOOK + "raise SystemExit(4)", SystemExit, f"4.*{HOOK_ADVICE}", id="hook exit"),
        pytest.param(
            HOOK + "return [RewardSpec('Bad Name', lambda device: None)]",
            InvalidSpecError,
            f"'Bad Name'. Rename it.*{HOOK_ADVICE}",
            id="invalid spec",
        ),
        pytest.param(
            HOOK + "return None",
            InvalidSpecError,
            rf"returned None.*return \[RewardSpec\(...\)\].*{HOOK_ADVICE}",
            id="nothing",
        ),
        pytest.param(
            HOOK + "return RewardSpec('alone', lambda device: None)",
            InvalidSpecError,
            rf"returned RewardSpec.*return \[RewardSpec\(...\)\].*{HOOK_ADVICE}",
            id="bare spec",
        ),
        pytest.param(
            HOOK + "return [RewardSpec('fine', lambda device: None), 'redness']",
            InvalidSpecError,
            rf"'redness' in it.*return \[RewardSpec\(...\)\].*{HOOK_ADVICE}",
            id="string",
        ),
        pytest.param(
            HOOK + "return [DetectorSpec('text', lambda device: None)]",
            InvalidSpecError,
            rf"DetectorSpec\(.*in it.*iterable of RewardSpec.*{HOOK_ADVICE}",
            id="other kind",
        ),
        pytest.param(
            HOOK + "yield RewardSpec('fine', lambda device: None)\n    raise OSError('late')",
            OSError,
            f"late.*{HOOK_ADVICE}",
            id="generator",
        ),
        pytest.param(
            HOOK.replace("def", "async def") + "return []",
            InvalidSpecError,
            f"async function.*Write `def`.*{HOOK_ADVICE}",
            id="async",
        ),
        pytest.param(
            HOOK + "return [RewardSpec('one', lambda device: None)] * 2",
            DuplicateNameError,
            f"'one' twice.*{HOOK_ADVICE}",
            id="own name twice",
        ),
        pytest.param(
            IMPORTS + "@hookimpl\ndef ddpo_register_reward(): return []",
            PluginError,
            "no such hook.*Rename ddpo_register_reward to ddpo_register_rewards",
            id="misspelt",
        ),
        pytest.param(
            OFFER.format("fine", "built") + "@hookimpl\ndef register_prompt_sets(): return []",
            PluginError,
            "no such hook.*Rename register_prompt_sets to ddpo_register_prompts",
            id="misspelt beside a right one",
        ),
    ],
)
def test_a_failing_plugin_is_reported_and_stops_nobody(install, capfd, recwarn, source, error, message):
    install("bad-dist", "bad", source, version="0.3")
    install("good-dist", "good", OFFER.format("good_reward", "built"))
    catalogue = load_catalogue()

    (failure,) = failures_of(catalogue, "bad")
    assert (failure.distribution, failure.version) == ("bad-dist", "0.3")
    assert isinstance(failure.error, error)
    assert re.search(rf"'bad' \(bad-dist 0.3\) failed: .*{message}", str(failure), re.DOTALL)
    assert failure.advice in str(failure)

    assert catalogue.rewards["good_reward"].spec.factory(device="cpu") == "built"
    for offers in all_offers(catalogue):
        assert "bad" not in {offers[name].plugin for name in offers}
    with pytest.raises(UnknownNameError, match=r"'wanted'.*may belong to a plugin that failed.*'bad' \(bad-dist 0.3\)"):
        catalogue.rewards["wanted"]
    assert capfd.readouterr() == ("", "")
    assert [str(warning.message) for warning in recwarn] == []


def test_a_failing_hook_leaves_the_other_hooks_of_its_plugin(install):
    source = "@hookimpl\ndef ddpo_register_prompts(): return [PromptSetSpec('kept', lambda: [])]\n"
    install("half", "half", HOOK + "raise OSError('no disk')\n" + source)
    catalogue = load_catalogue()
    assert catalogue.prompt_sets["kept"].plugin == "half"
    assert len(failures_of(catalogue, "half")) == 1


def test_an_interrupt_by_the_user_is_no_failure_of_the_plugin(install):
    install("slow", "slow", "raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt, match=r"in plugin 'slow' \(slow 1.0\)"):
        load_catalogue()


def test_two_distributions_with_one_entry_point_name_are_both_refused(install):
    install("first", "same", OFFER.format("first_reward", "built"))
    install("second", "same", OFFER.format("second_reward", "built"), version="2.0")
    install("good", "good", OFFER.format("good_reward", "built"))
    catalogue = load_catalogue()
    failures = failures_of(catalogue, "same")
    assert sorted(failure.distribution for failure in failures) == ["first", "second"]
    for failure in failures:
        assert isinstance(failure.error, DuplicateNameError)
        assert {"'same' (first 1.0)", "'same' (second 2.0)"} <= set(re.findall(r"'same' \(\w+ [\d.]+\)", str(failure)))
        assert re.search("Keep one: `pip uninstall (first|second)` or `pip uninstall (first|second)`", failure.advice)
    assert "good_reward" in catalogue.rewards
    assert "first_reward" not in catalogue.rewards
    assert "second_reward" not in catalogue.rewards


def test_two_entry_points_to_one_module(install, tmp_path):
    install("twice", "aaa", OFFER.format("once", "built"))
    with (tmp_path / "twice-1.0.dist-info" / "entry_points.txt").open("a") as file:
        file.write("bbb = twice_module\n")
    catalogue = load_catalogue()
    assert catalogue.rewards["once"].plugin == "aaa"
    (failure,) = failures_of(catalogue, "bbb")
    assert "already registered" in str(failure)
    assert "pip uninstall twice" in failure.advice


def test_a_package_that_is_seen_twice_is_one_package(install, tmp_path, monkeypatch):
    """As with an editable installation whose folder of metadata lies in the source tree, too."""
    install("once", "once", OFFER.format("a_reward", "built"))
    shutil.copytree(tmp_path / "once-1.0.dist-info", tmp_path / "second" / "once-1.0.dist-info")
    monkeypatch.syspath_prepend(tmp_path / "second")
    catalogue = load_catalogue()
    assert "a_reward" in catalogue.rewards
    assert failures_of(catalogue, "once") == []


def test_a_name_that_two_plugins_claim_is_refused_and_the_rest_works(install):
    install(
        "first",
        "one",
        IMPORTS
        + "@hookimpl\ndef ddpo_register_rewards():\n    return [RewardSpec(name, lambda device: None) for name in ('contested', 'only_one')]",
    )
    install("second", "two", OFFER.format("contested", "built"), version="2.0")
    catalogue = load_catalogue()
    both = r"'contested' is claimed by plugins ('one' \(first 1.0\) and 'two' \(second 2.0\)|'two' \(second 2.0\) and 'one' \(first 1.0\))"
    cure = "Keep one: `pip uninstall (first|second)` or `pip uninstall (first|second)`"
    with pytest.raises(DuplicateNameError, match=f"Reward {both}. {cure}"):
        catalogue.rewards["contested"]
    assert "contested" not in catalogue.rewards
    assert "contested" not in list(catalogue.rewards)
    assert catalogue.rewards["only_one"].plugin == "one"
    for plugin in ("one", "two"):
        (failure,) = failures_of(catalogue, plugin)
        assert re.search(f"{both}. {cure}. Until you do, 'contested' is refused", str(failure))


def test_a_guidance_rule_that_two_plugins_claim_is_refused(install):
    for name in ("first", "second"):
        rule = "GuidanceSpec('contested', lambda outputs, guidance_scale, arguments: None)"
        install(name, name, IMPORTS + f"@hookimpl\ndef ddpo_register_guidance(): return [{rule}]\n")
    catalogue = load_catalogue()
    with pytest.raises(DuplicateNameError, match="Guidance rule 'contested' is claimed by plugins"):
        catalogue.guidance_rules["contested"]
    assert len(failures_of(catalogue, "first")) == len(failures_of(catalogue, "second")) == 1


def test_an_unknown_name_is_answered_with_near_names_and_all_names(manager):
    manager.register(Rewards("jpeg_compressibility", "aesthetic"), name="mine")
    rewards = collect(manager).rewards
    with pytest.raises(UnknownNameError) as caught:
        rewards["jpeg_compresibility"]
    assert "Unknown reward 'jpeg_compresibility'; did you mean 'jpeg_compressibility'?" in str(caught.value)
    assert "Available: aesthetic, jpeg_compressibility." in str(caught.value)
    assert "install that" in str(caught.value)
    assert isinstance(caught.value, LookupError)
    with pytest.raises(UnknownNameError, match=r"Unknown reward 'zzz'. Available"):
        rewards["zzz"]


def test_an_unknown_name_where_nothing_is_on_offer(manager):
    with pytest.raises(UnknownNameError, match=r"Unknown prompt set 'cats'. No loaded plugin offers a prompt set"):
        collect(manager).prompt_sets["cats"]


def test_a_plugin_that_fails_in_its_last_hook_may_own_an_unknown_reward(manager):
    class Prompts:
        @hookimpl
        def ddpo_register_prompts(self):
            raise OSError("no disk")

    manager.register(Prompts(), name="late")
    with pytest.raises(UnknownNameError, match=r"'late'.*no disk"):
        collect(manager).rewards["wanted"]


def test_offers_are_listed_by_name(manager):
    manager.register(Rewards("b", "a"), name="one")
    manager.register(Rewards("c"), name="two")
    rewards = collect(manager).rewards
    assert list(rewards) == ["a", "b", "c"]
    assert len(rewards) == 3
    assert "a" in rewards
    assert "d" not in rewards
    assert repr(rewards) == "Offers(reward: a, b, c)"


def test_plugins_by_hand_need_no_distribution(manager):
    manager.register(Rewards("a"), name="one")
    manager.register(Rewards("a", "b"), name="two")
    catalogue = collect(manager, {"two": Origin("two", "second", "2.0")})
    assert catalogue.rewards["b"].distribution == "second"
    with pytest.raises(DuplicateNameError, match=r"'one' \(registered by hand\)") as caught:
        catalogue.rewards["a"]
    assert "do not register 'one'" in str(caught.value)
    assert "`pip uninstall second`" in str(caught.value)


def test_only_the_misspelt_plugin_is_unregistered(manager):
    class Typo:
        @hookimpl
        def ddpo_register_detector(self):
            return []

    manager.register(Typo(), name="typo")
    manager.register(Rewards("a"), name="mine")
    (failure,) = collect(manager).failures
    assert (failure.plugin, failure.distribution) == ("typo", None)
    assert failure.advice == "Rename ddpo_register_detector to ddpo_register_detectors."
    assert [name for name, _ in manager.list_name_plugin()] == ["mine"]


def test_a_hook_that_may_be_missing_may_be_missing(manager):
    """A plugin for this and a later version says so with pluggy's own `optionalhook`."""

    class Newer(Rewards):
        @hookimpl(optionalhook=True)
        def ddpo_register_samplers(self):
            return []

    manager.register(Newer("a"), name="newer")
    catalogue = collect(manager)
    assert catalogue.failures == ()
    assert "a" in catalogue.rewards


@pytest.fixture
def redness(install_example):
    """The third-party example, installed."""
    install_example(REDNESS)
    return load_catalogue().rewards["redness"]


def test_redness_example(redness):
    assert (redness.plugin, redness.distribution) == ("redness", "ddpo-redness")
    colours = ["red", "gray", "cyan", (100, 50, 25)]
    images = [Image.new("RGB", (4, 4), colour) for colour in colours]
    rewards = redness.spec.factory(device="cpu")(images=images, prompts=[""] * 4, trainer_state=None)
    assert rewards == pytest.approx([1.0, 0.0, -1.0, 62.5 / 255], abs=1e-12)


def test_redness_example_is_short():
    (module,) = REDNESS.glob("*.py")
    assert len(module.read_text().splitlines()) < 15


def test_the_plugin_in_the_docstring_works(install):
    (source,) = re.findall(r"```python\n(.*?)```", ddpo_plugins.__doc__, re.DOTALL)
    install("from-docs", "redness", source)
    reward = load_catalogue().rewards["redness"].spec.factory(device="cpu")
    assert reward(images=[Image.new("RGB", (4, 4), "red")], prompts=["a cat"]) == [1.0]


def test_loading_plugins_imports_no_torch(install, tmp_path):
    install("good", "good", OFFER.format("good_reward", "built"))
    code = f"""
import sys; sys.path.insert(0, {str(tmp_path)!r})
import ddpo_plugins, importlib, pkgutil
for module in pkgutil.iter_modules(ddpo_plugins.__path__):
    importlib.import_module("ddpo_plugins." + module.name)
from ddpo_plugins.manager import collect, new_plugin_manager
import good_module
manager = new_plugin_manager(); manager.register(good_module); assert "good_reward" in collect(manager).rewards
print(sorted({{"torch", "numpy", "PIL", "inflect"}} & set(sys.modules)))
"""
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=root, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("[]\n", "")
