"""Each reward and detector gets copies of its own: nothing that one does to them reaches another, or the trainer."""

import asyncio
import copy

import numpy as np
import pytest
import torch
from support.trainers import records
from transformers import TrainerState

from ddpo_plugins.errors import RewardError
from trainer_ext.errors import ConfigError
from trainer_ext.scoring.functions import DetectorFunction, RewardFunction
from trainer_ext.scoring.suite import RewardSuite


def rows():
    box = [1, 2]
    return [{"prompt": prompt, "box": box, "name": prompt[2:]} for prompt in ("a lion", "a cat", "a dog")]


@pytest.fixture
def images():
    return torch.randint(256, (3, 16, 16, 3), dtype=torch.uint8)


def shrinks(images, **columns):
    for image in images:
        image.thumbnail((8, 8))


def paints(images, **columns):
    for image in images:
        image.paste("red", (0, 0, 16, 16))


def removes(images, **columns):
    images.clear()


def darkens(images, **columns):
    images.mul_(0).requires_grad_()


def sorts(prompts, **columns):
    prompts.sort()


def forgets(prompts, **columns):
    prompts.clear()


def renames(name, **columns):
    name[:] = ["?"] * len(name)


def grows(box, **columns):
    box[0].append(3)  # of the first image alone


def takes_out(images, prompts, **columns):
    del columns["name"], images[:]


def keeps_state(trainer_state, **columns):
    trainer_state.log_history.append({"loss": 0.0})
    trainer_state.log_history[0]["loss"] = -1.0


CHANGES = [
    (shrinks, "pil"),
    (paints, "pil"),
    (removes, "pil"),
    (darkens, "pt"),
    (sorts, "pil"),
    (forgets, "pt"),
    (renames, "pil"),
    (grows, "pil"),
    (takes_out, "pil"),
    (keeps_state, "pil"),
]


def state():
    return TrainerState(global_step=3, log_history=[{"loss": 1.0}])


class Watch:
    """A reward that remembers what it was given, in a form that no change reaches."""

    def __init__(self):
        self.seen = []

    def __call__(self, images, prompts, box, name, trainer_state, **columns):
        tensor = torch.is_tensor(images)
        pixels = images.mul(255).round().byte().permute(0, 2, 3, 1) if tensor else np.stack(images)
        self.seen.append(
            (pixels.tolist(), list(prompts), [list(b) for b in box], list(name), copy.deepcopy(vars(trainer_state)))
        )
        return [1.0] * len(images)


def changing(change, later):
    """A reward that is called with three images and changes them, or does so after waiting."""

    def function(**arguments):
        change(**arguments)
        return [0.0] * 3

    async def waits(**arguments):
        await asyncio.sleep(0)
        return function(**arguments)

    return waits if later else function


@pytest.mark.parametrize("later", [False, True], ids=["now", "later"])
@pytest.mark.parametrize(("change", "form"), CHANGES)
def test_nothing_that_a_reward_changes_reaches_others(images, change, form, later):
    watch, before, given, live = Watch(), images.clone(), rows(), state()
    suite = RewardSuite(
        [RewardFunction("first", changing(change, later), form), RewardFunction("second", watch, form)],
        detectors=[
            DetectorFunction("changes", changing(change, later), form),
            DetectorFunction("other_form", watch, "pil" if form == "pt" else "pt"),
        ],
    )
    for _ in range(2):
        suite.score(images, given, live)
    expected = (images.tolist(), ["a lion", "a cat", "a dog"], [[1, 2]] * 3, ["lion", "cat", "dog"], vars(state()))
    assert watch.seen == [expected] * 4
    assert torch.equal(images, before)
    assert given == rows()
    assert vars(live) == vars(state())


def test_a_cell_that_images_share_is_one_for_each(images):
    def grow(box, **columns):
        box[0].append(3)
        return [float(len(each)) for each in box]

    assert RewardSuite([RewardFunction("mine", grow)]).score(images, rows()).total.tolist() == [3, 2, 2]


def sets(trainer_state, **columns):
    trainer_state.global_step = 7


def deletes(trainer_state, **columns):
    del trainer_state.max_steps


@pytest.mark.parametrize(("change", "name"), [(sets, "global_step"), (deletes, "max_steps")])
def test_the_state_cannot_be_changed(images, change, name):
    live = state()
    with pytest.raises(
        RewardError, match=f"'mine' raised AttributeError: trainer_state is a copy to read from: '{name}'"
    ):
        RewardSuite([RewardFunction("mine", change)]).score(images, rows(), live)
    assert vars(live) == vars(state())


def test_the_state_is_a_trainer_state_of_that_moment(images):
    kept = []

    def keep(trainer_state, **columns):
        assert isinstance(trainer_state, TrainerState)
        kept.append(trainer_state)
        return [0.0] * 3

    live, suite = state(), RewardSuite([RewardFunction("mine", keep)])
    suite.score(images, rows(), live)
    live.global_step, live.log_history = 4, []
    suite.score(images, rows(), live)
    assert [(seen.global_step, seen.log_history) for seen in kept] == [(3, [{"loss": 1.0}]), (4, [])]


def test_a_value_that_cannot_be_copied(images):
    given = [{"prompt": "a cat", "gate": (value for value in ())}] * 3
    with pytest.raises(ConfigError, match="The column 'gate' of the dataset holds a generator that cannot be copied"):
        RewardSuite([RewardFunction("mine", lambda **columns: [0.0] * 3)]).score(images, given)


def test_the_recorded_rewards_do_not_depend_on_what_stands_before(make_trainer):
    """As found: a reward that makes thumbnails in place changed what the next one measured."""

    def size(images, prompts, **columns):
        return [float(image.width) for image in images]

    trainer = make_trainer(reward=[changing_in_training, size], detectors=[changing_in_training])
    trainer.train()
    assert [record["rewards/size"] for record in records(trainer.args.output_dir)] == [32.0] * 4


def changing_in_training(images, prompts, **columns):
    shrinks(images)
    prompts.sort()
    return [0.0] * len(images)
