"""The benchmark's formulas by hand, and that its two worlds share nothing."""

import itertools

import numpy as np
import pytest
from broken_images import GROUP, KINDS, broken_images, groups
from detectors import auroc, precision_at_recall
from labelled_images import ATTACKS, CLASSES, FONTS, PROMPTS, UNRELATED, labelled_images


def test_auroc_is_the_share_of_pairs_in_order():
    """Of 2 x 3 pairs four are in order and one is a tie."""
    assert auroc(np.array([0.9, 0.4]), np.array([0.1, 0.4, 0.6])) == pytest.approx(4.5 / 6)


def test_precision_counts_what_is_above_the_recalls_threshold():
    """95 % of 20 are 19: all but the lowest, 0.0, so that of the others only those from 0.05 on count."""
    positive = np.arange(20) / 20
    assert precision_at_recall(positive, np.array([0.0, 0.04, 0.05, 0.5])) == pytest.approx(19 / 21)


def test_the_worlds_share_no_word_and_no_font():
    words = {
        world: {word for text in PROMPTS[world] + UNRELATED[world] for word in text.lower().split()}
        - {"a", "an", "in", "of", "on"}
        for world in PROMPTS
    }
    for one, other in itertools.combinations(words, 2):
        assert not words[one] & words[other]
        assert not set(FONTS[one]) & set(FONTS[other])


def test_labels():
    """The prompt's words are written as they are; on the others people would agree that they are something else."""
    images = labelled_images("report", seed=3, number=6)
    assert [image.label for image in images] == 6 * list(CLASSES)
    for image in images:
        written, said = set(image.text.lower().split()), set(image.prompt.split()) - {"a", "an"}
        assert bool(written) == (image.label != "none")
        assert (said <= written) >= (image.label in ("prompt", "hidden"))
        assert image.label in ATTACKS or not written & said
    again = labelled_images("report", seed=3, number=6)
    assert all(one.image.tobytes() == other.image.tobytes() for one, other in zip(images, again, strict=True))


def test_broken_images_and_groups_are_as_many_as_asked_for():
    kinds = broken_images(seed=1, number=2, size=32)
    assert [len(images) for images in kinds.values()] == [2] * (1 + len(KINDS))
    assert {image.size for images in kinds.values() for image in images} == {(32, 32)}
    made = groups(seed=1, number=2, size=32)
    assert all(len(group) == GROUP for several in made.values() for group in several)
    assert len({image.tobytes() for image in made["equal"][0]}) == 1
    assert len({image.tobytes() for image in made["nearly equal"][0]}) == GROUP
