"""Rules that end a run: how they are read, when they are met, and what is left."""

import logging
from pathlib import Path

import pytest
import torch
from support.trainers import CAT_AND_DOG, TINY, assert_same, brightness, checkpoints, records, trained_weights
from transformers import TrainerCallback

from trainer_ext import DDPOConfig, RewardFunction
from trainer_ext.errors import ConfigError
from trainer_ext.loop.stopping import RuleMetError, StopRule, StopRules
from trainer_ext.runs.equality import differences

# ---- rules ----


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("typographic_attack>0.3", ("typographic_attack", ">", 0.3)),
        (" reward < -1e-2 ", ("reward", "<", -0.01)),
        ("detectors/blank/max>1", ("detectors/blank/max", ">", 1.0)),
    ],
)
def test_rules_are_read(text, expected):
    rule = StopRule.parse(text)
    assert (rule.name, rule.sign, rule.threshold) == expected
    assert DDPOConfig(**TINY, stop_when=[text]).stop_when == [text]


@pytest.mark.parametrize(
    "text", ["", "text", "text>", ">0.3", "text>=0.3", "text=0.3", "text>nan", "text>inf", "a b>1", "0<x<1"]
)
def test_what_is_no_rule_is_refused_at_once(text):
    with pytest.raises(ConfigError, match="stop_when has '.*'; a rule is NAME>NUMBER or NAME<NUMBER"):
        DDPOConfig(**TINY, stop_when=["reward>1", text])


METRICS = {"reward": 2.0, "detectors/text/mean": 0.4, "detectors/text/max": 0.9, "text": 7.0}


@pytest.mark.parametrize(
    ("text", "met"),
    [
        ("reward>2", False),
        ("reward<2", False),
        ("reward<2.1", True),
        ("reward>1.9", True),
        ("text>0.5", False),  # the detector's mean, not what a reward logged under its name
        ("text>0.3", True),
        ("detectors/text/max>0.8", True),
    ],
)
def test_when_a_rule_is_met(text, met):
    rules = StopRules([StopRule.parse(text)], ["text"])
    if not met:
        return rules.check(3, METRICS)
    with pytest.raises(RuleMetError, match=f"Rollout 3 meets stop_when '{text}': it is "):
        rules.check(3, METRICS)


def test_the_first_rule_that_is_met_is_named():
    rules = StopRules([StopRule.parse(text) for text in ("reward>5", "reward>1", "reward>0")])
    with pytest.raises(RuleMetError) as caught:
        rules.check(0, METRICS)
    assert caught.value.rule.text == "reward>1"


def test_a_metric_that_is_never_there_is_an_error_that_names_those_that_are():
    with pytest.raises(
        ConfigError, match=r"'typo>0.3', and rollout 0 has no metric 'typo'; it has detectors/text/max, .*--detectors"
    ):
        StopRules([StopRule.parse("typo>0.3")]).check(0, METRICS)


def test_a_metric_that_is_missing_now_and_then_meets_nothing():
    rules = StopRules(
        [StopRule.parse("logged>1"), StopRule.parse("blind>0.1"), StopRule.parse("detectors/blind/max>0.1")], ["blind"]
    )
    rules.check(0, {"logged": 0.0})
    rules.check(1, {})
    with pytest.raises(RuleMetError):
        rules.check(2, {"logged": 2.0})


# ---- runs ----


class Rising:
    """A detector that is surer with every update, and draws from a global generator."""

    def __call__(self, images, prompts, trainer_state, **columns):
        noise = torch.rand(()).item() / 1000
        return [trainer_state.global_step / 10 + noise for _ in images]


def noisy(images, prompts, log_metric, **columns):
    values = brightness(images, prompts)
    log_metric("brightest", max(values))
    return [value + torch.rand(()).item() for value in values]


class Ends(TrainerCallback):
    ends = 0

    def on_train_end(self, args, state, control, **kwargs):
        self.ends += 1


@pytest.fixture
def run_options():
    """Two updates on each of four rollouts."""
    updates = {"per_device_train_batch_size": 2, "num_train_epochs": 4, "learning_rate": 1e-2, "stat_min_count": 2}
    return {"reward": noisy, "detectors": Rising(), **updates}


def whole_run(make_trainer, folder):
    trainer = make_trainer(folder)
    trainer.train()
    trainer.save_model()
    return trainer


def test_a_run_ends_before_anything_is_learned_from_the_rollout_that_meets_a_rule(make_trainer, caplog, tmp_path):
    """Two updates a rollout: the third begins after 4, with 0.4."""
    ends = Ends()
    trainer = make_trainer("stopped", callbacks=[ends], stop_when=["reward<0", "Rising>0.35"], num_sample_images=1)
    with caplog.at_level(logging.WARNING):
        output = trainer.train()
    assert (output.global_step, trainer.state.global_step, ends.ends, trainer.is_in_train) == (4, 4, 1, False)
    assert output.metrics["detectors/Rising/mean"] == pytest.approx(0.4, abs=1e-2)
    assert "Rollout 2 meets stop_when 'Rising>0.35': it is 0.40" in caplog.text
    assert "Training ends after 4 update(s), and nothing was learned from this rollout" in caplog.text
    assert trainer.state.log_history[-1]["detectors/Rising/mean"] == output.metrics["detectors/Rising/mean"]
    folder = tmp_path / "stopped"
    assert checkpoints(folder) == ["checkpoint-4"]
    assert (folder / "samples" / "before_after.png").is_file()
    assert len(records(folder, 2)) == 4  # what it was stopped for
    two = make_trainer("two", num_train_epochs=2)
    two.train()
    assert_same(trained_weights(trainer.model), trained_weights(two.model))


