"""The one door to a run's folder, and the summary that is computed from it."""

import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from datasets import load_dataset
from PIL import Image
from scipy import stats
from support.synthetic_runs import SyntheticRun
from support.trainers import FOUR_ANIMALS, brightness, logs_of
from support.trainers import make_trainer as make

from trainer_ext.cli import main
from trainer_ext.cli.train import _summary
from trainer_ext.file_names import PEFT_FILE
from trainer_ext.runs.folder import RunFolder
from trainer_ext.runs.manifest import remove_manifest
from trainer_ext.runs.measures.verdict import VerdictKind
from trainer_ext.runs.pictures.sheets import SampleSet, load_images
from trainer_ext.runs.records import write_records
from trainer_ext.runs.summary import RunSummary, paired_figure

OPTIONS = {
    "num_train_epochs": 2,
    "per_device_train_batch_size": 2,
    "learning_rate": 1e-2,
    "num_sample_images": 3,
    "sample_every": 1,
    "save_strategy": "steps",
    "save_steps": 1,
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory, tiny_pipeline):
    """A trainer after two rollouts of two updates, with pictures before, between and after."""
    torch.manual_seed(0)
    trainer = make(tiny_pipeline(), tmp_path_factory.mktemp("trained") / "run", dataset=FOUR_ANIMALS, **OPTIONS)
    trainer.train()
    return trainer


@pytest.fixture
def folder(trained):
    return RunFolder(trained.args.folder)


def test_records(folder):
    assert folder.rollouts() == [0, 1]
    assert [record["rollout"] for record in folder.records()] == [0] * 4 + [1] * 4
    assert folder.records(1) == folder.records()[4:]
    assert list(folder.rewards()) == [0, 1]
    assert folder.rewards()[1].tolist() == [record["reward"] for record in folder.records(1)]


def test_setups(folder):
    (setup,) = folder.setups()
    assert (setup["from_update"], setup["algorithm"]) == (0, "ImportanceSampling(clip_range=0.0001)")


def test_fixed_samples(folder):
    sheets = folder.samples()
    assert [sheet.updates for sheet in sheets] == [0, 2, 4]
    for sheet in sheets:
        assert [record["rollouts"] for record in sheet.records] == [sheet.updates / 2] * 3
        assert [(record["prompt"], record["seed"]) for record in sheet.records] == [
            ("a cat", 0),
            ("a dog", 1),
            ("a lion", 2),
        ]
        assert [file.name for file in sheet.files] == ["00.png", "01.png", "02.png"]
        expected = [np.asarray(Image.open(file).convert("RGB")).mean() for file in sheet.files]
        assert sheet.rewards.tolist() == pytest.approx(expected)


def test_the_fixed_samples_are_logged(trained, folder):
    logged = [log["samples/reward"] for log in trained.state.log_history if "samples/reward" in log]
    assert logged == pytest.approx([sheet.rewards.mean() for sheet in folder.samples()])
    assert [log["samples/reward"] for log in folder.logs() if "samples/reward" in log] == logged


def test_pictures_do_not_displace_the_log_of_their_update(trained):
    """`Trainer` takes any log for the one that is due; processes that draw nothing would then wait for the main one."""
    assert [log["step"] for log in trained.state.log_history if "loss" in log] == [2, 4]


def test_the_last_pictures_are_logged_and_drawn_once(tmp_path, tiny_pipeline):
    """Also where none are drawn in between: the last update's checkpoint has their log."""
    scored = []

    def brightness_once(images, prompts, **columns):
        scored.append(len(images))
        return brightness(images, prompts)

    options = {"num_sample_images": 2, "sample_every": 0, "save_strategy": "epoch"}
    trainer = make(tiny_pipeline(), tmp_path / "run", reward=brightness_once, **options)
    trainer.train()
    logged = [log["samples/reward"] for log in RunFolder(trainer.args.folder).logs() if "samples/reward" in log]
    assert logged == pytest.approx([trainer.summary.paired.before, trainer.summary.paired.after])
    assert scored == [2, 2, 2, 2]  # pictures, two batches of the rollout, pictures


