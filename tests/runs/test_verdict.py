"""What is said of runs whose evaluations are known: written into a folder, and read by the summary."""

import json

import numpy as np
import pytest

from trainer_ext.runs.folder import RunFolder
from trainer_ext.runs.manifest import MANIFEST
from trainer_ext.runs.measures.phases import never_trained
from trainer_ext.runs.measures.verdict import VerdictKind
from trainer_ext.runs.records import read_records, write_records
from trainer_ext.runs.summary import RunSummary

IMAGES = 40


def write_run(
    folder, *, trained, held_out=None, seed=0, checkpoints=(), more=(), updates=None, noise=0.3, images=IMAGES
):
    """
    Write the evaluations of a run whose mean rewards are `trained` and `held_out`, in standard deviations of their images.

    `more` are columns with a mean, or a value of each image, for each evaluation, without noise; its rewards are held out too.
    Prompts differ by one standard deviation, and each evaluation adds noise.
    """
    generator = np.random.default_rng(seed)
    prompts = generator.normal(size=(2, images))
    names = ["rewards/judge"] if held_out is not None else []
    names += [name for name in dict(more) if name.startswith("rewards/")]
    (folder / "run.json").write_text(
        json.dumps({"runs": [{"eval_rewards": {name.partition("/")[2]: {} for name in names}}]})
    )
    for index, mean in enumerate(trained):
        step = (updates or [8 * i for i in range(len(trained))])[index]
        columns = {"reward": mean + prompts[0] + noise * generator.normal(size=images)}
        if held_out is not None:
            columns["rewards/judge"] = held_out[index] + prompts[1] + noise * generator.normal(size=images)
        columns |= {name: np.full(images, values[index]) for name, values in dict(more).items()}
        records = [
            {
                "updates": step,
                "row": i,
                "seed": i,
                "prompt": f"prompt {i}",
                **{n: float(v[i]) for n, v in columns.items()},
            }
            for i in range(images)
        ]
        write_records(RunFolder(folder).evaluation_file("eval", step), records)
    for number in checkpoints:
        (folder / f"checkpoint-{number}").mkdir()
        (folder / f"checkpoint-{number}" / MANIFEST).touch()
    return RunSummary.of(RunFolder(folder))


RISING = [0.0, 0.5, 1.0, 1.5]
ALL = (8, 16, 24)


@pytest.mark.parametrize(
    ("run", "kind", "begins", "chosen", "since"),
    [
        (
            {"trained": RISING, "held_out": [0, 0.3, 0.6, 0.9]},
            "healthy",
            "Rising and healthy: the trained reward rose",
            24,
            None,
        ),
        ({"trained": RISING, "held_out": [0, 0.0, 0.0, 0.1]}, "healthy", "Rising and healthy", 24, None),
        # below the model before training from the start, or after a peak, or only below the peak
        (
            {"trained": RISING, "held_out": [0, -0.4, -0.8, -1.2]},
            "over-optimised",
            "Over-optimised since update 8: ",
            0,
            8,
        ),
        (
            {"trained": RISING, "held_out": [0, 0.6, -0.2, -1]},
            "over-optimised",
            "Over-optimised since update 16: ",
            8,
            16,
        ),
        (
            {"trained": RISING, "held_out": [0, 1.5, 1.2, 0.8]},
            "over-optimised",
            "Over-optimised since update 16: ",
            8,
            16,
        ),
        # the held-out reward rises, but pictures show what they should not
        (
            {"trained": RISING, "held_out": [0, 0.5, 0.9, 1.2], "more": {"detectors/text": [0.0, 0.05, 0.4, 0.7]}},
            "over-optimised",
            "Over-optimised since update 16: the detector text is surer (0 -> 0.7",
            8,
            16,
        ),
        (
            {"trained": RISING, "held_out": [0, 0.5, 0.9, 1.2], "more": {"diversity": [0.8, 0.6, 0.3, 0.2]}},
            "over-optimised",
            "Over-optimised since update 16: 100% of the prompts have less than half of the diversity",
            8,
            16,
        ),
        (
            {"trained": [0, 0, 0, 0], "held_out": [0, 0, 0, 0], "noise": 0},
            "not learning",
            "Not learning: the trained reward did",
            None,
            None,
        ),
        (
            {"trained": [0, -0.3, -0.6, -1], "held_out": [0, 0, 0, 0]},
            "not learning",
            "Not learning: the trained reward fell",
            None,
            None,
        ),
    ],
    ids=lambda value: str(value)[:50],
)
def test_verdicts(tmp_path, run, kind, begins, chosen, since):
    summary = write_run(tmp_path, **run, checkpoints=ALL)
    verdict = summary.verdict
    assert (verdict.kind.value, verdict.chosen, verdict.since_update) == (kind, chosen, since)
    assert str(verdict).startswith(begins)
    assert summary.chosen_checkpoint == (tmp_path / f"checkpoint-{chosen}" if chosen else None)
    if chosen:
        assert f"Use checkpoint-{chosen}." in str(verdict)
    assert verdict.rule.endswith(".")
    assert all(isinstance(value, float) for value in verdict.numbers.values())


