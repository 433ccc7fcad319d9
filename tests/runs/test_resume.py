"""
A run that is stopped anywhere and resumed ends with the same files and the same state, bit for bit, as one that is not.

Everything is compared: weights, optimizer, schedule, random generators, remembered rewards, logs, records, pictures. Only
measured seconds may differ, and the mean loss of the whole run, which `Trainer` counts from the last start.
"""

import itertools
import re
import shutil
import signal

import pytest
import torch
from safetensors.torch import load_file
from support.trainers import assert_same, differ

from trainer_ext.file_names import LORA_FILE
from trainer_ext.runs.equality import checkpoint_differences, differences, whole_checkpoints
from trainer_ext.runs.manifest import remove_manifest, write_manifest

KINDS = {
    "several passes, pictures": {
        "num_inner_epochs": 2,
        "per_device_train_batch_size": 2,
        "rows_per_forward": 3,  # of the 4 pairs of a batch
        "num_sample_images": 1,
        "sample_every": 1,
        "keep_images": 0.5,
        "save_total_limit": 2,
    },
    "sparse RWR, images kept": {
        "algorithm": "sparse_rwr",
        "rwr_quantile": 0.5,
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 1,
        "rows_per_forward": 1,
        "num_train_epochs": 3,
        "save_total_limit": 1,
        "keep_images": 0.5,
    },
    "average, evaluation, global generators": {
        "ema_decay": 0.9,
        "reward": "noisy",
        "evaluate": True,
        "eval_strategy": "epoch",
        "metric_for_best_model": "reward",
        "lr_scheduler_type": "linear",
        "num_sample_images": 1,
        "save_total_limit": 1,
    },
}

FUSED = {
    "fused": True,
    "rollout_batch_size": 1,
    "num_images_per_prompt": 1,
    "gradient_accumulation_steps": 4,
    "save_strategy": "no",  # there is none but what a stop leaves
}

CHECK = "trainer_ext.loop.lockstep.Lockstep.check"  # after each denoising step, and before each step's gradient
LOSS = "trainer_ext.learning.update.GradientAccumulator.loss"
SCORE = "trainer_ext.scoring.suite.RewardSuite.score"
COLLECT = "trainer_ext.rollouts.collector.sample_and_score"
ACCUMULATE = "trainer_ext.learning.update.GradientAccumulator.accumulate"
READY = "trainer_ext.learning.update.add_gradient"
REWARD = "__main__.inside_reward"
RECORDS = "trainer_ext.rollouts.collector.write_records"
FLOW = "trainer_ext.loop.epochs.EpochOnLastUpdate.on_step_end"
AVERAGE = "trainer_ext.model.ema.MovingAverage.on_step_end"
EVALUATE = "trainer_ext.monitoring.evaluation.Evaluator.evaluate"
SAVE = "trainer_ext.trainer.DDPOTrainer._save_checkpoint"
MANIFEST = "trainer_ext.runs.checkpointer.write_manifest"
REMOVE = "trainer_ext.runs.checkpointer.prune"
DRAW = "trainer_ext.monitoring.snapshots.SampleCallback._draw"
SHEET = "trainer_ext.runs.pictures.sheets.draw_sheet"
COMPARISON = "trainer_ext.monitoring.snapshots.draw_sheet"
PICTURES = "trainer_ext.runs.pictures.sheets.to_pil"  # for the sheet, then for the single ones
END = "trainer_ext.monitoring.snapshots.SampleCallback.on_train_end"
FINAL = "trainer_ext.model.denoiser.TrainedDenoiser.save"

