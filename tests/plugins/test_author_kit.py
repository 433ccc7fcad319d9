"""The checks that plugin authors run: what keeps the contract passes, and each breach is found and told."""

import asyncio
import math
import random
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image, ImageStat

from ddpo_plugins import ContractError, DDPOError, DetectorSpec, RewardSpec
from ddpo_plugins.testing import check_detector, check_reward
from ddpo_plugins.testing.checks import CHECKS


def brightness(image):
    return sum(ImageStat.Stat(image).mean) / 765


def spec(function, kind=RewardSpec, images="pil", description="Something, in [0, 1]."):
    return kind("mine", lambda device: function, description, images)


def good(images, prompts, **columns):
    return [brightness(image) + len(prompt) for image, prompt in zip(images, prompts, strict=True)]


async def good_later(images, prompts, **columns):
    await asyncio.sleep(0)
    return good(images, prompts)


class GoodObject:
    def __call__(self, images, prompts, **columns):
        return np.array(good(images, prompts))


def good_with_logs(images, prompts, log_metric, log_extra, **columns):
    log_metric("share", 0.5)
    log_extra("mine/length", [len(prompt) for prompt in prompts])
    return [len(prompt) if len(prompt) < 100 else None for prompt in prompts]


@pytest.mark.parametrize("function", [good, good_later, GoodObject(), good_with_logs])
def test_what_keeps_the_contract_passes(function):
    check_reward(spec(function))


def test_the_values_are_returned():
    images = [Image.new("RGB", (8, 8), colour) for colour in ("black", "white", "black")]
    assert check_reward(spec(good), images=images, prompts=["a", "bb", "ccc"]) == [1, 3, 3]
    assert check_reward(spec(good_with_logs), images=images[:2], prompts=["a", "x" * 100]) == [1, None]


@pytest.mark.parametrize("images", ["pil", "pt"])
def test_images_are_of_the_kind_that_the_spec_asks_for(images):
    def reward(images, prompts, **columns):
        if isinstance(images, list):
            return [brightness(image) for image in images]
        assert images.dtype == torch.float32
        return images.mean(dim=(1, 2, 3))

    given = [Image.new("RGB", (8, 4), (0, 51, 204)), Image.new("RGB", (8, 4), "white")]
    assert check_reward(spec(reward, images=images), images=given) == pytest.approx([1 / 3, 1])


def test_pixels_of_tensors_are_where_they_are_in_the_image():
    seen = []

    def reward(images, prompts, **columns):
        seen.append(images)
        return [0] * len(images)

    image = Image.new("RGB", (8, 4))
    image.putpixel((6, 1), (255, 0, 51))
    check_reward(spec(reward, images="pt"), images=[image])
    assert torch.equal(seen[0].nonzero(), torch.tensor([[0, 0, 1, 6], [0, 2, 1, 6]]))
    assert seen[0].sum().item() == pytest.approx(1.2)


def test_options_columns_and_device_reach_the_plugin():
    def factory(device, power=1):
        assert device == "meta"
        return lambda images, animal, **columns: [len(name) ** power for name in animal]

    values = check_reward(
        RewardSpec("mine", factory, "Length."), columns={"animal": ["cat", "goat"]}, options={"power": 2}, device="meta"
    )
    assert values == [9, 16]


def test_a_reward_that_compares_images_says_so():
    def above_mean(images, prompts, **columns):
        values = [brightness(image) for image in images]
        return [value - sum(values) / len(values) for value in values]

    with pytest.raises(ContractError, match="'one image'.*called with each image alone, image 0 got 0; before"):
        check_reward(spec(above_mean))
    check_reward(spec(above_mean), independent=False)


def test_a_tolerance_is_for_rounding():
    calls = []

    def reward(images, prompts, **columns):
        calls.append(None)
        return [1 + 1e-3 * len(calls)] * len(images)

    with pytest.raises(ContractError, match=r"'determinism'.*got 1.002; before, it got 1.001 \(tolerance 0.0001\)"):
        check_reward(spec(reward))
    calls.clear()
    check_reward(spec(reward), tolerance=0.1)


