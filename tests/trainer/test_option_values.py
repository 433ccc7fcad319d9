"""One pass over the values of options: what is meant is taken, anything else is refused with the form that is expected."""

import dataclasses
import importlib.util

import pytest
import transformers
from datasets import Dataset
from peft import LoHaConfig
from support.trainers import CAT_AND_DOG, TINY, brightness, make_trainer, redness
from transformers import TrainingArguments

from trainer_ext import DDPOConfig, DDPOTrainer
from trainer_ext.cli.options import LoraOptions, RunOptions
from trainer_ext.cli.sample import SampleOptions
from trainer_ext.errors import ConfigError
from trainer_ext.inherited import INHERITED, REFUSED
from trainer_ext.policy.pipeline import LogProbPipeline
from trainer_ext.policy.runner import OWNED_ARGUMENTS


def config(tmp_path, **options):
    return DDPOConfig(**{**TINY, "output_dir": tmp_path, **options})


# ---- types ----


@pytest.mark.parametrize(
    ("name", "given", "taken"),
    [
        ("reward_weights", 2.0, [2.0]),
        ("reward_weights", "2", [2.0]),
        ("reward_weights", (1, 0.5), [1, 0.5]),
        ("detector_weights", -1, [-1]),
        ("stop_when", "reward>100", ["reward>100"]),
        ("sde_window", ["0", 1.0], [0, 1]),
        ("num_images_per_rollout", 8.0, 8),
        ("num_images_per_rollout", "8", 8),
        ("seed", "7", 7),
        ("learning_rate", "1e-4", 1e-4),
        ("guidance_scale", "5", 5.0),
        ("scale_rewards", "false", False),
        ("overlap_rewards", 0, False),
        ("bf16", "no", False),
        ("max_steps", 3.0, 3),
        ("report_to", False, []),
        ("save_strategy", False, "no"),  # as YAML reads `no`
        ("eval_strategy", False, "no"),
        ("logging_strategy", False, "no"),
    ],
)
def test_a_value_that_can_mean_only_one_thing(tmp_path, name, given, taken):
    value = getattr(config(tmp_path, **{name: given}), name)
    assert value == taken
    assert isinstance(value, type(taken))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"num_images_per_rollout": 64.5},
            r"num_images_per_rollout is 64.5 \(float\); it must be a whole number, such as 256",
        ),
        ({"num_images_per_rollout": "many"}, r"is 'many' \(str\); it must be a whole number"),
        ({"num_images_per_rollout": True}, r"is True \(bool\); it must be a whole number"),
        ({"num_images_per_rollout": None}, r"is None \(NoneType\); it must be a whole number"),
        ({"rollout_batch_size": [8]}, r"rollout_batch_size is \[8\] \(list\); it must be a whole number"),
        ({"eta": "high"}, r"eta is 'high' \(str\); it must be a number, such as 1.0"),
        ({"eta": float("nan")}, "eta is nan"),
        ({"learning_rate": [1e-4]}, r"learning_rate is \[0.0001\] \(list\); it must be a number, such as 0.0003"),
        (
            {"reward_weights": "1,2"},
            r"reward_weights is '1,2' \(str\); it must be a list of numbers, such as \[1.0, 0.5\]",
        ),
        ({"reward_weights": {"a": 1}}, r"reward_weights is {'a': 1} \(dict\); it must be a list of numbers"),
        ({"reward_weights": [None]}, "it must be a list of numbers"),
        ({"stop_when": [1]}, r"stop_when is \[1\] \(list\); it must be a list of texts"),
        ({"sde_window": 0}, r"sde_window is \[0\]; it must be two steps, the first and the last with noise"),
        ({"sde_window": 0.5}, "sde_window is 0.5 .*; it must be a list of whole numbers"),
        ({"scale_rewards": "sometimes"}, "scale_rewards is 'sometimes' .*; it must be true or false"),
        ({"algorithm": ["rwr"]}, r"algorithm is \['rwr'\] \(list\); it must be a text, such as 'ddpo_is'"),
        ({"pipeline_kwargs": ["height"]}, "pipeline_kwargs is a list; it must be a mapping, or JSON"),
        ({"lr_scheduler_kwargs": "{"}, "lr_scheduler_kwargs is a str; it must be a mapping, or JSON"),
        ({"lr_scheduler_kwargs": "min_lr=0"}, "lr_scheduler_kwargs is a str; it must be a mapping, or JSON"),
        ({"lr_scheduler_kwargs": "[1]"}, "lr_scheduler_kwargs is a str; it must be a mapping, or JSON"),
        (
            {"accelerator_config": "no file"},
            "accelerator_config is a str; it must be a mapping, JSON, or a file that holds JSON",
        ),
        ({"fsdp_config": "no file"}, "fsdp_config is a str; it must be a mapping, JSON, or a file that holds JSON"),
        ({"log_level": "loud"}, "log_level is 'loud'; it must be one of .*warning"),
        ({"output_dir": 3}, r"output_dir is 3 \(int\); it must be a text"),
        ({"report_to": 3}, "report_to is 3; it must be the name of a tracker, a list of names, or 'none'"),
        ({"save_strategy": "often"}, "save_strategy is 'often'; it must be one of no, steps, epoch, best"),
        ({"lr_scheduler_type": "flat"}, "lr_scheduler_type is 'flat'; it must be one of linear, "),
        ({"optim": "adam"}, "optim is 'adam'; it must be one of .*adamw_torch"),
    ],
)
def test_a_value_of_another_type(tmp_path, options, message):
    with pytest.raises(ConfigError, match=message):
        config(tmp_path, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": -1}, r"seed is -1; it must be from 0 to 2\*\*32 - 1"),
        ({"seed": 2**32}, "seed is 4294967296; it must be from 0"),
        ({"learning_rate": -1}, "learning_rate is -1; it must be greater than 0"),
        ({"learning_rate": 0}, "learning_rate is 0; it must be greater than 0"),
        ({"per_device_train_batch_size": 0}, "per_device_train_batch_size is 0; it must be at least 1"),
        ({"gradient_accumulation_steps": -2}, "gradient_accumulation_steps is -2; it must be at least 1"),
        ({"num_train_epochs": 0}, "num_train_epochs is 0; it must be greater than 0"),
        ({"max_steps": 0}, "max_steps is 0; it must be at least 1, or -1 for num_train_epochs"),
        ({"max_grad_norm": -1}, "max_grad_norm is -1; it must be at least 0"),
        ({"weight_decay": -0.1}, "weight_decay is -0.1; it must be at least 0"),
        ({"adam_beta1": 1.0}, r"adam_beta1 is 1.0; it must be in \[0, 1\)"),
        ({"save_total_limit": 0}, "save_total_limit is 0; it must be at least 1"),
        ({"save_steps": 0}, "save_steps is 0; it must be greater than 0"),
        ({"learning_rate": float("inf")}, "learning_rate is inf; it must be finite"),
        ({"reward_weights": [1, float("-inf")]}, r"reward_weights is \[1, -inf\]; it must be finite"),
        ({"ddp_timeout": 0}, "ddp_timeout is 0; it must be greater than 0"),
        ({"num_sample_images": -1}, "num_sample_images is -1; it must be 0, which turns it off, or more"),
    ],
)
def test_a_number_outside_of_its_limits(tmp_path, options, message):
    with pytest.raises(ConfigError, match=message):
        config(tmp_path, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bf16": True, "fp16": True}, "These options do not work: .* fp16 and bf16 .*, but not both. Correct them"),
        ({"eval_strategy": "steps", "load_best_model_at_end": True, "save_strategy": "epoch"}, "do not work: "),
        ({"accelerator_config": {"split": True}}, "These options do not work: .*split"),
        (
            {"lr_scheduler_type": "cosine_with_min_lr"},
            "lr_scheduler_type='cosine_with_min_lr' and lr_scheduler_kwargs=.* do not work: .*min_lr",
        ),
        (
            {"lr_scheduler_type": "cosine", "lr_scheduler_kwargs": {"cycles": 1}},
            "lr_scheduler_kwargs={'cycles': 1} do not work",
        ),
    ],
)
def test_options_that_transformers_refuses_are_refused_at_once(tmp_path, options, message):
    with pytest.raises(ConfigError, match=message):
        config(tmp_path, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"optim_args": "beta1"}, "optim='adamw_torch.*' and optim_args='beta1' do not work: "),
        pytest.param(
            {"optim": "adamw_bnb_8bit"},
            "optim='adamw_bnb_8bit' and optim_args=None do not work: .*bitsandbytes",
            marks=pytest.mark.skipif(importlib.util.find_spec("bitsandbytes") is not None, reason="it is installed"),
        ),
    ],
)
def test_an_optimizer_that_cannot_be_made_is_refused_before_anything_is_loaded(tmp_path, options, message):
    """The configuration may be for another machine."""
    args = config(tmp_path, **options)
    with pytest.raises(ConfigError, match=message):
        DDPOTrainer("nowhere", brightness, args, CAT_AND_DOG)


