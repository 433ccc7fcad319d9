import random
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from ddpo_plugins import load_catalogue


@pytest.fixture(scope="module")
def rewards():
    return load_catalogue().rewards


def noise(size, seed=0):
    width, height = size
    return Image.frombytes("RGB", size, random.Random(seed).randbytes(3 * width * height))


def gradient(size):
    return Image.merge("RGB", [Image.linear_gradient("L").resize(size)] * 3)


@pytest.fixture
def images():
    return [Image.new("RGB", (64, 64), "teal"), gradient((64, 64)), noise((64, 64)), noise((96, 32), seed=1)]


def test_incompressibility_is_the_size_of_the_file(rewards, images, tmp_path):
    """Oracle: the file that PIL writes, as the file system measures it."""
    files = [tmp_path / f"{index}.jpg" for index in range(len(images))]
    for image, file in zip(images, files, strict=True):
        image.save(file, quality=95)
    reward = rewards["jpeg_incompressibility"].spec.factory(device="cpu")
    assert reward(images=images, prompts=[""] * 4) == [file.stat().st_size / 1000 for file in files]


def test_compressibility_is_the_negative(rewards, images):
    compressibility = rewards["jpeg_compressibility"].spec.factory(device="cpu")
    incompressibility = rewards["jpeg_incompressibility"].spec.factory(device="cpu")
    sizes = incompressibility(images=images, prompts=[""] * 4)
    assert all(size > 0 for size in sizes)
    assert compressibility(images=images, prompts=[""] * 4) == [-size for size in sizes]


def test_flat_images_compress_and_noise_does_not(rewards, images):
    flat, shaded, noisy, _ = rewards["jpeg_compressibility"].spec.factory(device="cpu")(images=images, prompts=[""] * 4)
    assert flat > shaded > noisy
    # Noise of 64 x 64 x 3 bytes is 12.3 kB raw; quality 95 with halved colours keeps roughly half of that, not a tenth.
    assert -12.3 < noisy < -4


@pytest.mark.parametrize("name", ["jpeg_compressibility", "jpeg_incompressibility"])
def test_rewards_take_the_call_of_the_contract(rewards, name):
    reward = rewards[name].spec.factory(device="cpu")
    columns = {"animal": ["cat"], "trainer_state": None, "log_metric": print, "log_extra": print}
    assert len(reward(images=[noise((8, 8))], prompts=["a cat"], **columns)) == 1
    assert reward(images=[], prompts=[]) == []


@pytest.mark.parametrize("name", ["jpeg_compressibility", "jpeg_incompressibility"])
def test_an_option_that_does_not_exist_is_an_error(rewards, name):
    with pytest.raises(TypeError, match="quality"):
        rewards[name].spec.factory(device="cpu", quality=80)


@pytest.mark.parametrize("name", ["jpeg_compressibility", "jpeg_incompressibility"])
def test_built_in_rewards_come_through_the_public_door(rewards, name):
    offer = rewards[name]
    assert (offer.plugin, offer.distribution) == ("builtin", "ddpo-plugins")
    assert offer.spec.images == "pil"
    assert "kB (1 kB = 1000 bytes)" in offer.spec.description


def test_declaring_the_built_ins_is_cheap():
    code = """
import sys, reward_plugins
reward_plugins.ddpo_register_rewards(); reward_plugins.ddpo_register_detectors()
assert all(len(list(prompts.rows())) > 9 for prompts in reward_plugins.ddpo_register_prompts())
print(sorted({"torch", "numpy", "PIL", "inflect", "rapidocr", "rapidfuzz"} & set(sys.modules)))
"""
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=root, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("[]\n", "")
