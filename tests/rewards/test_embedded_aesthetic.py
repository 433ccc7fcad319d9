"""The reward `embedded_aesthetic`: a linear head on the features of the embedded model's judge, by the public door."""

from importlib.resources import files

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from safetensors.torch import load_file
from transformers import ResNetForImageClassification

from trainer_ext import reward_from_plugin

JUDGE = files("reward_plugins") / "judge"


@pytest.fixture(scope="module")
def aesthetic():
    return reward_from_plugin("embedded_aesthetic", batch_size=2).function


def picture(number):
    image = Image.new("RGB", (64, 64), (40 * number, 200, 120))
    ImageDraw.Draw(image).ellipse((10, 12, 50, 40 + number), (200, 30 * number, 60))
    return image


def test_it_is_a_linear_head_on_the_judges_features(aesthetic):
    """Oracle: the hidden state before the judge's own classifier, averaged over places, in float64."""
    images = [picture(number) for number in range(3)]
    model = ResNetForImageClassification.from_pretrained(JUDGE, dtype=torch.float64).eval()
    head = load_file(JUDGE / "taste" / "model.safetensors")
    pixels = torch.tensor(np.stack([np.asarray(image) for image in images])).permute(0, 3, 1, 2).double() / 127.5 - 1
    with torch.no_grad():
        features = model(pixels, output_hidden_states=True).hidden_states[-1].mean((2, 3))
    expected = (features @ head["weight"].double() + head["bias"].double()).tolist()
    assert aesthetic(images=images, prompts=["a cat"] * 3) == pytest.approx(expected, abs=1e-4)
    assert len({round(value, 3) for value in expected}) == 3


def test_it_does_not_read_the_prompt(aesthetic):
    images = [picture(1)] * 2
    first, second = aesthetic(images=images, prompts=["a cat", "a sign that says dog"])
    assert first == second