def test_checkpoints(folder):
    assert [path.name for path in folder.checkpoints()] == [f"checkpoint-{step}" for step in (2, 3, 4)]
    assert folder.newest().name == "checkpoint-4"


def test_the_paired_figure_compares_each_image_with_itself(trained, folder):
    first, *_, last = folder.samples()
    paired = trained.summary.paired
    expected = stats.ttest_rel(last.rewards, first.rewards).confidence_interval(0.95)
    assert (paired.before, paired.after, paired.n) == (first.rewards.mean(), last.rewards.mean(), 3)
    assert (paired.low, paired.high) == pytest.approx((expected.low, expected.high))
    assert trained.summary.verdict.kind == VerdictKind.NOT_JUDGED
    assert trained.summary.chosen_checkpoint is None


def test_the_interval_by_hand():
    """Differences 1, 2, 3: mean 2, standard error 1 / sqrt(3), quantile of Student's t with 2 degrees of freedom 4.3027."""
    paired = paired_figure(np.array([[0.0, 1.0], [5.0, 7.0], [-1.0, 2.0]]))
    assert (paired.difference, paired.n) == (2.0, 3)
    assert (paired.low, paired.high) == pytest.approx((2 - 4.3027 / 3**0.5, 2 + 4.3027 / 3**0.5), abs=1e-4)
    text = "1.333 -> 3.333 (+150.0%); difference +2, 95 % interval -0.4841 to +4.484, n = 3, same prompts and seeds"
    assert str(paired) == text


def test_few_or_equal_differences():
    assert str(paired_figure(np.array([[0.0, 1.0]]))) == "0 -> 1; difference +1, n = 1, same prompts and seeds"
    same = paired_figure(np.array([[1.0, 1.5], [2.0, 2.5]]))
    assert (same.low, same.high) == (0.5, 0.5)


def test_images_without_a_reward_are_left_out_of_the_pairs(tmp_path):
    folder = RunFolder(tmp_path)
    for updates, rewards in ((0, [1.0, None, 3.0]), (5, [2.0, 2.0, None])):
        rows = [{"updates": updates, "seed": i, "prompt": "a cat", "reward": r} for i, r in enumerate(rewards)]
        write_records(folder.sample_file(updates), rows)
    paired = RunSummary.of(folder).paired
    assert (paired.before, paired.after, paired.n) == (1.0, 2.0, 1)


def test_numbers_of_pictures_and_updates_are_compared_as_numbers(tmp_path):
    folder = RunFolder(tmp_path)
    images = torch.arange(101, dtype=torch.uint8).reshape(-1, 1, 1, 1).expand(-1, 8, 8, 3)
    for index, image in enumerate(images):
        folder.pictures_of(0).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.numpy()).save(folder.pictures_of(0) / f"{index:02d}.png")
    for updates in (100000, 99999, 0):
        write_records(folder.sample_file(updates), [{"reward": 1.0}] * 101)
    assert [sheet.updates for sheet in folder.samples()] == [0, 99999, 100000]
    assert folder.samples()[0].files[-1].name == "100.png"
    assert torch.equal(load_images(folder.pictures_of(0)), images)


def test_a_missing_picture_moves_no_other(tmp_path):
    folder = SyntheticRun(unseen=(), evaluations=2).write(tmp_path)
    (sheet, *_), (evaluation, *_) = folder.samples(), folder.evaluations()["seen"]
    for drawn in (sheet, evaluation):
        drawn.files[1].unlink()
    sheet_then, evaluation_then = folder.samples()[0], folder.evaluations()["seen"][0]
    for before, then in ((sheet, sheet_then), (evaluation, evaluation_then)):
        assert then.files == [before.files[0], None, *before.files[2:]]
        assert len(then.files) == len(then.records)
    images = SampleSet.of(sheet_then).images
    assert [int(image.min()) for image in images].index(255) == 1
    assert torch.equal(images[2:], load_images(folder.pictures_of(0))[1:])


