"""Detectors of writing: on drawn text with the real reader, and by hand with a reader whose reading is given."""

import itertools
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from ddpo_plugins import load_catalogue
from ddpo_plugins.errors import PluginError, RewardError

DETECTORS = load_catalogue().detectors
UNUSED_NUMBERS_OF_THREADS = itertools.count(2)  # a reader is made once for each


def build(name, **options):
    return DETECTORS[name].spec.factory(device="cpu", **options)


def write(text, size=(256, 256), font_size=48, color="black", background="khaki"):
    image = Image.new("RGB", size, background)
    middle = (size[0] / 2, size[1] / 2)
    ImageDraw.Draw(image).text(middle, text, color, ImageFont.load_default(font_size), anchor="mm", align="center")
    return image


def call(detector, images, prompts):
    extras = {}
    scores = detector(images=images, prompts=prompts, log_extra=extras.__setitem__, a_column=prompts)
    assert all(len(values) == len(images) for values in extras.values())
    return scores, {name.split("/")[1]: values for name, values in extras.items()}


# With the real reader


@pytest.mark.parametrize("size", [64, 256])
def test_the_prompts_words_are_told_from_others_and_from_pictures(size):
    texts = ["six\nturtles", "sixx\nttutttas", "COFFEE\nSHOP", ""]
    images = [write(text).resize((size, size), Image.Resampling.LANCZOS) for text in texts]
    prompts = ["six turtles"] * 4
    (right, misspelt, other, nothing), found = call(build("typographic_attack"), images, prompts)
    assert right > 0.8
    assert 0.3 < misspelt <= right
    assert other < 0.2
    assert nothing == 0
    assert found["prompt_word"][0] in ("six", "turtles", "six turtles")
    assert found["similarity"][0] == 1
    assert "coffee" in found["text"][2].lower()
    scores, found = call(build("rendered_text"), images, prompts)
    assert min(scores[:3]) > 0.8
    assert scores[3] == 0
    assert found["text"][3] == ""
    assert min(found["area"][:3]) > 0.1
    assert found["area"][3] == 0


def test_area_is_the_share_of_the_image_that_text_covers():
    """Oracle: the box around the pixels that are not background. Detectors of text leave a margin around it."""
    narrow = write("elephant", (256, 128))
    wide = Image.new("RGB", (512, 128), "khaki")
    wide.paste(narrow, (100, 0))
    left, top, right, bottom = Image.fromarray(np.any(np.asarray(narrow) != narrow.getpixel((0, 0)), axis=2)).getbbox()
    share = (right - left) * (bottom - top) / (256 * 128)
    _, found = call(build("rendered_text"), [narrow, wide], ["", ""])
    assert share < found["area"][0] < 2 * share
    assert share / 2 < found["area"][1] < share


def test_order_does_not_matter():
    images, prompts = [write("tiger"), write(""), write("zebra")], ["a tiger", "a cat", "a tiger"]
    for name in ("typographic_attack", "rendered_text"):
        forwards, _ = call(build(name), images, prompts)
        backwards, _ = call(build(name), images[::-1], prompts[::-1])
        assert forwards == backwards[::-1]
        assert len(set(forwards)) > 1


@pytest.mark.parametrize("name", ["typographic_attack", "rendered_text"])
def test_images_of_any_size_and_mode(name):
    images = [
        Image.new("RGB", (1, 1)),
        Image.new("L", (3, 200), 90),
        Image.new("RGBA", (40, 17)),
        write("cat", (300, 80)).convert("L"),
    ]
    scores, _ = call(build(name), images, ["a cat"] * 4)
    assert scores[:3] == [0, 0, 0]
    assert scores[3] > 0.5
    assert call(build(name), [], [])[0] == []


# With a reader whose reading is given


@pytest.fixture
def reading(monkeypatch):
    """Make both detectors read given lines, each (text, confidence) on 1 % of the image, in every image."""

    def give(*lines, side=None):
        class Engine:
            def __init__(self, params):
                pass

            def __call__(self, pixels, use_det, use_rec):
                if not lines or side not in (None, len(pixels)):
                    return SimpleNamespace(txts=None, scores=None, boxes=None)
                edge = len(pixels) / 10
                box = np.array([[0, 0], [edge, 0], [edge, edge], [0, edge]])
                texts, scores = zip(*lines, strict=True)
                return SimpleNamespace(txts=texts, scores=scores, boxes=[box] * len(lines))

        monkeypatch.setattr("rapidocr.RapidOCR", Engine)
        threads = next(UNUSED_NUMBERS_OF_THREADS)
        return lambda name, prompt: call(build(name, num_threads=threads), [Image.new("RGB", (64, 64))], [prompt])

    return give


def test_a_match_by_hand(reading):
    """2 x 6 letters in common of 6 + 7: similarity 12/13. Chance is 0.45 for seven letters, the reader is sure by 0.9."""
    (score,), found = reading(("Turtls!", 0.9))("typographic_attack", "six turtles")
    assert score == pytest.approx((12 / 13 - 0.45) / 0.55 * 0.9)
    assert found["similarity"] == [pytest.approx(12 / 13)]
    assert (found["text"], found["written"], found["prompt_word"]) == (["Turtls!"], ["turtls"], ["turtles"])


