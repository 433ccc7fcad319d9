"""FSDP2 on two processes. What they do is in sharded_trainings.py, in the launch that all share, and for `-m full` in one of its own."""

from types import SimpleNamespace

import pytest
import torch
from accelerate.utils import DistributedType
from diffusers import DiffusionPipeline
from safetensors.torch import load_file
from support import sharded_trainings
from support.processes import torchrun
from support.trainers import difference
from torch.distributed.fsdp import StateDictType

from trainer_ext.errors import ConfigError
from trainer_ext.file_names import LORA_FILE
from trainer_ext.loop.sharding import check_sharding
from trainer_ext.loop.shards import share_file
from trainer_ext.runs.contents import check_contents

pytestmark = pytest.mark.timeout(1200)  # the launches are in it


@pytest.fixture(scope="module")
def sharded(folder):
    """Return what each process saw of the trainings that have a launch of their own."""
    launched = torchrun(sharded_trainings.__file__, folder)
    assert launched.returncode == 0, launched.stdout
    return [torch.load(folder / f"sharded-{process}.pt", weights_only=False) for process in (0, 1)]


def test_sharded_training_is_that_of_whole_models(folder, two):
    """FSDP2's update is DDP's: 6e-8 apart when measured. So are the adapter's file and what is evaluated."""
    for seen in two:
        whole, sharded = seen["one update"], seen["sharded"]["one update"]
        assert sharded["kinds"] == {"DTensor"}
        assert whole["kinds"] == {"Parameter"}
        assert difference(sharded["after"][0] - whole["before"], whole["after"][0] - whole["before"]) < 1e-5
        assert sharded["evaluated"]["eval_reward"] == pytest.approx(whole["evaluated"]["eval_reward"], abs=0.01)
    saved, expected = (load_file(folder / f"one update{kind}" / LORA_FILE) for kind in (", sharded", ""))
    assert saved.keys() == expected.keys()
    for name, value in saved.items():
        assert torch.allclose(value, expected[name], rtol=1e-4, atol=1e-6), name


@pytest.mark.full
def test_an_adapter_resumes_exactly(two, sharded):
    """With the KL divergence, for which the adapter is switched off now and then; saved whole."""
    for whole, seen in zip(two, sharded, strict=True):
        (resumed,) = seen["kl, sharded, resumed"]["after"]
        assert torch.equal(resumed, seen["kl, sharded"]["after"][-1])
        assert difference(resumed - whole["kl"]["before"], whole["kl"]["after"][-1] - whole["kl"]["before"]) < 1e-2


@pytest.mark.full
def test_an_adapter_in_shares(folder, sharded):
    """Bit for bit as where it is saved whole; the adapter that stock diffusers loads is the same file."""
    for seen in sharded:
        (resumed,) = seen["kl in shares, resumed"]["after"]
        assert torch.equal(resumed, seen["kl in shares"]["after"][-1])
        assert torch.equal(resumed, seen["kl, sharded"]["after"][-1])
    (in_shares, whole) = (load_file(folder / name / LORA_FILE) for name in ("kl in shares", "kl, sharded"))
    assert in_shares.keys() == whole.keys()
    assert all(torch.equal(in_shares[name], whole[name]) for name in whole)


def test_all_weights_in_shares_resume_exactly_after_a_kill(folder, two):
    """From update 1, because the checkpoint after update 2 was cut short. Each process holds and saves its own share."""
    for seen in two:
        trained, resumed = (seen["sharded"][f"all weights{name}"] for name in ("", ", resumed"))
        assert trained["kinds"] == {"DTensor"}
        assert len(resumed["after"]) == 1
        assert torch.equal(resumed["after"][-1], trained["after"][-1])
        assert not torch.equal(trained["after"][-1], trained["before"])
        assert resumed["checkpoints"] == {"checkpoint-1": None, "checkpoint-2": None}
    shares = [load_file(share_file(folder / "all weights" / "checkpoint-1", process, 2)) for process in (0, 1)]
    weights = [sum(value.numel() for name, value in share.items() if name.startswith("weight.")) for share in shares]
    assert sum(weights) == len(two[0]["sharded"]["all weights"]["before"])
    assert max(weights) < 0.6 * sum(weights)


def test_all_weights_in_shares_are_saved_whole_once(folder, two):
    """As a pipeline that stock diffusers loads; its checkpoints hold no pickles but those that torch reads as plain values."""
    run = folder / "all weights"
    unet = DiffusionPipeline.from_pretrained(run).unet
    saved = torch.cat([value.detach().flatten() for value in unet.parameters()])
    assert torch.equal(saved, two[0]["sharded"]["all weights"]["after"][-1])
    assert not (run / "checkpoint-1" / "unet").exists()
    check_contents(run / "checkpoint-1")
    assert {path.suffix for path in (run / "checkpoint-1").iterdir()} <= {".safetensors", ".json", ".pt", ".pth"}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        *((name, f"{name} is ") for name in sharded_trainings.REFUSED),
        ("uneven", "eval_dataset has 5 rows for 2 processes"),
        ("load_best_model_at_end", "checkpoints hold shares, and no whole pipeline"),
    ],
)
def test_what_sharding_rules_out_is_refused(two, name, text):
    for seen in two:
        kind, message = seen["sharded"][name]
        assert kind == "ConfigError"
        assert text in message
        assert "FSDP" in message


@pytest.mark.parametrize(
    ("version", "kind"), [(1, StateDictType.FULL_STATE_DICT), (2, StateDictType.LOCAL_STATE_DICT)], ids=str
)
def test_other_kinds_of_sharding_are_refused(version, kind):
    state = SimpleNamespace(fsdp_plugin=SimpleNamespace(fsdp_version=version, state_dict_type=kind))
    expected = (
        f"version {version} and state_dict_type {kind.name}; it must have version 2 and FULL_STATE_DICT or SHARDED"
    )
    with pytest.raises(ConfigError, match=expected):
        check_sharding(SimpleNamespace(distributed_type=DistributedType.FSDP, state=state), None)


def test_deepspeed_is_refused():
    with pytest.raises(ConfigError, match="DeepSpeed is not supported"):
        check_sharding(SimpleNamespace(distributed_type=DistributedType.DEEPSPEED), None)
