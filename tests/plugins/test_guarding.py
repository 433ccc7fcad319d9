"""Settings of the whole process that a plugin changes are set back, and the plugin is named, wherever its code runs."""

import asyncio
import logging
import os
import re
import signal
import subprocess
import sys
from contextlib import suppress

import numpy as np
import pytest
import torch

from ddpo_plugins import ContractError, PluginError, PromptSetSpec, RewardError, RewardSpec, load_catalogue
from ddpo_plugins.guarding import ChangedSettingError, unchanged_settings
from ddpo_plugins.settings import SETTINGS
from ddpo_plugins.testing import check_prompt_set, check_reward
from trainer_ext import prompts_from_plugin, reward_from_plugin
from trainer_ext.scoring.functions import DetectorFunction, RewardFunction
from trainer_ext.scoring.suite import RewardSuite

IMAGES = torch.zeros(2, 8, 8, 3, dtype=torch.uint8)
ROWS = [{"prompt": "a cat"}, {"prompt": "a dog"}]
HALF = "torch's default dtype from torch.float32 to torch.float16"

PRECISION = "torch's precision of matrix products (set_float32_matmul_precision, fp32_precision, cuda.matmul's)"

#: By setting: what changes it, and what the message says.
CHANGES = {
    "the working directory": (lambda: os.chdir("/"), "to /"),
    "the handlers of SIGINT and SIGTERM": (
        lambda: signal.signal(signal.SIGTERM, signal.SIG_IGN),
        "to .*SIG_IGN",
    ),
    "the level up to which logging is off": (lambda: logging.disable(logging.CRITICAL), "from 0 to 50"),
    "torch's default dtype": (lambda: torch.set_default_dtype(torch.float64), "torch.float32 to torch.float64"),
    "torch's default device": (lambda: torch.set_default_device("meta"), "cpu to meta"),
    "torch's gradient mode": (lambda: torch.set_grad_enabled(False), "True to False"),
    "torch's autocast (cuda, cpu)": (lambda: torch.set_autocast_enabled("cpu", True), r"\(False, True\)"),
    "torch's deterministic algorithms (enabled, only warn)": (
        lambda: torch.use_deterministic_algorithms(True),
        r"\(True, False\)",
    ),
    "torch's anomaly detection": (lambda: torch.autograd.set_detect_anomaly(True), "False to True"),
    PRECISION: (lambda: torch.set_float32_matmul_precision("high"), r"\('highest', 'none', 'none'\) to \('high', "),
    "cuDNN's (benchmark, deterministic)": (lambda: setattr(torch.backends.cudnn, "benchmark", True), "True, False"),
    "torch's number of threads": (lambda: torch.set_num_threads(3), "from 1 to 3"),
    "numpy's treatment of floating-point errors": (lambda: np.seterr(all="ignore"), "'ignore'"),
}


def values():
    return [setting.value() for setting in SETTINGS]


def test_every_setting_is_tried():
    assert CHANGES.keys() == {setting.name for setting in SETTINGS}


REFUSED = [setting.name for setting in SETTINGS if setting.refused]
FOR_SPEED = [setting.name for setting in SETTINGS if not setting.refused]


@pytest.mark.filterwarnings("ignore:Anomaly Detection")
@pytest.mark.parametrize("name", REFUSED)
def test_a_changed_setting_is_set_back_and_named(name):
    change, message = CHANGES[name]
    before = values()
    with pytest.raises(ChangedSettingError, match=f"(?s)^changed .*{message}.*so it was set back") as caught:
        with unchanged_settings():
            change()
    assert f"changed {name} from " in str(caught.value)
    assert values() == before


@pytest.mark.parametrize("name", FOR_SPEED)
def test_what_models_set_for_speed_is_set_back_with_a_warning(name, caplog):
    change, message = CHANGES[name]
    before = values()
    for _ in range(2):
        with unchanged_settings():
            change()
        assert values() == before
    (warning,) = [record.getMessage() for record in caplog.records]  # once
    assert re.search(f"changed {re.escape(name)} .*{message}.*so it was set back", warning)


@pytest.fixture
def tf32():
    """As transformers sets it for torch_compile and tf32: then torch's older interface refuses to say what it is."""
    torch.backends.cuda.matmul.fp32_precision = "tf32"
    yield
    torch.backends.cuda.matmul.fp32_precision = "none"


@pytest.mark.parametrize(
    "change",
    [
        lambda: torch.set_float32_matmul_precision("highest"),
        lambda: setattr(torch.backends.cuda.matmul, "fp32_precision", "ieee"),
        lambda: setattr(torch.backends, "fp32_precision", "tf32"),
    ],
    ids=["by the older interface", "by the newer", "everywhere"],
)
def test_a_precision_that_only_torch_s_newer_interface_reads_is_set_back(tf32, change):
    before = values()
    with unchanged_settings():
        change()
    assert values() == before


def test_an_error_counts_more_than_a_changed_setting():
    @unchanged_settings()
    def fails():
        torch.set_default_dtype(torch.float16)
        raise OSError("no disk")

    before = values()
    with pytest.raises(OSError, match="no disk"):
        fails()
    assert values() == before


def test_what_a_with_block_changes_is_its_own_affair():
    with unchanged_settings(), torch.no_grad(), np.errstate(all="ignore"), torch.device("meta"):
        torch.ones(2)


def test_a_folder_that_is_gone(tmp_path, monkeypatch):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with unchanged_settings():
        pass


# Wherever a plugin's code runs

