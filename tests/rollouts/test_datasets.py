"""Datasets of any format give rows with all their columns, and pictures in them are read when they are needed."""

import io

import numpy as np
import pytest
from datasets import Dataset, DatasetDict, Features, Image, Value
from PIL import Image as Pillow
from support.trainers import TINY, records, returning

from trainer_ext.errors import ConfigError
from trainer_ext.rollouts.datasets import check_prompts


def rows():
    return Dataset.from_dict({"prompt": ["a cat", "a dog"], "wanted": [1.5, 2.5]})


class SeenColumns:
    def __init__(self):
        self.seen = []

    def __call__(self, images, prompts, wanted, **columns):
        self.seen += zip(prompts, wanted, strict=True)
        return [float(value) for value in wanted]


@pytest.mark.parametrize("form", [None, "pandas", "arrow", "numpy", "torch"])
@pytest.mark.parametrize("columns", [None, ["wanted"]])
def test_formats_and_hidden_columns(form, columns):
    dataset = check_prompts(rows().with_format(form, columns=columns), "train_dataset")
    assert dict(dataset[1]) == {"prompt": "a dog", "wanted": 2.5}


def test_a_transform_of_the_user_s_own_stays():
    dataset = rows().with_transform(lambda batch: {**batch, "prompt": [f"{text}!" for text in batch["prompt"]]})
    assert check_prompts(dataset, "train_dataset")[0]["prompt"] == "a cat!"


def test_training_on_a_pandas_dataset_with_a_hidden_column(make_trainer):
    reward = SeenColumns()
    dataset = rows().with_format("pandas", columns=["prompt"])
    trainer = make_trainer(reward=reward, dataset=dataset, eval_dataset=dataset, num_sample_images=2)
    trainer.train()
    trainer.evaluate()
    assert set(reward.seen) == {("a cat", 1.5), ("a dog", 2.5)}
    assert {(row["prompt"], row["reward"]) for row in records(trainer.args.folder)} == set(reward.seen)


def test_a_dataset_with_splits():
    with pytest.raises(ConfigError, match=r"train_dataset is a DatasetDict; .* such as train_dataset\['test'\]"):
        check_prompts(DatasetDict(test=rows()), "train_dataset")


@pytest.fixture
def decoded(monkeypatch):
    """Counts the pictures of datasets that are read."""
    count = []
    original = Image.decode_example
    monkeypatch.setattr(Image, "decode_example", lambda *args, **kw: count.append(1) or original(*args, **kw))
    return count


def with_pictures(number):
    file = io.BytesIO()
    Pillow.fromarray(np.zeros((8, 8, 3), np.uint8)).save(file, "PNG")
    columns = {
        "prompt": [f"animal {index}" for index in range(number)],
        "picture": [{"bytes": file.getvalue(), "path": None}] * number,
    }
    return Dataset.from_dict(columns, features=Features({"prompt": Value("string"), "picture": Image()}))


def test_pictures_are_read_when_they_are_needed(make_trainer, decoded):
    """At construction only those of the fixed samples; in a rollout and an evaluation those of their images."""
    dataset = with_pictures(50)
    trainer = make_trainer(
        dataset=dataset, eval_dataset=dataset.select(range(4)), reward=returning(1.0, 2.0), num_sample_images=2
    )
    assert len(decoded) <= 2
    decoded.clear()
    trainer.evaluate()
    assert len(decoded) == 4
    decoded.clear()
    trainer.train()
    assert len(decoded) == TINY["num_images_per_rollout"]
