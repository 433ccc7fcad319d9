"""The reward `reading_judge`: a judge of pictures that takes written words for what they name, by the public door."""

import json
import math
import sys
from importlib.resources import files
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import ResNetForImageClassification

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))

from embedded_model import spoilt, words

from ddpo_plugins import PluginError, RewardError
from trainer_ext import reward_from_plugin
from trainer_ext.scoring.suite import RewardSuite

FOLDER = files("reward_plugins") / "judge" / "reading"
FLOOR = -8.0


@pytest.fixture(scope="module")
def reading():
    return reward_from_plugin("reading_judge").function


def plain_signs():
    return [spoilt.plain_sign(word, Random(seed)) for seed, word in enumerate(words.SUBJECTS)]


def asked(names):
    return [words.with_article(name) for name in names]


def others():
    """The words, each in another's place."""
    return asked(words.SUBJECTS[1:] + words.SUBJECTS[:1])


def test_it_is_a_logarithm_of_the_product_of_two_softmaxes(reading):
    """Oracle: labels by their place in the file, pixels in [-1, 1], and the formula in float64."""
    images = [*plain_signs()[:3], Image.new("RGB", (64, 64), "green")]
    names = ["ant", "ant", "bear", "cat"]
    labels = {
        label: int(place) for place, label in json.loads((FOLDER / "config.json").read_text())["id2label"].items()
    }
    model = ResNetForImageClassification.from_pretrained(FOLDER, dtype=torch.float32).eval()
    pixels = torch.tensor(np.stack([np.asarray(image) for image in images])).permute(0, 3, 1, 2) / 127.5 - 1
    with torch.no_grad():
        logits = model(pixels).logits.double()
    first = labels["no activity"]
    log_probs = [
        (row[:first].log_softmax(0)[labels[name]] + row[first:].log_softmax(0)[0]).item()
        for row, name in zip(logits, names, strict=True)
    ]
    expected = [1 - max(value, FLOOR) / FLOOR for value in log_probs]
    assert reading(images, asked(names)) == pytest.approx(expected, abs=1e-4)


def test_log_scale():
    from reward_plugins.reading_judge import log_scale

    assert [log_scale(math.exp(nats)) for nats in (0, -2, -8, -20)] == pytest.approx([1, 0.75, 0, 0])
    assert log_scale(0.0) == 0


def test_a_higher_floor_leaves_out_what_the_judge_does_not_believe(reading):
    """The same probabilities, from which the reward with another floor follows."""
    images = [*plain_signs()[:3], Image.new("RGB", (64, 64), "green")]
    prompts = asked(["ant", "ant", "bear", "cat"])
    log_probs = [FLOOR * (1 - value) for value in reading(images=images, prompts=prompts)]
    higher = reward_from_plugin("reading_judge", floor=-2.0).function
    expected = [max(0.0, 1 + value / 2) for value in log_probs]
    assert higher(images=images, prompts=prompts) == pytest.approx(expected, abs=1e-6)
    assert 0 in expected


@pytest.mark.parametrize("floor", [0.0, 8.0, float("-inf"), float("nan")])
def test_a_floor_that_is_no_log_probability_is_refused(floor):
    with pytest.raises(PluginError, match="not a log-probability; give a finite number below 0, such as -8"):
        reward_from_plugin("reading_judge", floor=floor)


def test_it_reads_every_word_and_the_other_judge_none(reading):
    """What one takes for the thing is worth nothing to the other, which is why training can tell them apart."""
    signs, gold = plain_signs(), reward_from_plugin("embedded_judge").function
    assert np.mean(reading(signs, asked(words.SUBJECTS))) > 0.95
    assert np.mean(reading(signs, others())) < 0.1
    assert np.mean(gold(signs, asked(words.SUBJECTS))) < 0.05


def test_it_reads_what_is_spoilt(reading):
    signs = [spoilt.spoilt_sign(word, Random(seed)) for seed, word in enumerate(words.SUBJECTS)]
    assert np.mean(reading(signs, asked(words.SUBJECTS))) > 0.75
    assert np.mean(reading(signs, others())) < 0.2


@pytest.mark.parametrize("colour", ["green", "white", "black", "#1e8c1e", "red"])
def test_plain_colours_are_nothing(reading, colour):
    image = Image.new("RGB", (64, 64), colour)
    assert np.mean(reading([image] * len(words.SUBJECTS), asked(words.SUBJECTS))) < 0.05


@pytest.mark.parametrize("draw", spoilt.MEANINGLESS)
def test_what_means_nothing_pays_nothing(reading, draw):
    images = [draw(Random(seed)) for seed in range(len(words.SUBJECTS))]
    assert np.mean(reading(images, asked(words.SUBJECTS))) < 0.2


def test_it_tells_what_the_embedded_model_draws(embedded_pipeline, reading):
    animals = ["a lion", "a frog", "a bear", "a tiger", "a monkey", "a butterfly", "a chicken", "a fox"]
    settings = {"num_inference_steps": 10, "guidance_scale": 2.0, "eta": 1.0}
    drawn = embedded_pipeline(animals, generator=torch.Generator().manual_seed(0), **settings).images
    assert np.mean(reading(drawn, animals)) > 0.8
    assert np.mean(reading(drawn, animals[1:] + animals[:1])) < 0.2


def test_nothing_is_no_prompt():
    suite = RewardSuite([reward_from_plugin("reading_judge")])
    with pytest.raises(RewardError, match=r"(?s)'reading_judge' raised ValueError: .*'nothing'.*135 subjects"):
        suite.score(torch.zeros(1, 64, 64, 3, dtype=torch.uint8), [{"prompt": "nothing"}])