HEAD = "import torch\nfrom ddpo_plugins import PromptSetSpec, RewardSpec, hookimpl\n"
SPOIL = "torch.set_default_dtype(torch.float16)"
PLUGIN = """{head}
{imported}
def factory(device):
    {built}
    return lambda images, **columns: [1.0] * len(images)
@hookimpl
def ddpo_register_rewards():
    {asked}
    return [RewardSpec('mine', factory, 'Mine.')]
def rows():
    {made}
    yield {{'prompt': 'a cat'}}
@hookimpl
def ddpo_register_prompts():
    return [PromptSetSpec('mine', rows, 'Mine.')]
"""


def plugin(**places):
    return PLUGIN.format(
        head=HEAD, **{name: places.get(name, "pass") for name in ("imported", "built", "asked", "made")}
    )


@pytest.mark.parametrize("place", ["imported", "asked"])
def test_a_plugin_that_nobody_uses_changes_nothing(install, place):
    install("half-dist", "half", plugin(**{place: SPOIL}), version="0.3")
    catalogue = load_catalogue()
    assert torch.get_default_dtype() == torch.float32
    (failure,) = catalogue.failures
    assert str(failure).startswith("Plugin 'half' (half-dist 0.3) failed: ChangedSettingError: changed " + HALF)
    assert "mine" not in catalogue.rewards
    assert ("mine" in catalogue.prompt_sets) == (place == "asked")  # only the hook that did it is left out


@pytest.mark.parametrize("place", ["imported", "asked"])
def test_a_training_warns_of_it(install, place, caplog):
    install(f"half-{place}-dist", f"half_{place}", plugin(**{place: SPOIL}))
    reward_from_plugin("jpeg_compressibility")
    reward_from_plugin("jpeg_compressibility")
    (message,) = [record.getMessage() for record in caplog.records]  # once
    assert message.startswith(f"Plugin 'half_{place}' (half-{place}-dist 1.0) failed: ")


def test_a_module_that_the_plugin_imports_first(install, tmp_path):
    """Its settings are compared with those that it has when it is imported."""
    install("half", "half", plugin(imported=SPOIL))
    code = (
        "import sys; from ddpo_plugins import load_catalogue; assert 'torch' not in sys.modules\n"
        "(failure,) = load_catalogue().failures; print(failure); import torch; print(torch.get_default_dtype())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(tmp_path)}
    )
    assert (HALF in done.stdout, done.stdout.splitlines()[-1]) == (True, "torch.float32"), done.stderr


@pytest.mark.parametrize(
    ("place", "use", "message"),
    [
        ("built", lambda: reward_from_plugin("mine"), "build reward 'mine'"),
        ("made", lambda: prompts_from_plugin("mine"), "make prompt set 'mine'"),
    ],
)
def test_in_a_factory_and_in_a_prompt_set(install, place, use, message):
    install("half-dist", "half", plugin(**{place: SPOIL}))
    with pytest.raises(PluginError, match=rf"Plugin 'half' \(half-dist 1.0\) could not {message}: changed {HALF}"):
        use()
    assert torch.get_default_dtype() == torch.float32


def spoils(images, prompts, **columns):
    torch.set_default_dtype(torch.float16)
    return [1.0] * len(images)


async def spoils_later(images, prompts, **columns):
    await asyncio.sleep(0)
    return spoils(images, prompts)


def fine(images, prompts, **columns):
    return [1.0] * len(images)


async def fine_later(images, prompts, **columns):
    with torch.no_grad():  # across its waiting
        await asyncio.sleep(0)
    return [1.0] * len(images)


@pytest.mark.parametrize("function", [spoils, spoils_later])
@pytest.mark.parametrize(("kind", "title"), [(RewardFunction, "Reward"), (DetectorFunction, "Detector")])
def test_in_a_call(function, kind, title):
    mine, rewards = kind("mine", function), [RewardFunction("fine", fine)]
    suite = RewardSuite([*rewards, mine]) if kind is RewardFunction else RewardSuite(rewards, detectors=[mine])
    with pytest.raises(RewardError, match=f"^{title} 'mine' changed {HALF}.*Training stops"):
        suite.score(IMAGES, ROWS)
    assert torch.get_default_dtype() == torch.float32


def test_of_several_that_wait_together_all_are_named():
    suite = RewardSuite([RewardFunction("one", spoils_later), RewardFunction("two", fine_later)])
    with pytest.raises(RewardError, match=f"^Reward 'one' or Reward 'two' changed {HALF}"):
        suite.score(IMAGES, ROWS)
    assert RewardSuite([RewardFunction("two", fine_later)]).score(IMAGES, ROWS).total.tolist() == [1, 1]


@pytest.mark.parametrize("function", [spoils, spoils_later])
def test_in_the_kit(function):
    with pytest.raises(ContractError, match=f"'contract': called with 4 images, it changed {HALF}"):
        check_reward(RewardSpec("mine", lambda device: function, "One."))
    assert torch.get_default_dtype() == torch.float32


def test_in_the_kit_a_factory_and_a_prompt_set():
    with pytest.raises(ContractError, match=f"'factory': built with device='cpu' and no options, it changed {HALF}"):
        check_reward(RewardSpec("mine", lambda device: spoils(images=[], prompts=[]) and None, "One."))
    with pytest.raises(ContractError, match=f"Prompt set 'mine' .*, it changed {HALF}"):
        check_prompt_set(PromptSetSpec("mine", lambda: [{"prompt": str(spoils([1], []))}]))
    assert torch.get_default_dtype() == torch.float32


def test_an_interrupt_restores_too():
    with suppress(KeyboardInterrupt), unchanged_settings():
        torch.set_default_dtype(torch.float16)
        raise KeyboardInterrupt
    assert torch.get_default_dtype() == torch.float32
