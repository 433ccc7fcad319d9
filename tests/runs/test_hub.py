"""A run that is uploaded: no pickle and no token leaves the machine, or is written where it might."""

import json
import zipfile
from concurrent.futures import Future
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import safetensors.torch
from huggingface_hub import HfApi, RepoUrl
from huggingface_hub.utils import filter_repo_objects
from support.trainers import assert_same, brightness

from trainer_ext import RewardFunction
from trainer_ext.errors import ConfigError
from trainer_ext.scoring.provenance import Provenance

TOKEN = "hf_CanaryToken0123456789abcdefghijkl"
PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt")


@pytest.fixture
def uploads(monkeypatch):
    """The files of each upload, with their contents, which is what the Hub's client would have read at that moment."""
    uploads = []

    def upload_folder(self, *, folder_path, allow_patterns=None, ignore_patterns=None, run_as_future=False, **named):
        names = [path.relative_to(folder_path).as_posix() for path in Path(folder_path).rglob("*") if path.is_file()]
        names = filter_repo_objects(names, allow_patterns=allow_patterns, ignore_patterns=ignore_patterns)
        uploads.append({name: Path(folder_path, name).read_bytes() for name in names})
        done = Future()
        done.set_result(named["commit_message"])
        return done if run_as_future else named["commit_message"]

    repo = RepoUrl("https://huggingface.co/someone/run")
    monkeypatch.setattr(HfApi, "create_repo", lambda self, *args, **kwargs: repo)
    monkeypatch.setattr(HfApi, "upload_folder", upload_folder)
    return uploads


def everything_in(folder):
    """All bytes of a folder's files, also those that are compressed within them."""
    for path in filter(Path.is_file, Path(folder).rglob("*")):
        yield path.name, path.read_bytes()
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                yield from ((f"{path.name}/{name}", archive.read(name)) for name in archive.namelist())
        if path.suffix == ".parquet":
            yield path.name, json.dumps(pq.read_table(path).to_pylist()).encode()


@pytest.mark.parametrize("strategy", ["every_save", pytest.param("end", marks=pytest.mark.full)])
def test_neither_pickles_nor_the_token_are_uploaded_or_written(make_trainer, uploads, tmp_path, strategy):
    judge = Provenance(plugin="judge", options={"client": {"apiKey": TOKEN}, "base_url": f"http://h/v1?key={TOKEN}"})
    trainer = make_trainer(
        reward=RewardFunction("judge", brightness, provenance=judge),
        push_to_hub=True, hub_token=TOKEN, hub_strategy=strategy, num_train_epochs=2, save_strategy="epoch", num_sample_images=1
    )  # fmt: skip
    folder = tmp_path / "run"
    (folder / ".partial").mkdir(parents=True)
    for left in ("training_args.bin", ".partial/half.json"):  # by another program, or a run that was killed
        (folder / left).write_bytes(TOKEN.encode())
    trainer.train()
    trainer.save_model()
    assert len(uploads) == {"every_save": 3, "end": 1}[strategy]
    for uploaded in uploads:
        assert {"pytorch_lora_weights.safetensors", "run.json"} <= uploaded.keys()
        assert not [name for name in uploaded if name.endswith(PICKLES) or "checkpoint-" in name or ".partial" in name]
        assert not [name for name, content in uploaded.items() if TOKEN.encode() in content]
    assert {"README.md", "samples/before_after.png", "rollouts/rollout-00001.parquet"} <= uploads[-1].keys()
    if strategy == "every_save":
        file = "pytorch_lora_weights.safetensors"
        assert_same(
            safetensors.torch.load(uploads[0][file]), safetensors.torch.load_file(folder / "checkpoint-1" / file)
        )
    left = {"training_args.bin", "half.json"}
    assert not [name for name, content in everything_in(folder) if TOKEN.encode() in content and name not in left]
    assert not [path for path in folder.glob("*") if path.suffix in PICKLES and path.name not in left]


@pytest.mark.parametrize("strategy", ["checkpoint", "all_checkpoints"])
def test_checkpoints_are_not_uploaded(make_trainer, uploads, strategy):
    with pytest.raises(ConfigError, match=f"hub_strategy='{strategy}' uploads checkpoints; they hold pickles"):
        make_trainer(push_to_hub=True, hub_strategy=strategy)


def test_a_push_by_hand(make_trainer, uploads):
    trainer = make_trainer()
    assert trainer.push_to_hub("done", token=TOKEN, private=True) == "done"
    (uploaded,) = uploads
    assert uploaded.keys() == {"README.md", "pytorch_lora_weights.safetensors"}
