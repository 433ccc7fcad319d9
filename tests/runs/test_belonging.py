"""What a checkpoint belongs to: what a run that resumes may change, what takes effect then, and what is refused."""

import shutil

import numpy as np
import pytest
import torch
from support import trainers
from support.trainers import (
    FOUR_ANIMALS,
    RESUMABLE,
    assert_same,
    brightness,
    checkpoints,
    logs_of,
    prompts,
    redness,
    trained_weights,
)

from trainer_ext import RewardFunction
from trainer_ext.errors import CheckpointError, ConfigError
from trainer_ext.runs.folder import RunFolder
from trainer_ext.runs.manifest import remove_manifest, write_manifest
from trainer_ext.runs.setup.resuming import apply_changes
from trainer_ext.scoring.provenance import Provenance

#: Four updates on each rollout; the prompts' own statistics from the first reward on; a checkpoint after each update.
OPTIONS = {
    **RESUMABLE,
    "per_device_train_batch_size": 1,
    "stat_min_count": 1,
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory, tiny_pipeline):
    """Make runs, each once, and lend copies of their folders."""
    runs = {}

    def run(folder, upto=None, reward=brightness, **options):
        key = (str(sorted(options.items())), str(reward))
        if key not in runs:
            torch.manual_seed(0)
            runs[key] = tmp_path_factory.mktemp("finished") / "run"
            trainers.make_trainer(tiny_pipeline(), runs[key], reward, **{**OPTIONS, **options}).train()
        shutil.copytree(runs[key], folder)
        for name in checkpoints(folder):
            if upto is not None and int(name.removeprefix("checkpoint-")) > upto:
                shutil.rmtree(folder / name)
        return runs[key]

    return run


@pytest.fixture
def run_options():
    return OPTIONS


@pytest.fixture
def resume(make_trainer, finished, tmp_path):
    """Resume a run after some of its updates, with other options."""

    def resume(upto=None, before=None, reward=brightness, folder="run", **options):
        finished(tmp_path / folder, upto, **(before or {}))
        trainer = make_trainer(folder, reward=reward, **options)
        trainer.train(resume_from_checkpoint=True)
        return trainer

    return resume


# ---- a run that is finished ----


@pytest.mark.parametrize(
    ("length", "updates"),
    [
        ({"max_steps": 3}, 3),  # in the middle of a rollout of four updates
        pytest.param({"max_steps": 4}, 4, marks=pytest.mark.full),
        pytest.param({"max_steps": 5}, 5, marks=pytest.mark.full),
        ({"num_train_epochs": 0.5}, 2),
        pytest.param({"num_train_epochs": 1.5}, 6, marks=pytest.mark.full),
        pytest.param({"num_train_epochs": 2}, 8, marks=pytest.mark.full),
    ],
)
def test_a_finished_run_makes_no_update_more(resume, finished, tmp_path, length, updates):
    calls = []

    def counted(images, prompts, **columns):
        calls.append(len(images))
        return brightness(images, prompts)

    trainer = resume(before=length, **length, reward=RewardFunction("brightness", counted, provenance=SAME))
    trainer.save_model(tmp_path / "saved")
    assert (calls, trainer.state.global_step) == ([], updates)
    assert checkpoints(tmp_path / "run") == [f"checkpoint-{step}" for step in range(1, updates + 1)]
    with torch.no_grad():
        before = trained_weights(trainer.model)
        trainer._weights.denoiser.load(tmp_path / "run" / f"checkpoint-{updates}")
    assert_same(before, trained_weights(trainer.model))
    assert "train_runtime" in trainer.state.log_history[-1]


@pytest.mark.full
def test_fewer_updates_than_were_made(resume):
    assert resume(upto=6, max_steps=3).state.global_step == 6


@pytest.mark.parametrize("upto", [3, pytest.param(4, marks=pytest.mark.full)])
def test_a_finished_run_is_prolonged(resume, finished, tmp_path, upto):
    """It ends as the run that was longer from the start, bit for bit."""
    trainer = resume(before={"max_steps": upto}, max_steps=6)
    longer = tmp_path / "longer"
    finished(longer, max_steps=6)
    assert trainer.state.global_step == 6
    here = trained_weights(trainer.model)
    trainer._weights.denoiser.load(longer / "checkpoint-6")
    assert_same(here, trained_weights(trainer.model))


# ---- another reward ----


def louder(images, prompts, **columns):
    return [1000 + 3 * value for value in brightness(images, prompts)]