# One after the other in the same run, each in the process that resumes after the one before.
STOPS = {
    "in the second batch of a rollout": {"at": CHECK, "call": 3},
    "between denoising and reward": {"at": SCORE, "within": COLLECT},
    "in a reward": {"at": REWARD, "call": 2, "within": COLLECT},
    "before the records": {"at": RECORDS},
    "after the records": {"at": RECORDS, "after": True},
    "in the first gradient": {"at": LOSS, "call": 3},
    "after the first update, before it is counted": {"at": FLOW},
    "before the first checkpoint": {"at": SAVE},
    "before the seal": {"at": MANIFEST},
    "after the seal of the second": {"at": MANIFEST, "call": 2, "after": True},
    "in a gradient again": {"at": LOSS, "call": 2},
    "in the next rollout": {"at": REWARD, "within": COLLECT},
    "before the third checkpoint": {"at": SAVE},
    "after it": {"at": SAVE, "after": True},
}
STOPS_OF = {
    "several passes, pictures": {
        "between the sheet and the pictures before training": {"at": SHEET, "after": True},
        "before the first picture is written": {
            "at": PICTURES,
            "call": 2,
            "within": "trainer_ext.runs.pictures.sheets.SampleSet.save",
        },
        **STOPS,
        "after the pictures of an update, before its checkpoint": {"at": DRAW, "after": True},
        "in the removal of an old checkpoint": {"at": "file", "call": 3, "within": REMOVE},
        "between the last checkpoint and the last pictures": {"at": END},
        "after the sheet before and after": {"at": COMPARISON, "after": True},
        "in the last save": {"at": FINAL, "after": True},
    },
    "sparse RWR, images kept": {place: STOPS[place] for place in ("in the first gradient", "before the seal")}
    | {
        "after the first checkpoint": {"at": SAVE, "after": True},
        "in a gradient of a rollout that was saved": {"at": LOSS, "call": 2},
        "in the removal of the checkpoint before": {"at": "file", "call": 2, "within": REMOVE},
        "in the next rollout": {"at": REWARD, "within": COLLECT},
        "in its first gradient": {"at": LOSS},
    },
    "average, evaluation, global generators": {
        "after the pictures before training": {"at": DRAW, "after": True},
        "in a reward": {"at": REWARD, "call": 2, "within": COLLECT},
        "between two gradients": {"at": LOSS, "call": 4},
        "before the average, with a checkpoint": {"at": AVERAGE, "call": 2},
        "in an evaluation": {"at": SCORE, "within": EVALUATE},
        "after an evaluation": {"at": EVALUATE, "after": True},
        "in a reward of the next rollout": {"at": REWARD, "call": 2, "within": COLLECT},
        "between the last checkpoint and the last pictures": {"at": END},
    },
}


@pytest.fixture(scope="module")
def whole(forked, tmp_path_factory):
    """Make runs that nothing stops, each once; they keep all their checkpoints."""
    folders = {}

    def run(**options):
        key = str(sorted(options.items()))
        if key not in folders:
            folders[key] = tmp_path_factory.mktemp("whole") / "run"
            assert forked.run(folders[key], options={**options, "save_total_limit": None}, resume=None) == (0, "")
        return folders[key]

    return run


# ---- SIGKILL ----


@pytest.mark.parametrize(
    "kind",
    [kind if kind != "several passes, pictures" else pytest.param(kind, marks=pytest.mark.full) for kind in KINDS],
)
def test_killed_again_and_again(forked, whole, tmp_path, kind):
    expected, folder = whole(**KINDS[kind]), tmp_path / "run"
    for place, stop in STOPS_OF[kind].items():
        status, log = forked.run(folder, options=KINDS[kind], **stop)
        assert status == -signal.SIGKILL, f"{place}: ended with {status}\n{log}"
        assert checkpoint_differences(folder, expected) == [], place
    status, log = forked.run(folder, options=KINDS[kind])
    assert status == 0, log
    assert differences(folder, expected) == []
    assert whole_checkpoints(folder)[-1] == whole_checkpoints(expected)[-1]


SMALL = {
    "num_images_per_rollout": 2,
    "per_device_train_batch_size": 2,
    "gradient_accumulation_steps": 1,
    "num_inner_epochs": 3,
    "ema_decay": 0.5,
}


