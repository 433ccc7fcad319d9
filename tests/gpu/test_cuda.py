"""What only a GPU can show: `pytest -m gpu` on a machine with CUDA. Numbers are of the embedded model, which a GPU runs in seconds."""

import numpy as np
import pytest
import torch
from support.trainers import CHECKPOINTING, FOUR_ANIMALS, RESUMABLE, as_vector, logs_of, make_trainer, trained_weights

from trainer_ext.errors import PipelineError
from trainer_ext.images import to_pil
from trainer_ext.model.loading import load_pipeline
from trainer_ext.model.stock import load_adapter
from trainer_ext.policy.stock import stock_images

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")]

PRECISIONS = {
    "float32": {"tf32": False},
    "bf16": {"bf16": True},
    "fp16": {"fp16": True},
    "bf16, checkpointing": {"bf16": True, CHECKPOINTING: True},
}
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def trainer_on_gpu(folder, **options):
    dtype = next((DTYPES[name] for name in DTYPES if options.get(name)), torch.float32)
    defaults = {
        "use_cpu": False,
        "rollout_batch_size": 4,
        "dataset": FOUR_ANIMALS,
        "num_inference_steps": 4,
        "guidance_scale": 4.0,
    }
    return make_trainer(load_pipeline("embedded", dtype), folder, **{**defaults, **options})


@pytest.mark.parametrize("options", PRECISIONS.values(), ids=PRECISIONS)
def test_the_ratio_is_1_before_the_first_update(tmp_path, options):
    trainer = trainer_on_gpu(tmp_path / "run", **options)
    trainer.train()
    (log,) = logs_of(trainer, "ratio")
    assert trainer.args.device.type == "cuda"
    assert log["ratio"] == pytest.approx(1, abs=1e-6)
    assert np.isfinite(log["grad_norm"])


@pytest.mark.parametrize("precision", ["float32", "bf16", "fp16"])
def test_a_resumed_run_ends_where_the_undisturbed_one_does(tmp_path, precision):
    options = {**RESUMABLE, **PRECISIONS[precision], "full_determinism": True}
    whole = trainer_on_gpu(tmp_path / "whole", **options)
    whole.train()
    first = trainer_on_gpu(tmp_path / "stopped", **options, max_steps=1)
    first.train()
    resumed = trainer_on_gpu(tmp_path / "stopped", **options)
    resumed.train(resume_from_checkpoint=True)
    expected, given = (as_vector(trained_weights(trainer.model)) for trainer in (whole, resumed))
    assert torch.equal(given, expected)


def test_a_saved_adapter_makes_the_same_images_in_a_stock_pipeline(tmp_path):
    trainer = trainer_on_gpu(tmp_path / "run", learning_rate=1e-2, bf16=True)
    trainer.train()
    trainer.save_model(str(tmp_path / "adapter"))
    prompts, seeds, call = ["a cat", "a dog"], [1, 2], {"num_inference_steps": 4, "guidance_scale": 4.0}
    images = []
    for _ in range(2):
        pipeline = load_pipeline("embedded", torch.bfloat16).to("cuda")
        load_adapter(pipeline, str(tmp_path / "adapter"))
        images.append(
            np.stack([np.asarray(image) for image in to_pil(stock_images(pipeline, prompts, seeds, 2, call))])
        )
    plain = stock_images(load_pipeline("embedded", torch.bfloat16).to("cuda"), prompts, seeds, 2, call)
    assert np.array_equal(*images)
    assert not np.array_equal(images[0], np.stack([np.asarray(image) for image in to_pil(plain)]))


def test_compiled_training_starts_at_ratio_1(tmp_path):
    trainer = trainer_on_gpu(tmp_path / "run", torch_compile=True, clip_range=1e-2)
    trainer.train()
    assert logs_of(trainer, "ratio")[0]["ratio"] == pytest.approx(1, abs=1e-3)


def test_larger_passes_in_half_precision_are_refused_before_anything_is_clipped(tmp_path):
    trainer = trainer_on_gpu(tmp_path / "run", bf16=True, rows_per_forward=32)
    with pytest.raises(PipelineError, match=r"of 32 rows, steps that were sampled with 8 rows.*rows_per_forward=8"):
        trainer.train()


def test_the_fused_pass_takes_the_gradient_of_replayed_steps(tmp_path):
    norms = []
    for fused in (False, True):
        trainer = trainer_on_gpu(tmp_path / f"fused-{fused}", fused=fused, algorithm="ddpo_sf")
        trainer.train()
        norms.append(logs_of(trainer, "ratio")[0]["grad_norm"])
    assert norms[0] == pytest.approx(norms[1], rel=1e-3)


def test_memory_is_given_back_to_the_next_rollout(tmp_path):
    peaks = []
    for rollouts in (2, 6):
        torch.cuda.reset_peak_memory_stats()
        trainer_on_gpu(tmp_path / f"of-{rollouts}", num_train_epochs=rollouts).train()
        peaks.append(torch.cuda.max_memory_allocated())
    assert peaks[1] <= 1.05 * peaks[0]


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_four_bits_take_less_memory_and_start_at_ratio_1(tmp_path, precision):
    pytest.importorskip("bitsandbytes")
    held = []
    for quantization in (None, "nf4"):
        torch.cuda.empty_cache()
        before = torch.cuda.memory_allocated()
        options = {"use_cpu": False, precision: True, "quantization": quantization, "learning_rate": 1e-3}
        options["rows_per_forward"] = 2  # as they are sampled: bitsandbytes rounds other numbers of rows differently
        trainer = make_trainer("embedded", tmp_path / str(quantization), **options)
        held.append(torch.cuda.memory_allocated() - before)
        trainer.train()
        assert logs_of(trainer, "ratio")[0]["ratio"] == pytest.approx(1, abs=1e-5)
        assert logs_of(trainer, "grad_norm")[0]["grad_norm"] > 0
        del trainer
    assert held[1] < 0.8 * held[0]  # 40 % of this model's weights are those of linear layers


def test_offloaded_components_leave_the_device_after_each_layer(tmp_path):
    """And the images are the same."""
    whole, parts = (trainer_on_gpu(tmp_path / f"{offload}", offload_components=offload) for offload in (False, True))
    made = [
        trainer.policy.sample(["a cat", "a dog"], [torch.Generator().manual_seed(seed) for seed in (1, 2)]).images
        for trainer in (whole, parts)
    ]
    pipeline = parts.policy.pipeline
    assert {value.device.type for part in (pipeline.vae, pipeline.text_encoder) for value in part.parameters()} == {
        "cpu"
    }
    assert parts.policy.device.type == "cuda"
    assert made[1].equal(made[0])
    parts.train()
    assert np.isfinite(logs_of(parts, "ratio")[0]["grad_norm"])
