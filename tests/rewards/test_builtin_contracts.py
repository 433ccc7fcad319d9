"""Every reward and detector that ships with the project, through the public door, by the author's kit."""

import pytest
import torch
from support.chat_server import serving
from support.reward_server import serving_rewards
from support.stand_ins import save_classifier, save_clip, save_head

from ddpo_plugins import load_catalogue
from ddpo_plugins.testing import check_detector, check_reward
from trainer_ext import DetectorFunction, RewardFunction

CATALOGUE = load_catalogue()


def built_in(offers):
    return [name for name in offers if offers[name].distribution == "ddpo-plugins"]


@pytest.fixture(scope="module")
def judge():
    """A server whose model looks at the image: what it says depends on the colours."""

    def reply(image, question):
        red, green, blue = image.resize((1, 1)).getpixel((0, 0))
        if question.startswith("Does this image show"):
            return {"yes": (1 + red) / 258, "no": (257 - red) / 258}
        return "two cats" if green > blue else "a red picture"

    with serving(reply) as server:
        yield {"model": "llava", "base_url": server.base_url}


@pytest.fixture(scope="module")
def far():
    """A server of a reward and a detector of the same name."""

    def corner(images, prompts, **columns):
        return [image.getpixel((0, 0))[1] / 255 for image in images]

    with serving_rewards(RewardFunction("corner", corner), DetectorFunction("corner", corner)) as url:
        yield {"function": "corner", "urls": url}


@pytest.fixture(scope="module")
def how(tmp_path_factory, judge, encoder_folder, far):
    """What a check needs beside the spec, by name: options with tiny stand-ins for weights, prompts, columns."""
    torch.manual_seed(0)
    folders = {name: tmp_path_factory.mktemp(name) for name in ("clip", "head", "classifier")}
    save_clip(folders["clip"], projection_dim=768)
    save_head(folders["head"])
    save_classifier(folders["classifier"], ["cat", "dog", "tabby"])
    clip, head, classifier = map(str, folders.values())
    of_the_world = {"prompts": ["a cat", "a bee playing chess", "an apple"]}
    similarity = {"options": {"model": clip, "processor": clip}}
    return {
        "aesthetic": {"options": {"model": clip, "head": head}},
        "classifier": {"options": {"model": classifier}, "prompts": ["cat", "dog", "tabby"]},
        **dict.fromkeys(["clip_score", "pick_score", "hps_v2"], similarity),
        "prompt_alignment": {"options": {**judge, "similarity": encoder_folder}},
        "counting": {
            "options": judge,
            "prompts": ["two cats", "six dogs", "a cat"],
            "columns": {"questions": [["How many?"]] * 3, "answers": [["two"], ["six"], ["cat"]]},
        },
        **dict.fromkeys(["embedded_judge", "reading_judge"], of_the_world),
        "yes_probability": {"options": judge},
        "remote": {"options": far},
        "low_diversity": {"independent": False},  # it compares images, and so does the next
        "near_duplicates": {"independent": False},
    }


@pytest.mark.parametrize("name", built_in(CATALOGUE.rewards))
def test_rewards(name, how):
    check_reward(CATALOGUE.rewards[name].spec, **how.get(name, {}))


@pytest.mark.parametrize("name", built_in(CATALOGUE.detectors))
def test_detectors(name, how):
    check_detector(CATALOGUE.detectors[name].spec, **how.get(name, {}))
