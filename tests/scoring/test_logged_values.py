"""What rewards log is checked where they log it, and no name of the trainer's own can be taken."""

import asyncio
import math
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from support.trainers import CAT_AND_DOG, brightness, checkpoints, logs_of, records, returning

from ddpo_plugins import ContractError, RewardSpec
from ddpo_plugins.errors import RewardError
from ddpo_plugins.names import METRICS, RECORD_COLUMNS, is_metric, record_type
from ddpo_plugins.testing import check_reward
from trainer_ext.scoring.functions import DetectorFunction, RewardFunction
from trainer_ext.scoring.suite import RewardSuite

IMAGES = torch.zeros(2, 4, 4, 3, dtype=torch.uint8)
ROWS = [{"prompt": "a cat"}, {"prompt": "a dog"}]


def logging(log, later=False):
    """A reward that logs something."""

    def reward(images, prompts, log_metric, log_extra, **columns):
        log(log_metric=log_metric, log_extra=log_extra)
        return [1.0] * len(images)

    async def waits(**arguments):
        await asyncio.sleep(0)
        return reward(**arguments)

    return waits if later else reward


def extra(values, name="mine/x"):
    return logging(lambda log_extra, **others: log_extra(name, values))


def metric(value, name="mine/x"):
    return logging(lambda log_metric, **others: log_metric(name, value))


def score(*functions):
    return RewardSuite([RewardFunction(f"reward_{i}", function) for i, function in enumerate(functions)]).score(
        IMAGES, ROWS
    )


# Names

OWN_EXTRAS = [*RECORD_COLUMNS, "rewards/reward_0", "rewards/other", "detectors/det", "rewards/reward_0/mean"]
OWN_METRICS = [
    *sorted(METRICS),
    *("rewards/reward_0/mean", "detectors/det/mean", "seconds/rollout", "samples/reward", "eval_reward", "train_loss"),
]


@pytest.mark.parametrize("name", OWN_EXTRAS)
def test_columns_of_the_trainer_cannot_be_logged(name):
    with pytest.raises(
        RewardError, match=f"'reward_0' raised RewardError: log_extra.'{name}'.: this name is taken.*Choose one"
    ):
        score(extra([1, 2], name))


@pytest.mark.parametrize("name", OWN_METRICS)
def test_metrics_of_the_trainer_cannot_be_logged(name):
    with pytest.raises(
        RewardError, match=f"'reward_0' raised RewardError: log_metric.'{name}'.: the trainer logs a metric"
    ):
        score(metric(1000, name))


@pytest.mark.parametrize("name", ["", " ", 3, None, "a\nb", "\ud800", ("a",)])
@pytest.mark.parametrize("log", [lambda name: extra([1, 2], name), lambda name: metric(1, name)])
def test_names_are_texts(name, log):
    with pytest.raises(RewardError, match="'reward_0' raised .*a name is a text that can be printed"):
        score(log(name))


@pytest.mark.parametrize("later", [False, True])
def test_two_rewards_cannot_log_one_metric(later):
    def accuracy(log_metric, **others):
        log_metric("accuracy", 0.5)

    with pytest.raises(
        RewardError, match=r"'reward_1' raised .*log_metric\('accuracy'\): this name is taken by Reward 'reward_0'"
    ):
        score(logging(accuracy, later), logging(accuracy, later))
    assert score(logging(lambda **log: [accuracy(**log), accuracy(**log)])).metrics == {"accuracy": 0.5}, (
        "its own, again"
    )


def test_everything_that_a_run_writes_itself_is_reserved(make_trainer):
    """The table of names has what the writers write, so that none of it can be logged by a reward."""
    detector = DetectorFunction("seen", lambda images, **columns: [0.5] * len(images))
    trainer = make_trainer(
        detectors=[detector],
        eval_dataset=CAT_AND_DOG,
        num_sample_images=1,
        sample_every=1,
        beta=0.1,
        ema_decay=0.5,
        eval_strategy="epoch",
        save_strategy="epoch",
    )
    trainer.train()
    logged = {name for log in trainer.state.log_history for name in log}
    assert {"reward", "loss", "kl", "samples/reward", "eval_reward", "seconds/training", "train_runtime"} <= logged
    assert [name for name in logged if not is_metric(name)] == []
    folder = trainer.args.folder
    columns = {name for record in records(folder) for name in record}
    columns |= set(pq.read_schema(folder / "samples" / "update-00000.parquet").names)
    assert {"rollout", "updates", "rollouts", "rewards/brightness", "detectors/seen"} <= columns
    assert [name for name in columns if record_type(name) is None] == []


