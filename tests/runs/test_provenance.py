"""Options of rewards and detectors by name, and where those came from, through the command line and an installed plugin."""

import functools
import json
import os
import shlex
import traceback
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path

import pytest
import torch
from support import zoo
from support.trainers import checkpoints, prompts, records

from ddpo_plugins.catalogue import Origin
from ddpo_plugins.errors import PluginError, RewardError, UnknownNameError
from trainer_ext import detector_from_plugin, reward_from_plugin
from trainer_ext.cli import main
from trainer_ext.errors import ConfigError
from trainer_ext.runs.folder import RunFolder
from trainer_ext.runs.setup import PACKAGES
from trainer_ext.runs.setup.facts import describe_prompts
from trainer_ext.scoring.code import code_fingerprint
from trainer_ext.scoring.provenance import Provenance

FAST = ["--num_train_epochs", "3", "--num_images_per_rollout", "4", "--num_images_per_prompt", "2", "--rollout_batch_size", "2",
        "--per_device_train_batch_size", "4", "--gradient_accumulation_steps", "1", "--skip_last_steps", "0", "--num_inference_steps", "2",
        "--num_sample_images", "0", "--save_strategy", "no", "--eval_strategy", "no", "--disable_tqdm", "true", "--use_cpu", "true"]  # fmt: skip

PLUGIN = '''
from ddpo_plugins import DetectorSpec, RewardSpec, hookimpl

BUILT = []
MESSAGE = "no weights"


def scaled(device, *, model="someone/judge", revision="abc123", scale=1.0, api_key=None):
    BUILT.append("scaled")

    def reward(images, prompts, **columns):
        return [scale * image.resize((1, 1)).getpixel((0, 0))[0] for image in images]

    return reward


def rising(device, by=0.25):
    """A detector that is surer with every update."""
    BUILT.append("rising")
    if by < 0:
        raise OSError(MESSAGE)

    def detector(images, prompts, trainer_state, log_extra, **columns):
        step = 0 if trainer_state is None else trainer_state.global_step
        log_extra("rising/step", [step] * len(images))
        return [min(1.0, by * step)] * len(images)

    return detector


@hookimpl
def ddpo_register_rewards():
    return [RewardSpec("scaled", scaled)]


@hookimpl
def ddpo_register_detectors():
    return [DetectorSpec("rising", rising)]
'''


@pytest.fixture
def plugin(install, tmp_path, monkeypatch):
    """An installed distribution with one plugin; returns its module."""
    install("toy-plugin", "toy", PLUGIN, version="1.2")
    monkeypatch.chdir(tmp_path)
    return import_module("toy_plugin_module")


def train(*arguments):
    return main(["train", *FAST, "--output_dir", "run", "--reward_funcs", "scaled", *arguments])


# ---- the command line ----


def test_options_detectors_and_a_stop_rule_from_the_command_line(plugin, capsys, caplog):
    """On the embedded model, from names to the file that says what ran."""
    kwargs = {"scaled": {"scale": 2.0, "api_key": "hf_secret"}, "rising": {"by": 0.2}}
    options = ["--detectors", "rising", "--detector_weights", "-10", "--stop_when", "rising>0.3"]
    assert train("--reward_kwargs", json.dumps(kwargs), *options) == 0
    assert plugin.BUILT == ["scaled", "rising"]
    assert "Rollout 2 meets stop_when 'rising>0.3': it is 0.4" in caplog.text
    assert checkpoints("run") == ["checkpoint-2"]
    assert Path("run/pytorch_lora_weights.safetensors").is_file()
    assert "reward" in capsys.readouterr().out
    for record in records("run", 1):
        assert record["detectors/rising"] == 0.2
        assert record["rising/step"] == 1
        assert record["reward"] == pytest.approx(record["rewards/scaled"] - 2)
        assert record["rewards/scaled"] % 2 == 0  # an even number by the scale alone
    (run,) = RunFolder(Path("run")).setups()
    toy = {"plugin": "toy", "distribution": "toy-plugin", "version": "1.2"}
    codes = [run[kind][name].pop("code") for kind, name in (("rewards", "scaled"), ("detectors", "rising"))]
    assert codes == [code_fingerprint(plugin.scaled), code_fingerprint(plugin.rising)]
    assert run["rewards"] == {
        "scaled": {
            **toy,
            "options": {"model": "someone/judge", "revision": "abc123", "scale": 2.0, "api_key": "***"},
            "weight": 1.0,
        }
    }
    assert run["detectors"] == {"rising": {**toy, "options": {"by": 0.2}, "weight": -10.0}}
    assert "hf_secret" not in Path("run/run.json").read_text()
    given = ["ddpo", "train", *FAST, "--output_dir", "run", "--reward_funcs", "scaled", "--reward_kwargs"]
    kwargs["scaled"]["api_key"] = "***"
    assert shlex.split(run["command"]) == [*given, json.dumps(kwargs), *options]