@pytest.mark.parametrize(
    ("run", "said"),
    [
        ({"trained": RISING}, "Not judged: no held-out reward ran. Add --eval_reward_funcs"),
        ({"trained": [0.0], "held_out": [0.0]}, "no evaluation ran after the training began"),
        (
            {"trained": [1, 2], "held_out": [0, 1], "updates": [8, 16]},
            "no evaluation of the model before training. Resume",
        ),
        (
            {"trained": [0, 9], "held_out": [0, -0.05], "noise": 2.0},
            "the change of the held-out rewards (judge) is uncertain: -",
        ),
        ({"trained": [0, 1], "held_out": [0, float("nan")]}, "too few rewards"),
    ],
    ids=str,
)
def test_without_evidence_nothing_is_called_healthy(tmp_path, run, said):
    summary = write_run(tmp_path, **run, checkpoints=ALL)
    assert summary.verdict.kind == VerdictKind.NOT_JUDGED
    assert said in str(summary.verdict)
    assert str(summary.verdict).startswith("Not judged: ")
    assert summary.chosen_checkpoint is None


def test_a_run_that_was_never_evaluated_says_what_to_add(tmp_path):
    write_records(RunFolder(tmp_path).rollout_file(0), [{"reward": 1.0}])
    verdict = RunSummary.of(RunFolder(tmp_path)).verdict
    assert str(verdict).startswith(
        "Not judged: no evaluation ran. Add --eval_strategy epoch, --eval_prompts and --eval_reward_funcs"
    )


@pytest.mark.parametrize(
    ("checkpoints", "said", "chosen"),
    [
        ((8, 24), "Use checkpoint-8.", 8),
        ((16, 24), "The best evaluation is that after 8 updates, whose checkpoint is not kept", None),
        ((), "The best evaluation is that after 8 updates", None),
    ],
)
def test_the_checkpoint_is_one_of_those_that_are_kept(tmp_path, checkpoints, said, chosen):
    """16 and 24 are past the peak of the held-out rewards."""
    summary = write_run(tmp_path, trained=RISING, held_out=[0, 0.6, -0.2, -1], checkpoints=checkpoints)
    assert said in str(summary.verdict)
    assert summary.verdict.chosen == chosen


def test_the_saved_weights_are_the_last_where_there_is_no_checkpoint(tmp_path):
    (tmp_path / "pytorch_lora_weights.safetensors").touch()
    summary = write_run(tmp_path, trained=RISING, held_out=[0, 0.3, 0.6, 0.9])
    assert "Use the saved weights." in str(summary.verdict)
    assert (summary.verdict.chosen, summary.chosen_checkpoint) == (24, tmp_path)


def test_drift_of_the_pictures_is_said(tmp_path):
    drifting = {"pixels/darkness": [0.1, 0.3, 0.5, 0.9], "pixels/edges": [0.1, 0.2, 0.1, 0.2]}
    summary = write_run(tmp_path, trained=RISING, held_out=RISING, more=drifting)
    assert str(summary.verdict).endswith("The pictures have drifted, in darkness: look at them.")