# Breaches

state = random.Random(0)


def positional(images, prompts):
    return good(images, prompts)


def by_place(images, prompts, **columns):
    return list(range(len(images)))


def padded(images, prompts, **columns):
    """Depends on the longest prompt of the batch, as models do that attend to padding."""
    return [max(map(len, prompts))] * len(prompts) if prompts else []


def pops(images, prompts, **columns):
    return [brightness(images.pop(0)) for _ in prompts]


def paints(images, prompts, **columns):
    values = good(images, prompts)
    for image in images:
        image.paste("red", (0, 0, 2, 2))
    return values


def darkens(images, prompts, **columns):
    values = images.mean(dim=(1, 2, 3))
    images.mul_(0.5)
    return values


def lowers(images, prompts, **columns):
    prompts[:] = [prompt.upper() for prompt in prompts]
    return [0.0] * len(images)


def square(images, prompts, **columns):
    for image in images:
        if image.width != image.height:
            raise ValueError("not square")
    return [0.0] * len(images)


def squared_and_64(images, prompts, **columns):
    assert all(image.size in ((64, 64), (96, 48)) for image in images), "not 64"
    return [0.0] * len(images)


def extra_of_wrong_length(images, prompts, log_extra, **columns):
    log_extra("mine", [1])
    return good(images, prompts)


def extra_of_taken_name(images, prompts, log_extra, **columns):
    log_extra("reward", prompts)
    return good(images, prompts)


async def raising_later(images, prompts, **columns):
    raise OSError("no connection")


@pytest.mark.parametrize(
    ("function", "check", "message"),
    [
        (positional, "contract", "4 images, it raised TypeError: .*a_column_of_another_dataset.* Take \\*\\*columns"),
        (lambda images, **columns: [0.0], "contract", r"returned 1 value\(s\) for 4 images"),
        (lambda images, **columns: [math.nan] * len(images), "contract", "returned nan for prompt 'a cat'"),
        (lambda images, **columns: ["1"] * len(images), "contract", r"returned '1' \(str\)"),
        (lambda images, **columns: torch.ones(len(images), 1), "contract", r"returned shape \(4, 1\); expected \(4,\)"),
        (lambda images, **columns: None, "contract", "returned a NoneType"),
        (lambda images, **columns: 1 / 0, "contract", "raised ZeroDivisionError: division by zero"),
        (lambda images, **columns: sys.exit(3), "contract", "raised SystemExit: 3"),
        (raising_later, "contract", "raised OSError: no connection"),
        (extra_of_wrong_length, "contract", r"log_extra\('mine'\) got 1 value\(s\) for 4 images"),
        (extra_of_taken_name, "contract", r"log_extra\('reward'\): this name is taken"),
        (lambda images, **columns: [state.random() for _ in images], "determinism", "same images again, image 0 got"),
        (by_place, "batch order", "reverse order, image 0 got 3; before, it got 0"),
        (padded, "one image", "alone, image 0 got 5; before, it got"),
        (lambda images, **columns: [len(images[0].mode)] * len(images), "empty batch", "no images, it raised IndexError"),
        (lambda images, **columns: [0.0] * max(1, len(images)), "empty batch", r"returned 1 value\(s\) for 0 images"),
        (pops, "arguments", "it changed 'images'"),
        (paints, "arguments", "it changed 'images'"),
        (lowers, "arguments", "it changed 'prompts'"),
        (square, "sizes", "an image of 96 x 48 pixels, it raised ValueError: not square"),
        (squared_and_64, "sizes", "an image of 40 x 40 pixels, it raised AssertionError: not 64"),
    ],
)  # fmt: skip
def test_a_breach_is_found_and_told(function, check, message):
    with pytest.raises(ContractError, match=f"(?s)Reward 'mine' fails the check '{check}': .*{message}") as caught:
        check_reward(spec(function))
    assert isinstance(caught.value, AssertionError)
    assert isinstance(caught.value, DDPOError)
    rule = next((part.rule for part in CHECKS if part.name == check), "Take **columns")
    assert rule in str(caught.value)


