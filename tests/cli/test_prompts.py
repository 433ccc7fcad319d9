"""Prompts from files: text with one a line, or rows by the file's ending."""

import json

import datasets
import pytest
from datasets import Dataset

from ddpo_plugins import load_catalogue
from ddpo_plugins.errors import DDPOError
from trainer_ext.cli.prompts import load_prompts
from trainer_ext.errors import ConfigError


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


ROWS = [{"prompt": "a cat, big", "wanted": 1}, {"prompt": "a dog", "wanted": 2}]


def load(path):
    return load_prompts(str(path), load_catalogue())


@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("name", ["prompts.txt", "prompts", "prompts.list"])
def test_lines(tmp_path, mark, name):
    file = tmp_path / name
    file.write_text(f"{mark}a cat\n\n  a dog in Zürich \r\n", encoding="utf-8")
    assert load(file)["prompt"][:] == ["a cat", "a dog in Zürich"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("prompts.jsonl", "\n".join(json.dumps(row) for row in ROWS)),
        ("prompts.json", json.dumps(ROWS)),
        ("prompts.csv", '\ufeffprompt,wanted\n"a cat, big",1\na dog,2\n'),
        ("PROMPTS.CSV", 'prompt,wanted\n"a cat, big",1\na dog,2\n'),
        ("prompts.tsv", "prompt\twanted\na cat, big\t1\na dog\t2\n"),
        ("prompts.parquet", None),
    ],
)
def test_rows(tmp_path, name, text):
    file = tmp_path / name
    Dataset.from_list(ROWS).to_parquet(file) if text is None else file.write_text(text, encoding="utf-8")
    assert load(file)[:] == {"prompt": ["a cat, big", "a dog"], "wanted": [1, 2]}


@pytest.mark.parametrize("name", ["nofile.txt", "nofile.jsonl", "./nofile", "folder/nofile.parquet", "~/nofile"])
def test_a_file_that_is_not_there(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=f"--prompts {name}: there is no such file"):
        load(name)


def test_a_name_that_is_no_file_s():
    with pytest.raises(DDPOError, match="Unknown prompt set 'anmals'.*animals"):
        load("anmals")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("prompts.jsonl", b"a cat\n", "The rows in .* cannot be read.*Give a UTF-8 text file"),
        ("prompts.parquet", b"a cat\n", "The rows in .* cannot be read"),
        ("prompts.jsonl", b"", "The rows in .* cannot be read"),
        ("prompts.csv", b"text\na cat\n", "has no column 'prompt'; its columns are text"),
        ("prompts.txt", b"\xff\xfea\x00", "The prompts in .* cannot be read"),
        ("prompts.txt", b"\n\n", "is empty"),
    ],
)
def test_a_file_that_holds_no_prompts(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        load(tmp_path / name)
