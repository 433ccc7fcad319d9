"""What evaluations leave in the run's folder: records, pictures and the model before training."""

import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from support.divergence import divergences
from support.trainers import (
    FOUR_ANIMALS,
    assert_same,
    brightness,
    checkpoints,
    logs_of,
    prompts,
    redness,
    trained_weights,
)

from ddpo_plugins.errors import RewardError
from trainer_ext.errors import ConfigError
from trainer_ext.monitoring.divergence import MAX_IMAGES, DivergenceMeter
from trainer_ext.runs.folder import RunFolder
from trainer_ext.runs.measures import evaluation_figures
from trainer_ext.runs.summary import RunSummary

UNSEEN = prompts("a wolf", "two wolves", "a fox")


def greenness(images, prompts, log_extra, **columns):
    """Says what it saw, like a detector of text."""
    log_extra("saw", [f"a picture of {prompt}" for prompt in prompts])
    return [float(np.asarray(image)[..., 1].mean()) for image in images]


def sure(images, prompts, **columns):
    return [0.25 + 0.25 * index for index in range(len(images))]


OPTIONS = {
    "eval_dataset": UNSEEN,
    "eval_strategy": "epoch",
    "eval_reward_funcs": [redness, greenness],
    "detectors": sure,
    "eval_images_per_prompt": 2,
    "num_train_epochs": 2,
    "learning_rate": 1e-2,
    "clip_range": 1e-2,
    "num_images_per_rollout": 8,
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory, tiny_pipeline):
    """A trainer after two rollouts of two updates, with an evaluation before and after each."""
    from support.trainers import make_trainer

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("evaluated") / "run"
    saving = {"save_strategy": "steps", "save_steps": 2}
    trainer = make_trainer(tiny_pipeline(), folder, dataset=FOUR_ANIMALS, **OPTIONS, **saving)
    trainer.train()
    return trainer


@pytest.fixture
def evaluations(trained):
    (found,) = RunFolder(trained.args.folder).evaluations().values()
    return found


def test_there_is_one_before_training_and_one_of_each_rollout(trained, evaluations):
    assert list(RunFolder(trained.args.folder).evaluations()) == ["eval"]
    assert [evaluation.updates for evaluation in evaluations] == [0, 2, 4]
    assert [log["step"] for log in logs_of(trained, "eval_reward")] == [0, 2, 4]


def test_their_seconds_are_logged_with_the_next_training(trained):
    times = [log["seconds/evaluation"] for log in trained.state.log_history if "seconds/evaluation" in log]
    trainings = [log for log in trained.state.log_history if "loss" in log]
    assert len(times) == len(trainings)  # the first is that before training
    assert min(times) > 0


def test_records_and_pictures(evaluations):
    """In the order of rows, though batches of four hold one and a half prompts."""
    for evaluation in evaluations:
        places = [(r["row"], r["seed"], r["prompt"], r["updates"], r["rollouts"]) for r in evaluation.records]
        moment = (evaluation.updates, evaluation.updates / 2)
        assert places == [
            (row, row + 3 * image, prompt, *moment) for row, prompt in enumerate(UNSEEN["prompt"]) for image in (0, 1)
        ]
        assert [file.name for file in evaluation.files] == [f"{number:05d}.webp" for number in range(6)]
        for record, file in zip(evaluation.records, evaluation.files, strict=True):
            with Image.open(file) as picture:
                assert picture.size == (32, 32)
                assert brightness([picture], None)[0] == pytest.approx(record["reward"], abs=8), "lossy"
            assert record["reward"] == record["rewards/brightness"]
            assert record["saw"] == f"a picture of {record['prompt']}"
            assert {"rewards/redness", "rewards/greenness", "detectors/sure", "diversity"} <= record.keys()


def test_images_are_those_of_their_seeds(trained, evaluations):
    last = evaluations[-1].records
    generators = [torch.Generator().manual_seed(record["seed"]) for record in last]
    images = trained.policy.sample([r["prompt"] for r in last], generators, denoiser=trained.model).images.numpy()
    assert [record["reward"] for record in last] == pytest.approx(brightness(images, None), rel=1e-4)
    assert [record["rewards/redness"] for record in last] == pytest.approx(redness(images, None), rel=1e-4)