@pytest.mark.parametrize("every", [pytest.param(1, marks=pytest.mark.full), 4])
def test_killed_at_changes_of_files_in_a_save(forked, whole, tmp_path, every):
    """Also when half of a file is written, and in the removal of the checkpoint before."""
    options = {**SMALL, "save_total_limit": 1}
    expected, folder = whole(**options), tmp_path / "run"
    assert forked.run(folder, options=options, at=SAVE, after=True)[0] == -signal.SIGKILL
    resumed_from = []
    for change in itertools.count(1, every):
        resumed_from += whole_checkpoints(folder)[-1:]
        status, log = forked.run(folder, options=options, at="file", within=SAVE, call=change)
        assert len(resumed_from) == 1 + (change - 1) // every, "no checkpoint was left"
        if status == 0:
            break
        assert status == -signal.SIGKILL, log
        assert checkpoint_differences(folder, expected) == [], change
    assert change > 20
    assert differences(folder, expected) == []


@pytest.mark.parametrize("call", [2, pytest.param(1, marks=pytest.mark.full)])
def test_killed_after_the_checkpoint_of_the_last_update(forked, whole, tmp_path, call):
    """In the middle of a rollout of three updates. It is whole, so nothing is left to train; also not the next time."""
    options = {**SMALL, "max_steps": 2, "save_steps": 0.5}
    expected, folder = whole(**options), tmp_path / "run"
    assert forked.run(folder, options=options, at=MANIFEST, call=call, after=True)[0] == -signal.SIGKILL
    for _ in range(2):
        status, log = forked.run(folder, options=options)
        assert status == 0, log
        assert "do not match" not in log  # save_steps in `Trainer`'s own state
        assert differences(folder, expected) == []
        assert whole_checkpoints(folder) == whole_checkpoints(expected) == ["checkpoint-1", "checkpoint-2"]


# ---- the weights at the end ----

SAVE_WEIGHTS = "trainer_ext.trainer.DDPOTrainer._save"


@pytest.mark.parametrize(
    "change", [4, *(pytest.param(call, marks=pytest.mark.full) for call in (1, 2, 3, 5, 6, 7, 8, 9))]
)
def test_killed_while_the_weights_of_a_longer_run_replace_those_of_a_finished_one(forked, whole, tmp_path, change):
    """They are the earlier or the later ones, whole."""
    short, long = (whole(**SMALL, num_train_epochs=epochs) for epochs in (1, 2))
    folder = shutil.copytree(short, tmp_path / "run")
    options = {**SMALL, "num_train_epochs": 2, "save_steps": 100}
    for checkpoint in whole_checkpoints(long):
        shutil.copytree(long / checkpoint, folder / checkpoint, dirs_exist_ok=True)
    status, log = forked.run(folder, options=options, at="file", within=SAVE_WEIGHTS, call=change)
    assert status == -signal.SIGKILL, log
    left, earlier, later = (load_file(run / LORA_FILE) for run in (folder, short, long))
    assert any(all(torch.equal(left[name], one[name]) for name in left) for one in (earlier, later))
    assert differ(earlier, later)


@pytest.mark.parametrize("signal_", ["SIGTERM", pytest.param("SIGINT", marks=pytest.mark.full)])
def test_a_request_to_stop_waits_until_the_weights_are_saved(forked, whole, tmp_path, signal_):
    options = {**SMALL, "save_strategy": "no"}
    status, log = forked.run(tmp_path / "run", options=options, at=FINAL, send=signal_)
    assert status == STATUS[signal_], log
    assert "stopping when this is saved" in log
    assert_same(*(load_file(run / LORA_FILE) for run in (tmp_path / "run", whole(**options))))


# ---- gradients while sampling ----


