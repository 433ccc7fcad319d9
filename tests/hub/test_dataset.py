"""The images of a run as a dataset: what `datasets` reads from the Hub, in a process that never saw the run."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from datasets import load_dataset
from huggingface_hub import DatasetCard
from PIL import Image
from support import pipelines, trainers
from support.processes import environment
from support.trainers import RunFolder, brightness

from trainer_ext.errors import ConfigError
from trainer_ext.hub import dataset as datasets_of_runs
from trainer_ext.hub.cards.readme import BEGIN
from trainer_ext.hub.dataset import STAGING, dataset_card, dataset_files

KEEPING = {**trainers.TINY, "num_sample_images": 2, "num_train_epochs": 3, "keep_images": 0.5, "learning_rate": 1e-1}


def judge(images, prompts, log_extra, **columns):
    log_extra("verdict", [f"saw {prompt}" for prompt in prompts])
    return brightness(images, prompts)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run that kept half of its images, and all images that its rewards saw, by rollout."""
    folder = tmp_path_factory.mktemp("kept") / "run"
    seen = []

    def watching(images, prompts, **columns):
        seen.extend(np.asarray(image) for image in images)
        return [0.25] * len(images)

    torch.manual_seed(0)
    trainer = trainers.make_trainer(pipelines.tiny_pipeline(), folder, reward=judge, detectors=[watching], **KEEPING)
    trainer.train()
    trainer.save_model()
    return folder, np.array(seen).reshape(3, 4, *seen[0].shape)


@pytest.fixture
def run(trained, tmp_path):
    return shutil.copytree(trained[0], tmp_path / "run")


def rows(files, config):
    paths = [str(path) for name, path in files.items() if name.startswith(f"{config}/")]
    return load_dataset("parquet", data_files=paths, split="train", cache_dir=os.path.dirname(paths[0])).to_list()


def pixels(image):
    return np.asarray(image)


LOADING = """
import json, sys
import numpy as np
from datasets import get_dataset_config_names, load_dataset
from huggingface_hub import DatasetCard

out = {"configs": get_dataset_config_names("user/images"), "card": DatasetCard.load("user/images").content}
for config in out["configs"]:
    for streaming in (False, True):
        data = load_dataset("user/images", config, split="train", streaming=streaming)
        rows = list(data)
        np.save(f"{sys.argv[1]}/{config}-{streaming}.npy", np.stack([np.asarray(row.pop("image")) for row in rows]))
        out[f"{config}-{streaming}"] = {"columns": data.column_names, "kinds": {k: str(v) for k, v in data.features.items()}, "rows": rows}
json.dump(out, open(f"{sys.argv[1]}/out.json", "w"))
"""


