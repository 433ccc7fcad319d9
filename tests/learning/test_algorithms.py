"""The algorithms through their public methods, on a small rollout of a real pipeline."""

import copy
import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from trainer_ext.learning.algorithms import ALGORITHMS
from trainer_ext.learning.batches import ForwardPass
from trainer_ext.learning.rollout import Rollout
from trainer_ext.learning.update import GradientAccumulator
from trainer_ext.model.denoiser import TrainedDenoiser
from trainer_ext.model.earlier.old_policy import OldWeights
from trainer_ext.model.lora import default_lora_config
from trainer_ext.model.weights import RunWeights
from trainer_ext.options import DDPOOptions
from trainer_ext.policy.pipeline import LogProbPipeline
from trainer_ext.policy.recording.memory import joined
from trainer_ext.policy.seeds import image_generators
from trainer_ext.policy.transitions.gaussian import log_prob

STEPS, GUIDANCE = 3, 3.0
DDPO, RWR = ["ddpo_is", "ddpo_sf"], ["rwr", "sparse_rwr"]
TEXT = ("to_k", "to_v")  #: weights of the cross-attention, where the branches of the guidance part
WEIGHTS = torch.tensor([2.0, -1.0, 0.5])


@pytest.fixture
def policy(tiny_pipeline):
    pipeline = tiny_pipeline("v_prediction")
    pipeline.unet.requires_grad_(False)
    return LogProbPipeline(pipeline, STEPS, guidance_scale=GUIDANCE)


def algorithm_of(name, policy, **options):
    run = DDPOOptions(**options)
    return ALGORITHMS[name].build(run).bind(run, np.ones(1), policy.table, policy.noising)


def rollout_of(policy, algorithm, weights=WEIGHTS):
    trajectory = policy.sample(["a cat", "a dog", "two bears"], image_generators([1, 2, 3])).trajectory
    return Rollout(0, algorithm.retain(trajectory), weights)


def learner_of(policy, algorithm, beta=0.0, lora=True):
    denoiser = TrainedDenoiser(
        policy.denoiser, "unet", default_lora_config(policy.denoiser) if lora else None, beta > 0
    )
    old = None if (followed := algorithm.algorithm.old_policy) is None else OldWeights(denoiser, followed, 1)
    weights = RunWeights(denoiser, None, old, None)
    return GradientAccumulator(policy, algorithm, weights, beta, Accelerator(cpu=True))


def every_transition(num_steps=STEPS):
    return torch.cartesian_prod(torch.arange(len(WEIGHTS)), torch.arange(num_steps)).unbind(1)


def loss_of(learner, rollout, seed=0):
    images, steps = every_transition()
    minibatch = learner.algorithm.minibatch(rollout, images, steps, torch.Generator().manual_seed(seed))
    return learner.loss(learner.weights.denoiser, rollout, ForwardPass(images, steps, minibatch))


def trained(denoiser):
    return {name: value for name, value in denoiser.named_parameters() if value.requires_grad}


def gradient(loss, denoiser):
    """Flat."""
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(trained(denoiser).values()))])


@torch.no_grad()
def perturb(denoiser, size=0.1):
    """Move the trained weights away from where they began."""
    for value in trained(denoiser).values():
        value += size * torch.randn_like(value)


# ---- what is remembered ----


def test_policy_gradients_keep_the_whole_way(policy):
    trajectory = policy.sample(["a cat"], image_generators([1])).trajectory
    for name in DDPO:
        assert algorithm_of(name, policy).retain(trajectory) is trajectory


@pytest.mark.parametrize("name", RWR)
def test_regressions_keep_the_ends_alone(policy, name):
    trajectory = policy.sample(["a cat", "a dog"], image_generators([1, 2])).trajectory
    finals = algorithm_of(name, policy).retain(trajectory)
    assert torch.equal(finals.latents, trajectory.latents[:, STEPS])
    assert len(finals) == 2
    elements = trajectory.latents[:, 0].numel()
    assert finals.latents.untyped_storage().nbytes() == 4 * elements, "no view of the whole way"