def test_gradients_that_are_ready_are_kept_when_training_is_stopped(forked, whole, tmp_path):
    """Killed in a rollout, stopped between two batches of its only update, and killed in the next rollout."""
    expected, folder = whole(**FUSED), tmp_path / "run"
    assert forked.run(folder, options=FUSED, at=CHECK, call=4)[0] == -signal.SIGKILL
    status, log = forked.run(folder, options=FUSED, at=READY, call=6, send="SIGINT")
    assert status == 130, log
    assert whole_checkpoints(folder) == ["checkpoint-1"]
    state = torch.load(folder / "checkpoint-1" / "ddpo_state_0.pt", weights_only=True)
    assert "gradients" in state["rollout"]
    assert forked.run(folder, options=FUSED, at=READY, call=3)[0] == -signal.SIGKILL
    status, log = forked.run(folder, options=FUSED)
    assert status == 0, log
    assert "Gradients are not taken" not in log
    assert differences(folder, expected) == []


# ---- rewards beside the sampler ----


def test_rewards_that_run_while_the_next_batch_is_sampled_change_nothing(whole):
    """Also those that draw from every global generator, in rollouts, evaluations and pictures."""
    options = KINDS["average, evaluation, global generators"]
    assert differences(whole(**options), whole(**options, overlap_rewards=False)) == []


# ---- Ctrl-C ----

INTERRUPTED = {**KINDS["average, evaluation, global generators"], "save_strategy": "no"}

CTRL_C = {
    "in the first rollout": {"at": REWARD, "within": COLLECT},
    "in the first batch after a resume": {"at": CHECK, "call": 1},
    "between a rollout and the first gradient": {"at": RECORDS},
    "in a gradient of the same rollout": {"at": LOSS, "call": 3},
    "after an update": {"at": AVERAGE, "after": True},
    "in an evaluation": {"at": SCORE, "within": EVALUATE},
}


STATUS = {"SIGINT": 130, "SIGTERM": 143, "SIGHUP": 129}


def test_ctrl_c_again_and_again(forked, whole, tmp_path):
    """
    Nothing else saves here, so all that is resumed from is what Ctrl-C left, or a scheduler's SIGTERM, or a closed terminal.
    """
    expected, folder = whole(**INTERRUPTED), tmp_path / "run"
    for (place, stop), signal_ in zip(CTRL_C.items(), itertools.cycle(STATUS)):
        status, log = forked.run(folder, options=INTERRUPTED, send=signal_, **stop)
        assert status == STATUS[signal_], f"{place}: ended with {status}\n{log}"
        assert "stopping after this step and saving a checkpoint" in log
    status, log = forked.run(folder, options=INTERRUPTED)
    assert status == 0, log
    assert differences(folder, expected) == []


def test_ctrl_c_right_after_a_resume_does_not_touch_the_checkpoint(forked, whole, tmp_path):
    folder = shutil.copytree(whole(**SMALL), tmp_path / "run")
    for checkpoint in whole_checkpoints(folder)[1:]:
        shutil.rmtree(folder / checkpoint)
    before = (folder / "checkpoint-1" / "ddpo_manifest.json").read_bytes()
    assert forked.run(folder, options=SMALL, at=CHECK, send="SIGINT")[0] == 130
    assert (folder / "checkpoint-1" / "ddpo_manifest.json").read_bytes() == before


def test_a_second_ctrl_c_stops_at_once_and_saves_nothing_half_done(forked, whole, tmp_path):
    folder = tmp_path / "run"
    update = "torch.optim.adamw.AdamW.step"  # the parameters are those after it, and the counter is that before it
    status, _ = forked.run(folder, options=SMALL, at=update, after=True, send="SIGINT", times=2)
    assert status == 130
    assert whole_checkpoints(folder) == []
    assert forked.run(folder, options=SMALL)[0] == 0
    assert differences(folder, whole(**SMALL)) == []


@pytest.mark.parametrize("call", [2, 10])
def test_resumed_by_the_same_trainer(forked, whole, tmp_path, call):
    """As in a notebook: in the first update of a rollout, and of the next."""
    stop = {"at": LOSS, "call": call, "send": "SIGINT"}
    status, log = forked.run(tmp_path / "run", options={**INTERRUPTED, "in_a_notebook": True}, resume=None, **stop)
    assert status == 0, log
    assert differences(tmp_path / "run", whole(**INTERRUPTED)) == []


