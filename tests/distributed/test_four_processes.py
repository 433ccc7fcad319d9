"""Four processes, by torchrun and gloo. What they do is in four_processes.py."""

import signal

import pytest
import torch
from support import four_processes
from support import several_trainings as trainings
from support.processes import free_port, torchrun
from support.trainers import records

from trainer_ext.runs.manifest import find_damage

pytestmark = [pytest.mark.full, pytest.mark.timeout(1200)]  # a launch of their own
RANKS = range(4)


@pytest.fixture(scope="module")
def four(folder):
    """Return what each process saw."""
    launched = torchrun(four_processes.__file__, folder, free_port(), processes=4)
    assert launched.returncode == 0, launched.stdout
    return [torch.load(folder / f"four-{process}.pt", weights_only=False) for process in RANKS]


@pytest.mark.parametrize("name", four_processes.TRAININGS)
def test_weights_are_bit_equal_after_every_update(four, name):
    first, *others = (seen[name] for seen in four)
    assert len(first["after"]) == 4
    for other in others:
        assert all(map(torch.equal, first["after"], other["after"]))
        assert torch.equal(first["averaged"], other["averaged"])
    for before, after in zip([first["before"], *first["after"]], first["after"], strict=False):
        assert not torch.equal(before, after)


def test_prompts_seeds_and_images_do_not_depend_on_the_number_of_processes(folder, four):
    """Bit for bit, where each process draws batches of the same shape; advantages too."""
    torch.set_num_threads(1)
    trainings.train(folder, "four alone", rollout_batch_size=1, num_train_epochs=1, gradient_accumulation_steps=4)
    alone = records(folder / "four alone")
    assert len({record["seed"] for record in alone}) == 8
    assert records(folder / "four") == alone


def test_batches_of_another_shape_draw_almost_the_same_images(folder, four):
    torch.set_num_threads(1)
    trainings.train(folder, "four at once", rollout_batch_size=8, num_train_epochs=1, gradient_accumulation_steps=4)
    at_once, one_by_one = records(folder / "four at once"), records(folder / "four")
    assert [(each["seed"], each["prompt"]) for each in at_once] == [
        (each["seed"], each["prompt"]) for each in one_by_one
    ]
    rewards = [[each["rewards/brightness"] for each in rows] for rows in (at_once, one_by_one)]
    assert rewards[0] == pytest.approx(rewards[1], abs=1.0)  # of 255


def test_a_rank_that_is_killed_and_a_job_that_is_queued_again(folder, four):
    """The run that resumes is bit-equal to the undisturbed one, and each checkpoint was written once, whole."""
    assert four[3]["killed"] == -signal.SIGKILL
    assert all(seen["killed"] not in (0, -signal.SIGKILL) for seen in four[:3])
    assert four[0]["left"] == ["checkpoint-1", "checkpoint-2"]
    for seen in four:
        assert all(map(torch.equal, seen["resumed"]["after"], seen["four"]["after"][2:]))
    assert [records(folder / "four, killed", i) for i in (0, 1)] == [records(folder / "four", i) for i in (0, 1)]
    assert {path.name: find_damage(path) for path in (folder / "four, killed").glob("checkpoint-*")} == {
        f"checkpoint-{step}": None for step in range(1, 5)
    }