SAME = Provenance.of_function(brightness)
OTHER_REWARDS = {
    "another function": {"reward": redness},
    "a mended one": {"reward": RewardFunction("brightness", louder)},
    "another version": {
        "reward": RewardFunction("brightness", brightness, provenance=Provenance(plugin="a", version="2"))
    },
    "another weight": {"reward_weights": [2.0]},
    "one more": {"reward": [brightness, redness]},
    "a detector that counts": {
        "detectors": [lambda images, prompts, **columns: [0.5] * len(images)],
        "detector_weights": [-1],
    },
}


@pytest.mark.parametrize(
    "name", [n if n == "a mended one" else pytest.param(n, marks=pytest.mark.full) for n in OTHER_REWARDS]
)
def test_another_rewards_baseline_begins_empty(resume, caplog, name):
    """After one rollout of each prompt, the remembered rewards are those of the second alone: every advantage is 0."""
    trainer = resume(upto=4, num_train_epochs=2, **OTHER_REWARDS[name])
    (memory,) = trainer.algorithm.weighting.state_dict()
    assert {prompt: len(rewards) for prompt, rewards in memory.items()} == dict.fromkeys(FOUR_ANIMALS["prompt"], 1)
    assert "so their baseline begins empty" in caplog.text
    logged = [log for log in RunFolder(trainer.args.folder).setups() if log["from_update"] == 4]
    assert len(logged) == 1


def test_the_same_reward_goes_on_with_what_it_remembers(resume, caplog):
    trainer = resume(upto=4)
    (memory,) = trainer.algorithm.weighting.state_dict()
    assert {len(rewards) for rewards in memory.values()} == {2}
    assert "Resumed from" not in caplog.text
    assert "baseline" not in caplog.text


def far(url, version):
    origin = Provenance(plugin="builtin", options={"urls": url}, served={"name": "brightness", "version": version})
    return RewardFunction("remote", brightness, provenance=origin)


@pytest.mark.parametrize(("version", "kept"), [("1.0", 2), ("1.1", 1)])
def test_a_reward_on_a_server_is_the_same_wherever_the_server_is(resume, version, kept):
    trainer = resume(upto=4, before={"reward": far("http://a:1", "1.0")}, reward=far("http://b:2", version))
    (memory,) = trainer.algorithm.weighting.state_dict()
    assert {len(rewards) for rewards in memory.values()} == {kept}


def test_advantages_after_a_resume_with_another_reward(resume):
    """Those of the article's formula over the second rollout alone: against the first reward's memory all would be positive."""
    one_prompt = {"dataset": prompts("a cat"), "stat_min_count": 2}
    trainer = resume(upto=4, before=one_prompt, reward=louder, **one_prompt)
    rewards = np.array([record["reward"] for record in RunFolder(trainer.args.folder).records(1)])
    expected = (rewards - rewards.mean()) / (rewards.std() + 1e-6)
    assert trainer._rollout.weights.tolist() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("before", "after", "kept"),
    [
        pytest.param([brightness], [brightness, redness], [2, 1], id="one more"),
        pytest.param([brightness, redness], [redness, brightness], [2, 2], id="another order"),
        pytest.param([brightness, redness], [redness], [2], id="one less", marks=pytest.mark.full),
        pytest.param(
            [brightness, redness],
            [brightness, RewardFunction("redness", louder)],
            [2, 1],
            id="one mended",
            marks=pytest.mark.full,
        ),
    ],
)
def test_baselines_of_their_own_belong_to_each_reward(resume, caplog, before, after, kept):
    """With normalize_then_sum, each reward remembers its own."""
    each = {"multi_objective_aggregation": "normalize_then_sum"}
    trainer = resume(upto=4, before={"reward": before, **each}, reward=after, **each)
    memory = trainer.algorithm.weighting.state_dict()
    assert [len(remembered["a cat"]) for remembered in memory] == kept
    records = RunFolder(trainer.args.folder).records()
    for name, remembered, count in zip(trainer.judges.trained.names, memory, kept, strict=True):
        rewards = [record[f"rewards/{name}"] for record in records if record["prompt"] == "a cat"]
        assert remembered["a cat"] == rewards[-count:]
    assert ("baseline begins empty" in caplog.text) == (1 in kept)


# ---- options that take effect ----


def test_options_of_the_optimizer_take_effect(resume, caplog):
    given = {"learning_rate": 1e-3, "weight_decay": 0.5, "adam_beta1": 0.5, "adam_epsilon": 1e-4}
    trainer = resume(upto=4, **given)
    for group in trainer.optimizer.param_groups[:1]:
        assert (group["lr"], group["weight_decay"], group["eps"]) == (1e-3, 0.5, 1e-4)
        assert tuple(group["betas"]) == (0.5, 0.999)
    assert logs_of(trainer, "learning_rate")[-1]["learning_rate"] == 1e-3
    assert "learning_rate 0.01 -> 0.001" in caplog.text
    before, after = RunFolder(trainer.args.folder).setups()
    assert (before["options"]["learning_rate"], after["options"]["learning_rate"]) == (1e-2, 1e-3)


