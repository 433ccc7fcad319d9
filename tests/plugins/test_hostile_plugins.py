"""
Plugins and rewards that misbehave end in the documented way.

What fails while the catalogue is built is in `test_plugin_manager.py`: cannot be imported, raises or exits at import or in a
hook, returns something else than specs, takes a name. What a reward may return is in `test_reward_contract.py` and
`test_bad_input.py`: None, NaN, infinity, wrong lengths and types, and errors, also of async rewards.
"""

import asyncio
import gc
import signal
import subprocess
import sys
import weakref

import pytest
import torch
from support.processes import start, wait_until

from ddpo_plugins import PluginError, RewardError, load_catalogue
from trainer_ext import reward_from_plugin
from trainer_ext.cli import main
from trainer_ext.errors import ConfigError
from trainer_ext.scoring.suite import RewardFunction, RewardSuite

HEAD = "import sys, time\nfrom ddpo_plugins import RewardSpec, hookimpl\n"
OFFER = "@hookimpl\ndef ddpo_register_rewards():\n    return [RewardSpec('mine', factory, 'Mine.')]\n"
GOOD = "def factory(device):\n    return lambda images, **columns: [1.0] * len(images)\n"
ROWS = [{"prompt": "a cat"}, {"prompt": "a dog"}]


@pytest.fixture
def images():
    return torch.zeros(2, 8, 8, 3, dtype=torch.uint8)


def plugin(factory=GOOD):
    return HEAD + factory + OFFER


# In the factory


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        ("def factory(device): raise OSError('no weights')\n", "OSError: no weights"),
        ("def factory(device): sys.exit('no licence')\n", "SystemExit: no licence"),
        ("def factory(device): import no_such_module\n", "ModuleNotFoundError: No module named 'no_such_module'"),
        (
            "def factory(device): import no_such_module\n",
            "ModuleNotFoundError: .*It needs the module 'no_such_module': `pip install no_such_module`",
        ),
    ],
)
def test_a_factory_that_fails(install, factory, message):
    install("bad-dist", "bad", plugin(factory), version="0.3")
    with pytest.raises(PluginError, match=rf"Plugin 'bad' \(bad-dist 0.3\) could not build reward 'mine': {message}"):
        reward_from_plugin("mine")


@pytest.mark.parametrize("built", ["None", "[1.0]"])
def test_a_factory_that_builds_no_function(install, built):
    install("bad-dist", "bad", plugin(f"def factory(device): return {built}\n"))
    with pytest.raises(ConfigError, match="Reward 'mine' is a (NoneType|list); it must be a function"):
        reward_from_plugin("mine")