def test_a_tensor_that_is_changed():
    with pytest.raises(ContractError, match="it changed 'images'"):
        check_reward(spec(darkens, images="pt"))


def test_the_cause_is_kept():
    with pytest.raises(ContractError) as caught:
        check_reward(spec(lambda images, **columns: 1 / 0))
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


@pytest.mark.parametrize("value", [-0.01, 1.01])
def test_detectors_are_in_zero_to_one(value):
    def detector(images, prompts, **columns):
        return [0.0, 1.0, None, value][: len(images)]

    assert check_reward(spec(lambda images, **columns: [value] * len(images))) == [value] * 4
    with pytest.raises(
        ContractError, match=rf"Detector 'mine' fails the check 'contract'.*returned {value} for prompt"
    ):
        check_detector(spec(detector, DetectorSpec))
    assert check_detector(spec(lambda images, **columns: [1] * len(images), DetectorSpec)) == [1] * 4


@pytest.mark.parametrize("description", ["", "  ", "One.\nTwo."])
def test_a_description_is_one_line(description):
    with pytest.raises(ContractError, match="'mine' fails the check 'description'"):
        check_reward(spec(good, description=description))


def refuses_wrongly(device, **options):
    if options:
        raise TypeError("no options")


def refuses_otherwise(device, **options):
    raise KeyError("an_option_that_does_not_exist")


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        (lambda device, **options: good, "'an_option_that_does_not_exist', it raised nothing"),
        (refuses_wrongly, "a TypeError that does not name it: no options"),
        (refuses_otherwise, "no TypeError but KeyError"),
    ],
)
def test_a_misspelt_option_is_an_error(factory, message):
    with pytest.raises(ContractError, match=f"fails the check 'options': .*{message}.*Name each option"):
        check_reward(RewardSpec("mine", factory, "One."))


def failing_factory(device, folder):
    raise OSError(f"no weights in {folder}")


def test_a_factory_builds_a_function():
    with pytest.raises(
        ContractError, match=r"'factory': built with device='cpu' and \{'folder': 'x'\}, it raised OSError"
    ):
        check_reward(RewardSpec("mine", failing_factory, "One."), options={"folder": "x"})
    with pytest.raises(ContractError, match="'factory': .* the factory returned None"):
        check_reward(RewardSpec("mine", lambda device: None, "One."))


def test_lengths_must_agree():
    with pytest.raises(ValueError, match=r"got \{'prompts': 2, 'animal': 3\}"):
        check_reward(spec(good), prompts=["a", "b"], columns={"animal": ["c"] * 3})
    with pytest.raises(ValueError, match=r"at least one; got \{'images': 0\}"):
        check_reward(spec(good), images=[])


@pytest.mark.parametrize("name", ["prompt", "images", "prompts", "trainer_state", "log_metric", "log_extra"])
def test_columns_cannot_be_called_like_arguments(name):
    with pytest.raises(
        ValueError, match=f"A dataset cannot have the column '{name}': rewards have own arguments. Rename it"
    ):
        check_reward(spec(good), columns={name: ["a"]})


def test_async_rewards_have_one_loop_also_in_a_notebook():
    loops = set()

    async def reward(images, prompts, **columns):
        loops.add(asyncio.get_running_loop())
        return good(images, prompts)

    async def notebook():
        return check_reward(spec(reward))

    assert len(asyncio.run(notebook())) == 4
    assert len(loops) == 1


def test_torch_is_not_imported():
    code = """
import sys
from ddpo_plugins import RewardSpec
from ddpo_plugins.testing import check_reward
check_reward(RewardSpec("one", lambda device: lambda images, **columns: [1.0] * len(images), "One."))
print(sorted({"torch", "numpy"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("[]\n", "")
