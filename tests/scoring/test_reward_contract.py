import asyncio
import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from PIL import Image

from ddpo_plugins.errors import DDPOError, RewardError
from trainer_ext.errors import ConfigError
from trainer_ext.scoring.functions import RewardFunction
from trainer_ext.scoring.scores import Scores
from trainer_ext.scoring.suite import RewardSuite

ROWS = [
    {"prompt": "a cat", "animal": "cat"},
    {"prompt": "a dog", "animal": "dog"},
    {"prompt": "a cat", "animal": "cat"},
]


@pytest.fixture
def images():
    """Three images of 4 x 6 pixels."""
    return torch.randint(256, (3, 4, 6, 3), dtype=torch.uint8)


def returning(value):
    def reward(images, prompts, **columns):
        return value

    return reward


def suite(*functions, weights=None, **named):
    functions = [RewardFunction(f"reward_{index}", function) for index, function in enumerate(functions)]
    return RewardSuite(functions + [RewardFunction(name, function) for name, function in named.items()], weights)


# The call


def test_rewards_get_images_prompts_columns_and_state(images):
    calls, state = [], object()

    def reward(**arguments):
        calls.append(arguments)
        return [0.0, 0.0, 0.0]

    suite(reward).score(images, ROWS, state)
    (arguments,) = calls
    assert set(arguments) == {"images", "prompts", "animal", "trainer_state", "log_metric", "log_extra"}
    assert arguments["prompts"] == ["a cat", "a dog", "a cat"]
    assert arguments["animal"] == ["cat", "dog", "cat"]
    assert arguments["trainer_state"] is state
    assert all(isinstance(image, Image.Image) for image in arguments["images"])
    assert [(image.mode, image.size) for image in arguments["images"]] == [("RGB", (6, 4))] * 3
    assert np.array_equal(np.stack([np.asarray(image) for image in arguments["images"]]), images.numpy())


def test_tensors_for_rewards_that_want_them(images):
    seen = {}

    def pil(images, **columns):
        seen["pil"] = images
        return [0, 0, 0]

    def pt(images, **columns):
        seen["pt"] = images
        return [0, 0, 0]

    RewardSuite([RewardFunction("pil", pil), RewardFunction("pt", pt, images="pt")]).score(images, ROWS)
    assert isinstance(seen["pil"][0], Image.Image)
    assert (seen["pt"].shape, seen["pt"].dtype) == ((3, 3, 4, 6), torch.float32)
    assert torch.equal(seen["pt"][1, 2], images[1, :, :, 2].float() / 255)


def test_a_column_cannot_take_the_place_of_an_argument(images):
    rows = [{"prompt": "a cat", "images": "a.png", "prompts": "no", "trainer_state": "no"}] * 3

    def reward(images, prompts, trainer_state, **columns):
        assert isinstance(images[0], Image.Image)
        assert (prompts, trainer_state) == (["a cat"] * 3, None)
        return [1, 2, 3]

    assert suite(reward).score(images, rows).total.tolist() == [1, 2, 3]


def test_an_object_with_a_call_is_a_function(images):
    class Reward:
        def __call__(self, images, prompts, **columns):
            return [len(prompt) for prompt in prompts]

    assert suite(Reward()).score(images, ROWS).total.tolist() == [5, 5, 5]


# The sum


def test_rewards_are_weighted_and_summed(images):
    scores = suite(first=returning([1.0, 2.0, 3.0]), second=returning([10.0, 0.0, -10.0]), weights=[2.0, 0.5]).score(
        images, ROWS
    )
    assert scores.names == ("first", "second")
    assert scores.values.tolist() == [[1, 10], [2, 0], [3, -10]]
    assert scores.total.tolist() == [7, 4, 1]
    assert scores.total.dtype == np.float64
    assert suite(returning([1, 2, 3]), returning([10, 20, 30])).score(images, ROWS).total.tolist() == [11, 22, 33]


def test_none_is_no_reward_and_never_zero(images):
    scores = suite(returning([1.0, None, None]), returning([-5.0, 7.0, None]), weights=[1.0, 3.0]).score(images, ROWS)
    np.testing.assert_array_equal(scores.values, [[1, -5], [np.nan, 7], [np.nan, np.nan]])
    np.testing.assert_array_equal(scores.total, [-14, 21, np.nan])
    watched = suite(returning([1.0, None, None]), returning([-5.0, 7.0, None]), weights=[1.0, 0.0]).score(images, ROWS)
    np.testing.assert_array_equal(watched.total, [1, np.nan, np.nan], "a reward of weight 0 stands for no other")