@pytest.mark.parametrize("noise", [0.3, pytest.param(1.0, marks=pytest.mark.full)])
def test_noise_alone_is_no_over_optimisation(tmp_path, noise):
    """Ten runs of eleven evaluations, in which the held-out reward stays: none is called over-optimised."""
    kinds = []
    for seed in range(10):
        (tmp_path / str(seed)).mkdir()
        means = {"trained": np.linspace(0, 2, 11), "held_out": np.zeros(11)}
        kinds.append(write_run(tmp_path / str(seed), **means, seed=seed, noise=noise).verdict.kind)
    assert VerdictKind.OVER_OPTIMISED not in kinds
    assert VerdictKind.NOT_LEARNING not in kinds


# ---- runs that were resumed with other options ----

SETUP = {
    "rewards": {"trained": {"version": "1", "weight": 1.0}, "other": {"weight": 0.5}},
    "detectors": {"text": {"weight": 0.0}},
    "eval_rewards": {"judge": {"version": "1"}},
    "eval_prompts": {"eval": {}},
    "options": {"seed": 1},
}


def resumed(folder, **changes):
    """The summary of a healthy run of which the last third had other options."""
    write_run(folder, trained=RISING, held_out=RISING, checkpoints=ALL)
    runs = [{"from_update": 0, **SETUP}, {"from_update": 16, **SETUP, **changes}]
    (folder / "run.json").write_text(json.dumps({"runs": runs}))
    return RunSummary.of(RunFolder(folder))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"rewards": {"another": {"weight": 1.0}}}, "the reward"),
        ({"rewards": {**SETUP["rewards"], "other": {"weight": 2.0}}}, "the reward"),
        ({"rewards": {**SETUP["rewards"], "trained": {"version": "2", "weight": 1.0}}}, "the reward"),
        ({"detectors": {"text": {"weight": 1.0}}}, "the reward"),
        ({"detectors": {"text": {"weight": 0.0, "version": "2"}}}, "the detector text"),
        ({"eval_rewards": {"judge": {"version": "2"}}}, "the held-out reward judge"),
        ({"options": {"seed": 1, "num_inference_steps": 4}}, "num_inference_steps"),
    ],
    ids=str,
)
def test_what_changed_on_resume_cannot_be_compared(tmp_path, changes, said):
    summary = resumed(tmp_path, **changes)
    assert summary.verdict.kind == VerdictKind.NOT_JUDGED
    assert str(summary.verdict).startswith(f"Not judged: {said} changed at update 16")
    assert summary.chosen_checkpoint is None


@pytest.mark.parametrize("changes", [{}, {"options": {"learning_rate": 1.0}}, {"detectors": {}}], ids=str)
def test_other_changes_are_judged(tmp_path, changes):
    assert resumed(tmp_path, **changes).verdict.kind == VerdictKind.HEALTHY


def test_a_reward_that_was_trained_on_is_not_held_out(tmp_path):
    summary = resumed(tmp_path, rewards={"judge": {}}, eval_rewards={"trained": {}, "judge": {}})
    assert summary.held_out.keys() <= {"rewards/judge"}
    assert never_trained([SETUP, {"eval_rewards": {"other": {}, "judge": {}}}]) == ["rewards/judge"]


def test_only_the_datasets_of_the_last_setup_are_judged(tmp_path):
    """The other one has no evaluation at the moments at which this one was evaluated."""
    write_run(tmp_path, trained=[0.0], held_out=[0.0])
    (tmp_path / "evaluations" / "eval").rename(tmp_path / "evaluations" / "before")
    assert resumed(tmp_path).verdict.kind == VerdictKind.HEALTHY


def test_without_the_model_before_training_on_other_prompts(tmp_path):
    resumed(tmp_path)
    file = RunFolder(tmp_path).evaluation_file("eval", 24)
    records = [{**record, "prompt": "another"} for record in read_records(file).to_pylist()]
    write_records(file, records)
    verdict = RunSummary.of(RunFolder(tmp_path)).verdict
    assert str(verdict).startswith("Not judged: the evaluated prompts changed, and the model before training was not")


