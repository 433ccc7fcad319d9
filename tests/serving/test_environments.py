"""A reward that needs a package of a version that cannot stand beside ours, served from an environment that has it."""

import json
import re
import signal
import subprocess
import sysconfig
import venv
from importlib.metadata import requires

import pytest
import torch
from packaging.requirements import Requirement
from support.processes import environment, start
from support.trainers import all_records, as_vector, brightness, make_trainer, trained_weights

from ddpo_plugins.errors import PluginError
from trainer_ext import RewardFunction, reward_from_plugin

OLD_TRANSFORMERS = """
__version__ = "3.0"

def brightness_of(image):
    import numpy
    return float(numpy.asarray(image).mean())
"""

RETRO = """
import transformers
from ddpo_plugins import RewardSpec, hookimpl

def make(device, scale=1.0):
    def retro(images, prompts, **columns):
        return [scale * transformers.brightness_of(image) for image in images]  # gone since
    return retro

@hookimpl
def ddpo_register_rewards():
    return [RewardSpec("retro", make, "Brightness, as it was.")]
"""


def install(folder, name, version, module, source, needs=(), entry_points=""):
    (folder / f"{module}.py").write_text(source)
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    lines = [
        "Metadata-Version: 2.1",
        f"Name: {name}",
        f"Version: {version}",
        *(f"Requires-Dist: {one}" for one in needs),
    ]
    (info / "METADATA").write_text("\n".join(lines) + "\n")
    (info / "entry_points.txt").write_text(entry_points)


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """An environment of its own, where what it does not have itself is that of the tests, so that nothing is downloaded."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, symlinks=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    install(packages, "transformers", "3.0", "transformers", OLD_TRANSFORMERS)
    retro = "[ddpo_plugins]\nretro = retro_reward\n"
    install(packages, "retro-reward", "1.5", "retro_reward", RETRO, ["transformers<4"], retro)
    ours = sysconfig.get_path("purelib")
    (packages / "ours.pth").write_text(f"import site; site.addsitedir({ours!r})\n")
    return folder / "bin" / "python"


@pytest.fixture
def url(python):
    command = [python, "-m", "trainer_ext.cli", "serve-reward", "retro", "--port", "0", "--reward_kwargs", '{"retro": {"scale": 0.5}}']  # fmt: skip
    variables = {name: value for name, value in environment().items() if name != "PYTHONPATH"}
    with start(command, variables, stdout=subprocess.PIPE) as server:
        yield re.search(r"Reward 'retro' at (\S+);", server.stdout.readline())[1]
        server.send_signal(signal.SIGTERM)


def test_the_two_cannot_be_installed_together():
    """What the test below is worth."""
    (ours,) = [
        one for one in map(Requirement, requires("ddpo-plugins")) if one.name == "transformers" and not one.marker
    ]
    assert not ours.specifier.contains("3.0")
    assert not any(Requirement("transformers<4").specifier.contains(one) for one in ("4.57.1", "5.0"))
    with pytest.raises(PluginError, match="Unknown reward 'retro'"):
        reward_from_plugin("retro")


def halved(images, prompts, **columns):
    return [0.5 * value for value in brightness(images, prompts)]


def test_a_training_has_the_same_numbers_as_in_process(url, tmp_path):
    options = {"num_train_epochs": 2, "learning_rate": 1e-2, "num_inference_steps": 2}
    far = reward_from_plugin("remote", function="retro", urls=url)
    trainers = []
    for name, reward in (("far", far), ("near", RewardFunction("remote", halved))):
        torch.manual_seed(0)
        trainers.append(make_trainer("embedded", tmp_path / name, reward, **options))
        trainers[-1].train()
    assert all_records(tmp_path / "far") == all_records(tmp_path / "near")
    first, second = (as_vector(trained_weights(trainer.model)) for trainer in trainers)
    assert torch.equal(first, second)
    entry = json.loads((tmp_path / "far" / "run.json").read_text())["runs"][0]["rewards"]["remote"]
    served = entry["served"]
    assert served.pop("code")
    assert served == {
        "kind": "reward", "name": "retro", "plugin": "retro", "distribution": "retro-reward", "version": "1.5", "options": {"scale": 0.5},
    }  # fmt: skip
    assert entry["options"]["urls"] == url