@pytest.mark.parametrize(("update", "rollouts"), [(2, [0]), (3, [0, 1])], ids=["before a rollout", "in a rollout"])
def test_what_an_abandoned_branch_recorded_is_not_of_the_run(trained, tiny_pipeline, tmp_path, update, rollouts):
    """The checkpoint in the middle of a rollout holds it, so that its records stay."""
    shutil.copytree(trained.args.folder, tmp_path / "run")
    folder = RunFolder(tmp_path / "run")
    write_records(folder.rollout_file(2), [{"rollout": 2, "seed": 0, "prompt": "a cat", "reward": 1e9}])
    write_records(folder.default_sample_file(4), [{"updates": 4, "seed": 0, "prompt": "a cat", "reward": 1e9}])
    for index in (1, 2):
        folder.kept_images(index).mkdir(parents=True)
    kept = folder.records(0)
    resumed = make(tiny_pipeline(), folder.path, dataset=FOUR_ANIMALS, **{**OPTIONS, "max_steps": update})
    resumed.train(resume_from_checkpoint=str(folder.path / f"checkpoint-{update}"))
    assert folder.rollouts() == rollouts
    assert folder.records(0) == kept
    assert [sheet.updates for sheet in folder.samples()] == [0, 2, 3][:update]
    assert folder.default_samples() == []
    assert not (folder.path / "samples" / "update-00004.png").exists()
    assert [index for index in (1, 2) if folder.kept_images(index).exists()] == rollouts[1:]


def test_pictures_that_a_killed_run_left_are_not_logged(make_trainer):
    """It was killed after its second rollout, before a checkpoint, and starts again from the beginning."""
    trainer = make_trainer(num_sample_images=2, sample_every=1, num_train_epochs=1)
    folder = RunFolder(trainer.args.folder)
    left = {"updates": 2, "rollouts": 2.0, "seed": 0, "prompt": "a cat", "reward": -1.0}
    write_records(folder.sample_file(2), [left])
    trainer.train()
    logged = [log["samples/reward"] for log in logs_of(trainer, "samples/reward")]
    assert logged == pytest.approx([sheet.rewards.mean() for sheet in folder.samples() if sheet.updates < 2])


def test_pictures_before_training_are_those_of_this_run(make_trainer):
    """A run that failed before its first checkpoint drew others."""
    trainer = make_trainer(num_sample_images=1)
    folder = RunFolder(trainer.args.folder)
    write_records(folder.sample_file(0), [{"updates": 0, "rollouts": 0.0, "seed": 7, "prompt": "?", "reward": -1.0}])
    folder.pictures_of(0).mkdir()
    trainer.train()
    assert [record["prompt"] for record in folder.samples()[0].records] == ["a cat"]
    assert trainer.summary.paired.n == 1


@pytest.mark.parametrize(("first", "then", "drawn"), [(2, 1, {0: 2, 2: 1}), (0, 1, {0: 1, 2: 1})])
def test_a_run_that_is_resumed_with_another_number_of_pictures(make_trainer, first, then, drawn):
    """Pictures that were not drawn before training are drawn later, with the adapter off."""
    make_trainer(num_sample_images=first, sample_every=0, save_strategy="epoch").train()
    resumed = make_trainer(num_sample_images=then, sample_every=0, num_train_epochs=2)
    if first:  # as if the first run had been stopped
        shutil.rmtree(resumed.args.folder / "samples" / "update-00001")
        (resumed.args.folder / "samples" / "update-00001.parquet").unlink()
    resumed.train(resume_from_checkpoint=True)
    sheets = RunFolder(resumed.args.folder).samples()
    assert {sheet.updates: len(sheet.records) for sheet in sheets} == drawn
    assert resumed.summary.paired.n == 1


