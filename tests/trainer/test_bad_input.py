"""Every mistake ends in an error that says what was wrong and what to do, before any long work."""

import math

import pytest
import torch
from datasets import Dataset
from diffusers import CMStochasticIterativeScheduler
from peft import LoraConfig
from support.trainers import CAT_AND_DOG, TINY, checkpoints, prompts

from ddpo_plugins.errors import DDPOError, RewardError
from trainer_ext import DDPOConfig, DDPOTrainer
from trainer_ext.errors import ConfigError, GuidanceError, OutputDirError, PipelineError

TWO_UPDATES = {**TINY, "per_device_train_batch_size": 2}


def one(images, prompts, **columns):
    return [float(index) for index in range(len(images))]


@pytest.fixture
def run_options():
    return {**TWO_UPDATES, "reward": one, "use_cpu": False}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"eta": 0.0}, r"eta is 0.0; it must be in \(0, 1\].*deterministic"),
        ({"eta": 1.5}, r"eta is 1.5; it must be in \(0, 1\]"),
        ({"eta": 1.5, "algorithm": "rwr"}, r"eta is 1.5; it must be in \(0, 1\], or 0 for algorithms"),
        ({"eta": 0.0, "algorithm": "ddpo_sf"}, "eta is 0.0.*'ddpo_sf'.*rwr, sparse_rwr, awm, nft need none"),
        ({"sampler": "own"}, "sampler is 'own'.*no log-probabilities, and the algorithm is 'ddpo_is'"),
        ({"sampler": "own", "algorithm": "awm", "sde_window": [0, 1]}, "sampler is 'own'.*sde_window is \\[0, 1\\]"),
        ({"algorithm": "nft", "nft_strength": 0.0}, "nft_strength is 0.0; it must be greater than 0"),
        ({"sampler": "ddpm"}, "sampler is 'ddpm'; it must be one of ddim, flow_sde, dance_sde, cps"),
        ({"noise_level": 0.0}, "noise_level is 0.0; it must be greater than 0"),
        ({"sde_window": [1, 2]}, r"sde_window is \[1, 2\]; .* from 0 to num_inference_steps - 1 = 1"),
        ({"clip_range": 0.0}, "clip_range is 0.0; it must be greater than 0"),
        ({"num_inference_steps": 0}, "num_inference_steps is 0"),
        ({"timestep_fraction": 0.0}, r"timestep_fraction is 0.0; it must be in \(0, 1\]"),
        ({"skip_last_steps": 2}, "skip_last_steps is 2; it must be from 0 to num_inference_steps - 1 = 1"),
        ({"skip_last_steps": -1}, "skip_last_steps is -1"),
        ({"sample_every": -1}, "sample_every is -1; it must be 0, which turns it off, or more"),
        (
            {"num_images_per_rollout": 5},
            "num_images_per_rollout=5 is not a multiple of the 2 images of an update.*Use num_images_per_rollout=6",
        ),
        ({"num_images_per_prompt": 3}, "num_images_per_rollout=4 is not a multiple of num_images_per_prompt=3"),
        (
            {"num_images_per_rollout": 12, "num_images_per_prompt": 3},
            "rollout_batch_size=2 and num_images_per_prompt=3 do not divide",
        ),
        ({"algorithm": "ppo"}, "algorithm is 'ppo'; it must be one of ddpo_is, ddpo_sf, rwr, sparse_rwr, awm, nft"),
        ({"advantages": "global"}, "advantages is 'global'; it must be one of per_prompt, batch, group"),
        (
            {"multi_objective_aggregation": "sum"},
            "multi_objective_aggregation is 'sum'; it must be one of sum_then_normalize, normalize_then_sum",
        ),
        ({"beta": -0.1}, "beta is -0.1; it must be 0, for no such term in the loss, or greater"),
        ({"rwr_quantile": 1.0}, r"rwr_quantile is 1.0; it must be in \[0, 1\)"),
        ({"rwr_quantile": -0.1}, "rwr_quantile is -0.1"),
        ({"rwr_beta": 0.0}, "rwr_beta is 0.0; it must be greater than 0"),
        ({"ema_decay": 1.0}, r"ema_decay is 1.0; it must be in \(0, 1\)"),
        ({"ema_decay": 0.0}, "ema_decay is 0.0; .*or left out"),
        ({"advantages": "group"}, "advantages='group'.*num_images_per_prompt is 1; it must be at least 2"),
        ({"advantages": "win_rate"}, "advantages='win_rate'.*num_images_per_prompt is 1; it must be at least 2"),
        (
            {"advantages": "group_over_batch"},
            "advantages='group_over_batch'.*num_images_per_prompt is 1; it must be at",
        ),
        ({"kl_threshold": 0.0}, "kl_threshold is 0.0; it must be greater than 0"),
        ({"sde_window_size": 0}, "sde_window_size is 0; it must be at least 1"),
        (
            {"algorithm": "ddpo_sf"},
            "The algorithm 'ddpo_sf' allows one update on a rollout.*these options make 2. Set gradient_accumulation_steps=2",
        ),
        (
            {"algorithm": "ddpo_sf", "gradient_accumulation_steps": 2, "num_inner_epochs": 3},
            "these options make 3. Set gradient_accumulation_steps=2 and num_inner_epochs=1, or use 'ddpo_is'",
        ),
        ({"pipeline_kwargs": "{height: 1"}, "pipeline_kwargs is not JSON"),
        ({"pipeline_kwargs": "[1]"}, "pipeline_kwargs is a JSON list; it must be an object"),
    ],
)
def test_options(options, message):
    with pytest.raises(ConfigError, match=message):
        DDPOConfig(**{**TWO_UPDATES, **options})