def test_metrics_are_the_figures_of_the_records(trained, evaluations):
    base = evaluations[0].records
    for log, evaluation in zip(logs_of(trained, "eval_reward"), evaluations, strict=True):
        figures = evaluation_figures(evaluation.records, base, ["rewards/redness", "rewards/greenness"])
        assert {
            "gold",
            "disagreement",
            "kl",
            "diversity",
            "diversity_min",
            "collapsed",
            "pixels/edges",
        } <= figures.keys()
        logged = {name.removeprefix("eval_"): value for name, value in log.items() if name.startswith("eval_")}
        assert logged == figures
    first, *_, last = logs_of(trained, "eval_reward")
    zero_before_training = ("eval_gold", "eval_disagreement", "eval_kl", "eval_collapsed")
    assert [first[name] for name in zero_before_training] == pytest.approx([0, 0, 0, 0])
    assert last["eval_kl"] > 0
    assert last["eval_gold"] != 0


def test_the_divergence_is_that_of_the_gaussians(trained, evaluations):
    """By hand: of each image that of one of its two steps, twice; together they have both."""
    found = set()
    for record in evaluations[-1].records:
        values = [2 * value for value in divergences(trained, record)]
        (step,) = [step for step in range(2) if record["kl"] == pytest.approx(values[step], rel=1e-3)]
        found.add(step)
    assert found == {0, 1}


def test_few_images_are_measured_and_take_turns(make_trainer):
    """
    Of 40 images 32, each at one of five steps: together as often at each step. One image of a prompt has no diversity; and outside
    of training nothing is written, for the weights might not be those that the file's name says.
    """
    trainer = make_trainer(num_inference_steps=5, eval_dataset=prompts(*["a cat"] * 40), rollout_batch_size=8)
    seen = []
    predict = trainer.policy.predict

    def watched(conditioning, latents, rows, steps, denoiser=None):
        seen.append(steps)
        return predict(conditioning, latents, rows, steps, denoiser)

    trainer.policy.predict = watched
    metrics = trainer.evaluate()
    counts = torch.cat(seen).bincount(minlength=5)
    assert int(counts.sum()) == MAX_IMAGES
    assert int(counts.max() - counts.min()) <= 1
    assert metrics["eval_kl"] == 0
    assert not {"eval_diversity", "eval_diversity_min", "eval_collapsed"} & metrics.keys()
    assert not RunFolder(trainer.args.folder).evaluation_folder.exists()


def test_one_image_is_measured_at_the_next_step_in_each_evaluation(make_trainer, monkeypatch):
    measured, at = [], DivergenceMeter._at
    monkeypatch.setattr(DivergenceMeter, "_at", lambda *given: measured.extend(given[-1].tolist()) or at(*given))
    trainer = make_trainer(eval_dataset=prompts("a cat"), eval_strategy="epoch", num_train_epochs=2)
    trainer.train()
    assert measured == [0, 1, 0]
    trainer.evaluate()
    assert measured[3:] == [0], "the same weights are measured alike"


def test_without_the_model_before_training_there_is_no_divergence(make_trainer):
    options = {"eval_strategy": "epoch", "eval_reward_funcs": redness, "full_finetuning": True}
    trainer = make_trainer(eval_dataset=UNSEEN, **options)
    trainer.train()
    _, last = logs_of(trainer, "eval_reward")
    assert "eval_kl" not in last
    assert "eval_gold" in last


def test_it_changes_nothing_for_the_training(make_trainer):
    """Also where a reward draws random numbers."""

    def noisy(images, prompts, **columns):
        return [value + float(np.random.normal()) for value in brightness(images, prompts)]

    def rewards(folder, **options):
        trainer = make_trainer(folder, num_train_epochs=2, learning_rate=1e-2, reward=noisy, **options)
        trainer.train()
        return trainer.summary, RunFolder(trainer.args.folder).rewards()[1].tolist()

    evaluated, with_evaluations = rewards(
        "evaluated", eval_dataset=UNSEEN, eval_strategy="epoch", eval_reward_funcs=redness
    )
    without, without_evaluations = rewards("without")
    assert with_evaluations == without_evaluations
    assert list(evaluated.held_out) == ["rewards/redness"]
    assert without.held_out == without.detections == {}


