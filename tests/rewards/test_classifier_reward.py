"""The probability of a label, on a tiny random classifier that loads like the real ones."""

import random
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from support.stand_ins import SIZE, save_classifier

from ddpo_plugins import PluginError, RewardError
from trainer_ext import reward_from_plugin
from trainer_ext.scoring.suite import RewardSuite

LABELS = ["tabby, tabby cat", "crane", "ruffed grouse, partridge", "partridge, Perdix", "crane", "Chow"]


def noise(size, seed):
    return Image.frombytes("RGB", size, random.Random(seed).randbytes(3 * size[0] * size[1]))


IMAGES = [noise((48, 32), seed) for seed in range(5)]


def prepared(image):
    """Oracle of the image processor: both sides to 32 by bilinear interpolation, [0, 255] to [-1, 1]."""
    pixels = np.asarray(image.resize((SIZE, SIZE), Image.Resampling.BILINEAR), np.float32)
    return torch.tensor(pixels / 127.5 - 1).permute(2, 0, 1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("classifier")


@pytest.fixture(scope="module")
def logits(folder):
    torch.manual_seed(0)
    model = save_classifier(folder, LABELS)
    with torch.no_grad():
        return model(torch.stack([prepared(image) for image in IMAGES])).logits.double()


@pytest.fixture
def build(folder, logits):
    def build(**options):
        return reward_from_plugin("classifier", **{"model": str(folder), **options}).function

    return build


def softmax(logits):
    return logits.exp() / logits.exp().sum(1, keepdim=True)


@pytest.mark.parametrize(
    ("label", "classes"),
    [
        ("tabby, tabby cat", [0]),
        ("tabby cat", [0]),
        ("Tabby ", [0]),
        ("chow", [5]),
        pytest.param("chow, chow chow", [5], id="synonyms that this classifier does not list"),
        pytest.param("partridge", [3], id="a first name before a synonym"),
        pytest.param("ruffed grouse", [2], id="a first name"),
        pytest.param("crane", [1, 4], id="two classes of one name"),
    ],
)
def test_the_probability_of_a_label(build, logits, label, classes):
    expected = softmax(logits)[:, classes].sum(1)
    assert max(expected) - min(expected) > 0.01
    assert build(label=label)(images=IMAGES, prompts=["x"] * 5) == pytest.approx(expected.tolist(), abs=1e-5)


def test_the_label_is_in_the_prompt_or_in_a_column(build, logits):
    labels = ["crane", "chow", "tabby", "partridge", "chow"]
    indices = [[1, 4], [5], [0], [3], [5]]
    expected = [softmax(logits)[row, index].sum().item() for row, index in enumerate(indices)]
    assert build()(images=IMAGES, prompts=labels) == pytest.approx(expected, abs=1e-5)
    columns = {"animal": labels, "trainer_state": None}
    assert build(label="{animal}")(images=IMAGES, prompts=["x"] * 5, **columns) == pytest.approx(expected, abs=1e-5)
    assert build(batch_size=2)(images=IMAGES, prompts=labels) == pytest.approx(expected, abs=1e-5)


def test_a_label_of_several_columns(build, logits):
    columns = {"first": ["tabby"] * 5, "second": ["cat"] * 5}
    rewards = build(label="{first} {second}")(images=IMAGES, prompts=["x"] * 5, **columns)
    assert rewards == pytest.approx(softmax(logits)[:, 0].tolist(), abs=1e-5)


def test_labels_that_do_not_exclude_each_other(tmp_path):
    torch.manual_seed(0)
    model = save_classifier(tmp_path, LABELS, problem_type="multi_label_classification")
    with torch.no_grad():
        logits = model(torch.stack([prepared(image) for image in IMAGES])).logits[:, 5]
    rewards = reward_from_plugin("classifier", model=str(tmp_path), label="chow").function(
        images=IMAGES, prompts=["x"] * 5
    )
    assert rewards == pytest.approx((1 / (1 + (-logits).exp())).tolist(), abs=1e-5)


def test_a_label_that_does_not_exist(build):
    message = r"no label 'tabbi' among its 6; near ones: 'tabby'.*Set the option `label`"
    with pytest.raises(PluginError, match=message):
        build(label="tabbi")
    with pytest.raises(ValueError, match=message):
        build()(images=IMAGES[:1], prompts=["tabbi"])


def test_a_column_that_does_not_exist(build):
    with pytest.raises(
        ValueError, match=r"The label '\{species\}' needs the column 'species'; the dataset has animal, prompt"
    ):
        build(label="{species}")(images=IMAGES[:1], prompts=["x"], animal=["cat"], trainer_state=None)


def test_in_training_the_error_names_the_reward(folder, logits):
    suite = RewardSuite([reward_from_plugin("classifier", model=str(folder))])
    with pytest.raises(RewardError, match="Reward 'classifier' raised ValueError: .* has no label 'a cat'"):
        suite.score(torch.zeros(1, 32, 32, 3, dtype=torch.uint8), [{"prompt": "a cat"}])


def test_a_model_with_one_output_is_refused(tmp_path):
    save_classifier(tmp_path, ["score"])
    with pytest.raises(PluginError, match="has one output, so there is no label to choose"):
        reward_from_plugin("classifier", model=str(tmp_path), label="score")


def test_a_folder_without_settings_for_images_is_named(folder, logits, tmp_path):
    shutil.copytree(folder, tmp_path / "half")
    (tmp_path / "half" / "preprocessor_config.json").unlink()
    with pytest.raises(PluginError, match=r"half' \(revision '3f49326e.*does not load"):
        reward_from_plugin("classifier", model=str(tmp_path / "half"))
