"""
How fast: an epoch (a rollout, and one update on all of it) by each way to train, beside the floor of its denoiser calls alone.

    python benchmarks/speed.py [--rounds 5] [--output_dir speed] [--trl_python PYTHON | --without_trl]

Every way runs in a process of its own, with the same model folder, allocator and threads, and they take turns: floor, standard,
merged, fused, TRL, floor, ... The table has medians over rounds of ratios within a round, of CPU seconds and of wall seconds, so
that it also says something on a busy machine. In the same run the gradients of the first update are compared, and its ratio read.

TRL 0.23.1 is the last version with a DDPOTrainer. It is installed from the package index into an environment of its own in
OUTPUT_DIR/trl, unless --trl_python names the Python of one.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

MALLOC = {"MALLOC_MMAP_THRESHOLD_": "4294967296", "MALLOC_TRIM_THRESHOLD_": "4294967296"}
TRL = (
    "torch==2.13.0",
    "trl==0.23.1",
    "transformers==4.57.1",
    "diffusers==0.35.2",
    "peft==0.18.0",
    "accelerate==1.11.0",
)
OURS = {
    "standard": {"fused": False},
    "merged": {"fused": False, "rows_per_forward": 64},
    "fused": {"fused": True, "rows_per_forward": 64},
}
BATCH, GUIDANCE = 8, 5.0  #: images of a forward pass of training
PROMPTS = ["a cat", "a dog", "a lion", "a bear"]


# ---- in the process of one way: each epoch waits for a line, and answers with what it took ----


class Turns:
    """Waits for its turn, and measures it."""

    def begin(self):
        sys.stdin.readline()
        self.start = (time.process_time(), time.perf_counter())

    def end(self, **more):
        cpu, wall = time.process_time() - self.start[0], time.perf_counter() - self.start[1]
        print(json.dumps({"cpu": cpu, "wall": wall, **more}), file=ANSWERS, flush=True)


def brightness(images, prompts, **columns):
    import numpy as np

    return [float(np.asarray(image).mean()) for image in images]


def run_ours(turns, name, options):
    import torch
    from datasets import Dataset
    from transformers import TrainerCallback

    from trainer_ext import DDPOConfig, DDPOTrainer

    class TakeTurns(TrainerCallback):
        def on_train_begin(self, *args, **kwargs):
            turns.begin()

        def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
            if state.global_step == 0:
                gradient = torch.cat([value.grad.flatten() for value in model.parameters() if value.requires_grad])
                torch.save(gradient, options.output_dir / f"{name}.gradient.pt")

        def on_step_end(self, args, state, control, **kwargs):
            turns.end()
            turns.begin()

        def on_log(self, args, state, control, logs=None, **kwargs):
            if state.global_step == 1 and "ratio" in logs:
                (options.output_dir / f"{name}.ratio").write_text(repr(logs["ratio"]))

    args = DDPOConfig(
        output_dir=str(options.output_dir / name),
        num_inference_steps=options.steps,
        guidance_scale=GUIDANCE,
        num_images_per_rollout=options.images,
        rollout_batch_size=options.rollout_batch,
        per_device_train_batch_size=BATCH,
        gradient_accumulation_steps=options.images // BATCH,
        num_train_epochs=options.rounds + 2,
        num_sample_images=0,
        save_strategy="no",
        disable_tqdm=True,
        use_cpu=True,
        **OURS[name],
    )
    data = Dataset.from_dict({"prompt": PROMPTS})
    DDPOTrainer(str(options.model), brightness, args, data, callbacks=[TakeTurns()]).train()


def run_trl(turns, name, options):
    from accelerate import PartialState
    from trl import DDPOConfig, DDPOTrainer, DefaultDDPOStableDiffusionPipeline

    PartialState()  # TRL warns through accelerate, before it has made one, that the model's folder holds no adapter
    config = DDPOConfig(
        num_epochs=options.rounds + 2,
        sample_num_steps=options.steps,
        sample_guidance_scale=GUIDANCE,
        sample_batch_size=options.rollout_batch,
        sample_num_batches_per_epoch=options.images // options.rollout_batch,
        train_batch_size=BATCH,
        train_gradient_accumulation_steps=options.images // BATCH,
        train_learning_rate=3e-4,
        per_prompt_stat_tracking=True,
        mixed_precision="no",
        allow_tf32=False,
        log_with=None,
        project_kwargs={"project_dir": str(options.output_dir / name), "automatic_checkpoint_naming": True},
        save_freq=10**6,
    )
    prompts = iter(PROMPTS * 10**6)
    pipeline = DefaultDDPOStableDiffusionPipeline(str(options.model), use_lora=True)
    trainer = DDPOTrainer(
        config,
        lambda images, texts, metadata: (torch_mean(images), {}),
        lambda: (next(prompts), {}),
        pipeline,
    )
    for epoch in range(options.rounds + 1):
        turns.begin()
        trainer.step(epoch, epoch)
        turns.end()


def torch_mean(images):
    return images.float().mean((1, 2, 3)) * 255


def run_floor(turns, name, options):
    """The calls of the denoiser that every way but the fused one must make, and nothing else."""
    import torch
    from diffusers import UNet2DConditionModel
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    unet = UNet2DConditionModel.from_pretrained(options.model, subfolder="unet").requires_grad_(False).eval()
    size, width = unet.config.sample_size, unet.config.cross_attention_dim
    layers = ["to_q", "to_k", "to_v", "to_out.0"]
    model = get_peft_model(unet, LoraConfig(r=4, lora_alpha=4, init_lora_weights="gaussian", target_modules=layers))
    rows = torch.randn(2 * BATCH, unet.config.in_channels, size, size)
    texts, time_ = torch.randn(2 * BATCH, options.tokens, width), torch.tensor(500)
    optimizer = torch.optim.AdamW([value for value in model.parameters() if value.requires_grad], 1e-5)
    for _ in range(options.rounds + 1):
        turns.begin()
        for _ in range(options.images // BATCH):
            with torch.no_grad():
                for _ in range(options.steps):
                    model(rows, time_, encoder_hidden_states=texts)
        for _ in range(options.images // BATCH):
            for _ in range(options.steps):
                model(rows, time_, encoder_hidden_states=texts)[0].mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        turns.end()


# ---- the side that compares ----


class Way:
    """One way to train, in a process of its own."""

    def __init__(self, name, python, options):
        environment = {**os.environ, **MALLOC, "OMP_NUM_THREADS": str(options.threads), "HF_HUB_OFFLINE": "1"}
        command = [python, __file__, *sys.argv[1:], "--way", name, "--model", str(options.model)]
        self.name, self.log = name, options.output_dir / f"{name}.log"
        with self.log.open("w") as log:
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": log, "text": True}
            self.process = subprocess.Popen(command, env=environment, **pipes)

    def epoch(self):
        with suppress(BrokenPipeError):  # it ended, and has no answer
            print(file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline()
        if not answer:
            lines = self.log.read_text().splitlines()
            raise SystemExit(
                "\n".join([*lines[-3:], f"{self.name} ended before its epochs did; its log is {self.log}"])
            )
        return json.loads(answer)


def trl_python(options):
    if options.trl_python is not None:
        return str(options.trl_python)
    folder = options.output_dir / "trl"
    if not (folder / "bin" / "python").exists():
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    subprocess.run([folder / "bin" / "pip", "install", "--quiet", *TRL], check=True)
    return str(folder / "bin" / "python")


def measure(options):
    pythons = {"floor": sys.executable, **dict.fromkeys(OURS, sys.executable)}
    if not options.without_trl:
        pythons["TRL 0.23.1"] = trl_python(options)
    ways = [Way(name, python, options) for name, python in pythons.items()]
    try:
        rounds = [{way.name: way.epoch() for way in ways} for _ in range(options.rounds + 1)][1:]  # the first warms up
    finally:
        for way in ways:
            way.process.kill()  # this side's own children
            way.process.wait()
    return rounds


def table(rounds):
    lines = ["| | CPU s, median | of the floor | standard takes ... times as long (CPU) | (wall) |", "|-|-|-|-|-|"]
    for name in rounds[0]:
        cpu = statistics.median(each[name]["cpu"] for each in rounds)
        floor = statistics.median(each[name]["cpu"] / each["floor"]["cpu"] for each in rounds)
        ratios = [
            statistics.median(each["standard"][clock] / each[name][clock] for each in rounds)
            for clock in ("cpu", "wall")
        ]
        lines.append(f"| {name} | {cpu:.2f} | {floor:.2f} | {ratios[0]:.2f} | {ratios[1]:.2f} |")
    return "\n".join(lines)


def check_first_update(options):
    import torch

    for name in OURS:
        print(f"The first ratio of {name} is {(options.output_dir / f'{name}.ratio').read_text()}.")
    standard, *others = (torch.load(options.output_dir / f"{name}.gradient.pt", weights_only=True) for name in OURS)
    for name, other in zip(list(OURS)[1:], others, strict=True):
        error = float((other - standard).norm() / standard.norm())
        print(f"The first gradient of {name} differs from that of standard by {error:.1e} (relative).")
        assert error < 1e-3, name


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="epochs of each way, after one that warms up")
    parser.add_argument("--images", type=int, default=16, help="images of a rollout, a multiple of 8")
    parser.add_argument("--steps", type=int, default=20, help="denoising steps")
    parser.add_argument("--rollout_batch", type=int, default=BATCH, help="images that are sampled at once, by TRL too")
    parser.add_argument("--threads", type=int, default=1, help="threads of each way")
    parser.add_argument("--tokens", type=int, default=16, help="tokens of a prompt, for the floor")
    parser.add_argument("--model", type=Path, help="folder of a Stable Diffusion; the embedded model by default")
    parser.add_argument("--output_dir", type=Path, default=Path("speed"))
    parser.add_argument("--trl_python", type=Path, help="the Python of an environment with TRL 0.23.1")
    parser.add_argument("--without_trl", action="store_true")
    parser.add_argument("--way", help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.output_dir.mkdir(parents=True, exist_ok=True)
    if options.way is not None:
        run = {"floor": run_floor, "TRL 0.23.1": run_trl}.get(options.way, run_ours)
        run(Turns(), options.way, options)
        return
    if options.model is None:
        from trainer_ext import embedded_model

        options.model = Path(embedded_model())
    rounds = measure(options)
    (options.output_dir / "rounds.json").write_text(json.dumps(rounds, indent=1))
    print(
        f"{options.images} images, {options.rollout_batch} at once, {options.steps} steps, guidance {GUIDANCE}, "
        f"{options.threads} thread(s), {len(rounds)} rounds"
    )
    print(table(rounds))
    check_first_update(options)


if __name__ == "__main__":
    ANSWERS = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    main()
