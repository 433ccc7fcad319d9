"""
How fast, how large and how exact on a GPU: trainings of real sizes with random weights, without a network, in under 9 minutes.

    python benchmarks/gpu.py [--minutes 9] [--models SD1.5 SDXL SD3] [--ways bf16 ...] [--output_dir gpu-benchmark] [--toy]

Every row is a training by `DDPOTrainer` with a LoRA adapter of rank 16: two rollouts with one update each. Seconds and memory
are those of the second; the ratio is that of the first update, where it must be 1. MFU counts the denoiser's operations (forward
in sampling; forward and backward in training, nothing twice) against the card's datasheet, or where the card is not in the table,
against a matrix product that is measured here. Rows that do not fit into the minutes are named and left out. --toy runs the
embedded model, also on a CPU. The table goes to OUTPUT_DIR/gpu.md, and everything to OUTPUT_DIR/gpu.json.
"""

import argparse
import gc
import json
import logging
import math
import platform
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from datasets import Dataset
from gpu_models import MODELS, TOY, Model
from peft import LoraConfig
from torch.utils.flop_counter import FlopCounterMode
from transformers import TrainerCallback

from trainer_ext import DDPOConfig, DDPOTrainer

#: Dense bf16 and fp16 operations a second, by the makers' datasheets.
DATASHEETS = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "L40S": 362e12, "L4": 121e12, "T4": 65e12, "4090": 165e12}
CHECKPOINTING = next(
    name for name in ("activation_checkpointing", "gradient_checkpointing") if name in DDPOConfig.__dataclass_fields__
)

#: By name, in the order of their worth: what a training has beyond `bf16`.
WAYS = {
    "bf16": {},
    "bf16, checkpointing": {CHECKPOINTING: True},
    "bf16, fused": {"fused": True, "algorithm": "ddpo_sf"},
    "fp16": {"bf16": False, "fp16": True},
    "bf16, int8": {"quantization": "int8"},
    "bf16, nf4": {"quantization": "nf4"},
    "bf16, compiled": {"torch_compile": True},
}
SLOW_TO_BUILD = {"bf16, compiled": ("SD1.5", "toy")}  #: minutes of compiling, elsewhere
PROMPTS = ["a cat", "a dog", "a lion", "a bear"]


@dataclass(frozen=True)
class Row:
    """
    What one training took.

    Parameters:
        sampling, training (`float`): Seconds of the second rollout, and of the update on it.
        sampling_mfu, training_mfu (`float`): Share of the card's operations a second that were the model's.
        peak (`float`): GB of device memory in the second rollout and update.
        ratio (`float`): Distance of the mean ratio from 1 at the first update.
    """

    model: str
    way: str
    images: int
    steps: int
    sampling: float
    training: float
    sampling_mfu: float
    training_mfu: float
    peak: float
    ratio: float


class Watch(TrainerCallback):
    """Notes one call of the denoiser, and what the memory's peak is after the first rollout."""

    def __init__(self) -> None:
        self.call: tuple[tuple, dict] | None = None
        self.flops = (0, 0)

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        def note(module, inputs, named):
            if self.call is None:
                self.call = first_row(inputs, named)

        self.handle = model.register_forward_pre_hook(note, with_kwargs=True)

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == 1:
            self.handle.remove()
            torch.cuda.reset_peak_memory_stats() if torch.cuda.is_available() else None

    def on_train_end(self, args, state, control, model=None, **kwargs):
        self.peak = torch.cuda.max_memory_allocated() / 1e9 if torch.cuda.is_available() else math.nan
        self.flops = operations(model, self.call, torch.float16 if args.fp16 else torch.bfloat16)


def first_row(inputs, named):
    """Return a call with one row of each tensor that has rows: with gradients, all rows of a rollout need too much memory."""
    rows = max(
        len(value) for value in (*inputs, *named.values()) if isinstance(value, torch.Tensor) and value.dim() > 2
    )

    def cut(value):
        if isinstance(value, dict):
            return {name: cut(part) for name, part in value.items()}
        return value[:1] if isinstance(value, torch.Tensor) and value.dim() and len(value) == rows else value

    return tuple(map(cut, inputs)), cut(named)


def operations(denoiser, call, dtype) -> tuple[float, float]:
    """Return the floating-point operations of a row: forward, and forward and backward."""
    inputs, named = call
    device = next(denoiser.parameters()).device.type
    with torch.autocast(device, dtype), torch.enable_grad():
        with FlopCounterMode(display=False) as forward:
            output = denoiser(*inputs, **named)
        with FlopCounterMode(display=False) as backward:
            (output[0] if isinstance(output, tuple) else output.sample).float().sum().backward()
    denoiser.zero_grad()
    return forward.get_total_flops(), forward.get_total_flops() + backward.get_total_flops()


def brightness(images, prompts, **columns):
    return [float(image.convert("L").resize((1, 1)).getpixel((0, 0))) for image in images]