# ---- resuming ----


def resumed(make_trainer, trained, folder, **options):
    trainer = make_trainer(folder, dataset=FOUR_ANIMALS, **{**OPTIONS, **options})
    trainer.train(resume_from_checkpoint=str(trained.args.folder / "checkpoint-2"))
    return trainer


def test_in_the_same_folder_the_base_is_not_made_again(make_trainer, trained, tmp_path, evaluations):
    shutil.copytree(trained.args.folder, tmp_path / "again")
    file = RunFolder(tmp_path / "again").evaluation_file("eval", 0)
    before = file.stat().st_mtime_ns
    trainer = resumed(make_trainer, trained, "again")
    assert file.stat().st_mtime_ns == before
    assert logs_of(trainer, "eval_reward") == logs_of(trained, "eval_reward")
    (again,) = RunFolder(tmp_path / "again").evaluations().values()
    assert [each.records for each in again] == [each.records for each in evaluations]


def test_in_another_folder_it_is_made_with_the_adapter_off(make_trainer, trained, tmp_path, evaluations):
    trainer = resumed(make_trainer, trained, "elsewhere")
    (found,) = RunFolder(tmp_path / "elsewhere").evaluations().values()
    assert [each.updates for each in found] == [0, 4]
    assert found[0].records == evaluations[0].records
    assert found[1].records == evaluations[2].records
    assert logs_of(trainer, "eval_reward")[-1] == logs_of(trained, "eval_reward")[-1]


def test_evaluations_of_a_run_that_never_wrote_a_checkpoint_are_removed(make_trainer, trained, tmp_path):
    shutil.copytree(RunFolder(trained.args.folder).evaluation_folder, tmp_path / "run" / "evaluations")
    trainer = make_trainer(eval_dataset=UNSEEN, eval_strategy="epoch")
    trainer.train()
    (found,) = RunFolder(trainer.args.folder).evaluations().values()
    assert [len(each.records) for each in found] == [3, 3]
    assert [each.updates for each in found] == [0, 1]


def test_with_other_prompts_and_rewards_the_base_is_made_again(make_trainer, trained, tmp_path):
    """Also where some of the rewards and the rows' numbers are the same."""

    def blueness(images, prompts, **columns):
        return [float(np.asarray(image)[..., 2].mean()) for image in images]

    shutil.copytree(trained.args.folder, tmp_path / "again")
    others = {"eval_dataset": prompts("a wolf", "a hare", "a fox"), "eval_reward_funcs": [redness, blueness]}
    trainer = resumed(make_trainer, trained, "again", **others)
    (found,) = RunFolder(tmp_path / "again").evaluations().values()
    before, _, after = found
    assert [record["prompt"] for record in before.records] == [record["prompt"] for record in after.records]
    summary = trainer.summary
    assert {name: figure.n for name, figure in summary.held_out.items()} == {
        "rewards/redness": 6,
        "rewards/blueness": 6,
    }
    assert logs_of(trainer, "eval_reward")[-1]["eval_gold"] != 0
    assert "changed" not in str(summary.verdict)


def test_with_another_held_out_reward_the_base_is_judged_by_it(make_trainer, trained, tmp_path):
    def blueness(images, prompts, **columns):
        return [float(np.asarray(image)[..., 2].mean()) for image in images]

    shutil.copytree(trained.args.folder, tmp_path / "again")
    trainer = resumed(make_trainer, trained, "again", eval_reward_funcs=blueness)
    assert trainer.summary.held_out["rewards/blueness"].n == 6


def test_in_another_folder_a_reward_that_was_trained_on_is_not_held_out(make_trainer, trained):
    trainer = resumed(make_trainer, trained, "elsewhere", reward=redness, eval_reward_funcs=brightness)
    assert trainer.summary.held_out == {}
    assert str(trainer.summary.verdict).startswith("Not judged: the reward changed at update 2")


