"""A preset's evaluation: what becomes of it beside other options of the user, and what the doctor says of its cost."""

import pytest
from support.trainers import TINY, prompts

from trainer_ext import DDPOConfig
from trainer_ext.cli.evaluations.cost import describe_evaluations, num_evaluations
from trainer_ext.cli.evaluations.presets import fit_evaluation
from trainer_ext.cli.options import RunOptions
from trainer_ext.cli.parse import load_preset
from trainer_ext.cli.training.counts import counts_of

PRESET = load_preset(["--preset", "embedded"])
OTHERS = prompts("an owl")
WITH_COLUMN = OTHERS.add_column("brightness", [0.5])
GIVEN = {"reward_funcs": ["jpeg_incompressibility"], "eval_reward_funcs": PRESET["eval_reward_funcs"]}


def fit(train_dataset=OTHERS, evaluated=OTHERS, eval_strategy="steps", **options):
    options = RunOptions(**{**GIVEN, "eval_prompts": PRESET["eval_prompts"], "prompts": "mine", **options})
    config = DDPOConfig(**{**TINY, "eval_strategy": eval_strategy, "eval_steps": 1})
    names, datasets = fit_evaluation(options, config, PRESET, train_dataset, {"other_animals": evaluated})
    return names, list(datasets), config.eval_strategy.value


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, (["embedded_judge", "reading_judge"], ["other_animals"], "steps")),
        # what is trained on is not held out
        ({"reward_funcs": ["embedded_judge"]}, (["reading_judge"], ["other_animals"], "steps")),
        # unless the user says both, which the trainer refuses
        (
            {"reward_funcs": ["clip_score"], "eval_reward_funcs": ["clip_score"]},
            (["clip_score"], ["other_animals"], "steps"),
        ),
        # rewards may need columns of their prompts
        ({"train_dataset": WITH_COLUMN}, ([], [], "no")),
        (
            {"train_dataset": WITH_COLUMN, "evaluated": WITH_COLUMN},
            (["embedded_judge", "reading_judge"], ["other_animals"], "steps"),
        ),
        (
            {"train_dataset": WITH_COLUMN, "eval_prompts": ["other_animals", "mine"]},
            (["embedded_judge", "reading_judge"], ["other_animals"], "steps"),
        ),
        # those of the preset's own prompts fit
        (
            {"train_dataset": WITH_COLUMN, "prompts": "animals"},
            (["embedded_judge", "reading_judge"], ["other_animals"], "steps"),
        ),
        # no evaluation, no models
        ({"eval_strategy": "no"}, ([], ["other_animals"], "no")),
        ({"eval_strategy": "no", "eval_reward_funcs": ["clip_score"]}, (["clip_score"], ["other_animals"], "no")),
    ],
    ids=str,
)
def test_what_does_not_fit_is_left_out(options, expected):
    assert fit(**options) == expected


def test_it_is_said_why(caplog):
    fit(train_dataset=WITH_COLUMN)
    (record,) = caplog.records
    assert record.getMessage() == (
        "The prompts other_animals of the preset's evaluation are left out: they lack 'brightness', which --prompts mine has. Give "
        "others with --eval_prompts."
    )


# ---- cost ----


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"eval_strategy": "epoch", "num_train_epochs": 3}, 4),
        ({"eval_strategy": "steps", "eval_steps": 4, "num_train_epochs": 10}, 4),  # 0, 4, 8, 10
        ({"eval_strategy": "steps", "eval_steps": 0.25, "max_steps": 10}, 5),  # 0, 3, 6, 9, 10
    ],
)
def test_how_often_a_run_is_evaluated(options, expected):
    assert num_evaluations(DDPOConfig(**{**TINY, **options})) == expected


def test_the_cost_of_a_preset(tmp_path):
    preset = load_preset(["--preset", "embedded"])
    run = {name: value for name, value in preset.items() if name in RunOptions.__dataclass_fields__}
    config = {name: value for name, value in preset.items() if name in DDPOConfig.__dataclass_fields__}
    config = DDPOConfig(**config, output_dir=str(tmp_path), use_cpu=True)
    said = describe_evaluations(RunOptions(**run), config)
    images = 19 * config.eval_images_per_prompt
    times = num_evaluations(config)
    assert said.startswith(f"{images} images, {times} times: {images * times / (14 * 64):.1%} as many as the rollouts'")
    assert "embedded_judge, reading_judge, blank_or_noise, low_diversity" in said
    config.eval_strategy = "no"
    assert describe_evaluations(RunOptions(**run), config) == ""


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, {"rollouts": 3, "updates": 6, "evaluations": 4, "checkpoints": 3, "drawings": 2, "drawn_by_default": 0}),
        ({"eval_strategy": "no", "save_strategy": "no"}, {"evaluations": 0, "checkpoints": 0, "divergences": 0}),
        ({"save_strategy": "steps", "save_steps": 4}, {"checkpoints": 2}),  # 4, 6
        ({"num_sample_images": 2, "sample_every": 1, "sample_defaults": True}, {"drawings": 4, "drawn_by_default": 4}),
        ({"full_finetuning": True}, {"divergences": 0}),
    ],
    ids=str,
)
def test_how_often_a_run_does_what(options, expected, tmp_path):
    """Three rollouts of two updates; each is followed by an evaluation of 19 animals and a checkpoint."""
    given = {
        **TINY,
        "num_images_per_rollout": 8,
        "per_device_train_batch_size": 4,
        "num_train_epochs": 3,
        "eval_strategy": "epoch",
        "save_strategy": "epoch",
        "output_dir": str(tmp_path),
        **options,
    }
    found = counts_of(RunOptions(eval_prompts=["other_animals"]), DDPOConfig(**given))
    assert {name: vars(found)[name] for name in expected} == expected
    if found.evaluations:
        assert found.evaluation.images == 19 * DDPOConfig(**given).eval_images_per_prompt