# Values


@pytest.mark.parametrize(
    ("values", "logged"),
    [
        ([1, None], [1.0, None]),
        ([True, 2.5], [1.0, 2.5]),
        (torch.tensor([1, 2]), [1.0, 2.0]),
        (np.array([0.5, 1], np.float16), [0.5, 1.0]),
        ([torch.tensor(1.5), np.float32(2)], [1.5, 2.0]),
        ([Fraction(1, 2), 2**53], [0.5, 2.0**53]),
        ((np.str_("a"), "ü🐋"), ["a", "ü🐋"]),
        (torch.eye(2), [[1.0, 0.0], [0.0, 1.0]]),
        ([np.zeros((1, 2)), []], [[[0.0, 0.0]], []]),
        ([("a", "b"), None], [["a", "b"], None]),
    ],
)
def test_values_become_plain(values, logged):
    scored = score(extra(values)).extras["mine/x"]
    assert scored == logged
    assert [type(value) for value in scored] == [type(value) for value in logged]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1, "a"], "got both a number and a text for image 1. All values of a column are"),
        (["a", ["b"]], "got both a text and a list of text for image 1"),
        ([[1], ["a"]], "got both a number and a text for image 1"),
        ([[1, "a"], None], "got both a number and a text for image 0"),
        ([Image.new("RGB", (1, 1)), None], r"got <PIL.Image.* \(Image\) for image 0"),
        ([b"a", None], r"got b'a' \(bytes\) for image 0"),
        ([{"a": 1}, None], r"got {'a': 1} \(dict\) for image 0"),
        ([Decimal(1), None], r"got Decimal\('1'\) \(Decimal\) for image 0"),
        ([1j, None], r"got 1j \(complex\) for image 0"),
        ([2**70, None], "got 1180591620717411303424, an integer of more than 53 bits .log it as a text. for image 0"),
        ([math.nan, None], "got nan for image 0.*None stands for a missing value"),
        ([None, [math.inf]], "got inf for image 1"),
        (["\ud800", None], "which is no valid Unicode for image 0"),
        (torch.ones(2, device="meta"), "Cannot copy out of meta tensor"),
        (
            [torch.ones(2, device="meta")] * 2,
            "got what cannot be read: NotImplementedError: .*meta tensor.* for image 0",
        ),
        ("ab", "got a str; give a list with one value for each image"),
        ({"a": 1, "b": 2}, "got a dict; give a list"),
        (3, "got a int; give a list"),
        (torch.tensor(3), "got a int; give a list"),
        (range(2), "got a range; give a list"),
        ([1, 2, 3], r"got 3 value\(s\) for 2 images"),
    ],
)
def test_values_that_cannot_be_recorded_name_the_reward(values, message):
    with pytest.raises(RewardError, match=f"Reward 'reward_0' raised .*{message}"):
        score(extra(values))


@pytest.mark.parametrize("values", [["a", "b"], [[1.0], [2.0]]])
def test_the_kind_of_a_column_lasts_over_batches(values):
    given = [[1.0, 2.0], [None, None], values]
    suite = RewardSuite(
        [RewardFunction("mine", lambda log_extra, **columns: log_extra("x", given.pop(0)) or [1.0, 1.0])]
    )
    suite.score(IMAGES, ROWS)
    suite.score(IMAGES, ROWS)
    with pytest.raises(
        RewardError, match=r"log_extra\('x'\) got both a number and a (text|list of number) for image 0"
    ):
        suite.score(IMAGES, ROWS)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (math.nan, "got nan; give one finite number"),
        (math.inf, "got inf"),
        (1.7e308, r"got 1.7e\+308, which is more than 3.4e\+38 in magnitude"),
        (10**400, "got inf"),
        ("1", r"got '1' \(str\)"),
        (None, r"got None \(NoneType\)"),
        ([1.0], r"got \[1.0\] \(list\)"),
        (torch.ones(2), r"got tensor.* \(Tensor\)"),
    ],
)
def test_metrics_are_finite_numbers(value, message):
    with pytest.raises(RewardError, match=rf"'reward_0' raised RewardError: log_metric\('mine/x'\) {message}"):
        score(metric(value))