def test_ends_are_joined_image_by_image(policy):
    algorithm = algorithm_of("rwr", policy)
    parts = [policy.sample([prompt], image_generators([seed])) for prompt, seed in (("a cat", 1), ("a dog", 2))]
    together_later = joined([algorithm.retain(part.trajectory) for part in parts])
    together = policy.sample(["a cat", "a dog"], image_generators([1, 2])).trajectory.final_latents()
    torch.testing.assert_close(together_later.latents, together.latents, rtol=1e-4, atol=1e-4)
    (((ours,),), ((expected,),)) = together_later.conditioning.groups, together.conditioning.groups
    for name, value in ours.per_image.items():
        torch.testing.assert_close(value, expected.per_image[name], msg=name)


# ---- in which order ----


def test_which_steps_are_trained(tiny_pipeline):
    """The last step of this scheduler is deterministic: it has no log-probability, yet a denoising loss like any other."""
    policy = LogProbPipeline(tiny_pipeline(set_alpha_to_one=True), 5, guidance_scale=1.0)
    for name in DDPO:
        assert algorithm_of(name, policy).trained_steps.tolist() == [0, 1, 2, 3]
        assert algorithm_of(name, policy, skip_last_steps=2).trained_steps.tolist() == [0, 1, 2]
    for name in RWR:
        assert algorithm_of(name, policy, skip_last_steps=2).trained_steps.tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("name", [*DDPO, "rwr"])
def test_a_pass_goes_through_all_images_in_a_new_order(policy, name):
    algorithm = algorithm_of(name, policy)
    rollout = Rollout(0, None, torch.tensor([0.0, 1.0] * 10))
    generator = torch.Generator().manual_seed(0)
    passes = [algorithm.order(rollout, generator).tolist() for _ in range(3)]
    assert [sorted(order) for order in passes] == [list(range(20))] * 3
    assert len(set(map(tuple, passes))) == 3
    assert algorithm.order(rollout, torch.Generator().manual_seed(0)).tolist() == passes[0]


def test_a_sparse_pass_repeats_the_kept_images_alone(policy):
    algorithm = algorithm_of("sparse_rwr", policy)
    rollout = Rollout(0, None, torch.tensor([0.0, 1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0]))
    generator = torch.Generator().manual_seed(0)
    passes = [algorithm.order(rollout, generator).tolist() for _ in range(20)]
    for order in passes:
        assert len(order) == 8, "as many updates as with all images"
        assert set(order[:3]) == set(order[3:6]) == {1, 4, 5}, "each once before any is used again"
        assert len(set(order[6:])) == 2
        assert set(order[6:]) < {1, 4, 5}
    assert len(set(map(tuple, passes))) > 10
    assert algorithm.order(rollout, torch.Generator().manual_seed(0)).tolist() == passes[0]


def test_a_sparse_pass_without_kept_images(policy):
    order = algorithm_of("sparse_rwr", policy).order(Rollout(0, None, torch.zeros(6)), torch.Generator().manual_seed(0))
    assert sorted(order.tolist()) == list(range(6))


# ---- what the loss sees ----