def test_a_second_run_of_a_trainer_makes_its_own_rollouts(make_trainer):
    calls = []

    def constant(images, prompts, **columns):
        calls.append(len(images))
        return [float(len(calls))] * len(images)

    trainer = make_trainer(reward=constant, per_device_train_batch_size=1, gradient_accumulation_steps=2)
    for runs in (1, 2):
        trainer.train()
        assert sum(calls) == runs * 4


# ---- which checkpoint ----


def cut_short(folder, checkpoint, name):
    file = folder / checkpoint / name
    file.write_bytes(file.read_bytes()[:-1])


def test_a_damaged_checkpoint_is_named_and_the_one_before_it_used(forked, whole, tmp_path):
    expected = whole(**SMALL)
    folder = shutil.copytree(expected, tmp_path / "run")
    newest, before = reversed(whole_checkpoints(folder)[-2:])
    cut_short(folder, newest, "optimizer.pt")
    status, log = forked.run(folder, options=SMALL)
    assert status == 0
    assert f"{folder / newest} is not used: optimizer.pt has " in log
    assert before not in log
    assert differences(folder, expected) == []
    assert whole_checkpoints(folder)[-1] == newest  # written again


def test_a_damaged_checkpoint_that_is_asked_for_is_an_error(forked, whole, tmp_path):
    folder = shutil.copytree(whole(**SMALL), tmp_path / "run")
    cut_short(folder, "checkpoint-2", "ddpo_state_0.pt")
    status, log = forked.run(folder, options=SMALL, resume=str(folder / "checkpoint-2"))
    assert status == 1
    assert f"CheckpointError: {folder / 'checkpoint-2'} cannot be resumed from: ddpo_state_0.pt has " in log
    assert forked.run(folder, options=SMALL, resume=str(folder / "checkpoint-1"))[0] == 0


def test_without_a_checkpoint_it_begins_anew(forked, whole, tmp_path):
    status, log = forked.run(tmp_path / "run", options=SMALL)
    assert status == 0
    assert f"{tmp_path / 'run'} holds no whole checkpoint: training starts from the beginning" in log
    assert differences(tmp_path / "run", whole(**SMALL)) == []


def test_another_number_of_processes_is_an_error(forked, whole, tmp_path):
    folder = shutil.copytree(whole(**SMALL), tmp_path / "run")
    state = folder / "checkpoint-2" / "ddpo_state_0.pt"
    torch.save({**torch.load(state), "num_processes": 2}, state)
    remove_manifest(state.parent)
    write_manifest(state.parent)
    status, log = forked.run(folder, options=SMALL, resume=str(state.parent))
    assert status == 1
    assert "CheckpointError" in log
    assert "was written by 2 process(es), and this run has 1" in log


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lora": {"r": 3, "lora_alpha": 2, "target_modules": ["to_q"]}}, "r=2 instead of 3"),
        ({"lora": {"r": 2, "lora_alpha": 5, "target_modules": ["to_q"]}}, "lora_alpha=2 instead of 5"),
        ({"lora": {"r": 2, "lora_alpha": 2, "target_modules": ["to_k"]}}, "target_modules=.* instead of"),
        ({"full_finetuning": True}, "full_finetuning"),
        ({"ema_decay": None}, "ema_decay"),
        ({"algorithm": "sparse_rwr"}, "algorithm"),
    ],
)
def test_options_that_do_not_fit_the_checkpoint_are_an_error(forked, whole, tmp_path, options, message):
    folder = shutil.copytree(whole(**SMALL), tmp_path / "run")
    status, log = forked.run(folder, options={**SMALL, **options}, resume=str(folder / "checkpoint-2"))
    assert status == 1
    assert re.search(f"^trainer_ext.errors.(Config|Checkpoint)Error: .*checkpoint-2.*{message}", log, re.M), log
