"""Algorithms as objects: the public door for those that the options do not name."""

from dataclasses import FrozenInstanceError, dataclass

import pytest
import torch
from support.trainers import CAT_AND_DOG, assert_same, brightness, differ, trained_weights

from trainer_ext import Algorithm, DDPOTrainer
from trainer_ext.errors import CheckpointError, ConfigError
from trainer_ext.learning.algorithms import ALGORITHMS
from trainer_ext.learning.losses import LossOutput
from trainer_ext.learning.policy_gradient import ImportanceSampling, PolicyGradient, ScoreFunction
from trainer_ext.learning.regression import RewardWeightedRegression
from trainer_ext.learning.weighting import AdvantageWeighting
from trainer_ext.options import DDPOOptions
from trainer_ext.runs.folder import RunFolder


@pytest.fixture
def run_options():
    return {"num_train_epochs": 2, "learning_rate": 1e-2, "clip_range": 1e-2, "save_strategy": "epoch"}


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


@pytest.fixture
def given(make_trainer, tiny_pipeline):
    """Make a trainer whose `algorithm` is given to it, not to its options."""

    def given(algorithm):
        args = make_trainer("given").args
        torch.manual_seed(0)
        return DDPOTrainer(tiny_pipeline(), brightness, args, CAT_AND_DOG, algorithm=algorithm)

    return given


@pytest.mark.parametrize("algorithm", ["rwr", RewardWeightedRegression(beta=0.2)], ids=["name", "object"])
def test_a_name_and_an_object_train_as_the_option_does(make_trainer, given, algorithm):
    expected, trainer = make_trainer("option", algorithm="rwr"), given(algorithm)
    for run in (expected, trainer):
        run.train()
    assert_same(trained_weights(trainer.model), trained_weights(expected.model))


def test_an_algorithm_of_ones_own_trains_and_is_recorded(make_trainer):
    trainer = make_trainer(algorithm=Weakened(factor=0.25))
    trainer.train()
    assert [log["factor"] for log in trainer.state.log_history if "factor" in log] == [0.25, 0.25]
    (setup,) = RunFolder(trainer.args.folder).setups()
    assert setup["algorithm"] == "Weakened(factor=0.25)"


@dataclass(frozen=True)
class Ends:
    """A minibatch of a stranger's: final latents as they are, and weights."""

    latents: torch.Tensor
    weights: torch.Tensor

    def to(self, device):
        return Ends(self.latents.to(device), self.weights.to(device))


class FromScratch(Algorithm):
    """All of the contract, nothing of a kind that ships: shrink what is predicted at good images' last step."""

    sampler = "own"

    def weighting(self, options, reward_weights):
        return AdvantageWeighting(options, reward_weights)

    def retain(self, trajectory):
        return trajectory.final_latents()

    def steps(self, table, skip_last):
        return torch.tensor([table.num_steps - 1])

    def minibatch(self, rollout, images, steps, noising, generator):
        return Ends(rollout.data.latents[images], rollout.weights[images])

    def loss(self, minibatch, prediction):
        sizes = prediction.square().flatten(1).mean(1)
        return LossOutput((minibatch.weights * sizes).mean(), {"size": sizes.detach().mean()})


def test_an_algorithm_on_the_bare_contract_trains_and_resumes(make_trainer):
    options = {"algorithm": FromScratch(), "per_device_train_batch_size": 2, "save_strategy": "steps", "save_steps": 1}
    whole = make_trainer("whole", **options)
    before = trained_weights(whole.model)
    whole.train()
    assert differ(trained_weights(whole.model), before)
    assert sum("size" in log for log in whole.state.log_history) == 2
    again = make_trainer("again", **options)
    again.train(resume_from_checkpoint=f"{whole.args.output_dir}/checkpoint-3")  # in the middle of a rollout
    assert_same(trained_weights(again.model), trained_weights(whole.model))
    with pytest.raises(ConfigError, match="beta is 0.1 and the algorithm is 'FromScratch', which defines no distance"):
        make_trainer(**options, beta=0.1)


def test_a_checkpoint_belongs_to_its_algorithm(make_trainer):
    make_trainer(algorithm=Weakened()).train()
    with pytest.raises(CheckpointError, match=r"algorithm='Weakened', and this run has 'ddpo_is'"):
        make_trainer(num_train_epochs=3).train(resume_from_checkpoint=True)
    resumed = make_trainer(algorithm=Weakened(), num_train_epochs=3)
    resumed.train(resume_from_checkpoint=True)
    assert resumed.state.global_step == 3


def test_what_an_algorithm_asks_of_the_options(make_trainer):
    with pytest.raises(ConfigError, match=r"'ddpo_sf' allows one update on a rollout.*these options make 2"):
        make_trainer(algorithm=ScoreFunction(), per_device_train_batch_size=2)
    make_trainer(algorithm=RewardWeightedRegression(), beta=0.1)
    make_trainer(algorithm=Weakened(), beta=0.1)  # a policy gradient of one's own has a KL divergence as well


@pytest.mark.parametrize("algorithm", ["ppo", ScoreFunction, 3])
def test_something_else(given, algorithm):
    with pytest.raises(
        ConfigError,
        match=r"algorithm is .*one of ddpo_is, ddpo_sf, rwr, sparse_rwr, awm, nft, grpo_guard, flow_dppo, or an object of a sub",
    ):
        given(algorithm)


def test_named_algorithms_take_their_options_from_the_run():
    options = DDPOOptions(clip_range=0.3, rwr_beta=7.0, rwr_quantile=0.6)
    built = {name: named.build(options) for name, named in ALGORITHMS.items()}
    assert built["ddpo_is"].clip_range == 0.3
    assert built["rwr"].beta == 7.0
    assert built["sparse_rwr"].quantile == 0.6
    assert all(algorithm.name == name for name, algorithm in built.items())