def test_what_the_command_line_records(plugin):
    Path("two.txt").write_text("a cat\na dog\n")
    began = datetime.now(UTC).replace(microsecond=0)
    lora = ["--lora_r", "2", "--lora_target_modules", "to_q", "--learning_rate", "0.001", "--max_grad_norm", "0.5"]
    assert train("--num_train_epochs", "1", "--prompts", "two.txt", *lora) == 0
    (run,) = RunFolder(Path("run")).setups()
    assert began <= datetime.fromisoformat(run["date"]) <= datetime.now(UTC)
    assert (run["preset"], run["model"], run["device"]) == (["embedded"], "embedded", "cpu")
    assert (run["adapter"]["r"], run["adapter"]["lora_alpha"], run["adapter"]["target_modules"]) == (2, 2, ["to_q"])
    assert (run["prompts"]["name"], run["prompts"]["rows"]) == ("two.txt", 2)
    assert run["prompts"]["fingerprint"] == describe_prompts(prompts("a cat", "a dog"))["fingerprint"]
    assert (run["options"]["learning_rate"], run["options"]["max_grad_norm"]) == (0.001, 0.5)


def test_fingerprints_of_prompts():
    """Of their texts, order and columns, and not of how they are stored."""
    three = prompts("a cat", "a dog", "a lion")
    same = [
        prompts("a cat", "a dog", "a lion"),
        three.with_format("numpy"),
        three.add_column("n", [1, 2, 3]).remove_columns("n"),
    ]
    others = [
        three.select([1, 0, 2]),
        three.select([0, 1]),
        three.add_column("n", [1, 2, 3]),
        three.add_column("n", [1, 2, 4]),
    ]
    found = [describe_prompts(dataset)["fingerprint"] for dataset in (three, *same, *others)]
    assert found[:4] == found[:1] * 4
    assert len({*found[3:]}) == 5


def test_options_as_a_mapping_in_a_config_file(plugin):
    Path("config.yaml").write_text("reward_kwargs:\n  scaled: {scale: 0.5}\nnum_train_epochs: 1\n")
    assert main(["train", *FAST[2:], "--config", "config.yaml", "--output_dir", "run", "--reward_funcs", "scaled"]) == 0
    assert {record["rewards/scaled"] % 0.5 for record in records("run", 0)} == {0}
    (run,) = RunFolder(Path("run")).setups()
    assert run["rewards"]["scaled"]["options"]["scale"] == 0.5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--reward_kwargs", '{"scaled": {"scal": 1}}'], "Reward 'scaled' has no option 'scal'; did you mean 'scale'? It has: model, revision, scale, api_key."),
        (["--reward_kwargs", '{"rising": {"by": 1}}'], "reward_kwargs has options for 'rising', which is not used. This run uses: scaled, "),
        (["--reward_kwargs", '{"scald": {}}'], "reward_kwargs has options for 'scald', which is not used; did you mean 'scaled'?"),
        (["--reward_kwargs", '{"scaled": 3}'], "reward_kwargs has a value of type int for 'scaled'; it must be an object of options"),
        (["--reward_kwargs", "{scaled: 3}"], "reward_kwargs is not JSON (Expecting property name enclosed in double quotes: line 1 column 2 (char 1); its 11 characters are not shown"),
        (["--reward_kwargs", "[1]"], "reward_kwargs is a JSON list"),
        (["--detectors", "risin"], "Unknown detector 'risin'; did you mean 'rising'?"),
        (["--detectors", "rising", "--reward_kwargs", '{"rising": {"bye": 1}}'], "Detector 'rising' has no option 'bye'; did you mean 'by'?"),
        (["--stop_when", "rising"], "stop_when has 'rising'; a rule is"),
    ],
)  # fmt: skip
def test_mistakes_come_before_anything_is_built(plugin, capsys, arguments, message):
    assert train(*arguments) == 2
    assert message in capsys.readouterr().err
    assert plugin.BUILT == []
    assert not Path("run/rollouts").exists()


