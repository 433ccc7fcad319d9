"""The trainer through its public door."""

import json
import os
import signal
import time
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from diffusers import DDIMScheduler, StableDiffusionPipeline
from peft import LoraConfig
from PIL import Image
from safetensors import safe_open
from support import trainers
from support.pipelines import tiny_pipeline
from support.trainers import (
    CHECKPOINTING,
    all_records,
    assert_same,
    brightness,
    checkpoints,
    logs_of,
    prompts,
    trained_weights,
)
from transformers import TrainerCallback

from trainer_ext import LogProbPipeline, RewardFunction, embedded_model
from trainer_ext.errors import ConfigError
from trainer_ext.file_names import LORA_FILE
from trainer_ext.loop.interrupts import SAME_REQUEST_SECONDS, SIGNALS, StoppedError
from trainer_ext.model.loading import DTYPE_ARGUMENT, load_pipeline
from trainer_ext.policy.runner import swapped
from trainer_ext.policy.seeds import image_generators
from trainer_ext.runs.pictures.sheets import load_images
from trainer_ext.scoring.provenance import Provenance

PROMPTS = Dataset.from_dict(
    {"prompt": ["a cat", "a dog", "a lion", "a bear"], "animal": ["cat", "dog", "lion", "bear"]}
)


#: On each rollout.
TWO_UPDATES = {
    "dataset": PROMPTS,
    "num_inference_steps": 4,
    "num_images_per_rollout": 8,
    "rollout_batch_size": 4,
    "learning_rate": 1e-2,
    "clip_range": 1e-2,
    "use_cpu": False,
}


@pytest.fixture
def run_options():
    return TWO_UPDATES


def assert_close_as_a_whole(first, second):
    """To float32's rounding in sums of another order, which one loud step magnifies; a wrong factor would be 100 times that."""
    assert first.keys() == second.keys()
    difference = torch.cat([(value - second[name]).flatten() for name, value in first.items()]).norm()
    assert difference < 5e-3 * torch.cat([value.flatten() for value in first.values()]).norm()


# ---- it learns ----


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.full)])
def test_training_raises_the_reward(make_trainer, tiny_pipeline, seed):
    batch = {"num_images_per_rollout": 32, "rollout_batch_size": 32, "per_device_train_batch_size": 16}
    options = {"full_finetuning": True, "learning_rate": 1e-3, "clip_range": 0.1, "skip_last_steps": 2}
    trainer = make_trainer(model=tiny_pipeline("v_prediction"), num_train_epochs=8, seed=seed, **options, **batch)
    unseen_seeds = prompts(*["a cat"] * 16)
    before = trainer.evaluate(unseen_seeds)["eval_reward"]
    trainer.train()
    assert trainer.evaluate(unseen_seeds)["eval_reward"] > before + 8  # of 255; four seeds gave 16 to 25


# ---- arithmetic ----


class Gradients(TrainerCallback):
    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        self.gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
        raise KeyboardInterrupt


def first_gradient(make_trainer, **options):
    callback = Gradients()
    trainer = make_trainer(callbacks=[callback], max_grad_norm=0.0, num_train_epochs=1, **options)
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    return trainer, callback.gradients


def test_the_update_is_the_mean_over_images_and_steps(make_trainer):
    """Against one forward pass over all (image, step) pairs and the gradient of -A * log p, which is PPO's at ratio 1."""
    trainer, gradients = first_gradient(make_trainer, gradient_accumulation_steps=2)
    rollout = trainer._rollout
    rows, steps = torch.cartesian_prod(torch.arange(8), torch.arange(4)).unbind(1)
    trainer.model.zero_grad()
    log_ratio = trainer.policy.ratio_terms(rollout.data, rows, steps, trainer.model).log_ratio
    (-rollout.weights[rows] * log_ratio).mean().backward()
    assert_close_as_a_whole(
        gradients, {name: p.grad for name, p in trainer.model.named_parameters() if p.requires_grad}
    )


def test_accumulation_counts_images(make_trainer):
    _, whole = first_gradient(make_trainer, per_device_train_batch_size=8, folder="whole")
    _, parts = first_gradient(
        make_trainer, per_device_train_batch_size=2, gradient_accumulation_steps=4, folder="parts"
    )
    assert_close_as_a_whole(whole, parts)