def test_without_the_model_before_training_by_other_held_out_rewards(tmp_path):
    summary = resumed(tmp_path, eval_rewards={"new": {}})
    assert summary.verdict.kind == VerdictKind.NOT_JUDGED
    file = RunFolder(tmp_path).evaluation_file("eval", 24)
    write_records(file, [{**record, "rewards/new": 1.0} for record in read_records(file).to_pylist()])
    verdict = RunSummary.of(RunFolder(tmp_path)).verdict
    assert str(verdict).startswith("Not judged: the held-out rewards changed")


def test_several_datasets_are_judged_together(tmp_path):
    write_run(tmp_path, trained=RISING, held_out=RISING)
    (tmp_path / "evaluations" / "eval").rename(tmp_path / "evaluations" / "seen")
    write_run(tmp_path, trained=RISING, held_out=[0, -2, -4, -6], seed=1)
    (tmp_path / "evaluations" / "eval").rename(tmp_path / "evaluations" / "unseen")
    summary = RunSummary.of(RunFolder(tmp_path))
    assert summary.held_out["rewards/judge"].n == 2 * IMAGES == summary.verdict.numbers["images"]
    assert summary.verdict.kind == VerdictKind.OVER_OPTIMISED


def test_a_checkpoint_of_an_abandoned_branch_is_not_recommended(tmp_path):
    """The run went back to update 8 and wrote checkpoint-16 again, but none after update 24: that one is of the other branch."""
    options = {"trained": RISING, "held_out": RISING, "noise": 0.01, "checkpoints": ALL}
    assert write_run(tmp_path, **options).verdict.chosen == 24
    for order, updates in enumerate((8, 24, 16)):
        (tmp_path / f"checkpoint-{updates}" / MANIFEST).write_text(json.dumps({"order": order, "files": {}}))
    verdict = RunSummary.of(RunFolder(tmp_path)).verdict
    assert verdict.chosen == 16
    assert "Use checkpoint-16: the best evaluation is that after 24 updates, whose checkpoint is not kept" in str(
        verdict
    )


SPREAD = np.random.default_rng(9).normal(size=IMAGES)
SPREAD = (SPREAD - SPREAD.mean()) / SPREAD.std()
HALF = np.arange(IMAGES) < IMAGES // 2
MISSING = np.nan


def other(*means):
    """A second held-out reward, with a mean for each evaluation in standard deviations of the base's images."""
    return [mean + SPREAD for mean in means]


def test_a_detector_that_skips_images_is_compared_on_the_same_ones(tmp_path):
    """The images it judges at the end rose by 0.3; the mean over all that it judged before did not."""
    before, after = np.where(HALF, 0.1, 0.9), np.where(HALF, 0.4, MISSING)
    detections = {"detectors/text": [before, before, after, after]}
    verdict = write_run(tmp_path, trained=RISING, held_out=RISING, more=detections, checkpoints=ALL).verdict
    assert (verdict.kind, verdict.since_update, verdict.chosen) == (VerdictKind.OVER_OPTIMISED, 16, 8)


def test_images_without_a_held_out_reward_move_neither_its_peak_nor_the_choice(tmp_path):
    """In the second evaluation the better half alone has one: it is no better than before training."""
    unknown = [SPREAD, np.where(SPREAD > 0, SPREAD, MISSING), 0.3 + SPREAD, 0.3 + SPREAD]
    verdict = write_run(tmp_path, trained=RISING, more={"rewards/other": unknown}, checkpoints=ALL).verdict
    assert (verdict.kind, verdict.chosen) == (VerdictKind.HEALTHY, 16)


@pytest.mark.parametrize("images", [2, 9])
def test_few_images_are_no_evidence(tmp_path, images):
    verdict = write_run(tmp_path, trained=RISING, held_out=RISING, noise=0.01, images=images).verdict
    assert verdict.kind == VerdictKind.NOT_JUDGED
    assert f"{images} of {images} have the trained reward" in verdict.sentence
    assert "and 10 are needed. Evaluate more prompts (--eval_prompts)" in verdict.sentence


