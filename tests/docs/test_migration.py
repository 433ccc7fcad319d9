"""The page for users of TRL's old trainer: complete, true, and its adapter runs."""

import inspect
import re
from dataclasses import fields

import numpy as np
import pytest
import torch
from support.pages import blocks, read
from support.trainers import records

from trainer_ext import DDPOConfig, DDPOTrainer, RewardFunction

PAGE = "docs/migrating-from-trl.md"
SECTION = read(PAGE)
OLD_FUNCTIONS, ADAPTER = (block.text for block in blocks(PAGE, "python"))


def words(text):
    return re.findall(r"\w+", text)


# of trl 0.23.1
OLD_OPTIONS = words("""
exp_name run_name seed log_with tracker_kwargs accelerator_kwargs project_kwargs tracker_project_name logdir num_epochs
save_freq num_checkpoint_limit mixed_precision allow_tf32 resume_from sample_num_steps sample_eta sample_guidance_scale
sample_batch_size sample_num_batches_per_epoch train_batch_size train_use_8bit_adam train_learning_rate train_adam_beta1
train_adam_beta2 train_adam_weight_decay train_adam_epsilon train_gradient_accumulation_steps train_max_grad_norm
train_num_inner_epochs train_cfg train_adv_clip_max train_clip_range train_timestep_fraction per_prompt_stat_tracking
per_prompt_stat_tracking_buffer_size per_prompt_stat_tracking_min_count async_reward_computation max_workers
negative_prompts push_to_hub
""")
OLD_ARGUMENTS = words("config reward_function prompt_function sd_pipeline image_samples_hook")
OLD_METHODS = words("""
train step compute_rewards calculate_loss loss create_model_card save_pretrained from_pretrained push_to_hub
generate_model_card
""")
OLD_PIPELINE = words("""
DefaultDDPOStableDiffusionPipeline pretrained_model_name pretrained_model_revision use_lora
DDPOStableDiffusionPipeline DDPOPipelineOutput DDPOSchedulerOutput
""")


# ---- the tables ----


def table(header):
    """First two cells of each row: old names, and new ones (empty for none)."""
    _, rest = SECTION.split(f"| {header} | new | |\n|-|-|-|\n")
    rows = []
    for line in rest.split("\n\n")[0].splitlines():
        old, new, reason = re.fullmatch(r"\| (.*?) \| (.*?) \| ?(.*?) ?\|", line).groups()
        assert new != "none" or reason, f"{old} is gone without a reason"
        rows.append((words(old), [] if new == "none" else re.findall(r"`(\w+)", new)))
        assert new == "none" or rows[-1][1], line
    return rows


def names(rows, column):
    return [name for row in rows for name in row[column]]


def test_every_old_option_has_its_row():
    assert sorted(names(table("old option"), 0)) == sorted(OLD_OPTIONS)


@pytest.mark.parametrize("name", sorted(set(names(table("old option"), 1))))
def test_new_options_exist(name):
    assert name in {field.name for field in fields(DDPOConfig)}


def test_every_old_argument_and_method_has_its_row():
    rest = set(names(table("old argument, method or class"), 0))
    known = {*OLD_ARGUMENTS, *OLD_METHODS, *OLD_PIPELINE}
    assert rest >= known
    assert rest - known == {
        "epochs", "epoch", "global_step", "folder", "repo_id"  # the arguments of methods
    }  # fmt: skip


@pytest.mark.parametrize("name", sorted(set(names(table("old argument, method or class"), 1))))
def test_new_arguments_and_methods_exist(name):
    arguments = inspect.signature(DDPOTrainer).parameters
    options = {field.name for field in fields(DDPOConfig)}
    assert name in arguments or name in options or callable(getattr(DDPOTrainer, name, None))


def test_training_resumes_by_the_name_of_the_table():
    assert "resume_from_checkpoint" in inspect.signature(DDPOTrainer.train).parameters


def test_eight_bit_adam_has_the_value_of_the_table(tmp_path):
    assert '`"adamw_bnb_8bit"`' in SECTION
    assert DDPOConfig(output_dir=str(tmp_path), optim="adamw_bnb_8bit").optim == "adamw_bnb_8bit"


# ---- the adapter ----

TINY = {
    "num_inference_steps": 2,
    "guidance_scale": 1.0,
    "num_images_per_rollout": 8,
    "rollout_batch_size": 4,
    "per_device_train_batch_size": 4,
    "gradient_accumulation_steps": 1,
    "num_train_epochs": 2,
    "num_sample_images": 2,
    "sample_every": 1,
    "save_strategy": "no",
    "disable_tqdm": True,
    "use_cpu": True,
}

# Each its own kind of metadata, with keys that the others do not have.
METADATA = {
    "a cat": {"questions": ["how many?"], "answers": ["1"]},
    "a dog": {"count": 2, "answers": "two"},
    "a lion": {},
    "a bear": None,
}