def test_unknown_guidance_rule():
    with pytest.raises(GuidanceError, match="Unknown guidance rule 'cgf'. Known: none, cfg, "):
        DDPOTrainer(
            "nowhere", lambda images, **columns: [], DDPOConfig(**TWO_UPDATES, guidance="cgf")
        )  # before it is loaded


def test_guidance_that_is_given_twice():
    with pytest.raises(ConfigError, match="guidance is given both to DDPOTrainer and in its args"):
        DDPOTrainer(
            "nowhere",
            lambda images, **columns: [],
            DDPOConfig(**TWO_UPDATES, guidance="cfg"),
            guidance=lambda *all: all[0][0],
        )


@pytest.mark.skipif(torch.cuda.is_available(), reason="bf16 may be supported")
def test_bf16_where_it_is_not_supported():
    with pytest.raises(ValueError, match="doesn't support bf16"):
        DDPOConfig(**{**TWO_UPDATES, "use_cpu": False}, bf16=True)


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        (None, "train_dataset is a NoneType; give a datasets.Dataset"),
        (["a cat"], "train_dataset is a list"),
        (Dataset.from_dict({"text": ["a cat"]}), "no column 'prompt'; its columns are text. Rename"),
        (prompts(), "train_dataset is empty"),
        (prompts("a cat", "  "), "'  ' as the prompt of row 1"),
        (prompts("a cat", None), "None as the prompt of row 1"),
        *(
            (
                Dataset.from_dict({"prompt": ["a cat"], name: ["x"]}),
                f"train_dataset has the column '{name}', and rewards have an argument of this name.*Rename the column",
            )
            for name in ("images", "prompts", "trainer_state", "log_metric", "log_extra")
        ),
    ],
)
def test_datasets(make_trainer, dataset, message):
    with pytest.raises(ConfigError, match=message):
        make_trainer(dataset=dataset)


def test_scheduler_of_no_known_family(make_trainer, tiny_pipeline):
    pipeline = tiny_pipeline()
    pipeline.scheduler = CMStochasticIterativeScheduler()
    with pytest.raises(
        PipelineError, match="CMStochasticIterativeScheduler, whose noise schedule neither DDIM nor flow"
    ):
        make_trainer(model=pipeline)


def test_pipeline_that_does_not_exist(make_trainer, tmp_path):
    with pytest.raises(PipelineError, match="No pipeline could be loaded from.*nothing-here"):
        make_trainer(model=str(tmp_path / "nothing-here"))


def test_argument_that_the_pipeline_does_not_take(make_trainer):
    with pytest.raises(
        PipelineError, match="StableDiffusionPipeline has no argument 'hight'. It takes: prompt, height, width"
    ):
        make_trainer(pipeline_kwargs={"hight": 64})


def test_adapters_that_would_be_wrong(make_trainer):
    with pytest.raises(ConfigError, match="lora_dropout is 0.1; it must be 0"):
        make_trainer(peft_config=LoraConfig(target_modules=["to_q"], lora_dropout=0.1))
    with pytest.raises(ConfigError, match="init_lora_weights='pissa' changes the base weights"):
        make_trainer(peft_config=LoraConfig(target_modules=["to_q"], init_lora_weights="pissa"))
    with pytest.raises(ConfigError, match="give only one of them"):
        make_trainer(peft_config=LoraConfig(target_modules=["to_q"]), full_finetuning=True)