def test_a_second_run_of_a_trainer_draws_its_own_last_pictures(make_trainer):
    """It ends by a rule after as many updates as the first run had in all."""

    def reward(images, prompts, trainer_state, **columns):
        return [value + 1000 * trainer_state.global_step for value in brightness(images, prompts)]

    trainer = make_trainer(
        reward=reward, num_sample_images=1, sample_every=0, stop_when=["reward>1000"], learning_rate=1e-2
    )
    trainer.train()
    pictures = RunFolder(trainer.args.folder).pictures_of(1)
    first = load_images(pictures)
    trainer.args.num_train_epochs = 2
    trainer.train()
    assert trainer.state.global_step == 1
    assert not torch.equal(load_images(pictures), first)


def test_a_run_that_only_began_has_no_paired_figure(tmp_path):
    assert RunSummary.of(RunFolder(tmp_path)) == RunSummary()
    write_records(RunFolder(tmp_path).sample_file(0), [{"updates": 0, "seed": 0, "prompt": "a cat", "reward": 1.0}])
    assert RunSummary.of(RunFolder(tmp_path)).paired is None


def test_logs_without_a_checkpoint(tmp_path):
    assert RunFolder(tmp_path).logs() == []
    assert RunFolder(tmp_path).newest() is None


def test_logs_are_not_read_from_a_checkpoint_that_was_cut_short(folder, tmp_path):
    shutil.copytree(folder.path, tmp_path / "run")
    killed = tmp_path / "run" / "checkpoint-9"
    killed.mkdir()
    (killed / "trainer_state.json").write_text('{"log_his')
    assert RunFolder(tmp_path / "run").logs() == folder.logs()


def test_a_damaged_checkpoint_is_not_the_newest(folder):
    manifest = folder.checkpoints()[-1] / "ddpo_manifest.json"
    content = manifest.read_bytes()
    remove_manifest(manifest.parent)
    assert folder.newest().name == "checkpoint-3"
    manifest.write_bytes(content)


def test_datasets_loads_the_records(folder, tmp_path):
    loaded = load_dataset("parquet", data_dir=str(folder.path / "rollouts"), split="train", cache_dir=str(tmp_path))
    assert list(loaded) == folder.records()


def test_reading_needs_no_torch():
    code = "import sys; import trainer_ext.runs.folder, trainer_ext.runs.summary; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_closing_lines_of_an_adapter_that_only_peft_loads(tmp_path, capsys):
    (tmp_path / PEFT_FILE).touch()
    args = SimpleNamespace(folder=tmp_path, num_sample_images=2, full_finetuning=False)
    _summary(SimpleNamespace(args=args, summary=RunSummary(first_rollout=1.0, last_rollout=2.0)))
    out = capsys.readouterr().out
    assert f"{tmp_path}   the adapter, for PeftModel.from_pretrained\n" in out
    assert "1 in the first rollout and 2 in the last, of different prompts\n" in out


@pytest.mark.parametrize(
    ("pictures", "said"), [(2, "reward of the fixed samples: "), (0, " in the only rollout; with --num_sample_images")]
)
def test_the_closing_line(tmp_path, capsys, pictures, said):
    options = (
        f"--output_dir {tmp_path / 'run'} --reward_funcs jpeg_compressibility --num_train_epochs 1 --num_inference_steps 2 "
        "--skip_last_steps 0 --num_images_per_rollout 2 --num_images_per_prompt 1 --rollout_batch_size 2 "
        "--per_device_train_batch_size 2 --gradient_accumulation_steps 1 --disable_tqdm true --use_cpu true "
        f"--num_sample_images {pictures} --eval_strategy no"
    )
    assert main(["train", *options.split()]) == 0
    out = capsys.readouterr().out
    assert said in out
    assert ("n = 2, same prompts and seeds" in out) == ("before_after.png" in out) == bool(pictures)
    assert "\nNot judged: no evaluation ran. Add --eval_strategy epoch" in out
    _, *files = out.strip().partition("\nNot judged: ")[2].splitlines()
    assert files
    for line in files:
        assert Path(line.split("   ")[0]).exists(), line
