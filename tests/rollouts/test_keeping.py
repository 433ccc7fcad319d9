"""The images of rollouts that are kept: which ones, how many, and what becomes of them when a run goes on."""

import numpy as np
import pytest
import torch
from PIL import Image
from support import trainers
from support.trainers import FOUR_ANIMALS, RunFolder, records

from trainer_ext.errors import OutputDirError
from trainer_ext.rollouts.keeping import BYTES_PER_GB, ImageKeeper

IMAGES = torch.arange(4 * 2 * 2 * 3, dtype=torch.uint8).reshape(4, 2, 2, 3)


def keeper(folder, share=1.0, gb=1.0, num_images=4, seed=0):
    return ImageKeeper(RunFolder(folder), share, gb * BYTES_PER_GB, num_images, seed)


def kept(folder):
    return {path.parent.name[-1] + path.name: path.read_bytes() for path in folder.glob("rollouts/images/*/*")}


@pytest.mark.parametrize("share", [0.01, 0.1, 0.3, 0.5, 0.99, 1.0])
def test_the_share_is_kept_over_the_run(share):
    each = [keeper(None, share, num_images=16).chosen(rollout) for rollout in range(100)]
    assert all(chosen <= set(range(16)) for chosen in each)
    for rollouts in range(1, 101):
        assert sum(map(len, each[:rollouts])) == int(rollouts * 16 * share + 1e-9)
    assert len({index for chosen in each for index in chosen}) == 16 or share == 0.01


def test_the_choice_is_a_pure_function_of_seed_and_rollout():
    chosen = [keeper(None, 0.5, num_images=64, seed=seed).chosen(rollout) for seed in (0, 1) for rollout in (0, 1)]
    assert len(set(chosen)) == 4
    assert keeper(None, 0.5, num_images=64, seed=1).chosen(1) == chosen[3]
    assert keeper(None, None).chosen(0) == frozenset()


def test_processes_keep_what_one_process_would(tmp_path):
    with keeper(tmp_path / "one").keeping(3, 0, 4) as keep:
        keep(0, IMAGES[:3])
        keep(3, IMAGES[3:])
    for first in (0, 2):
        with keeper(tmp_path / "two").keeping(3, first, 2) as keep:
            keep(0, IMAGES[first : first + 2])
    assert kept(tmp_path / "one") == kept(tmp_path / "two")
    for index, image in enumerate(IMAGES):
        with Image.open(RunFolder(tmp_path / "one").kept_images(3) / f"{index:05d}.png") as picture:
            np.testing.assert_array_equal(np.asarray(picture), image.numpy())


@pytest.mark.parametrize("share", [None, 0.5])
def test_what_a_process_kept_of_a_rollout_before_is_replaced(tmp_path, share):
    """A run that is resumed from before a rollout may make it with other options."""
    with keeper(tmp_path).keeping(0, 0, 4) as keep:
        keep(0, IMAGES)
    with keeper(tmp_path, share).keeping(0, 0, 3) as keep:  # another process has the last one
        keep(0, 255 - IMAGES[:3])
    chosen = keeper(tmp_path, share).chosen(0) & {0, 1, 2}
    assert sorted(kept(tmp_path)) == [f"0{index:05d}.png" for index in sorted(chosen | {3})]


def test_a_limit_on_the_disk(tmp_path, caplog):
    size = 0
    for rollout in range(5):
        with keeper(tmp_path, gb=1e-7).keeping(rollout, 0, 4) as keep:  # 100 bytes: each picture is as large
            keep(0, IMAGES)
    assert {name[0] for name in kept(tmp_path)} == {"0"}
    assert "no more are kept: keep_images_gb is 1e-07" in caplog.text
    size = sum(map(len, kept(tmp_path).values()))
    one = keeper(tmp_path, gb=1.5 * size / BYTES_PER_GB)
    caplog.clear()
    for rollout in (0, 1, 2, 3, 1):  # the limit counts earlier rollouts only
        with one.keeping(rollout, 0, 4) as keep:
            keep(0, IMAGES)
    assert {name[0] for name in kept(tmp_path)} == {"0", "1"}
    assert caplog.text.count("no more are kept") == 1


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "rollouts").mkdir()
    (tmp_path / "rollouts" / "images").write_text("a file")
    with pytest.raises(
        OutputDirError, match="cannot be written any more: there is a file|a part of the path is a file"
    ):
        with keeper(tmp_path).keeping(0, 0, 4) as keep:
            keep(0, IMAGES)


def test_an_error_in_the_sampling_is_not_hidden(tmp_path):
    with pytest.raises(TypeError), keeper(tmp_path).keeping(0, 0, 4) as keep:
        keep(0, None)


# ---- in a run ----


def test_a_run_keeps_what_its_rewards_saw(make_trainer, tmp_path):
    seen = []

    def reward(images, prompts, **columns):
        seen.extend(np.asarray(image) for image in images)
        return [float(len(seen) + i) for i in range(len(images))]

    make_trainer(reward=reward, keep_images=0.5, num_train_epochs=2).train()
    folder = RunFolder(tmp_path / "run")
    for rollout in range(2):
        files = sorted(folder.kept_images(rollout).iterdir())
        assert len(files) == 2
        for file in files:
            with Image.open(file) as picture:
                np.testing.assert_array_equal(np.asarray(picture), seen[4 * rollout + int(file.stem)])


def test_keeping_images_changes_nothing_else(make_trainer, tmp_path):
    weights = [
        trainers.trained_weights(trained(make_trainer(name, keep_images=share, learning_rate=1e-1)).model)
        for name, share in (("without", None), ("with", 1.0))
    ]
    trainers.assert_same(*weights)
    assert records(tmp_path / "without") == records(tmp_path / "with")
    assert not (tmp_path / "without" / "rollouts" / "images").exists()


def trained(trainer):
    trainer.train()
    return trainer


# ---- advantages in the records ----


def test_the_advantage_is_recorded(make_trainer, tmp_path):
    """With `advantages='batch'` it is the reward less its mean, over the standard deviation."""
    make_trainer(advantages="batch", dataset=FOUR_ANIMALS).train()
    rows = records(tmp_path / "run")
    rewards = np.array([row["reward"] for row in rows])
    expected = (rewards - rewards.mean()) / rewards.std()
    np.testing.assert_allclose([row["advantage"] for row in rows], expected, rtol=1e-4)


def test_a_rollout_that_ends_the_run_has_no_advantages(make_trainer, tmp_path):
    make_trainer(stop_when=["reward>0"]).train()
    assert [row["advantage"] for row in records(tmp_path / "run")] == [None] * 4
