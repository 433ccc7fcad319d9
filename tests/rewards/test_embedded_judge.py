"""The reward `embedded_judge`: what the classifier that ships with the embedded model says, by the public door."""

import json
from importlib.resources import files

import numpy as np
import pytest
import torch
from PIL import Image
from support.pages import ROOT
from transformers import ResNetForImageClassification

from ddpo_plugins import PluginError, RewardError
from trainer_ext import prompts_from_plugin, reward_from_plugin
from trainer_ext.scoring.suite import RewardSuite

FOLDER = files("reward_plugins") / "judge"
PROMPTS = ["a cat", "An ant riding a bike ", "unicorn wearing a hat"]


@pytest.fixture(scope="module")
def images():
    noise = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), np.uint8)
    return [Image.fromarray(pixels) for pixels in noise]


@pytest.fixture(scope="module")
def judge():
    return reward_from_plugin("embedded_judge").function


def test_it_is_the_product_of_two_softmaxes(images, judge):
    """Oracle: labels by their place in the file, pixels in [-1, 1], and the formula in float64."""
    labels = {
        label: int(place) for place, label in json.loads((FOLDER / "config.json").read_text())["id2label"].items()
    }
    model = ResNetForImageClassification.from_pretrained(FOLDER, dtype=torch.float32).eval()
    pixels = torch.tensor(np.stack([np.asarray(image) for image in images])).permute(0, 3, 1, 2) / 127.5 - 1
    with torch.no_grad():
        scores = model(pixels).logits.double().exp()
    asked = [("cat", "no activity"), ("ant", "riding a bike"), ("unicorn", "wearing a hat")]
    expected = [
        (row[labels[subject]] / row[:135].sum() * row[labels[activity]] / row[135:].sum()).item()
        for row, (subject, activity) in zip(scores, asked, strict=True)
    ]
    assert judge(images, PROMPTS) == pytest.approx(expected, rel=1e-4)
    assert next(label for label, place in labels.items() if place >= 135) == "no activity"


def test_another_judge_of_the_recipe(embedded_pipeline, judge):
    """The second judge, which benchmarks ask, agrees on what is drawn, and has other weights."""
    second = reward_from_plugin("embedded_judge", folder=str(ROOT / "benchmarks" / "second_judge")).function
    animals = ["a lion", "a frog", "a bear", "a tiger"]
    settings = {"num_inference_steps": 10, "guidance_scale": 2.0, "eta": 1.0}
    drawn = embedded_pipeline(animals, generator=torch.Generator().manual_seed(0), **settings).images
    assert np.mean(second(drawn, animals)) > 0.8
    assert np.mean(second(drawn, animals[::-1])) < 0.1
    assert second(drawn, animals) != judge(drawn, animals)
    with pytest.raises(PluginError, match="nowhere"):
        reward_from_plugin("embedded_judge", folder="nowhere")


@pytest.mark.parametrize("batch_size", [1, 2])
def test_batches_change_nothing(images, judge, batch_size):
    small = reward_from_plugin("embedded_judge", batch_size=batch_size).function
    assert small(images, PROMPTS) == pytest.approx(judge(images, PROMPTS), rel=1e-4)


def test_all_sizes_are_read(images, judge):
    sized = [image.resize((96, 48)) for image in images]
    back = [image.resize((64, 64), Image.Resampling.BILINEAR) for image in sized]
    assert judge(sized, PROMPTS) == pytest.approx(judge(back, PROMPTS), rel=1e-4)


def test_it_tells_what_the_embedded_model_draws(embedded_pipeline, judge):
    animals = ["a lion", "a frog", "a bear", "a tiger", "a monkey", "a butterfly", "a chicken", "a fox"]
    settings = {"num_inference_steps": 10, "guidance_scale": 2.0, "eta": 1.0}
    drawn = embedded_pipeline(animals, generator=torch.Generator().manual_seed(0), **settings).images
    assert np.mean(judge(drawn, animals)) > 0.8
    assert np.mean(judge(drawn, animals[1:] + animals[:1])) < 0.1
    assert np.mean(judge(drawn, [f"{animal} playing chess" for animal in animals])) < 0.1


@pytest.mark.parametrize("prompts", ["animals", "animal_activities"])
def test_it_knows_the_papers_prompts(images, judge, prompts):
    rows = prompts_from_plugin(prompts)["prompt"]
    scores = judge([images[0]] * len(rows), list(rows))
    assert len(set(scores)) == len(rows)


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        ("a cta", "'a cta'.*135 subjects ant, bat.*near: 'cat'"),
        ("two cats", "'two cats'.*riding a bike.*`animals`"),
        ("a cat and a dog", "'a cat and a dog'"),
        ("a cat riding a horse", "near: 'cat riding a bike'"),
        ("a cat no activity", "'a cat no activity'"),
        ("", "''"),
    ],
)
def test_other_prompts_are_refused(prompt, said):
    suite = RewardSuite([reward_from_plugin("embedded_judge")])
    with pytest.raises(RewardError, match=f"(?s)'embedded_judge' raised ValueError: .*{said}"):
        suite.score(torch.zeros(1, 64, 64, 3, dtype=torch.uint8), [{"prompt": prompt}])