def test_a_learning_rate_that_changed_trains_as_a_run_with_it_would(resume):
    """By plain SGD: a tenth of the rate is a tenth of the next update."""
    steps, sgd = [], {"optim": "sgd", "max_grad_norm": 0.0}
    for rate in (1e-2, 1e-3):
        trainer = resume(upto=4, before=sgd, folder=f"rate {rate}", **sgd, learning_rate=rate, max_steps=5)
        after = trained_weights(trainer.model)
        trainer._weights.denoiser.load(trainer.args.folder / "checkpoint-4")
        before = trained_weights(trainer.model)
        steps.append(torch.cat([(after[name] - before[name]).flatten() for name in after]))
    assert steps[0].abs().max() > 0
    assert torch.allclose(10 * steps[1], steps[0], rtol=1e-2, atol=1e-6)


def test_a_schedule_follows_the_new_length(resume, finished, tmp_path):
    """Linear to 0 over 8 updates, then over 12: the rates of a run that had 12 from the start."""
    linear = {"lr_scheduler_type": "linear", "logging_strategy": "steps", "logging_steps": 1, "num_train_epochs": 2}
    trainer = resume(upto=4, before=linear, **{**linear, "num_train_epochs": 3})
    longer = RunFolder(finished(tmp_path / "longer", **{**linear, "num_train_epochs": 3}))
    rates, expected = (
        {log["step"]: log["learning_rate"] for log in logs if "learning_rate" in log}
        for logs in (trainer.state.log_history, longer.logs())
    )
    assert {step: rates[step] for step in range(5, 13)} == {step: expected[step] for step in range(5, 13)}
    assert rates[4] < expected[4]


def recorded(**options):
    return {"options": options}


def test_a_users_own_optimizer_keeps_its_values():
    group = {"params": [torch.nn.Parameter(torch.zeros(1))], "lr": 0.5, "weight_decay": 0.1}
    optimizer = torch.optim.AdamW([group], betas=(0.5, 0.6), eps=0.1)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
    apply_changes(
        optimizer,
        scheduler,
        recorded(),
        recorded(learning_rate=1.0, weight_decay=1.0, adam_beta1=0.1, adam_epsilon=1.0),
    )
    (group,) = optimizer.param_groups
    assert [group[key] for key in ("lr", "weight_decay", "betas", "eps")] == [0.5, 0.1, (0.5, 0.6), 0.1]


def test_a_schedule_that_knows_no_other_rate():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=3e-4)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer)
    apply_changes(optimizer, scheduler, recorded(), recorded())
    with pytest.raises(CheckpointError, match="was 0.0003 and is 0.1, which a ReduceLROnPlateau cannot take over"):
        apply_changes(optimizer, scheduler, recorded(), recorded(learning_rate=0.1))


def test_intervals_are_those_of_the_run_that_resumes(resume, tmp_path):
    every_second = {"save_steps": 2, "logging_strategy": "steps", "logging_steps": 4}
    trainer = resume(upto=4, before=every_second, save_steps=3, logging_strategy="steps", logging_steps=1)
    assert checkpoints(tmp_path / "run") == ["checkpoint-2", "checkpoint-4", "checkpoint-6", "checkpoint-8"]
    assert [log["step"] for log in logs_of(trainer, "loss")] == [4, 5, 6, 7, 8]


def test_options_that_are_changed_in_a_notebook(finished, make_trainer, tmp_path):
    finished(tmp_path / "run", 4)
    trainer = make_trainer()
    trainer.args.learning_rate, trainer.args.max_steps = 1e-3, 5
    trainer.train(resume_from_checkpoint=True)
    assert trainer.optimizer.param_groups[0]["lr"] == 1e-3
    assert RunFolder(tmp_path / "run").setups()[-1]["options"]["learning_rate"] == 1e-3


@pytest.mark.parametrize("algorithm", ["rwr", "ddpo_is"])
def test_without_a_memory_another_reward_is_nothing_to_say(resume, caplog, algorithm):
    options = {"algorithm": algorithm, "advantages": "batch", "per_device_train_batch_size": 4, "clip_range": 1e-2}
    resume(before={**options, "max_steps": 1}, reward=[redness, brightness], **options, max_steps=2)
    assert "baseline" not in caplog.text


# ---- what is refused ----