def test_a_stranger_loads_it(run, trained, loopback, client, tmp_path):
    """Both configurations, streaming and not, in a process of its own with an empty cache."""
    folder, hub = RunFolder(run), client()
    name = hub.create("user/images", kind="dataset")
    hub.commit(
        name, {**dataset_files(folder), "README.md": dataset_card(folder, name).encode()}, "images", kind="dataset"
    )
    variables = {**environment(), **loopback.environment, "HF_HOME": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "0"}
    done = subprocess.run([sys.executable, "-c", LOADING, str(tmp_path)], env=variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads((tmp_path / "out.json").read_text())
    assert found["configs"] == ["rollouts", "before_after"]
    assert found["card"] == dataset_card(folder, name)
    for streaming in (False, True):
        loaded = found[f"rollouts-{streaming}"]
        assert loaded["columns"] == [
            "image", "prompt", "reward", "step", "seed", "rewards/judge", "detectors/watching", "advantage", "rollout", "verdict"
        ]  # fmt: skip
        assert loaded["kinds"]["image"].startswith("Image(")
        images = np.load(tmp_path / f"rollouts-{streaming}.npy")
        assert len(images) == 6
        for row, image in zip(loaded["rows"], images, strict=True):
            records = folder.records(row["rollout"])
            (index,) = (i for i, record in enumerate(records) if record["seed"] == row["seed"])
            np.testing.assert_array_equal(image, trained[1][row["rollout"], index])
            assert row["step"] == row["rollout"]
            assert row["verdict"] == f"saw {row['prompt']}"
            assert {k: row[k] for k in records[index]} == records[index]
        loaded = found[f"before_after-{streaming}"]
        assert loaded["columns"] == ["image", "prompt", "reward", "step", "seed", "moment", "rewards/judge", "verdict"]
        assert [(row["prompt"], row["moment"], row["step"]) for row in loaded["rows"]] == [
            ("a cat", "before", 0),
            ("a cat", "after", 3),
            ("a dog", "before", 0),
            ("a dog", "after", 3),
        ]
        sheets = folder.samples()
        for row, image in zip(loaded["rows"], np.load(tmp_path / f"before_after-{streaming}.npy"), strict=True):
            sheet = sheets[0 if row["moment"] == "before" else -1]
            with Image.open(sheet.files[row["seed"]]) as picture:
                np.testing.assert_array_equal(image, pixels(picture))
            assert row["reward"] == sheet.rewards[row["seed"]]


def test_the_front_matter(run):
    data = DatasetCard(dataset_card(RunFolder(run), "user/images", "user/cats")).data.to_dict()
    assert data["task_categories"] == ["text-to-image"]
    assert data["size_categories"] == ["n<1K"]
    assert data["pretty_name"] == "images"
    assert [config["config_name"] for config in data["configs"]] == ["rollouts", "before_after"]


def test_a_persons_words_and_configurations_stay(run):
    first = dataset_card(RunFolder(run), "user/images")
    edited = first.replace(BEGIN, f"Mine.\n\n{BEGIN}").replace(
        "configs:\n", "configs:\n- config_name: mine\n  data_files: mine.csv\n"
    )
    second = dataset_card(RunFolder(run), "user/images", existing=edited)
    assert "Mine.\n\n<!--" in second
    names = [config["config_name"] for config in DatasetCard(second).data.to_dict()["configs"]]
    assert names == ["rollouts", "before_after", "mine"]
    assert dataset_card(RunFolder(run), "user/images", existing=second) == second


def test_shards_that_did_not_change_are_not_written_again(run, monkeypatch):
    monkeypatch.setattr(datasets_of_runs, "SHARD_BYTES", 1)
    folder = RunFolder(run)
    shutil.rmtree(folder.kept_images(2))
    files = dataset_files(folder)
    assert list(files) == [
        "rollouts/train-00000.parquet", "rollouts/train-00001.parquet", "before_after/train-00000.parquet"
    ]  # fmt: skip
    first = {name: (path.read_bytes(), path.stat().st_mtime_ns) for name, path in files.items()}
    shutil.copytree(folder.kept_images(1), folder.kept_images(2))
    files = dataset_files(folder)
    assert "rollouts/train-00002.parquet" in files
    assert {name: (files[name].read_bytes(), files[name].stat().st_mtime_ns) for name in first} == first
    next(folder.kept_images(0).iterdir()).unlink()  # a kept image was removed
    assert len(rows(dataset_files(folder), "rollouts")) == 5


def test_shards_are_the_same_wherever_they_are_made(run):
    files = {name: path.read_bytes() for name, path in dataset_files(RunFolder(run)).items()}
    shutil.rmtree(run / STAGING)
    assert {name: path.read_bytes() for name, path in dataset_files(RunFolder(run)).items()} == files


def test_shards_have_the_same_columns(run, monkeypatch):
    """An early version recorded no advantage."""
    monkeypatch.setattr(datasets_of_runs, "SHARD_BYTES", 1)
    file = RunFolder(run).rollout_file(0)
    pq.write_table(pq.read_table(file).drop_columns(["advantage", "verdict"]), file)
    loaded = rows(dataset_files(RunFolder(run)), "rollouts")
    assert [row["advantage"] is None for row in loaded] == [True] * 2 + [False] * 4


def without_kept(folder):
    shutil.rmtree(folder / "rollouts" / "images")


def without_samples(folder):
    shutil.rmtree(folder / "samples")


@pytest.mark.parametrize(
    ("change", "configurations"), [(without_kept, ["before_after"]), (without_samples, ["rollouts"])]
)
def test_only_what_there_is(run, change, configurations):
    change(run)
    assert {name.partition("/")[0] for name in dataset_files(RunFolder(run))} == set(configurations)
    card = DatasetCard(dataset_card(RunFolder(run), "user/images"))
    assert [config["config_name"] for config in card.data.to_dict()["configs"]] == configurations
    assert f'load_dataset("user/images", "{configurations[0]}"' in card.text


def test_a_run_without_images(run):
    without_kept(run)
    without_samples(run)
    with pytest.raises(ConfigError, match="holds no images. Runs with num_sample_images above 0 draw some"):
        dataset_files(RunFolder(run))