def test_updates_and_passes(make_trainer):
    trainer = make_trainer(num_train_epochs=3, num_inner_epochs=2)
    trainer.train()
    assert trainer.state.global_step == 3 * 2 * (8 // 4)
    assert len(all_records(trainer.args.output_dir)) == 3


def test_the_share_of_steps_that_is_trained(make_trainer):
    trained = []

    class Spy(LogProbPipeline):
        def predict(self, calls, latents, rows, steps, denoiser=None):
            if torch.is_grad_enabled():
                trained.append((rows, steps))
            return super().predict(calls, latents, rows, steps, denoiser)

    trainer = make_trainer(timestep_fraction=0.5)
    trainer.policy.__class__ = Spy
    trainer._collector._replay_checked = True  # that check takes a gradient as well
    trainer.train()
    pairs = [(int(row), int(step)) for rows, steps in trained for row, step in zip(rows, steps, strict=True)]
    assert len(pairs) == len(set(pairs)) == 8 * 2  # 8 images, half of 4 steps each, no pair twice
    assert any(len(set(steps.tolist())) > 1 for _, steps in trained)  # mixed steps in one batch


def test_steps_that_are_not_trained(make_trainer, tiny_pipeline, caplog):
    assert make_trainer(skip_last_steps=1, folder="skipped").algorithm.trained_steps.tolist() == [0, 1, 2]
    deterministic_end = tiny_pipeline(set_alpha_to_one=True)
    assert make_trainer(model=deterministic_end, folder="end").algorithm.trained_steps.tolist() == [0, 1, 2]
    assert "1 of 4 denoising steps are deterministic and are not trained" in caplog.text
    with pytest.raises(ConfigError, match="None of the 1 denoising steps can be trained: 1 are deterministic"):
        make_trainer(model=tiny_pipeline(set_alpha_to_one=True), num_inference_steps=1, folder="none")


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_ratio_of_the_first_update_is_one(make_trainer, precision):
    trainer = make_trainer(
        use_cpu=True,
        bf16=precision == "bf16",
        per_device_train_batch_size=8,
        rollout_batch_size=8,
        logging_strategy="steps",
        logging_steps=1,
    )
    trainer.train()
    (log,) = logs_of(trainer, "ratio")
    assert log["ratio"] == 1.0
    assert log["approx_kl"] == 0.0
    assert log["clipfrac"] == 0.0


# ---- what is changed and saved ----


def test_nothing_but_the_adapter_changes(make_trainer):
    trainer = make_trainer()
    components = {
        name: module
        for name, module in trainer.policy.pipeline.components.items()
        if isinstance(module, torch.nn.Module)
    }
    before = {name: {k: v.clone() for k, v in module.state_dict().items()} for name, module in components.items()}
    trainer.train()
    changed = {
        f"{name}.{key}"
        for name, module in components.items()
        for key, value in module.state_dict().items()
        if not torch.equal(value, before[name][key])
    }
    assert changed
    assert all(".lora_A." in key or ".lora_B." in key for key in changed)
    assert {
        f"unet.{name.removeprefix('network.base_model.model.')}" for name in trained_weights(trainer.model)
    } >= changed


ADAPTED = {"attention": ["to_q", "to_v"], "convolutions": ["to_q", "conv1", "proj_in"]}


@pytest.fixture(scope="module")
def adapted(tmp_path_factory):
    """
    Images of each adapter: as stock diffusers makes them, as expected, and without it. By stock diffusers in a process of its
    own: hub/test_card_code.py.
    """
    torch.set_num_threads(1)
    settings = {"num_inference_steps": 4, "guidance_scale": 3.0, "eta": 1.0, "output_type": "pt"}
    folder, here = tmp_path_factory.mktemp("adapted"), {}
    for name, modules in ADAPTED.items():
        own = {"num_inference_steps": 4, "learning_rate": 1e-2, "peft_config": LoraConfig(r=2, target_modules=modules)}
        trainer = trainers.make_trainer("embedded", folder / name, **own)
        trainer.train()
        trainer.save_model()
        policy = trainer.policy
        with swapped(policy.pipeline, {"scheduler": policy.runner.sampler.scheduler}):
            expected = policy.pipeline(["a cat"], generator=image_generators([5]), **settings).images
            with trainer.model.network.disable_adapter():
                untrained = policy.pipeline(["a cat"], generator=image_generators([5]), **settings).images
        stock = StableDiffusionPipeline.from_pretrained(embedded_model(), **{DTYPE_ARGUMENT: torch.float32})
        stock.scheduler = DDIMScheduler.from_config(stock.scheduler.config, clip_sample=False)
        stock.load_lora_weights(folder / name, weight_name=LORA_FILE)
        torch.manual_seed(0)
        here[name] = stock(["a cat"], generator=image_generators([5]), **settings).images, expected, untrained
    return here


@pytest.mark.parametrize("name", ADAPTED)
def test_the_saved_adapter_gives_the_same_image_in_stock_diffusers(adapted, name):
    stock, expected, untrained = adapted[name]
    assert torch.equal(stock, expected)
    assert not torch.equal(untrained, expected)


def test_the_saved_adapter_keeps_its_strength(make_trainer):
    trainer = make_trainer(peft_config=LoraConfig(r=2, lora_alpha=7, target_modules=["to_q"]))
    trainer.save_model()
    with safe_open(Path(trainer.args.output_dir) / "pytorch_lora_weights.safetensors", "pt") as file:
        (metadata,) = (json.loads(value) for key, value in file.metadata().items() if key == "lora_adapter_metadata")
    assert (metadata["unet.r"], metadata["unet.lora_alpha"]) == (2, 7)


def test_full_finetuning_saves_a_pipeline(make_trainer):
    trainer = make_trainer(full_finetuning=True, learning_rate=1e-5)
    before = trainer.model.base.conv_in.weight.clone()
    trainer.train()
    trainer.save_model()
    assert not torch.equal(before, trainer.model.base.conv_in.weight)
    reloaded = load_pipeline(trainer.args.output_dir)
    assert_same(dict(trainer.model.base.state_dict()), dict(reloaded.unet.state_dict()))


def test_a_parquet_row_is_enough_to_make_its_image_again(make_trainer):
    trainer = make_trainer(model="embedded")
    trainer.train()
    row = all_records(trainer.args.output_dir)[0][6]
    policy = LogProbPipeline(load_pipeline("embedded"), num_inference_steps=4, guidance_scale=1.0)
    image = policy.sample([row["prompt"]], image_generators([row["seed"]])).images
    assert row["reward"] == row["rewards/brightness"] == pytest.approx(image.float().mean().item(), abs=0.1)


def test_pictures_of_the_run(make_trainer):
    trainer = make_trainer(num_sample_images=3, sample_every=1, num_train_epochs=2)
    trainer.train()
    folder = Path(trainer.args.output_dir)
    names = {path.name for path in (folder / "samples").iterdir()}
    stages = [f"update-{updates:05d}" for updates in (0, 2, 4)]
    files = {f"{stage}{ending}" for stage in stages for ending in ("", ".png", ".parquet")}
    assert names == files | {"before_after.png", "snapshots.png"}
    first, last = (load_images(folder / "samples" / stages[index]).float() for index in (0, 2))
    assert first.shape == (3, 32, 32, 3)
    assert 0 < (first - last).abs().mean() < 40  # moved, not replaced
    with Image.open(folder / "reward_curve.png") as curve:
        assert curve.size == (840, 480)


def test_logged_metrics(make_trainer):
    trainer = make_trainer(
        reward=[brightness, RewardFunction("constant", lambda images, prompts, **columns: [1.0] * len(images))],
        reward_weights=[1.0, 10.0],
    )
    trainer.train()
    (log,) = logs_of(trainer, "reward")
    assert log["reward"] == pytest.approx(log["rewards/brightness/mean"] + 10)
    assert (log["rewards/constant/mean"], log["rewards/constant/std"]) == (1.0, 0.0)
    assert log["reward_std"] == pytest.approx(log["rewards/brightness/std"])
    assert log["frac_reward_zero_std"] == 0.0
    assert log["seconds/rollout"] > 0
    assert log["seconds/training"] > 0
    assert log["seconds/reward"] > 0
    assert log["images_per_second"] == pytest.approx(8 / log["seconds/rollout"])
    assert log.keys() >= {"loss", "grad_norm", "learning_rate", "ratio", "approx_kl", "clipfrac"}


def test_rewards_get_the_columns_and_the_state(make_trainer):
    seen = []

    def reward(images, prompts, animal, trainer_state, **columns):
        seen.append((prompts, animal, trainer_state.global_step))
        return brightness(images, prompts)

    make_trainer(reward=reward, num_train_epochs=2).train()
    assert all(
        prompt == f"a {animal}" for prompts, animals, _ in seen for prompt, animal in zip(prompts, animals, strict=True)
    )
    assert [step for _, _, step in seen] == [0, 0, 2, 2]


def test_what_rewards_log_reaches_the_log_and_the_records(make_trainer):
    def reward(images, prompts, log_metric, log_extra, **columns):
        log_metric("batch_size", len(images))
        log_extra("length", [len(prompt) for prompt in prompts])
        return brightness(images, prompts)

    trainer = make_trainer(reward=reward)
    trainer.train()
    (log,) = logs_of(trainer, "reward")
    assert log["batch_size"] == 4
    assert all(row["length"] == len(row["prompt"]) for row in all_records(trainer.args.output_dir)[0])


def test_images_of_a_prompt_stay_together(make_trainer):
    trainer = make_trainer(num_images_per_prompt=4)
    trainer.train()
    (rows,) = all_records(trainer.args.output_dir)
    prompts = [row["prompt"] for row in rows]
    assert prompts == [prompts[0]] * 4 + [prompts[4]] * 4
    assert prompts[0] != prompts[4]
    assert len({row["seed"] for row in rows}) == 8


def test_gradient_checkpointing_changes_no_gradient(make_trainer, monkeypatch):
    recomputed, checkpoint = [], torch.utils.checkpoint.checkpoint
    monkeypatch.setattr(
        torch.utils.checkpoint, "checkpoint", lambda *args, **kw: recomputed.append(1) or checkpoint(*args, **kw)
    )
    _, plain = first_gradient(make_trainer, folder="plain")
    assert not recomputed
    _, checkpointed = first_gradient(make_trainer, folder="checkpointed", **{CHECKPOINTING: True})
    assert recomputed
    assert_close_as_a_whole(plain, checkpointed)


def test_schedulers_and_reporting_find_what_they_need(make_trainer):
    trainer = make_trainer(lr_scheduler_type="linear", num_train_epochs=2, logging_strategy="steps", logging_steps=1)
    trainer.train()
    rates = [log["learning_rate"] for log in logs_of(trainer, "learning_rate")]
    assert rates == sorted(rates, reverse=True)
    assert rates[0] > rates[-1]
    assert json.loads(trainer.model.config.to_json_string())["denoiser"]["cross_attention_dim"] == 128  # TensorBoard


def test_evaluation_has_fixed_seeds_and_leaves_no_trace(make_trainer):
    trainer = make_trainer(eval_dataset=PROMPTS, eval_strategy="epoch")
    first = trainer.evaluate()
    assert first == trainer.evaluate()
    trainer.train()
    (log,) = [log for log in logs_of(trainer, "eval_reward") if log["epoch"] == 1]
    assert log["eval_reward"] != first["eval_reward"]
    without = make_trainer(folder="without")
    without.train()
    assert_same(trained_weights(trainer.model), trained_weights(without.model))


# ---- interruption ----


class Interrupt(TrainerCallback):
    """Presses Ctrl-C after some updates."""

    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            signal.raise_signal(signal.SIGINT)


class InterruptFirstUpdate(TrainerCallback):
    """Presses Ctrl-C when a rollout is scored and remembered, but no update on it is done."""

    def on_substep_end(self, args, state, control, **kwargs):
        if state.global_step == 2:
            signal.raise_signal(signal.SIGINT)


def interrupting(images, prompts, trainer_state, **columns):
    """Presses Ctrl-C in the middle of the second rollout."""
    if trainer_state.global_step == 2:
        signal.raise_signal(signal.SIGINT)
    return brightness(images, prompts)


# To a checkpoint, another function is another reward.
AS_BRIGHTNESS = RewardFunction("brightness", interrupting, provenance=Provenance.of_function(brightness))

# The prompts' own statistics from the first reward on: one that is remembered twice is seen.
RESUMED = {
    "num_train_epochs": 3,
    "per_device_train_batch_size": 2,
    "gradient_accumulation_steps": 2,
    "num_images_per_prompt": 2,
    "stat_min_count": 2,
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nothing interrupts."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    trainer = trainers.make_trainer(tiny_pipeline(), tmp_path_factory.mktemp("whole"), **{**TWO_UPDATES, **RESUMED})
    trainer.train()
    return trainer


@pytest.mark.parametrize(
    ("options", "step"),
    [
        pytest.param({"callbacks": [Interrupt(3)]}, 3, id="in training"),
        pytest.param({"callbacks": [InterruptFirstUpdate()]}, 2, id="before the first update on a rollout"),
        pytest.param({"reward": AS_BRIGHTNESS}, 2, id="in a rollout"),
    ],
)
def test_ctrl_c_leaves_a_checkpoint_that_resumes_exactly(make_trainer, whole, options, step):
    stopped = make_trainer(**RESUMED, folder="stopped", **options)
    with pytest.raises(KeyboardInterrupt):
        stopped.train()
    assert checkpoints(stopped.args.output_dir) == [f"checkpoint-{step}"]
    resumed = make_trainer(**RESUMED, folder="stopped")
    resumed.train(resume_from_checkpoint=True)
    assert resumed.state.global_step == whole.state.global_step
    assert_same(trained_weights(whole.model), trained_weights(resumed.model))
    assert all_records(resumed.args.output_dir) == all_records(whole.args.output_dir)


def test_a_second_ctrl_c_stops_at_once_and_saves_nothing(make_trainer):
    """Anything may be half done then."""

    def reward(images, prompts, trainer_state, **columns):
        if trainer_state.global_step == 2:
            signal.raise_signal(signal.SIGINT)
            while not trainer._stop.signum:  # two at once would be one
                time.sleep(0.01)
            time.sleep(SAME_REQUEST_SECONDS)
            signal.raise_signal(signal.SIGINT)
        return brightness(images, prompts)

    trainer = make_trainer(reward=reward, num_train_epochs=2)
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    assert checkpoints(trainer.args.output_dir) == []


def test_ctrl_c_that_a_launcher_sends_on_is_one_ctrl_c(make_trainer):
    """The terminal sends it to all processes, and torchrun to its own: the run still saves its checkpoint."""

    class InterruptTwice(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == 1:
                for _ in range(2):
                    os.kill(os.getpid(), signal.SIGINT)
                    time.sleep(0.05)

    trainer = make_trainer(callbacks=[InterruptTwice()], num_train_epochs=2)
    with pytest.raises(StoppedError):
        trainer.train()
    assert checkpoints(trainer.args.output_dir) == ["checkpoint-1"]


class Handlers(TrainerCallback):
    """Notes the signals that are handled during training."""

    def __init__(self):
        self.seen = {}

    def on_step_end(self, args, state, control, **kwargs):
        self.seen = {number: signal.getsignal(number) for number in SIGNALS}


def test_the_handlers_of_signals_are_given_back(make_trainer):
    before = {number: signal.getsignal(number) for number in SIGNALS}
    handlers = Handlers()
    make_trainer(callbacks=[handlers]).train()
    assert {number: signal.getsignal(number) for number in SIGNALS} == before
    assert all(handlers.seen[number] != before[number] for number in SIGNALS)


def test_a_signal_that_the_process_ignores_stays_ignored(make_trainer, monkeypatch):
    """`nohup ddpo train` outlives its terminal."""
    handlers, before = Handlers(), signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        make_trainer(callbacks=[handlers]).train()
    finally:
        signal.signal(signal.SIGHUP, before)
    assert handlers.seen[signal.SIGHUP] == signal.SIG_IGN