REFUSED = {
    "batch in a rollout": (6, {"per_device_train_batch_size": 2}, "updates_per_rollout=4, and this run has 2 .per_device_train_batch_size 1 -> 2."),
    "batch at its end": (4, {"per_device_train_batch_size": 2}, "updates_per_rollout=4, and this run has 2"),
    "accumulation": (6, {"gradient_accumulation_steps": 4}, "updates_per_rollout=4, and this run has 1 .gradient_accumulation_steps 1 -> 4."),
    "passes": (6, {"num_inner_epochs": 2}, "updates_per_rollout=4, and this run has 8 .num_inner_epochs 1 -> 2."),
    "passes for batches": (6, {"num_inner_epochs": 2, "per_device_train_batch_size": 2}, "training on a rollout with num_inner_epochs=1"),
    "images": (6, {"num_images_per_rollout": 8, "gradient_accumulation_steps": 2}, "training on a rollout of 4 images"),
    "seed": (6, {"seed": 7}, "training on a rollout with seed=42, and this run has 7"),
    "guidance": (6, {"guidance_scale": 2.0}, "training on a rollout with guidance_scale=1.0, and this run has 2.0"),
    "eta": (6, {"eta": 0.5}, "training on a rollout with eta=1.0, and this run has 0.5"),
    "denoising steps": (6, {"num_inference_steps": 3}, "training on a rollout with num_inference_steps=2, and this run has 3"),
    "the pipeline's arguments": (6, {"pipeline_kwargs": {"negative_prompt": "blurry"}}, "training on a rollout with pipeline_kwargs=None"),
    "optimizer": (4, {"optim": "sgd"}, "optim='.*', and this run has 'sgd'"),
    "schedule": (4, {"lr_scheduler_type": "linear"}, "lr_scheduler_type='constant', and this run has 'linear'"),
    "algorithm": (4, {"algorithm": "awm", "gradient_accumulation_steps": 4}, "algorithm='ddpo_is', and this run has 'awm'"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_go_on_is_refused(resume, tmp_path, name):
    upto, options, message = REFUSED[name]
    with pytest.raises(CheckpointError, match=f"checkpoint-{upto} .*{message}.*[Rr]esume with the"):
        resume(upto=upto, **options)
    assert checkpoints(tmp_path / "run") == [f"checkpoint-{step}" for step in range(1, upto + 1)]


@pytest.mark.parametrize(
    "name", [name for name, (upto, *_) in REFUSED.items() if upto == 6 and "batch" not in name][3:]
)
def test_at_the_end_of_a_rollout_it_goes_on(resume, name):
    """With the next rollout, which is sampled by the new options."""
    trainer = resume(upto=4, max_steps=5, **REFUSED[name][1])
    assert trainer.state.global_step == 5


def test_another_model_is_refused(finished, tiny_pipeline, tmp_path):
    finished(tmp_path / "run", 4)
    torch.manual_seed(1)
    with pytest.raises(CheckpointError, match="holds an adapter of another model.* Resume with the original model"):
        trainers.make_trainer(tiny_pipeline(), tmp_path / "run", **OPTIONS).train(resume_from_checkpoint=True)


@pytest.mark.full
def test_other_batches_of_the_same_updates_go_on(resume):
    """In the middle of a rollout: the next update trains on the same images."""
    whole = resume(upto=2, before={"per_device_train_batch_size": 2}, folder="whole", per_device_train_batch_size=2)
    parts = resume(upto=1, before={"per_device_train_batch_size": 2}, gradient_accumulation_steps=2)
    for name, value in trained_weights(whole.model).items():
        same = (trained_weights(parts.model)[name] - value).abs() < 2e-3
        assert same.float().mean() > 0.97, (
            name
        )  # Adam's first steps have a size but for gradients of 0, which rounding turns


def test_a_checkpoint_that_does_not_say_what_it_belongs_to(finished, make_trainer, tmp_path):
    finished(tmp_path / "older", 4)
    state = tmp_path / "older" / "checkpoint-4" / "ddpo_state_0.pt"
    content = torch.load(state)
    del content["setup"]
    torch.save(content, state)
    remove_manifest(state.parent)
    write_manifest(state.parent)
    with pytest.raises(CheckpointError, match="does not say which run it belongs to"):
        make_trainer("older").train(resume_from_checkpoint=True)


@pytest.mark.parametrize("option", ["ignore_data_skip", "save_only_model"])
def test_options_that_no_run_could_be_resumed_with(make_trainer, option):
    with pytest.raises(ConfigError, match=f"{option} is True, and DDPO cannot do that: .*Leave it out."):
        make_trainer(**{option: True})
