"""Quantised weights under an adapter; with torchao or optimum-quanto where they are installed."""

from enum import StrEnum
from types import SimpleNamespace

import pytest
import torch
from diffusers import QuantoConfig
from support.trainers import logs_of, make_trainer

from trainer_ext import DDPOConfig
from trainer_ext.errors import ConfigError, PipelineError
from trainer_ext.model.loading import load_pipeline, open_pipeline
from trainer_ext.model.quantization import QUANTIZATIONS, as_floats, check_quantization, described_quantization, plain
from trainer_ext.options import CHOICES
from trainer_ext.runs.folder import RunFolder

pytestmark = [
    pytest.mark.filterwarnings("ignore:.Quanto.*is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:torchao.*"),
]


def test_the_options_are_those_there_are():
    assert CHOICES["quantization"] == tuple(QUANTIZATIONS)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"quantization": "int2"}, "quantization is 'int2'.*one of int8, int4, nf4"),
        (
            {"quantization": "int8", "full_finetuning": True},
            "quantization is 'int8' and full_finetuning True.*an adapter",
        ),
    ],
)
def test_options_that_cannot_work(tmp_path, options, message):
    with pytest.raises(ConfigError, match=message):
        DDPOConfig(output_dir=str(tmp_path), use_cpu=True, **options)


def test_bits_that_need_a_gpu():
    with pytest.raises(ConfigError, match="'nf4', which bitsandbytes computes on GPUs alone.*one of int8, int4"):
        check_quantization("nf4", torch.device("cpu"))


def test_a_package_that_is_missing(monkeypatch):
    monkeypatch.setattr("trainer_ext.model.quantization.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="is not installed: pip install torchao"):
        check_quantization("int8", torch.device("cpu"))


def test_a_pipeline_that_is_loaded_already(embedded_pipeline):
    with pytest.raises(ConfigError, match="quantization is 'int8', and the model is a pipeline that is already loaded"):
        open_pipeline(embedded_pipeline, torch.float32, "int8")


def test_foreign_configurations_become_plain():
    class Kind(StrEnum):
        ONE = "one"

    values = {"kind": Kind.ONE, "dtype": torch.float16, "list": (1, None), 3: QuantoConfig(weights_dtype="int4")}
    assert plain(values) == {
        "kind": "one",
        "dtype": "torch.float16",
        "list": [1, None],
        "3": {"quant_method": "quanto", "weights_dtype": "int4", "modules_to_not_convert": None},
    }
    assert described_quantization({}) == {}


def test_full_finetuning_of_a_quantised_pipeline_is_refused(tmp_path, tiny_pipeline):
    pipeline = tiny_pipeline()
    pipeline.unet.register_to_config(quantization_config={"quant_method": "torchao"})
    with pytest.raises(
        PipelineError, match=r"pipeline.unet is quantised \(torchao\), and full_finetuning trains all weights"
    ):
        make_trainer(pipeline, tmp_path, full_finetuning=True)


@pytest.mark.parametrize(
    ("name", "module", "method"),
    [("int8", "torchao", "torchao"), pytest.param("int4", "optimum.quanto", "quanto", marks=pytest.mark.full)],
)
def test_a_quantised_base_is_trained(tmp_path, name, module, method):
    """Ratios are 1, the gradient arrives, the distance from the base is known, and the record and the card say so."""
    pytest.importorskip(module)
    options = {"clip_range": 1e-4, "beta": 0.01, "num_train_epochs": 2, "learning_rate": 1e-3, "advantages": "batch"}
    trainer = make_trainer("embedded", tmp_path, quantization=name, **options)
    quantised = [
        value for value in trainer.policy.denoiser.parameters() if type(value).__name__ not in ("Parameter", "Tensor")
    ]
    assert len(quantised) > 10
    plain_weights = dict(load_pipeline("embedded").unet.named_parameters())
    weight = trainer.policy.denoiser.get_parameter("mid_block.attentions.0.transformer_blocks.0.ff.net.2.weight")
    expected = plain_weights["mid_block.attentions.0.transformer_blocks.0.ff.net.2.weight"]
    error = (as_floats(weight.detach()) - expected).norm() / expected.norm()
    assert 0 < error < (0.02 if name == "int8" else 0.2)
    trainer.train()
    assert [log["ratio"] for log in logs_of(trainer, "ratio")] == pytest.approx([1, 1], abs=1e-5)
    assert logs_of(trainer, "kl")[-1]["kl"] > 0
    assert logs_of(trainer, "grad_norm")[0]["grad_norm"] > 0
    (setup,) = RunFolder(trainer.args.folder).setups()
    assert setup["base"]["quantization"]["quant_method"] == method
    assert setup["options"]["quantization"] == name


def test_a_lock_that_a_killed_compilation_left_is_named(tmp_path, monkeypatch, caplog):
    found = SimpleNamespace(submodule_search_locations=[str(tmp_path)])
    monkeypatch.setattr("trainer_ext.model.quantization.find_spec", lambda module: found)
    check_quantization("int4", torch.device("cpu"))
    assert not caplog.records
    lock = tmp_path / "library" / "extensions" / "cpp" / "build" / "lock"
    lock.parent.mkdir(parents=True)
    lock.touch()
    check_quantization("int4", torch.device("cpu"))
    assert f"waits while {lock} exists" in caplog.text
    check_quantization("int8", torch.device("cpu"))
    assert len(caplog.records) == 1