@pytest.mark.parametrize(
    ("share", "said"),
    [
        (0.45, "18 of 40 have a held-out reward before training and in the last evaluation, and 20 are needed"),
        (0.5, ""),
    ],
)
def test_most_images_must_have_a_reward(tmp_path, share, said):
    there = np.arange(IMAGES) < share * IMAGES
    lost = {"rewards/other": [SPREAD, SPREAD, np.where(there, 1 + SPREAD, MISSING)]}
    verdict = write_run(tmp_path, trained=RISING[:3], more=lost, checkpoints=ALL).verdict
    assert verdict.kind == (VerdictKind.NOT_JUDGED if said else VerdictKind.HEALTHY)
    assert said in verdict.sentence


def test_one_of_the_held_out_rewards_must_not_be_lost(tmp_path):
    """One that judges some prompts only is no less evidence."""
    some, fewer = np.where(HALF, SPREAD, MISSING), np.where(np.arange(IMAGES) < 8, SPREAD, MISSING)
    (tmp_path / "lost").mkdir()
    lost = write_run(tmp_path / "lost", trained=RISING[:2], held_out=[0, 1], more={"rewards/other": [some, fewer]})
    assert "of 20 with the held-out reward other only 8 have it" in lost.verdict.sentence
    (tmp_path / "kept").mkdir()
    kept = write_run(tmp_path / "kept", trained=RISING[:2], held_out=[0, 1], more={"rewards/other": [some, some]})
    assert kept.verdict.kind == VerdictKind.HEALTHY


def test_a_held_out_reward_that_falls_while_another_rises(tmp_path):
    means = {"held_out": [0, 0.2, 1.2, 2.2], "more": {"rewards/other": other(0, 0, -1, -2)}}
    verdict = write_run(tmp_path, trained=RISING, **means, checkpoints=ALL).verdict
    assert (verdict.kind, verdict.since_update, verdict.chosen) == (VerdictKind.OVER_OPTIMISED, 16, 8)
    assert "the held-out reward other fell (change since update 0: -2.00" in verdict.sentence
    assert verdict.numbers["change of the held-out reward other, in standard deviations"] == pytest.approx(-2)


def test_a_small_fall_is_called_one(tmp_path):
    """From -0.4 to -0.05, say: certain, but not whether by a quarter."""
    fallen = SPREAD - 0.2 + 0.5 * np.roll(SPREAD, 1)
    verdict = write_run(tmp_path, trained=RISING[:2], more={"rewards/other": [SPREAD, fallen]}).verdict
    assert verdict.kind == VerdictKind.NOT_JUDGED
    assert "fell, but whether by a quarter of a standard deviation is uncertain: -0.20" in verdict.sentence
    assert verdict.rule.endswith("is below 0 and contains -0.25 standard deviations.")


@pytest.mark.parametrize(("rise", "kind"), [(0.19, VerdictKind.HEALTHY), (0.21, VerdictKind.OVER_OPTIMISED)])
def test_a_detector_alarms_from_a_fifth_of_the_images_on(tmp_path, rise, kind):
    run = {"trained": [0, 1], "held_out": [0, 1], "more": {"detectors/text": [0.1, 0.1 + rise]}}
    assert write_run(tmp_path, **run).verdict.kind is kind


@pytest.mark.parametrize(
    ("run", "said"),
    [
        (
            {"trained": [0, -1], "held_out": [0, -1]},
            "Meanwhile, the held-out rewards (judge) fell (change since update 0: -",
        ),
        ({"trained": [0, 0], "held_out": [0, 0], "more": {"detectors/text": [0, 0.5]}}, "the detector text is surer"),
        (
            {"trained": [0, 0], "held_out": [0, 0], "noise": 3.0, "seed": 3},
            "a rise of the trained reward is not shown: ",
        ),
    ],
    ids=["held-out", "detector", "wide"],
)
def test_a_run_that_does_not_learn_may_do_damage(tmp_path, run, said):
    verdict = write_run(tmp_path, **run).verdict
    assert verdict.kind == VerdictKind.NOT_LEARNING
    assert said in verdict.sentence