@pytest.mark.parametrize(
    "returned",
    [
        pytest.param([1, 0, 3], id="ints"),
        pytest.param((1.0, 0.0, 3.0), id="tuple"),
        pytest.param([np.float32(1), np.int64(0), np.float64(3)], id="numpy numbers"),
        pytest.param(
            [torch.tensor(1), torch.tensor(0.0), torch.tensor(3, dtype=torch.float16)], id="tensors without dimensions"
        ),
        pytest.param([Fraction(1), 0, 3.0], id="fractions"),
        pytest.param(torch.tensor([1, 0, 3]), id="integer tensor"),
        pytest.param(torch.tensor([1.0, 0.0, 3.0], requires_grad=True), id="tensor with a gradient"),
        pytest.param(torch.tensor([1.0, 0.0, 3.0], dtype=torch.bfloat16), id="bfloat16 tensor"),
        pytest.param(np.array([1, 0, 3], dtype=np.uint8), id="integer array"),
    ],
)
def test_any_number_is_taken_as_a_float(images, returned):
    scores = suite(returning(returned)).score(images, ROWS)
    assert scores.total.tolist() == [1.0, 0.0, 3.0]
    assert scores.values.dtype == np.float64


@pytest.mark.parametrize(
    "returned",
    [
        [True, False, True],
        [np.True_, np.False_, np.True_],
        torch.tensor([True, False, True]),
        np.array([True, False, True]),
    ],
)
def test_yes_and_no_are_one_and_zero(images, returned):
    assert suite(returning(returned)).score(images, ROWS).total.tolist() == [1.0, 0.0, 1.0]


# Logging


def test_rewards_log_numbers_and_values(images):
    def reward(images, prompts, log_metric, log_extra, **columns):
        log_metric("found", torch.tensor(2))
        log_extra("caption", [prompt.upper() for prompt in prompts])
        return [0.0] * 3

    scores = suite(reward).score(images, ROWS)
    assert scores.metrics == {"found": 2.0}
    assert scores.extras == {"caption": ["A CAT", "A DOG", "A CAT"]}


def test_an_extra_of_the_wrong_length_names_the_reward(images):
    def reward(images, prompts, log_extra, **columns):
        log_extra("caption", ["only one"])
        return [0.0] * 3

    with pytest.raises(RewardError, match=r"'lengthy' raised .*log_extra\('caption'\) got 1 value\(s\) for 3 images"):
        suite(lengthy=reward).score(images, ROWS)


def test_scores_of_batches_are_joined():
    def scores(values, extras, metrics):
        return Scores(("a",), np.array(values)[:, None], np.array(values), extras, metrics)

    joined = Scores.concatenate(
        [
            scores([1.0, 2.0], {"x": ["p", "q"]}, {"m": 1.0}),
            scores([3.0], {"x": ["r"], "y": ["s"]}, {"m": 2.0, "n": 5.0}),
        ]
    )
    assert joined.total.tolist() == [1, 2, 3]
    assert joined.values.tolist() == [[1], [2], [3]]
    assert joined.metrics == {"m": 1.5, "n": 5.0}, "averaged over the batches that logged them"
    assert joined.extras == {"x": ["p", "q", "r"], "y": [None, None, "s"]}, "one for each image"


# async


def test_async_rewards_run_at_the_same_time(images):
    """Each waits for the other: one after the other, they would wait for ever."""
    events = {"a": asyncio.Event(), "b": asyncio.Event()}

    def waiting(own, other, value):
        async def reward(images, prompts, **columns):
            events[own].set()
            await events[other].wait()
            return [value] * 3

        return reward

    scores = suite(waiting("a", "b", 1.0), returning([10.0, 10.0, 10.0]), waiting("b", "a", 100.0)).score(images, ROWS)
    assert scores.values.tolist() == [[1, 10, 100]] * 3


def test_an_async_reward_is_held_to_the_contract(images):
    async def reward(images, prompts, **columns):
        return [1.0, math.nan, 1.0]

    with pytest.raises(RewardError, match="'slow' returned nan for prompt 'a dog'"):
        suite(slow=reward).score(images, ROWS)