def test_a_rule_for_what_a_reward_logs(make_trainer):
    trainer = make_trainer("logged", stop_when=["brightest>0"])
    assert trainer.train().global_step == 0


def test_resumed_it_ends_again_unless_the_rule_is_another(make_trainer, tmp_path, caplog):
    make_trainer("run", stop_when=["Rising>0.35"]).train()
    again = make_trainer("run", stop_when=["Rising>0.35"])
    assert again.train(resume_from_checkpoint=True).global_step == 4
    assert caplog.text.count("Rollout 2 meets stop_when 'Rising>0.35'") == 2
    resumed = make_trainer("run", stop_when=["Rising>0.9"])
    resumed.train(resume_from_checkpoint=True)
    resumed.save_model()
    whole = whole_run(make_trainer, "whole")
    assert_same(trained_weights(resumed.model), trained_weights(whole.model))
    assert differences(tmp_path / "run", tmp_path / "whole") == []


def test_the_best_model_is_loaded(make_trainer):
    options = {
        "eval_strategy": "epoch",
        "save_strategy": "epoch",
        "load_best_model_at_end": True,
        "metric_for_best_model": "eval_detectors/Rising/mean",
        "greater_is_better": False,
        "stop_when": ["Rising>0.35"],
    }
    trainer = make_trainer("best", eval_dataset=CAT_AND_DOG, **options)
    trainer.train()
    one = make_trainer("one", num_train_epochs=1)
    one.train()
    assert Path(trainer.state.best_model_checkpoint).name == "checkpoint-2"
    assert_same(trained_weights(trainer.model), trained_weights(one.model))


# ---- of evaluations ----

EVALUATED = {"eval_dataset": CAT_AND_DOG, "eval_strategy": "epoch", "num_train_epochs": 3}


def test_a_rule_on_an_evaluation_ends_the_run_with_a_checkpoint(make_trainer, caplog):
    """Not before training, although it would be met there; then after the first rollout, which is trained on."""
    trainer = make_trainer(**EVALUATED, stop_when=["eval_reward>0"])
    with caplog.at_level(logging.WARNING):
        trainer.train()
    assert trainer.state.global_step == trainer.args.updates_per_rollout
    assert checkpoints(trainer.args.output_dir) == [f"checkpoint-{trainer.state.global_step}"]
    said = [record.getMessage() for record in caplog.records if "stop_when" in record.getMessage()]
    (message,) = said
    assert message.startswith(
        f"The evaluation after {trainer.state.global_step} update(s) meets stop_when 'eval_reward>0': it is "
    )
    again = make_trainer(**EVALUATED, stop_when=["eval_reward<0"])
    again.train(resume_from_checkpoint=True)
    assert again.state.global_step == 3 * trainer.args.updates_per_rollout


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"eval_strategy": "no"}, "stop_when has 'eval_gold<0', and no evaluation runs. Give eval_dataset"),
        ({"eval_dataset": None}, "no evaluation runs"),
        (
            {},
            "no evaluation measures 'eval_gold'; it must be one of eval_reward, .* Give held-out rewards in eval_reward_funcs",
        ),
        ({"stop_when": ["eval_diversity<0.5"]}, "'eval_diversity'.*Set eval_images_per_prompt to 2 or more"),
        ({"stop_when": ["eval_kl>5"], "full_finetuning": True}, "'eval_kl'.*only if beta is above 0"),
        ({"stop_when": ["eval_rewards/brightnes/mean>5"]}, "no evaluation measures 'eval_rewards/brightnes/mean'"),
    ],
    ids=str,
)
def test_the_metric_of_an_evaluation_is_checked_at_once(make_trainer, options, message):
    given = {**EVALUATED, "stop_when": ["eval_gold<0"], **options}
    if given["eval_dataset"] is None:
        given["eval_strategy"] = "no"
    with pytest.raises(ConfigError, match=message):
        make_trainer(**given)


def test_a_rule_on_the_base_needs_an_evaluation_of_it(make_trainer, tmp_path):
    """All weights were trained, and the run is resumed where nobody evaluated them before."""
    options = {**EVALUATED, "full_finetuning": True, "eval_reward_funcs": RewardFunction("other", brightness)}
    options |= {"save_strategy": "epoch", "num_train_epochs": 2}
    make_trainer(**options).train()
    trainer = make_trainer("elsewhere", **options, stop_when=["eval_gold<-9"])
    with pytest.raises(
        ConfigError, match="stop_when needs 'eval_gold', which cannot be measured: .*Resume in the run's own folder"
    ):
        trainer.train(resume_from_checkpoint=str(tmp_path / "run" / f"checkpoint-{trainer.args.updates_per_rollout}"))