class OldScript:
    """The functions of a script for the old trainer, with a note of how they were called."""

    def __init__(self):
        self.scored = []
        self.hooked = []

    def prompt_function(self):
        prompt = np.random.choice(list(METADATA))
        return prompt, METADATA[prompt]

    def reward_function(self, images, prompts, metadata):
        self.scored.append((images, prompts, metadata))
        return images.mean(dim=(1, 2, 3)), {"brightest": images.max().item()}

    def image_samples_hook(self, image_data, global_step, tracker):
        self.hooked.append((image_data, global_step, tracker))

    def functions(self):
        return {name: getattr(self, name) for name in ("prompt_function", "reward_function", "image_samples_hook")}


def test_the_functions_of_the_page_are_those_of_an_old_script():
    names = {}
    exec(OLD_FUNCTIONS, names)
    for name in ("prompt_function", "reward_function", "image_samples_hook"):
        old, shown = getattr(OldScript, name), names[name]
        assert list(inspect.signature(shown).parameters)[:2] == list(inspect.signature(old).parameters)[1:3]


@pytest.fixture
def from_trl():
    names = {}
    exec(ADAPTER.partition("\n\nargs = ")[0], names)
    return names["from_trl"]


@pytest.fixture
def make_config(tmp_path):
    def make(**options):
        return DDPOConfig(output_dir=str(tmp_path / "ported"), **{**TINY, **options})

    return make


def test_the_block_runs_as_it_is(tmp_path, monkeypatch, tiny_pipeline):
    """With a smaller model and fewer images."""
    monkeypatch.chdir(tmp_path)
    script = OldScript()
    block = ADAPTER.replace('"stable-diffusion-v1-5/stable-diffusion-v1-5"', "tiny_pipeline()")
    assert block.count("bf16=True") == 1
    options = {**TINY, "num_sample_images": 0}
    exec(
        block.replace("bf16=True", "**options"),
        {"tiny_pipeline": tiny_pipeline, "options": options, **script.functions()},
    )
    assert [len(data) for data, _, _ in script.hooked] == [2, 2]  # two batches of 4 images, for each of 2 rollouts
    assert (tmp_path / "ported" / "rollouts" / "rollout-00001.parquet").is_file()


def test_old_functions_get_what_they_used_to_get(make_config, tiny_pipeline, from_trl):
    script, tracker = OldScript(), object()
    args = make_config(eval_strategy="steps", eval_steps=1)
    arguments = from_trl(args, tracker=tracker, **script.functions())
    eval_dataset = arguments["train_dataset"].select([0, 1, 2])
    trainer = DDPOTrainer(tiny_pipeline(), args=args, eval_dataset=eval_dataset, **arguments)
    trainer.train()

    for images, prompts, metadata in script.scored:
        assert images.dtype == torch.float32
        assert images.shape[1:] == (3, 32, 32)
        assert 0 <= images.min() < images.max() <= 1
        assert isinstance(prompts, tuple)
        assert metadata == tuple(METADATA[prompt] for prompt in prompts)

    # Pictures and evaluations between were scored as well, and the hook gets only the rollouts.
    assert len(script.scored) > 4
    assert [step for _, step, _ in script.hooked] == [0, 2]  # updates made before each rollout's training
    assert all(seen is tracker for _, _, seen in script.hooked)
    for index, (image_data, _, _) in enumerate(script.hooked):
        rows = records(trainer.args.folder, index)
        assert [prompt for batch in image_data for prompt in batch[1]] == [row["prompt"] for row in rows]
        for images, prompts, metadata, rewards, reward_metadata in image_data:
            assert len(images) == len(prompts) == len(metadata) == 4
            assert torch.equal(rewards, images.mean(dim=(1, 2, 3)))
            assert reward_metadata == {"brightest": images.max().item()}
        assert [reward for batch in image_data for reward in batch[3].tolist()] == [row["reward"] for row in rows]


def test_prompts_are_drawn_once_for_each_image_and_the_same_each_time(make_config, from_trl):
    script, args = OldScript(), make_config(num_train_epochs=2.5)
    first = from_trl(args, script.prompt_function, script.reward_function)["train_dataset"]
    np.random.rand()
    second = from_trl(args, script.prompt_function, script.reward_function)["train_dataset"]
    assert len(first) == 2.5 * 8
    assert set(first["prompt"]) == set(METADATA)
    assert first["prompt"][:] == second["prompt"][:]
    assert first["metadata"][:] == second["metadata"][:]


@pytest.mark.parametrize(
    "form",
    [list, np.array, torch.tensor, lambda values: torch.tensor(values)[:, None], lambda v: torch.tensor(v).int()],
)
def test_rewards_may_have_the_old_forms(make_config, from_trl, form):
    def reward_function(images, prompts, metadata):
        return form([1.0, 2.0]), {}

    arguments = from_trl(make_config(), lambda: ("a cat", {}), reward_function)
    reward = arguments["reward_funcs"]
    assert isinstance(reward, RewardFunction)
    columns = {"metadata": ["{}", "{}"]}
    returned = reward.function(images=torch.rand(2, 3, 4, 4), prompts=["a cat", "a cat"], **columns)
    assert returned.tolist() == [1, 2]
    assert arguments["callbacks"][0].batches == []  # without a hook, no images are kept