def test_mappings_as_texts_and_in_files(tmp_path):
    (tmp_path / "accelerate.json").write_text('{"split_batches": true}')
    kwargs = {"lr_scheduler_type": "cosine_with_min_lr", "lr_scheduler_kwargs": '{"min_lr": 1e-5}'}
    args = config(tmp_path, accelerator_config=str(tmp_path / "accelerate.json"), **kwargs)
    assert args.lr_scheduler_kwargs == {"min_lr": 1e-5}
    assert args.accelerator_config.split_batches


def test_infinity_turns_limits_off(tmp_path):
    options = {name: float("inf") for name in ("max_grad_norm", "clip_range", "advantage_clip")}
    assert {name: getattr(config(tmp_path, **options), name) for name in options} == options


def test_trackers_are_given_no_secrets(tmp_path):
    args = config(
        tmp_path, hub_token="hf_Canary7Zx91Canary", pipeline_kwargs={"headers": {"Authorization": "Canary7Zx91"}}
    )
    for given in (args.to_json_string(), str(args.to_sanitized_dict()), str(args.to_dict())):
        assert "Canary7Zx91" not in given
    assert args.call_kwargs["headers"] == {"Authorization": "Canary7Zx91"}


def test_the_options_of_the_command_line_are_checked_alike():
    options = RunOptions(reward_funcs="jpeg_compressibility", eval_prompts="animals", detectors="blank")
    assert (options.reward_funcs, options.eval_prompts) == (["jpeg_compressibility"], ["animals"])
    assert options.detectors == ["blank"]
    assert LoraOptions(lora_target_modules="to_q").lora_target_modules == ["to_q"]
    assert SampleOptions(prompts="a cat", seeds=3).seeds == [3]
    with pytest.raises(ConfigError, match="lora_r is 0; it must be at least 1"):
        LoraOptions(lora_r=0)
    with pytest.raises(ConfigError, match=r"prompts is \['a', 'b'\] \(list\); it must be a text, such as 'animals'"):
        RunOptions(prompts=["a", "b"])