@pytest.mark.parametrize(
    ("reward", "options", "message"),
    [
        ([], {}, "No reward function was given"),
        ("jpeg_compressibility", {}, "reward_funcs holds the text 'jpeg_compressibility'; the trainer takes functions"),
        (lambda images, prompts: [], {}, r"takes only \(images, prompts\)"),
        ([one, one], {}, "Two rewards have the same name"),
        (one, {"reward_weights": [1.0, 2.0]}, r"reward_weights has 2 value\(s\) for 1 reward\(s\) \(one\)"),
        (3, {}, "Reward 'int' is a int; it must be a function"),
    ],
)
def test_reward_functions(make_trainer, reward, options, message):
    with pytest.raises(ConfigError, match=message):
        make_trainer(reward=reward, **options)


def test_a_reward_that_is_both_trained_on_and_only_evaluated(make_trainer):
    with pytest.raises(ConfigError, match="Two rewards have the same name"):
        make_trainer(eval_reward_funcs=one)


def test_every_dataset_of_an_evaluation_is_checked(make_trainer):
    datasets = {"good": CAT_AND_DOG, "bad": Dataset.from_dict({"text": ["a cat"]})}
    with pytest.raises(ConfigError, match=r"eval_dataset\['bad'\].*no column 'prompt'"):
        make_trainer(eval_dataset=datasets)


@pytest.mark.parametrize(
    "options",
    [
        {"algorithm": "ddpo_sf", "gradient_accumulation_steps": 2, "beta": 0.1},
        {"advantages": "group", "num_images_per_prompt": 2},
        {"algorithm": "sparse_rwr", "rwr_quantile": 0.0, "ema_decay": 0.999},
    ],
)
def test_the_way_out_that_a_message_names_is_one(options):
    DDPOConfig(**{**TWO_UPDATES, **options})


def fails(images, prompts, **columns):
    raise OSError("no such server")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1.0, math.nan], "'reward' returned nan for prompt 'a (cat|dog)'. Return None"),
        ([1.0, math.inf], "'reward' returned inf"),
        ([1.0], r"returned 1 value\(s\) for 2 images"),
        (["1.0", "2.0"], r"returned '1.0' \(str\) for prompt"),
        (None, "returned a NoneType; expected a list of 2 floats"),
        (torch.zeros(2, 1), r"returned shape \(2, 1\); expected \(2,\)"),
        ([None, None], "No image of this rollout got a reward"),
    ],
)
def test_a_reward_that_breaks_its_contract_stops_the_run(make_trainer, values, message):
    def reward(images, prompts, **columns):
        return values

    trainer = make_trainer(reward=reward)
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    with pytest.raises(RewardError, match=message):
        trainer.train()
    assert all(torch.equal(before[name], p) for name, p in trainer.model.named_parameters())


def test_a_rollout_without_a_reward_does_not_lose_what_was_learned(make_trainer):
    def only_at_first(images, prompts, trainer_state, **columns):
        return [1.0 if trainer_state.global_step == 0 else None] * len(images)

    trainer = make_trainer(reward=only_at_first, num_train_epochs=2)
    with pytest.raises(RewardError, match="No image of this rollout got a reward"):
        trainer.train()
    assert checkpoints(trainer.args.output_dir) == ["checkpoint-2"]


def test_a_reward_that_raises_stops_the_run(make_trainer):
    with pytest.raises(RewardError, match="'fails' raised OSError: no such server") as caught:
        make_trainer(reward=fails).train()
    assert isinstance(caught.value.__cause__, OSError)


def test_a_folder_that_holds_another_run(make_trainer, tmp_path):
    make_trainer(save_strategy="epoch").train()
    before = sorted(path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*"))
    with pytest.raises(
        OutputDirError,
        match=r"already holds a run \(checkpoint-2, rollouts\).*resume_from_checkpoint=True.*another output_dir",
    ):
        make_trainer().train()
    assert before == sorted(path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*"))


def test_a_checkpoint_of_another_adapter(make_trainer):
    make_trainer(save_strategy="epoch").train()
    with pytest.raises(ConfigError, match="do not load into this model"):
        make_trainer(peft_config=LoraConfig(target_modules=["to_q"])).train(resume_from_checkpoint=True)


def test_errors_have_one_base_class():
    assert all(
        issubclass(error, DDPOError)
        for error in (ConfigError, GuidanceError, OutputDirError, PipelineError, RewardError)
    )
