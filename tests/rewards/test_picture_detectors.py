"""Detectors that need no weights: images that are no pictures, and pictures that are alike."""

import random

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from support.stand_ins import save_classifier
from transformers import Dinov2Config, Dinov2Model

from ddpo_plugins import load_catalogue
from reward_plugins.detectors.duplicates import nearest_distances

DETECTORS = load_catalogue().detectors
ANIMALS = ["cat", "dog", "lion", "bear", "frog"]


def score(name, images, prompts=None):
    extras = {}
    detector = DETECTORS[name].spec.factory(device="cpu")
    prompts = [""] * len(images) if prompts is None else prompts
    scores = detector(images=images, prompts=prompts, log_extra=extras.__setitem__, a_column=prompts)
    assert all(len(values) == len(images) for values in extras.values())
    return scores, {key.split("/")[1]: values for key, values in extras.items()}


def picture(values):
    """Make an image of numbers in [0, 255], `(H, W)` or `(H, W, 3)`."""
    array = np.asarray(values).clip(0, 255).round().astype(np.uint8)
    return Image.fromarray(array).convert("RGB")


def scene(seed, size=(64, 64)):
    draw = random.Random(seed)
    image = Image.new("RGB", size, tuple(draw.choices(range(40, 220), k=3)))
    pen = ImageDraw.Draw(image)
    pen.rectangle((0, size[1] * draw.uniform(0.5, 0.8), *size), tuple(draw.choices(range(40, 220), k=3)))
    for _ in range(5):
        x, y, r = draw.uniform(0, size[0]), draw.uniform(0, size[1]), draw.uniform(0.05, 0.3) * min(size)
        pen.ellipse((x - r, y - r, x + r, y + r), tuple(draw.choices(range(40, 220), k=3)))
    return image


def noise(size=(64, 64), deviation=60.0, seed=0):
    return 128 + deviation * np.random.default_rng(seed).normal(size=(*size, 3))