def test_what_an_abandoned_branch_left_is_removed(make_trainer, trained, tmp_path):
    shutil.copytree(trained.args.folder, tmp_path / "again")
    folder = RunFolder(tmp_path / "again")
    assert folder.evaluation_file("eval", 4).is_file()
    assert folder.step_file(4).is_file()
    resumed(make_trainer, trained, "again", max_steps=3, eval_strategy="steps", eval_steps=1)
    (found,) = folder.evaluations().values()
    assert [each.updates for each in found] == [0, 2, 3]
    assert not folder.evaluation_pictures("eval", 4).exists()
    assert not folder.step_file(4).exists()


# ---- evaluations that fail ----


def test_a_reward_that_fails_after_an_update_leaves_a_checkpoint(make_trainer, tmp_path):
    calls = []

    def failing(images, prompts, **columns):
        calls.append(1)
        if len(calls) > 2:
            raise ValueError("the judge is gone")
        return redness(images, prompts)

    options = {"eval_dataset": UNSEEN, "eval_strategy": "epoch", "num_train_epochs": 2, "learning_rate": 1e-2}
    trainer = make_trainer(eval_reward_funcs=failing, **options)
    with pytest.raises(RewardError, match="the judge is gone"):
        trainer.train()
    assert checkpoints(trainer.args.folder) == ["checkpoint-1"]
    again, whole = (
        make_trainer(folder, eval_reward_funcs=redness, **options) for folder in (trainer.args.folder, "whole")
    )
    again.train(resume_from_checkpoint=True)
    whole.train()
    assert_same(trained_weights(again.model), trained_weights(whole.model))
    losses = [[log["loss"] for log in each.state.log_history if "loss" in log] for each in (again, whole)]
    assert losses[0] == losses[1]


@pytest.mark.parametrize(
    "needing",
    [
        {"stop_when": ["eval_gold<-1"]},
        {"load_best_model_at_end": True, "metric_for_best_model": "eval_gold", "save_strategy": "epoch"},
    ],
    ids=str,
)
def test_a_metric_that_is_nan_stops_what_needs_it(make_trainer, needing):
    """Before anything is trained: no held-out reward tells the images of the model before training apart."""

    def constant(images, prompts, **columns):
        return [1.0] * len(images)

    trainer = make_trainer(eval_dataset=UNSEEN, eval_strategy="epoch", eval_reward_funcs=constant, **needing)
    with pytest.raises(ConfigError, match="needs 'eval_gold', which cannot be measured: it is NaN"):
        trainer.train()
    assert trainer.state.global_step == 0


# ---- several datasets, and the summary ----


def test_datasets_with_any_name(make_trainer):
    datasets = {"/tmp/my prompts.txt": UNSEEN, "..": FOUR_ANIMALS.select([0])}
    trainer = make_trainer(eval_dataset=datasets, eval_strategy="epoch", eval_reward_funcs=redness)
    trainer.train()
    folder = RunFolder(trainer.args.folder)
    found = folder.evaluations()
    assert {name: len(evaluations[-1].records) for name, evaluations in found.items()} == {
        "/tmp/my prompts.txt": 3,
        "..": 1,
    }
    assert {file.parent for file in folder.evaluation_folder.glob("*")} == {folder.evaluation_folder}
    summary = RunSummary.of(folder)
    assert summary.held_out["rewards/redness"].n == 4
    assert {name: list(figures) for name, figures in summary.generalisation.items()} == {
        name: ["reward", "rewards/redness"] for name in found
    }
    assert {name: figures["reward"].n for name, figures in summary.generalisation.items()} == {
        "/tmp/my prompts.txt": 3,
        "..": 1,
    }


def test_the_summary_has_held_out_rewards_and_detectors(trained, evaluations):
    summary = trained.summary
    assert list(summary.held_out) == ["rewards/redness", "rewards/greenness"]
    assert list(summary.detections) == ["detectors/sure"]
    assert summary.generalisation == {}, "one dataset"
    figure = summary.held_out["rewards/redness"]
    before, after = (np.array([r["rewards/redness"] for r in evaluations[i].records]) for i in (0, -1))
    assert (figure.before, figure.after, figure.n) == (before.mean(), after.mean(), 6)
    assert figure.low < figure.difference < figure.high
    detection = summary.detections["detectors/sure"]
    assert (detection.before, detection.difference, detection.low) == (pytest.approx(detection.after), 0, 0)