# ---- names ----


@pytest.mark.parametrize("name", OWNED_ARGUMENTS)
def test_arguments_of_the_pipeline_that_the_trainer_makes_itself(tmp_path, tiny_pipeline, name):
    with pytest.raises(ConfigError, match=f"pipeline_kwargs has '{name}', which is not passed on"):
        config(tmp_path, pipeline_kwargs={name: 1})
    with pytest.raises(ConfigError, match=f"pipeline_kwargs has '{name}'"):
        LogProbPipeline(tiny_pipeline(), 2, 1.0, pipeline_kwargs={name: 1})


@pytest.mark.parametrize("given", ["wandbb", ["tensorboard", "wandbb"]])
def test_a_tracker_that_does_not_exist(tmp_path, given):
    with pytest.raises(ConfigError, match="report_to is '(wandbb|tensorboard)'"):
        config(tmp_path, report_to=given)


@pytest.mark.skipif(importlib.util.find_spec("wandb") is not None, reason="wandb is installed")
def test_a_tracker_that_is_not_installed(tmp_path):
    with pytest.raises(ConfigError, match="report_to is 'wandb', which is not installed: pip install wandb"):
        config(tmp_path, report_to="wandb")


# ---- what is inherited ----


def test_every_inherited_option_is_in_the_table():
    inherited = {field.name for field in dataclasses.fields(TrainingArguments) if field.init}
    assert inherited - INHERITED.keys() == set(), f"new in transformers {transformers.__version__}"


OTHER = {bool: lambda default: not default, int: lambda default: default + 1, float: lambda default: default + 0.5}


@pytest.mark.parametrize(
    "field",
    [
        field
        for field in dataclasses.fields(DDPOConfig)
        if field.name in INHERITED and INHERITED[field.name][0] == REFUSED
    ],
    ids=lambda field: field.name,
)
def test_options_that_would_have_no_effect_are_refused_by_name(tmp_path, field):
    by_hint = {"bool": True, "int": 3, "float": 0.1, "list[str]": ["inputs"]}
    optional = next((value for hint, value in by_hint.items() if hint in str(field.type)), "other")
    value = OTHER.get(type(field.default), lambda default: optional)(field.default)
    with pytest.raises(ConfigError, match=f"^{field.name} is .*, and DDPO cannot do that: .* Leave it out"):
        config(tmp_path, **{field.name: value})