def measure(
    name: str, model: Model, way: str, folder: Path, peak_rate: float, flops
) -> tuple[Row, tuple[float, float]]:
    """Train twice two updates' worth, and return what it took and the operations of a row."""
    on_gpu = torch.cuda.is_available()
    options = {"bf16": True, **WAYS[way]}
    batch = model.images if CHECKPOINTING in options else model.batch
    dtype = torch.float16 if options.get("fp16") else torch.bfloat16
    args = DDPOConfig(
        output_dir=str(folder / "run"),
        num_inference_steps=model.steps,
        guidance_scale=model.guidance,
        num_images_per_rollout=model.images,
        rollout_batch_size=batch,
        per_device_train_batch_size=batch,
        gradient_accumulation_steps=model.images // batch,
        num_train_epochs=2,
        num_sample_images=0,
        save_strategy="no",
        disable_tqdm=True,
        use_cpu=not on_gpu,
        **options,
    )
    pipeline = model.make(dtype, "cuda" if on_gpu else "cpu")
    if "quantization" in options:  # is of models that are loaded
        pipeline.save_pretrained(folder / "model")
        pipeline = str(folder / "model")
    watch = Watch()
    adapter = LoraConfig(r=16, lora_alpha=16, target_modules=["to_q", "to_k", "to_v", "to_out.0"])
    data = Dataset.from_dict({"prompt": PROMPTS})
    trainer = DDPOTrainer(pipeline, brightness, args, data, peft_config=adapter, callbacks=[watch])
    trainer.train()
    first, last = [log for log in trainer.state.log_history if "ratio" in log]
    flops = flops or watch.flops
    branches = 2 if model.guidance > 1 else 1
    rows = model.images * model.steps * branches
    sampling, training = last["seconds/rollout"], last["seconds/training"]
    row = Row(
        name,
        way,
        model.images,
        model.steps,
        sampling,
        training,
        rows * flops[0] / sampling / peak_rate,
        rows * flops[1] / (training + sampling * ("fused" in way)) / peak_rate,
        watch.peak,
        abs(first["ratio"] - 1),
    )
    return row, flops


def matmul_rate() -> float:
    """Return the operations a second of a large bf16 matrix product, or of a small one on a CPU."""
    on_gpu = torch.cuda.is_available()
    side, device = (8192, "cuda") if on_gpu else (512, "cpu")
    left, right = torch.randn(2, side, side, dtype=torch.bfloat16, device=device)
    seconds = []
    for _ in range(6):
        start = time.perf_counter()
        left @ right
        torch.cuda.synchronize() if on_gpu else None
        seconds.append(time.perf_counter() - start)
    return 2 * side**3 / min(seconds)


def table(rows: list[Row]) -> str:
    """Return the rows as a Markdown table."""
    lines = [
        "| model | way | images x steps | images/s | s an image: sampling | training | MFU: sampling | training | peak GB "
        "| ratio - 1 at first |",
        "|-|-|-|-|-|-|-|-|-|-|",
    ]
    for row in rows:
        rate = row.images / (row.sampling + row.training)
        each = f"{row.sampling / row.images:.3f} | {row.training / row.images:.3f}"
        mfu = f"{row.sampling_mfu:.0%} | {row.training_mfu:.0%}"
        size = f"{row.images} x {row.steps}"
        lines.append(
            f"| {row.model} | {row.way} | {size} | {rate:.2f} | {each} | {mfu} | {row.peak:.1f} | {row.ratio:.1e} |"
        )
    return "\n".join(lines)


def peak_rate(card: str, measured: float) -> float:
    """Return the operations a second that MFU is a share of."""
    return next((rate for name, rate in DATASHEETS.items() if name in card), measured)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--output_dir", type=Path, default=Path("gpu-benchmark"))
    parser.add_argument("--toy", action="store_true")
    given = parser.parse_args()
    given.output_dir.mkdir(parents=True, exist_ok=True)
    logging.getLogger("transformers").setLevel(logging.ERROR)
    start, longest = time.monotonic(), 0.0
    card = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor() or "CPU"
    measured = matmul_rate()
    models = TOY if given.toy else {name: MODELS[name] for name in given.models}
    rows: list[Row] = []
    failures: dict[str, str] = {}
    flops: dict[str, tuple[float, float]] = {}
    for way in given.ways:
        for name, model in models.items():
            if name not in SLOW_TO_BUILD.get(way, models):
                continue
            began = time.monotonic()
            if began - start + longest > 60 * given.minutes:
                failures[f"{name}, {way}"] = "no time was left"
                continue
            try:
                with tempfile.TemporaryDirectory() as folder:
                    rate = peak_rate(card, measured)
                    row, flops[name] = measure(name, model, way, Path(folder), rate, flops.get(name))
                rows.append(row)
                print(row, flush=True)
            except Exception as error:  # one row must not cost the others
                failures[f"{name}, {way}"] = f"{type(error).__name__}: {str(error).splitlines()[0]}"
                print(f"{name}, {way}: {failures[f'{name}, {way}']}", flush=True)
            gc.collect()
            torch.cuda.empty_cache() if torch.cuda.is_available() else None
            longest = max(longest, time.monotonic() - began)
            facts = {
                "card": card,
                "torch": torch.__version__,
                "matmul TFLOP/s": round(measured / 1e12, 1),
                "rows": [asdict(row) for row in rows],
                "left out": failures,
            }
            (given.output_dir / "gpu.json").write_text(json.dumps(facts, indent=2) + "\n")
    notes = "".join(f"\n- {name}: {why}" for name, why in failures.items())
    text = f"{card}, torch {torch.__version__}, a bf16 matrix product at {measured / 1e12:.0f} TFLOP/s.\n\n{table(rows)}\n{notes}"
    (given.output_dir / "gpu.md").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
