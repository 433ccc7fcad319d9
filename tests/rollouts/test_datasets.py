"""Datasets of any format give rows with all their columns, and pictures in them are read when they are needed."""

import io

import numpy as np
import pyarrow as pa
import pytest
from datasets import Column, Dataset, DatasetDict, Features, Image, Value
from PIL import Image as Pillow
from support.trainers import TINY, records, returning

from trainer_ext.columns import rows_with_different
from trainer_ext.errors import ConfigError
from trainer_ext.rollouts.datasets import check_prompts
from trainer_ext.runs.setup.facts import describe_prompts


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


# ---- columns, without an object for each row ----

TEXTS = [f"animal {number % 7}" for number in range(50)]
BLANK = ["", " \u00a0\n", None]


def arrow(texts, kind=None):
    return Dataset(pa.table({"prompt": pa.array(texts, kind), "other": list(range(len(texts)))}))


@pytest.mark.parametrize("blank", BLANK, ids=repr)
@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()], ids=str)
def test_the_first_row_without_a_prompt_is_named(blank, kind):
    dataset = arrow([*TEXTS, blank, *TEXTS, blank], kind)
    with pytest.raises(ConfigError, match=r"train_dataset has .* as the prompt of row 50; every prompt must be a text"):
        check_prompts(dataset, "train_dataset")
    turned = dataset.select(range(len(dataset) - 2, -1, -1))
    with pytest.raises(ConfigError, match="of row 50;"):
        check_prompts(turned, "train_dataset")
    assert len(check_prompts(dataset.select([0, 3]), "train_dataset")) == 2


def test_prompts_that_are_no_texts_are_refused():
    with pytest.raises(ConfigError, match="has 1 as the prompt of row 0"):
        check_prompts(Dataset.from_dict({"prompt": [1, 2]}), "train_dataset")
    mixed = rows().with_transform(
        lambda batch: {"prompt": [3 if text == "a dog" else text for text in batch["prompt"]]}
    )
    with pytest.raises(ConfigError, match="has 3 as the prompt of row 1"):
        check_prompts(mixed, "train_dataset")


@pytest.mark.parametrize("number", [3, 7, 100])
def test_rows_with_different_prompts(number):
    """The first row of each, at even distances."""
    dataset = arrow(TEXTS)
    found = rows_with_different(dataset, "prompt", number)
    assert found == [index * 7 // min(number, 7) for index in range(min(number, 7))]
    assert rows_with_different(dataset.select(range(49, -1, -1)), "prompt", 7) == list(range(7))
    assert rows_with_different(
        rows().with_transform(lambda batch: {"prompt": ["a fox"] * len(batch["prompt"])}), "prompt", 2
    ) == [0]


def test_no_object_is_made_of_each_row(monkeypatch):
    """Or a million rows would take seconds."""
    monkeypatch.setattr(Column, "__iter__", lambda column: pytest.fail("a column is read row by row"))
    dataset = check_prompts(arrow(TEXTS), "train_dataset")
    assert len(rows_with_different(dataset, "prompt", 16)) == 7
    assert describe_prompts(dataset)["rows"] == 50