# ---- secrets ----

CANARY = "Canary5Qw82"


@pytest.mark.parametrize(
    "arguments",
    [
        ["--reward_kwargs", f"{{scaled: {{api_key: {CANARY}}}}}"],
        ["--reward_kwargs", f'{{"scaled": "{CANARY}"}}'],
        ["--reward_kwargs", f'["{CANARY}"]'],
        ["--pipeline_kwargs", f"{{apiKey: {CANARY}}}"],
        ["--api-key", CANARY],
        [f"--apiKey={CANARY}"],
        ["--config", "broken.yaml"],
        ["--config", "unknown.yaml"],
        ["--config", "environment.yaml"],
        ["--detectors", "rising", "--reward_kwargs", f'{{"rising": {{"by": -1}}, "scaled": {{"api_key": "{CANARY}"}}}}'],
    ],
)  # fmt: skip
def test_mistakes_repeat_no_secret(plugin, capsys, arguments):
    Path("broken.yaml").write_text(f"reward_kwargs:\n  scaled: {{api_key: {CANARY}\n")
    Path("unknown.yaml").write_text(f"api_key: {CANARY}\n")
    Path("environment.yaml").write_text(f"env: {{NOT_SET_BY_A_FILE: {CANARY}}}\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plugin, "MESSAGE", f"the server refused {CANARY}")
        assert train(*arguments) == 2
    error = capsys.readouterr().err
    assert "ddpo train: " in error
    assert CANARY not in error
    assert "NOT_SET_BY_A_FILE" not in os.environ


def test_a_config_file_sets_no_environment_variables(plugin, capsys):
    Path("environment.yaml").write_text("env: {HF_HOME: /elsewhere}\nnum_train_epochs: 1\n")
    assert train("--config", "environment.yaml") == 2
    assert "The config file environment.yaml sets environment variables (env)" in capsys.readouterr().err


def test_a_reward_that_fails_repeats_no_secret(make_trainer):
    def reward(images, prompts, **columns):
        raise OSError(
            f"401 Client Error: Unauthorized for url: https://host/v1?key={CANARY} (invalid API key '{CANARY}')"
        )

    with pytest.raises(RewardError) as caught:
        make_trainer(reward=reward).train()
    assert CANARY not in "".join(traceback.format_exception(caught.value))
    assert "401 Client Error: Unauthorized for url: https://host/v1?***" in str(caught.value)


# ---- Python ----


def test_functions_from_plugins(plugin):
    reward, detector = reward_from_plugin("scaled", scale=3.0), detector_from_plugin("rising", by=0.1)
    assert (reward.name, detector.name) == ("scaled", "rising")
    assert reward.provenance.options == {"model": "someone/judge", "revision": "abc123", "scale": 3.0, "api_key": None}
    code = code_fingerprint(plugin.rising)
    assert detector.provenance == Provenance(None, "toy", "toy-plugin", "1.2", {"by": 0.1}, code)
    with pytest.raises(UnknownNameError, match="Unknown detector 'scaled'"):
        detector_from_plugin("scaled")
    with pytest.raises(ConfigError, match="Detector 'rising' has no option 'scale'"):
        detector_from_plugin("rising", scale=1)


def test_a_factory_that_fails_is_named(plugin):
    message = r"Plugin 'toy' \(toy-plugin 1.2\) could not build detector 'rising': OSError: no weights"
    with pytest.raises(PluginError, match=message):
        detector_from_plugin("rising", by=-1)


def constant(images, prompts, **columns):
    return [1.0] * len(images)


class Judge:
    def __call__(self, images, prompts, **columns):
        return [1.0] * len(images)


@pytest.mark.parametrize(
    ("function", "name"),
    [(constant, f"{__name__}.constant"), (Judge(), f"{__name__}.Judge"), (Judge().__call__, f"{__name__}.Judge.__call__"),
     (functools.partial(constant), f"{__name__}.constant")],
)  # fmt: skip
def test_a_users_own_function_is_named(function, name):
    assert Provenance.of_function(function) == Provenance(name, code=code_fingerprint(function))


def test_what_an_option_may_be():
    def factory(device, *, client, head=constant, sizes=(1, 2), kind=Judge, **others):
        raise AssertionError

    options = {
        "client": object(),
        "server": "http://me:pass@host:8000/v1",
        "OPENAI_API_KEY": "sk-1",
        "headers": {"Authorization": "abc"},
        "folder": Path("/data/a"),
        "nested": {"hf_token": "hf_1", "max_new_tokens": 64, "key": None},
    }
    found = Provenance.of_plugin(Origin("p"), factory, options).as_dict()
    assert found.pop("code") == code_fingerprint(factory)
    assert found == {
        "plugin": "p",
        "options": {
            "head": f"{__name__}.constant",
            "sizes": [1, 2],
            "kind": f"{__name__}.Judge",
            "client": "<builtins.object>",
            "server": "http://***@host:8000/v1",
            "OPENAI_API_KEY": "***",
            "headers": {"Authorization": "***"},
            "folder": "/data/a",
            "nested": {"hf_token": "***", "max_new_tokens": 64, "key": None},
        },
    }


# ---- run.json ----


@pytest.fixture
def run_options():
    images = {"num_images_per_rollout": 2, "per_device_train_batch_size": 2, "save_strategy": "epoch"}
    return {"reward": constant, "eval_reward_funcs": Judge(), "dataset": prompts("a cat"), **images}


def test_what_a_run_records(make_trainer, tmp_path):
    make_trainer(seed=7).train()
    (run,) = RunFolder(tmp_path / "run").setups()
    assert run["from_update"] == 0
    assert run["pipeline"] == "StableDiffusionPipeline"
    assert run["processes"] == 1
    code, judge = code_fingerprint(constant), code_fingerprint(Judge())
    assert run["rewards"] == {"constant": {"function": f"{__name__}.constant", "code": code, "weight": 1.0}}
    assert run["eval_rewards"] == {"Judge": {"function": f"{__name__}.Judge", "code": judge}}
    assert run["detectors"] == {}
    assert run["packages"]["torch"] == torch.__version__.split("+")[0] or run["packages"]["torch"] == torch.__version__
    assert run["packages"].keys() == set(PACKAGES)
    assert run["options"] == {
        "seed": 7,
        "num_inference_steps": 2,
        "guidance_scale": 1.0,
        "num_images_per_rollout": 2,
        "rollout_batch_size": 2,
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 1,
        "num_train_epochs": 1,
    }


@pytest.mark.parametrize(
    ("family", "options", "sampler"),
    [
        ("StableDiffusionPipeline", {}, "ddim"),
        ("StableDiffusion3Pipeline", {}, "flow_sde"),
        ("StableDiffusion3Pipeline", {"sampler": "cps"}, "cps"),
    ],
)
def test_the_sampler_that_the_scheduler_got(make_trainer, family, options, sampler):
    zoo_family = zoo.FAMILIES[family]
    trainer = make_trainer(model=zoo_family.make(), **{**zoo_family.options, **options})
    assert trainer._checkpointer.setup.as_dict()["sampler"] == sampler


def test_a_resumed_run_adds_only_what_is_different(make_trainer, tmp_path, monkeypatch):
    make_trainer().train()
    first = (tmp_path / "run" / "run.json").read_bytes()
    make_trainer().train(resume_from_checkpoint=True)
    assert (tmp_path / "run" / "run.json").read_bytes() == first
    make_trainer(num_train_epochs=2).train(resume_from_checkpoint=True)
    runs = RunFolder(tmp_path / "run").setups()
    assert [(run["from_update"], run["options"]["num_train_epochs"]) for run in runs] == [(0, 1), (1, 2)]
    monkeypatch.setattr("trainer_ext.runs.setup.facts.version", lambda name: "0.0")
    make_trainer(num_train_epochs=2).train(resume_from_checkpoint=True)
    assert [run["packages"]["torch"] == "0.0" for run in RunFolder(tmp_path / "run").setups()] == [False, False, True]


def test_a_run_that_begins_anew_begins_its_record_anew(make_trainer, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text('{"runs": [{"from_update": 0, "model": "left over"}]}')
    make_trainer().train()
    (run,) = RunFolder(tmp_path / "run").setups()
    assert run["model"] != "left over"