def test_options_that_are_harmless_are_ignored(tmp_path):
    config(
        tmp_path, max_grad_norm=None, do_train=True, do_eval=True, dataloader_num_workers=2, dataloader_pin_memory=False
    )


def test_methods_that_have_no_meaning(make_trainer):
    trainer = make_trainer()
    with pytest.raises(ConfigError, match=r"has no predict\(\): .* Use evaluate\(dataset\)"):
        trainer.predict(CAT_AND_DOG)
    with pytest.raises(ConfigError, match=r"has no hyperparameter_search\(\)"):
        trainer.hyperparameter_search()


# ---- arguments of the trainer ----


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"args": TrainingArguments}, "args is a TrainingArguments; give a DDPOConfig"),
        ({"args": dict}, "args is a dict; give a DDPOConfig"),
        ({"peft_config": LoHaConfig}, "peft_config is a LoHaConfig; it must be a peft.LoraConfig"),
    ],
)
def test_arguments_of_another_kind(tmp_path, monkeypatch, given, message):
    monkeypatch.chdir(tmp_path)
    ((name, make),) = given.items()
    own = {"args": config(tmp_path), name: make()}
    with pytest.raises(ConfigError, match=message):
        DDPOTrainer("nowhere", brightness, train_dataset=CAT_AND_DOG, **own)


def test_none_stands_for_nothing(tiny_pipeline, tmp_path):
    nothing = dict.fromkeys(
        ["guidance_rules", "detectors", "eval_reward_funcs", "callbacks", "peft_config", "guidance"]
    )
    trainer = make_trainer(tiny_pipeline(), tmp_path, **nothing)
    assert trainer.judges.held_out is None


# ---- the best checkpoint ----

BEST = {"load_best_model_at_end": True, "eval_strategy": "epoch", "save_strategy": "epoch"}
TWO = {"cats": CAT_AND_DOG, "others": Dataset.from_dict({"prompt": ["a lion"]})}


@pytest.mark.parametrize(
    ("datasets", "metric", "message"),
    [
        (TWO, None, "metric_for_best_model is 'reward', which no evaluation measures; it must be one of cats_reward, "),
        (
            CAT_AND_DOG,
            "accuracy",
            "metric_for_best_model is 'accuracy', .* one of reward, reward_std, rewards/brightness/mean",
        ),
        (TWO, "eval_dogs_reward", "metric_for_best_model is 'eval_dogs_reward'"),
        (CAT_AND_DOG, "eval_gold", r"one of reward, .*pixels/brightness\. Give held-out rewards"),
        (CAT_AND_DOG, "eval_collapsed", "Set eval_images_per_prompt to 2 or more"),
    ],
)
def test_a_metric_that_no_evaluation_measures(make_trainer, datasets, metric, message):
    with pytest.raises(ConfigError, match=message):
        make_trainer(eval_dataset=datasets, metric_for_best_model=metric, **BEST)


def test_the_best_checkpoint_is_that_of_the_best_reward(make_trainer):
    trainer = make_trainer(
        eval_dataset=CAT_AND_DOG, **{**BEST, "load_best_model_at_end": False, "save_strategy": "best"}
    )
    trainer.train()
    (_, log) = [log for log in trainer.state.log_history if "eval_reward" in log]
    assert trainer.state.best_metric == log["eval_reward"]


@pytest.mark.parametrize(
    "metric",
    [
        "cats_gold",
        pytest.param("cats_detectors/bright/max", marks=pytest.mark.full),
        pytest.param("others_reward", marks=pytest.mark.full),
        pytest.param("eval_cats_rewards/redness/mean", marks=pytest.mark.full),
    ],
)
def test_every_metric_that_the_message_names_is_measured(make_trainer, metric):
    def bright(images, prompts, **columns):
        return [0.5] * len(prompts)

    trainer = make_trainer(
        eval_dataset=TWO, metric_for_best_model=metric, eval_reward_funcs=redness, detectors=bright, **BEST
    )
    trainer.train()
    names = {f"eval_{dataset}_{name}" for dataset in TWO for name in trainer.judges.evaluated_metrics(trainer.args)}
    assert names <= {name for log in trainer.state.log_history for name in log}
    assert trainer.state.best_metric is not None