def test_transitions_are_the_recorded_ones(policy):
    """Those of which the sampler's own log-probability is that of what it drew."""
    algorithm = algorithm_of("ddpo_is", policy)
    rollout = rollout_of(policy, algorithm)
    images, steps = torch.tensor([2, 0, 1]), torch.tensor([0, 2, 1])
    batch = algorithm.minibatch(rollout, images, steps, torch.Generator())
    way = rollout.data
    for row, (image, step) in enumerate(zip(images, steps, strict=True)):
        assert torch.equal(batch.latents[row], way.latents[image, step])
        assert torch.equal(batch.next_latents[row], way.latents[image, step + 1])
        assert torch.equal(batch.old_outputs[row], way.model_outputs[image, step])
    assert batch.advantages.tolist() == [0.5, 2.0, -1.0]
    assert batch.ratio_terms(batch.old_outputs).log_ratio.tolist() == [0, 0, 0]
    other = batch.old_outputs + 0.01
    expected = log_prob(way.table, steps, batch.latents, other, batch.next_latents) - log_prob(
        way.table, steps, batch.latents, batch.old_outputs, batch.next_latents
    )
    torch.testing.assert_close(batch.ratio_terms(other).log_ratio, expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", RWR)
def test_the_noise_of_a_minibatch_is_a_pure_function_of_its_generator(policy, name):
    algorithm = algorithm_of(name, policy)
    rollout = rollout_of(policy, algorithm)
    images, steps = torch.tensor([2, 0, 1, 0]), torch.tensor([0, 2, 1, 2])

    def minibatch(seed):
        torch.seed()  # the global generator has no say
        return algorithm.minibatch(rollout, images, steps, torch.Generator().manual_seed(seed))

    first, again, other = minibatch(0), minibatch(0), minibatch(1)
    assert torch.equal(first.latents, again.latents)
    assert torch.equal(first.targets, again.targets)
    assert not torch.isclose(first.latents, other.latents).any()
    assert not torch.isclose(first.latents[1], first.latents[3]).any(), "the same image and step, other noise"
    assert first.weights.tolist() == [0.5, 2.0, -1.0, 2.0]
    # the noise that is in them is standard normal, and their own final image is under it
    signal, noise = (share[steps].reshape(-1, 1, 1, 1) for share in (policy.noising.signal, policy.noising.noise))
    epsilon = (first.latents - signal * rollout.data.latents[images]) / noise
    assert abs(epsilon.mean()) < 4 / epsilon.numel() ** 0.5
    assert abs(epsilon.std() - 1) < 4 / (2 * epsilon.numel()) ** 0.5


# ---- gradients ----


def test_at_ratio_1_both_estimators_have_the_same_gradient(policy):
    both = [learner_of(policy, algorithm_of("ddpo_is", policy))]
    both.append(GradientAccumulator(policy, algorithm_of("ddpo_sf", policy), both[0].weights, 0.0, both[0].accelerator))
    perturb(both[0].weights.denoiser)
    rollout = rollout_of(policy, both[0].algorithm)
    importance, score = (gradient(loss_of(learner, rollout).loss, learner.weights.denoiser) for learner in both)
    assert score.norm() > 0
    assert (importance - score).norm() < 1e-5 * score.norm()
    # elsewhere they differ: the ratio multiplies, and clips
    perturb(both[0].weights.denoiser, 0.02)
    importance, score = (gradient(loss_of(learner, rollout).loss, learner.weights.denoiser) for learner in both)
    assert (importance - score).norm() > 0.1 * score.norm()


def stock_guided(network, policy, latents, images, steps, dtype=torch.float32):
    """The guided prediction, written with diffusers alone."""
    positive, negative = policy.pipeline.encode_prompt(["a cat", "a dog", "two bears"], "cpu", 1, True)
    timesteps = stock_scheduler(policy).timesteps[steps]
    unconditional, conditional = (
        network(latents, timesteps, encoder_hidden_states=embeds[images].to(dtype))[0]
        for embeds in (negative, positive)
    )
    return unconditional + GUIDANCE * (conditional - unconditional)


def stock_scheduler(policy):
    scheduler = copy.deepcopy(policy.runner.sampler.scheduler)
    scheduler.set_timesteps(STEPS)
    return scheduler


@pytest.mark.parametrize("name", RWR)
def test_the_regression_gradient_against_finite_differences(policy, name):
    """In float64, of a loss written with stock diffusers; through both branches of the guidance."""
    learner = learner_of(policy, algorithm_of(name, policy))
    perturb(learner.weights.denoiser)
    rollout = rollout_of(policy, learner.algorithm)
    output = loss_of(learner, rollout, seed=3)
    parameters = trained(learner.weights.denoiser)
    gradients = dict(zip(parameters, torch.autograd.grad(output.loss, list(parameters.values())), strict=True))

    images, steps = every_transition()
    minibatch = learner.algorithm.minibatch(rollout, images, steps, torch.Generator().manual_seed(3))
    unet = copy.deepcopy(policy.denoiser).double()
    weights = dict(unet.named_parameters())

    @torch.no_grad()
    def loss():
        guided = stock_guided(unet, policy, minibatch.latents.double(), images, steps, torch.float64)
        squares = (guided - minibatch.targets.double()).square().mean((1, 2, 3))
        return (minibatch.weights.double() * squares).mean().item()

    assert output.loss.item() == pytest.approx(loss(), rel=1e-5)
    chosen = [
        key for key in gradients if "mid_block" in key and "lora_B" in key and key.split("attn2.")[-1][:4] in TEXT
    ]
    assert len(chosen) == 2
    for key in chosen:
        weight, index = weights[key.removeprefix("network.base_model.model.")], gradients[key].abs().argmax()
        flat, slopes = weight.data.view(-1), []
        for sign in (1, -1):
            flat[index] += sign * 1e-4
            slopes.append(sign * loss() / 2e-4)
            flat[index] -= sign * 1e-4
        assert gradients[key].flatten()[index].item() == pytest.approx(sum(slopes), rel=1e-3), key


# ---- KL to the reference ----


def stock_kl(policy, network, reference, rollout):
    """Of each step's Gaussians, `(N,)`: `torch.distributions`, with means and std of `DDIMScheduler` itself."""
    scheduler, (images, steps) = stock_scheduler(policy), every_transition()
    latents = rollout.data.latents[images, steps]
    outputs = [stock_guided(model, policy, latents, images, steps) for model in (network, reference)]
    divergences = []
    for row, timestep in enumerate(scheduler.timesteps[steps]):
        means = [
            scheduler.step(
                output[row], timestep, latents[row], eta=1.0, variance_noise=torch.zeros_like(latents[row])
            ).prev_sample
            for output in outputs
        ]
        std = scheduler._get_variance(timestep, timestep - 1000 // STEPS).sqrt()
        divergences.append(
            torch.distributions.kl_divergence(*(torch.distributions.Normal(mean, std) for mean in means)).mean()
        )
    return torch.stack(divergences)


@pytest.mark.parametrize(
    ("name", "lora"),
    [pytest.param("ddpo_is", True, id="adapter, IS"), pytest.param("ddpo_sf", False, id="all weights, SF")],
)
def test_kl_to_the_model_before_training(policy, name, lora):
    """0 at first; later what an independent copy and `torch.distributions` say; and so is its gradient."""
    beta = 0.7
    reference = copy.deepcopy(policy.denoiser)
    learner = learner_of(policy, algorithm_of(name, policy), beta, lora)
    plain = GradientAccumulator(policy, learner.algorithm, learner.weights, 0.0, learner.accelerator)
    rollout = rollout_of(policy, learner.algorithm)
    assert loss_of(learner, rollout).metrics["kl"].item() == 0
    perturb(learner.weights.denoiser, 0.1 if lora else 0.02)
    output, without = loss_of(learner, rollout), loss_of(plain, rollout)
    expected = stock_kl(policy, learner.weights.denoiser, reference, rollout).mean()
    assert expected > 1e-3
    assert not output.metrics["kl"].requires_grad
    torch.testing.assert_close(output.metrics["kl"], expected.detach(), rtol=1e-3, atol=0)
    torch.testing.assert_close(output.loss - without.loss, beta * expected, rtol=1e-3, atol=1e-5)
    assert set(output.metrics) == {*without.metrics, "kl"}
    kl_alone = gradient(beta * expected, learner.weights.denoiser)
    summed = gradient(without.loss, learner.weights.denoiser) + kl_alone
    assert (gradient(output.loss, learner.weights.denoiser) - summed).norm() < 1e-3 * kl_alone.norm()


def test_kl_counts_by_each_image_s_weight(policy):
    """Here it counts for the second image alone, three times; what is logged is the mean of all."""
    beta, counted = 0.7, torch.tensor([0.0, 3.0, 0.0])
    reference = copy.deepcopy(policy.denoiser)
    learner = learner_of(policy, algorithm_of("ddpo_is", policy), beta)
    perturb(learner.weights.denoiser, 0.1)
    rollout = rollout_of(policy, learner.algorithm)
    gated = dataclasses.replace(rollout, distance_weights=counted)
    plain = GradientAccumulator(policy, learner.algorithm, learner.weights, 0.0, learner.accelerator)
    output, without = loss_of(learner, gated), loss_of(plain, rollout)
    images, _ = every_transition()
    each = stock_kl(policy, learner.weights.denoiser, reference, rollout)
    expected = beta * (counted[images] * each).mean()
    torch.testing.assert_close(output.loss - without.loss, expected, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(output.metrics["kl"], each.detach().mean(), rtol=1e-3, atol=0)
    alone = gradient(expected, learner.weights.denoiser)
    summed = gradient(without.loss, learner.weights.denoiser) + alone
    assert (gradient(output.loss, learner.weights.denoiser) - summed).norm() < 1e-3 * alone.norm()


@pytest.mark.parametrize("lora", [True, False], ids=["adapter", "all weights"])
def test_kl_pulls_back(policy, lora):
    """With advantages of 0 it is all there is to descend."""
    learner = learner_of(policy, algorithm_of("ddpo_is", policy), beta=1.0, lora=lora)
    perturb(learner.weights.denoiser, 0.1 if lora else 0.01)
    rollout = rollout_of(policy, learner.algorithm, torch.zeros(3))
    optimizer = torch.optim.Adam(list(trained(learner.weights.denoiser).values()), 3e-2 if lora else 3e-3)
    history = []
    for _ in range(6):
        output = loss_of(learner, rollout)
        assert output.loss.item() == pytest.approx(output.metrics["kl"].item())
        history.append(output.metrics["kl"].item())
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()
    assert history[-1] < history[0] / 2


def test_the_reference_of_full_fine_tuning_is_a_copy_of_its_own(policy, tmp_path):
    before = {name: value.clone() for name, value in policy.denoiser.state_dict().items()}
    denoiser = TrainedDenoiser(policy.denoiser, "unet", None, keep_reference=True)
    assert len(list(denoiser.parameters())) == len(list(policy.denoiser.parameters())), "not among what is trained"
    assert {name.removeprefix("network.") for name in denoiser.state_dict()} == set(before)
    perturb(denoiser)
    with denoiser.reference() as reference:
        assert all(torch.equal(value, before[name]) for name, value in reference.state_dict().items())
        assert not any(value.requires_grad for value in reference.parameters())
        assert not reference.training
    denoiser.save(Path(tmp_path), policy.pipeline)
    denoiser.load(Path(tmp_path))
    with denoiser.reference() as reference:
        assert all(torch.equal(value, before[name]) for name, value in reference.state_dict().items())


def test_the_adapter_is_back_after_the_reference(policy):
    learner = learner_of(policy, algorithm_of("ddpo_is", policy), beta=1.0)
    perturb(learner.weights.denoiser)
    rollout = rollout_of(policy, learner.algorithm)
    names = set(trained(learner.weights.denoiser))
    first = loss_of(learner, rollout).metrics["kl"].item()
    assert loss_of(learner, rollout).metrics["kl"].item() == first > 0
    assert set(trained(learner.weights.denoiser)) == names