def test_the_command_line_says_who_failed_and_trains_nothing(install, tmp_path, capsys):
    install("bad-dist", "bad", plugin("def factory(device): sys.exit(0)\n"), version="0.3")
    assert main(["train", "--reward_funcs", "mine", "--output_dir", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert "ddpo train: Plugin 'bad' (bad-dist 0.3) could not build reward 'mine': SystemExit: 0" in error
    assert "Traceback" not in error
    assert list(tmp_path.glob("run/*")) == []


def test_a_factory_that_changes_its_options_does_not_change_the_record(install):
    factory = (
        "def factory(device, sizes=()):\n    sizes.clear()\n    return lambda images, **columns: [1.0] * len(images)\n"
    )
    install("mine-dist", "mine", plugin(factory))
    assert reward_from_plugin("mine", sizes=[1, 2]).provenance.options == {"sizes": [1, 2]}


# In the call


def leave(images, prompts, **columns):
    sys.exit(0)


async def leave_later(images, prompts, **columns):
    await asyncio.sleep(0)
    sys.exit(0)


@pytest.mark.parametrize("function", [leave, leave_later])
def test_a_reward_that_exits_does_not_end_the_run_as_if_it_were_done(images, function):
    with pytest.raises(RewardError, match="Reward 'mine' raised SystemExit: 0. Training stops") as caught:
        RewardSuite([RewardFunction("mine", function)]).score(images, ROWS)
    assert isinstance(caught.value.__cause__, SystemExit)


# Printing


def test_a_plugin_that_prints_is_heard_and_harms_nothing(install, images, capsys):
    noisy = HEAD + "print('at import')\n" + GOOD.replace("return", "print('in the factory'); return") + OFFER
    install("noisy-dist", "noisy", noisy.replace("    return [Rew", "    print('in the hook'); return [Rew"))
    assert main(["rewards"]) == 0
    output = capsys.readouterr().out.splitlines()
    assert output[:2] == ["at import", "in the hook"]
    assert [line.split()[:3] for line in output if line.startswith("mine ")] == [["mine", "reward", "noisy-dist"]]
    assert RewardSuite([reward_from_plugin("mine")]).score(images, ROWS).total.tolist() == [1, 1]
    assert "in the factory" in capsys.readouterr().out


# Hanging


def test_a_plugin_that_hangs_at_import_can_be_interrupted_and_is_named(install, tmp_path):
    started = tmp_path / "started"
    install(
        "slow-dist",
        "slow",
        f"import pathlib, time\npathlib.Path({str(started)!r}).touch()\ntime.sleep(600)\n",
        version="2.1",
    )
    arguments = [sys.executable, "-m", "trainer_ext.cli", "rewards"]
    command = start(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        wait_until(started.exists, command)
        command.send_signal(signal.SIGINT)
        output, error = command.communicate()
    finally:
        command.kill()
    assert (command.returncode, output) == (130, "")
    assert error.strip() == "ddpo rewards: interrupted in plugin 'slow' (slow-dist 2.1)."


# RolloutData


class Watch:
    """A reward that remembers its images as far as others keep them alive."""

    def __init__(self, kept=lambda images: images):
        self.kept = kept
        self.batches = []

    def __call__(self, images, prompts, log_extra, log_metric, **columns):
        self.batches.append([weakref.ref(image) for image in self.kept(images)])
        log_extra("mine/prompt", prompts)
        log_metric("mine/count", len(images))
        return [float(len(self.batches))] * len(images)

    def alive(self):
        gc.collect()
        return [sum(image() is not None for image in batch) for batch in self.batches]


class LateWatch(Watch):
    async def __call__(self, **arguments):
        await asyncio.sleep(0)
        return super().__call__(**arguments)


def as_one(images):
    return [images]


@pytest.mark.parametrize(
    ("watch", "form"),
    [(Watch(), "pil"), (Watch(as_one), "pt"), (LateWatch(), "pil"), (LateWatch(as_one), "pt")],
    ids=["pil", "pt", "async pil", "async pt"],
)
def test_scores_keep_no_image_alive(images, watch, form):
    suite = RewardSuite([RewardFunction("mine", watch, form)])
    scores = [suite.score(images, ROWS) for _ in range(3)]
    assert len(scores) == len(watch.batches) == 3
    assert watch.alive() == [0, 0, 0]


def test_an_error_that_is_over_keeps_no_image_alive(images):
    watch = Watch()

    def fails(**arguments):
        watch(**arguments)
        raise OSError("no connection")

    with pytest.raises(RewardError):
        RewardSuite([RewardFunction("mine", fails)]).score(images, ROWS)
    assert watch.alive() == [0]


@pytest.mark.parametrize("form", ["pil", "pt"])
def test_training_keeps_no_image_alive(make_trainer, form):
    """A reward that keeps every image cannot be stopped from it; the trainer itself keeps none that it handed out."""
    watch = Watch(as_one) if form == "pt" else Watch()
    trainer = make_trainer(
        reward=RewardFunction("mine", watch, form),
        per_device_train_batch_size=2,
        gradient_accumulation_steps=2,
        num_train_epochs=2,
    )
    trainer.train()
    assert len(watch.batches) == 4
    assert watch.alive() == [0] * 4
    assert trainer.state.global_step == 2


# What is left when all of them are installed


def test_good_plugins_work_beside_hostile_ones(install, images, capsys):
    install("one", "one", "import no_such_module")
    install("two", "two", "raise RuntimeError('at import')")
    install("three", "three", "import sys; sys.exit(1)")
    install("four", "four", HEAD + "@hookimpl\ndef ddpo_register_rewards(): raise OSError('in the hook')\n")
    install("five", "five", HEAD + "@hookimpl\ndef ddpo_register_rewards(): return 'mine'\n")
    install("good", "good", plugin())
    assert main(["rewards"]) == 1
    output = capsys.readouterr().out
    assert [line.split()[2] for line in output.splitlines() if line.startswith("mine ")] == ["good"]
    for name in ("one", "two", "three", "four", "five"):
        assert f"Plugin '{name}' ({name} 1.0) failed: " in output
    assert len(load_catalogue().failures) == 5
    assert RewardSuite([reward_from_plugin("mine")]).score(images, ROWS).total.tolist() == [1, 1]