# Breaches


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        pytest.param(
            [0.0, math.nan, 0.0], "returned nan for prompt 'a dog'. Return None where there is none", id="NaN"
        ),
        pytest.param([0.0, math.inf, 0.0], "returned inf for prompt 'a dog'", id="Inf"),
        pytest.param([0.0, -math.inf, 0.0], "returned -inf for prompt 'a dog'", id="minus Inf"),
        pytest.param(torch.tensor([0.0, math.nan, 0.0]), "returned nan for prompt 'a dog'", id="NaN in a tensor"),
        pytest.param([0.0, np.float32("nan"), 0.0], "returned nan for prompt 'a dog'", id="NaN of numpy"),
        pytest.param(
            [1.0, "2.0", 3.0], r"returned '2.0' \(str\) for prompt 'a dog'; expected a float or None", id="a string"
        ),
        pytest.param([1.0, [2.0], 3.0], r"returned \[2.0\] \(list\) for prompt 'a dog'", id="a list in the list"),
        pytest.param(
            [1.0, torch.ones(1), 3.0], r"returned .*\(Tensor\) for prompt 'a dog'", id="a tensor with a dimension"
        ),
        pytest.param([1.0, 2j, 3.0], r"returned 2j \(complex\) for prompt 'a dog'", id="a complex number"),
        pytest.param([1.0, 2.0], r"returned 2 value\(s\) for 3 images; it must return one for each", id="too few"),
        pytest.param(torch.zeros(4), r"returned 4 value\(s\) for 3 images", id="too many"),
        pytest.param([], r"returned 0 value\(s\) for 3 images", id="none at all"),
        pytest.param("abc", "returned a str; expected a list of 3 floats", id="a text of the right length"),
        pytest.param({"reward": [1, 2, 3]}, "returned a dict; expected a list of 3 floats", id="a dict"),
        pytest.param({1.0, 2.0, 3.0}, "returned a set; expected a list", id="a set, which has no order"),
        pytest.param(1.0, "returned a float; expected a list", id="one number"),
        pytest.param(None, "returned a NoneType; expected a list", id="nothing"),
        pytest.param((x for x in (1.0, 2.0, 3.0)), "returned a generator; expected a list", id="a generator"),
        pytest.param(torch.zeros(3, 1), r"returned shape \(3, 1\); expected \(3,\)", id="a column"),
        pytest.param(np.zeros((1, 3)), r"returned shape \(1, 3\); expected \(3,\)", id="a row"),
        pytest.param(torch.tensor(1.0), r"returned shape \(\); expected \(3,\)", id="a tensor without dimensions"),
    ],
)
def test_a_breach_of_the_contract_is_a_named_error(images, returned, message):
    with pytest.raises(RewardError, match=f"Reward 'theirs' {message}") as caught:
        suite(fine=returning([1.0, 2.0, 3.0]), theirs=returning(returned)).score(images, ROWS)
    assert isinstance(caught.value, DDPOError)


def raising(images, prompts, **columns):
    raise OSError("no connection")


async def raising_later(images, prompts, **columns):
    await asyncio.sleep(0)
    raise OSError("no connection")


@pytest.mark.parametrize("function", [raising, raising_later])
def test_a_raised_error_is_named_and_kept(images, function):
    with pytest.raises(
        RewardError, match=r"'theirs' raised OSError: no connection. Training stops.*repair the reward and resume"
    ) as caught:
        suite(fine=returning([1.0, 2.0, 3.0]), theirs=function).score(images, ROWS)
    assert isinstance(caught.value.__cause__, OSError)


def test_an_interrupt_by_the_user_is_no_failure_of_the_reward(images):
    def reward(**columns):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        suite(reward).score(images, ROWS)


# Wrong from the start


@pytest.mark.parametrize(
    ("function", "message"),
    [
        pytest.param(
            lambda images, prompts: [], r"'mine' takes only \(images, prompts\).*\*\*columns", id="no columns"
        ),
        pytest.param(lambda *args: [], r"'mine' takes only \(args\)", id="only positions"),
        pytest.param("jpeg", "'mine' is a str; it must be a function", id="a name"),
    ],
)
def test_functions_that_cannot_be_called_are_refused(function, message):
    with pytest.raises(ConfigError, match=message):
        RewardFunction("mine", function)


@pytest.mark.parametrize("images", ["PIL", "np", None])
def test_forms_of_images_that_do_not_exist(images):
    with pytest.raises(ConfigError, match=f"Reward 'mine' has images={images!r}; it must be 'pil'"):
        RewardFunction("mine", returning([]), images)


@pytest.mark.parametrize(
    ("names", "weights", "message"),
    [
        ([], None, "No reward function was given"),
        (["a", "b", "a"], None, r"Two rewards have the same name \(a, b, a\)"),
        (["a", "b"], [1.0], r"reward_weights has 1 value\(s\) for 2 reward\(s\) \(a, b\)"),
    ],
)
def test_suites_that_make_no_sense_are_refused(names, weights, message):
    with pytest.raises(ConfigError, match=message):
        RewardSuite([RewardFunction(name, returning([])) for name in names], weights)


def test_async_rewards_work_where_an_event_loop_runs_already():
    async def notebook():
        return RewardSuite([RewardFunction("late", late)]).score(
            torch.zeros(1, 2, 2, 3, dtype=torch.uint8), [{"prompt": "a"}]
        )

    async def late(images, prompts, **columns):
        return [2.0]

    assert asyncio.run(notebook()).total.tolist() == [2.0]


@pytest.mark.parametrize("name", ["reward", "prompt", "mine"])
def test_an_extra_cannot_replace_what_is_there(name):
    def reward(images, prompts, log_extra, **columns):
        log_extra("mine", [1])
        log_extra(name, [2])
        return [1.0]

    with pytest.raises(RewardError, match=f"log_extra\\('{name}'\\): this name is taken"):
        RewardSuite([RewardFunction("reward", reward)]).score(
            torch.zeros(1, 2, 2, 3, dtype=torch.uint8), [{"prompt": "a"}]
        )