def test_the_kit_finds_the_same():
    for function in (extra([1, "a", 2, 3]), extra([1] * 4, "rewards/x"), metric(math.nan), metric(1, "reward")):
        with pytest.raises(ContractError, match="'contract': called with 4 images, it raised RewardError: log_"):
            check_reward(RewardSpec("mine", lambda device, function=function: function, "One."))


# Rewards that cannot be read


class Short(list):
    def __len__(self):
        return 2


class Odd(Exception):
    def __str__(self):
        raise ValueError("no text")


class NoNumber(float):
    def __float__(self):
        raise OSError("no disk")


def raising(error):
    def reward(**arguments):
        raise error

    return reward


def raising_later(error):
    async def reward(**arguments):
        await asyncio.sleep(0)
        raise error

    return reward


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (
            torch.ones(2, device="meta"),
            "returned a Tensor that cannot be read as 2 numbers: NotImplementedError.*Return a list",
        ),
        (torch.ones(2).to_sparse(), "returned a Tensor that cannot be read as 2 numbers: RuntimeError"),
        (Short([1.0, 2.0, 3.0]), r"returned 3 value\(s\) for 2 images"),
        ([1.0, NoNumber(1)], "returned a list that cannot be read as 2 numbers: OSError: no disk"),
        ([1.7e308, 0.0], r"returned 1.7e\+308, which is more than 3.4e\+38 in magnitude for prompt 'a cat'"),
        ([10**400, 0.0], "returned inf for prompt 'a cat'"),
    ],
)
@pytest.mark.parametrize("later", [False, True])
def test_rewards_that_cannot_be_read_name_the_reward(returned, message, later):
    async def waits(**columns):
        return returned

    with pytest.raises(RewardError, match=f"^Reward 'reward_0' {message}"):
        score(waits if later else returning_it(returned))
    with pytest.raises(ContractError, match=message):
        check_reward(RewardSpec("mine", lambda device: returning_it(returned), "One."), prompts=["a cat", "a dog"])


def returning_it(returned):
    return lambda **columns: returned


@pytest.mark.parametrize("raises", [raising, raising_later])
@pytest.mark.parametrize(
    ("error", "message"),
    [
        (asyncio.CancelledError("gone"), "CancelledError: gone"),
        (Odd(), "Odd: .a message that cannot be shown, because it raises ValueError."),
        (type("Panic", (BaseException,), {})("rust"), "Panic: rust"),
        (SystemExit(0), "SystemExit: 0"),
    ],
)
def test_every_error_names_the_reward(raises, error, message):
    with pytest.raises(RewardError, match=f"^Reward 'reward_0' raised {message}. Training stops"):
        score(raises(error))


@pytest.mark.parametrize(("values", "weights"), [([3e38, 0], [1e300]), ([1.0, 0], [1e39])])
def test_a_sum_that_overflows_is_an_error(values, weights):
    suite = RewardSuite([RewardFunction("mine", returning(*values))], weights)
    with pytest.raises(
        RewardError, match=r"The weighted sum of the rewards is .* for prompt 'a cat': {'mine': .*} with reward_weights"
    ):
        suite.score(IMAGES, ROWS)


def test_sums_that_cancel_out():
    suite = RewardSuite(
        [RewardFunction("a", returning(3e38, 1)), RewardFunction("b", returning(3e38, 1))], [1e300, -1e300]
    )
    with pytest.raises(RewardError, match="The weighted sum of the rewards is nan for prompt 'a cat'"):
        suite.score(IMAGES, ROWS)


# In a training


def test_a_bad_value_in_a_later_rollout_leaves_a_checkpoint(make_trainer):
    calls = []

    def reward(images, prompts, log_extra, **columns):
        calls.append(images)
        log_extra("mine/x", ["a"] * len(images) if len(calls) > 2 else [1] * len(images))
        return brightness(images, prompts)

    trainer = make_trainer(reward=reward, num_train_epochs=2)
    with pytest.raises(
        RewardError, match=r"Reward 'reward' raised .*log_extra\('mine/x'\) got both a number and a text"
    ):
        trainer.train()
    assert checkpoints(trainer.args.folder) == ["checkpoint-1"]


def test_what_is_logged_is_what_was_scored(make_trainer):
    """The largest rewards that are allowed: no mean or standard deviation overflows."""

    def reward(images, **columns):
        return [3e38, -3e38][: len(images)]

    trainer = make_trainer(reward=reward)
    trainer.train()
    (log,) = logs_of(trainer, "reward")
    assert (log["reward"], log["reward_std"]) == (0.0, pytest.approx(3e38))