def checkerboard(square, size=(64, 64)):
    return 255 * ((np.indices(size) // square).sum(axis=0) % 2)


BLANK = {
    "one colour": [
        Image.new("RGB", (64, 64), "teal"),
        picture(noise(deviation=2)),
        Image.new("RGB", (300, 5), "white"),
    ],
    "noise": [picture(noise()), picture(noise(deviation=20)), picture(noise((128, 40))), picture(noise()[..., 0])],
    "pure colours": [picture(255 * (np.asarray(scene(1)) > 120) * [1, 1, 0] + [0, 0, 0])],
    "grid": [
        *(picture(checkerboard(square)) for square in (4, 5, 8)),
        picture(np.asarray(scene(2), float) + 20 * (np.indices((64, 64)) % 2 == 0).any(axis=0)[..., None]),
        picture(np.asarray(scene(3, (96, 72)), float) + 25 * (np.arange(96) % 3 == 0)[None, :, None]),
    ],
}


@pytest.mark.parametrize("kind", BLANK)
def test_what_is_no_picture_is_found_and_named(kind):
    if kind == "pure colours":
        stripes = np.zeros((64, 64, 3))
        stripes[:, :30] = [255, 0, 0]
        stripes[:, 30:] = [0, 255, 255]
        images = [picture(stripes)]
    else:
        images = BLANK[kind]
    scores, found = score("blank_or_noise", images)
    assert min(scores) > 0.5
    assert found["kind"] == [kind] * len(images)


def test_pictures_are_left_alone():
    """Scenes, smooth and rough surfaces, and things in rows that are not all over the image."""
    shades = np.add.outer(np.arange(64), 2 * np.arange(64))
    rough = noise((128, 128)).cumsum(axis=0).cumsum(axis=1)
    rough = 128 + 50 * (rough - rough.mean()) / rough.std()
    fence = np.asarray(scene(7), float)
    fence[40:60, 8:56] += 40 * (np.arange(48) // 4 % 2)[None, :, None]
    images = [
        *(scene(seed) for seed in range(20)),
        picture(shades),
        picture(rough),
        picture(fence),
        scene(3, (512, 300)),
    ]
    scores, found = score("blank_or_noise", images)
    assert max(scores) < 0.3
    assert all(kind == "" for kind, value in zip(found["kind"], scores, strict=True) if value == 0)


def test_flatness_by_hand():
    """Half 123, half 133: standard deviation 5/255 in every channel; 1 up to 0.01, 0 from 0.04."""
    values = np.full((64, 64), 123)
    values[:, 32:] = 133
    assert score("blank_or_noise", [picture(values)])[0] == [pytest.approx((0.04 - 5 / 255) / 0.03)]


def test_noise_by_hand():
    """Columns that are independent, rows that are equal: half of all neighbours are correlated by 0, half by 1."""
    columns = np.repeat(128 + 40 * np.random.default_rng(0).normal(size=(1, 4096)), 64, axis=0)
    (value,), found = score("blank_or_noise", [picture(columns)])
    assert value == pytest.approx((0.6 - 0.5) / 0.3, abs=0.05)
    assert found["kind"] == ["noise"]


def test_pure_colours_by_hand():
    """Chroma of 0.9 or more on 60 % of the pixels is half way between 40 % and 80 %."""
    values = np.full((60, 60, 3), [200, 190, 180])
    values[:36] = [250, 120, 10]
    assert score("blank_or_noise", [picture(values)])[0] == [pytest.approx(0.5)]


def test_a_grid_counts_by_its_strength_not_by_its_place():
    base = np.asarray(scene(5), float)
    lines = (np.indices((64, 64)) % 4 == 0).any(axis=0)[..., None]
    scores, _ = score("blank_or_noise", [picture(base + strength * lines) for strength in (0, 6, 12, 30)])
    assert scores == sorted(scores)
    assert scores[0] < 0.1
    assert scores[3] > 0.9
    moved, _ = score("blank_or_noise", [picture(base + 30 * np.roll(lines, shift, (0, 1))) for shift in (1, 2)])
    assert moved == pytest.approx([scores[3]] * 2, abs=0.1)


def waves(periods, strength):
    return strength * np.sin(2 * np.pi * periods * np.arange(64) / 64)[None, :, None]


def test_a_grid_is_fine_strong_enough_and_need_not_fit_the_image():
    base = np.asarray(scene(5), float)
    shade = np.linspace(0, 255, 64)[:, None, None] + np.zeros((64, 64, 3))
    images = [base + waves(2, 60), shade + waves(16, 3), base + waves(14.5, 25)]
    (coarse, weak, odd), found = score("blank_or_noise", [picture(values) for values in images])
    assert coarse < 0.1
    assert weak < 0.1
    assert odd > 0.8
    assert found["kind"][2] == "grid"


@pytest.mark.parametrize("name", ["blank_or_noise", "low_diversity"])
def test_images_of_any_size_and_mode(name):
    images = [Image.new("RGB", (1, 1)), Image.new("L", (3, 200), 90), scene(1, (17, 90)), scene(1).convert("L")]
    scores, _ = score(name, images, ["a", "a", "b", "b"])
    assert all(0 <= value <= 1 for value in scores)
    assert score(name, [])[0] == []


@pytest.mark.parametrize("name", ["blank_or_noise", "low_diversity"])
def test_order_does_not_matter(name):
    images = [scene(1), scene(2), picture(noise()), scene(1)]
    prompts = ["a", "a", "a", "b"]
    forwards, backwards = score(name, images, prompts)[0], score(name, images[::-1], prompts[::-1])[0]
    assert forwards == pytest.approx(backwards[::-1])
    assert len(set(forwards)) > 1


def test_diversity_by_hand():
    """One colour each: the first two differ by 25/255, half as far as counts; the third by more than counts."""
    images = [Image.new("RGB", (32, 32), (level,) * 3) for level in (0, 25, 102, 255)]
    scores, found = score("low_diversity", images, ["a", "a", "a", "b"])
    near = 25 / 255 / 0.2
    assert scores == [pytest.approx(1 - (near + 1) / 2), pytest.approx(1 - (near + 1) / 2), 0, None]
    assert found["group_size"] == [3, 3, 3, 1]


def test_equal_pictures_score_one_and_different_ones_little():
    same, _ = score("low_diversity", [scene(1)] * 4, ["a cat"] * 4)
    assert same == [1] * 4
    independent, _ = score("low_diversity", [scene(seed) for seed in range(8)], ["a cat"] * 8)
    assert np.mean(independent) < 0.25
    mixed, _ = score("low_diversity", [scene(1)] * 4 + [scene(2)] * 4, ["a cat", "a dog"] * 4)
    assert np.mean(independent) < np.mean(mixed) < 1
    assert score("low_diversity", [scene(1)] * 2, ["a cat", "a dog"])[0] == [None, None]


def test_detail_and_small_shifts_do_not_make_pictures_different():
    base = np.asarray(scene(4), float)
    shifted = [picture(np.roll(base, shift, axis=1) + noise(deviation=5, seed=shift) - 128) for shift in range(3)]
    assert min(score("low_diversity", shifted, ["a cat"] * 3)[0]) > 0.6


def test_no_false_alarms_on_the_embedded_model(embedded_pipeline):
    """It draws no text. What it draws of one prompt differs, but less than unrelated pictures do."""
    prompts = [f"a {animal}" for animal in ANIMALS for _ in range(4)]
    images = embedded_pipeline(
        prompts, num_inference_steps=6, guidance_scale=1.0, eta=1.0, generator=torch.Generator().manual_seed(0)
    ).images
    for name in ("typographic_attack", "rendered_text", "blank_or_noise"):
        scores, _ = score(name, images, prompts)
        assert max(scores) <= 0.5, name
    scores, found = score("low_diversity", images, prompts)
    assert max(scores) < 0.7
    assert found["group_size"] == [4] * 20


def test_near_duplicates_of_the_nearest_image():
    """Unlike the mean of low_diversity: two that are equal, among three that are not."""
    images = [scene(1), scene(2), scene(1), scene(3), scene(4)]
    scores, _ = score("near_duplicates", images, ["a"] * 5)
    assert scores[0] == scores[2] == pytest.approx(1.0, abs=1e-4)
    assert all(0 <= value < 0.98 for value in (scores[1], scores[3], scores[4]))
    repeated, _ = score("near_duplicates", [scene(1)] * 3, ["a", "b", "b"])
    assert repeated == [None, *[pytest.approx(1, abs=1e-4)] * 2]


def test_near_duplicates_by_hand():
    features = torch.tensor([[2.0, 0.0], [3.0, 4.0], [0.0, 1.0], [-1.0, 0.0]])
    # cosines: 0.6 and 0 and -1 for the first; 0.6, 0.8 and -0.6 for the second; 0, 0.8, 0; and -1, -0.6, 0
    assert nearest_distances(features).tolist() == pytest.approx([0.4, 0.2, 0.2, 1.0])


def test_near_duplicates_by_a_network_of_the_user_s(tmp_path):
    torch.manual_seed(0)
    save_classifier(tmp_path, ["cat", "dog"])
    with pytest.raises(ValueError, match="has no weights for pooler.dense.bias.*would be random"):
        DETECTORS["near_duplicates"].spec.factory(device="cpu", model=str(tmp_path))
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 16, "patch_size": 8}
    Dinov2Model(Dinov2Config(**sizes)).save_pretrained(tmp_path)  # beside the classifier's image processor
    detector = DETECTORS["near_duplicates"].spec.factory(device="cpu", model=str(tmp_path), batch_size=2)
    batch = {"images": [scene(1), scene(2), scene(1)], "prompts": ["a"] * 3}
    scores = detector(**batch)
    assert scores[0] == scores[2] == pytest.approx(1.0, abs=1e-5)
    assert scores[1] < 1
    nearer = DETECTORS["near_duplicates"].spec.factory(device="cpu", model=str(tmp_path), far=2.0)(**batch)
    assert 1 - nearer[1] == pytest.approx((1 - scores[1]) / 2, abs=1e-4)
    with pytest.raises(ValueError, match="far is 0; it must be greater than 0"):
        DETECTORS["near_duplicates"].spec.factory(device="cpu", far=0)