@pytest.mark.parametrize(
    ("prompt", "written"),
    [
        ("six turtles", ["SIXTURTLES"]),
        ("six turtles", ["tur", "tles"]),
        ("six turtles", ["ssixx"]),
        ("a mouse", ["MICE"]),
        ("two geese", ["goose"]),
        ("12 dogs", ["twelve"]),
        ("twelve dogs", ["12"]),
        ("a café at night", ["cafe"]),
        ("a dog riding a bike", ["dogridingbike"]),
        ("a cat", ["Acat"]),
    ],
)
def test_spellings_of_the_prompt_count_in_full(reading, prompt, written):
    (score,), _ = reading(*((text, 1.0) for text in written))("typographic_attack", prompt)
    assert score == pytest.approx(1)


@pytest.mark.parametrize(
    ("prompt", "written", "low", "high"),
    [
        ("six turtles", "ttutttas", 0.35, 0.7),
        ("six turtles", "trutles", 0.6, 0.9),  # a swap
        ("six turtles", "rtles", 0.5, 0.8),  # the rest is hidden
        ("six turtles", "a banner with ttutles on it", 0.7, 0.95),
        ("six turtles", "mytuntlesaregreat", 0.6, 0.9),  # joined
        ("a cat", "rat", 0, 0.1),
        ("six turtles", "open all night", 0, 0.1),
        ("the cat and the dog", "and the", 0, 0),
        ("six turtles", "5", 0, 0),
        ("six turtles", "16", 0, 0),
        ("the year 2018", "2019", 0, 0),
    ],
)
def test_resemblance_has_degrees(reading, prompt, written, low, high):
    (score,), _ = reading((written, 1.0))("typographic_attack", prompt)
    assert low <= score <= high


def test_a_digit_alone_is_weak_evidence(reading):
    assert reading(("6", 0.9))("typographic_attack", "six turtles")[0] == [pytest.approx(0.4 * 0.9)]
    assert reading(("6 turtles", 0.9))("typographic_attack", "six turtles")[0] == [pytest.approx(0.9)]


def test_joined_lines_are_as_sure_as_the_least_sure(reading):
    assert reading(("tur", 0.9), ("tles", 0.6))("typographic_attack", "turtles")[0] == [pytest.approx(0.6)]


@pytest.mark.parametrize("side", [160, 448])
def test_one_of_two_readings_is_enough(reading, side):
    assert reading(("cat", 0.8), side=side)("typographic_attack", "a cat")[0] == [pytest.approx(0.8)]
    assert reading(("cat", 0.8), side=side)("rendered_text", "a dog")[0] == [pytest.approx(0.4)]


def test_any_text_by_hand(reading):
    """On 1 % of the image a line counts half; one letter, and other scripts, not at all."""
    (score,), found = reading(("exit", 0.8), ("24", 0.6), ("H", 1.0), ("品", 1.0))("rendered_text", "")
    assert score == pytest.approx(1 - (1 - 0.4) * (1 - 0.3))
    assert found == {"text": ["exit 24"], "area": [pytest.approx(0.02)]}


def test_a_prompt_in_another_script_cannot_be_judged(reading):
    read = reading(("cat", 1.0))
    assert read("typographic_attack", "三只猫")[0] == [None]
    assert read("rendered_text", "三只猫")[0] == [pytest.approx(0.5)]


def test_both_detectors_read_an_image_once(monkeypatch):
    sides = []

    class Engine:
        def __init__(self, params):
            pass

        def __call__(self, pixels, use_det, use_rec):
            sides.append(len(pixels))
            return SimpleNamespace(txts=None)

    monkeypatch.setattr("rapidocr.RapidOCR", Engine)
    threads = next(UNUSED_NUMBERS_OF_THREADS)
    both = [build(name, num_threads=threads) for name in ("typographic_attack", "rendered_text")]
    sides.clear()
    for detector in both:
        call(detector, [Image.new("RGB", (8, 8)), Image.new("RGB", (8, 9))], ["a cat", "a dog"])
    assert sides == [160, 448] * 2


# Errors


@pytest.mark.parametrize(
    ("name", "missing"),
    [("rendered_text", "rapidocr"), ("rendered_text", "onnxruntime"), ("typographic_attack", "rapidfuzz")],
)
def test_a_missing_package_is_named_with_what_to_install(monkeypatch, name, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(PluginError, match=rf"{missing}.*pip install 'ddpo-plugins\[detectors\]'"):
        build(name, num_threads=next(UNUSED_NUMBERS_OF_THREADS))


def test_models_that_do_not_load(monkeypatch):
    def no_models(params):
        raise OSError("Failed to download PP-OCRv6_det_small.onnx")

    monkeypatch.setattr("rapidocr.RapidOCR", no_models)
    with pytest.raises(PluginError, match=r"OSError: Failed to download.*force-reinstall") as caught:
        build("rendered_text", num_threads=next(UNUSED_NUMBERS_OF_THREADS))
    assert isinstance(caught.value.__cause__, OSError)


def test_a_reader_that_fails_is_an_error_and_no_score(monkeypatch):
    class Engine:
        def __init__(self, params):
            self.calls = 0

        def __call__(self, pixels, use_det, use_rec):
            self.calls += 1
            if self.calls > 2:  # after those that load the models
                raise ValueError("no memory left")

    monkeypatch.setattr("rapidocr.RapidOCR", Engine)
    detector = build("typographic_attack", num_threads=next(UNUSED_NUMBERS_OF_THREADS))
    with pytest.raises(RewardError, match="image of 7 x 5 pixels: ValueError: no memory left"):
        call(detector, [Image.new("RGB", (7, 5))], ["a cat"])


@pytest.mark.parametrize("name", ["typographic_attack", "rendered_text"])
def test_an_option_that_does_not_exist_is_an_error(name):
    with pytest.raises(TypeError, match="min_confidence"):
        build(name, min_confidence=0.5)
