"""Algorithms as objects: the public door for those that the options do not name."""

from dataclasses import FrozenInstanceError, dataclass

import numpy as np
import pytest
import torch
from datasets import Dataset

from trainer_ext import Algorithm, DDPOConfig, DDPOTrainer
from trainer_ext.errors import CheckpointError, ConfigError
from trainer_ext.learning.algorithms import ALGORITHMS
from trainer_ext.learning.losses import LossOutput
from trainer_ext.learning.policy_gradient import ImportanceSampling, PolicyGradient, ScoreFunction
from trainer_ext.learning.regression import RewardWeightedRegression
from trainer_ext.options import DDPOOptions
from trainer_ext.runs.folder import RunFolder

PROMPTS = Dataset.from_dict({"prompt": ["a cat", "a dog", "a lion", "a bear"]})
TINY = {
    "num_inference_steps": 2,
    "guidance_scale": 1.0,
    "num_images_per_rollout": 4,
    "rollout_batch_size": 4,
    "per_device_train_batch_size": 4,
    "gradient_accumulation_steps": 1,
    "learning_rate": 1e-2,
    "clip_range": 1e-2,
    "num_train_epochs": 2,
    "num_sample_images": 0,
    "save_strategy": "epoch",
    "disable_tqdm": True,
    "use_cpu": True,
}


def brightness(images, prompts, **columns):
    return [float(np.asarray(image).mean()) for image in images]


@pytest.fixture
def make_trainer(tmp_path, tiny_pipeline):
    def make(algorithm=None, folder="run", **options):
        torch.manual_seed(0)
        config = DDPOConfig(output_dir=str(tmp_path / folder), **{**TINY, **options})
        return DDPOTrainer(tiny_pipeline(), brightness, config, PROMPTS, algorithm=algorithm)

    return make


def adapter_of(trainer):
    trained = [value.detach().flatten() for value in trainer.model.parameters() if value.requires_grad]
    return torch.cat(trained)


@dataclass(frozen=True)
class Weakened(PolicyGradient):
    """The score function's loss, times a factor."""

    factor: float = 0.5

    def loss(self, minibatch, prediction):
        log_ratio = minibatch.ratio_terms(prediction).log_ratio
        return LossOutput(
            -self.factor * (minibatch.advantages * log_ratio).mean(), {"factor": torch.tensor(self.factor)}
        )


def test_the_base_class_is_public():
    assert issubclass(ImportanceSampling, Algorithm)
    assert Weakened.name == "Weakened"
    with pytest.raises(FrozenInstanceError):
        Weakened().factor = 1.0


@pytest.mark.parametrize("algorithm", ["rwr", RewardWeightedRegression(beta=0.2)], ids=["name", "object"])
def test_a_name_and_an_object_train_as_the_option_does(make_trainer, algorithm):
    expected, trainer = make_trainer(folder="option", algorithm="rwr"), make_trainer(algorithm)
    for run in (expected, trainer):
        run.train()
    assert torch.equal(adapter_of(trainer), adapter_of(expected))


def test_an_algorithm_of_ones_own_trains_and_is_recorded(make_trainer):
    trainer = make_trainer(Weakened(factor=0.25))
    trainer.train()
    assert [log["factor"] for log in trainer.state.log_history if "factor" in log] == [0.25, 0.25]
    (setup,) = RunFolder(trainer.args.folder).setups()
    assert setup["algorithm"] == "Weakened(factor=0.25)"


def test_a_checkpoint_belongs_to_its_algorithm(make_trainer):
    make_trainer(Weakened()).train()
    with pytest.raises(CheckpointError, match=r"algorithm='Weakened', and this one's is 'ddpo_is'"):
        make_trainer(num_train_epochs=3).train(resume_from_checkpoint=True)
    resumed = make_trainer(Weakened(), num_train_epochs=3)
    resumed.train(resume_from_checkpoint=True)
    assert resumed.state.global_step == 3


def test_what_an_algorithm_asks_of_the_options(make_trainer):
    with pytest.raises(ConfigError, match=r"'ddpo_sf' allows one update on a rollout.*these options make 2"):
        make_trainer(ScoreFunction(), per_device_train_batch_size=2)
    with pytest.raises(
        ConfigError, match=r"beta is 0.1 and the algorithm is 'rwr'.*policy gradient \(ddpo_is, ddpo_sf\)"
    ):
        make_trainer(RewardWeightedRegression(), beta=0.1)
    make_trainer(Weakened(), beta=0.1)  # a policy gradient of one's own has a KL divergence as well


@pytest.mark.parametrize("algorithm", ["ppo", ScoreFunction, 3])
def test_something_else(make_trainer, algorithm):
    with pytest.raises(
        ConfigError, match=r"algorithm is .*one of ddpo_is, ddpo_sf, rwr, sparse_rwr, or an object of a sub"
    ):
        make_trainer(algorithm)


def test_named_algorithms_take_their_options_from_the_run():
    options = DDPOOptions(clip_range=0.3, rwr_beta=7.0, rwr_quantile=0.6)
    built = {name: named.build(options) for name, named in ALGORITHMS.items()}
    assert built["ddpo_is"].clip_range == 0.3
    assert built["rwr"].beta == 7.0
    assert built["sparse_rwr"].quantile == 0.6
    assert all(algorithm.name == name for name, algorithm in built.items())
