"""The policy gradient theorem, by experiment: what the replayed log-ratios predict is what the mean reward does."""

import torch

from trainer_ext.policy.pipeline import LogProbPipeline
from trainer_ext.policy.seeds import image_generators

STEPS, BATCH, BATCHES = 3, 64, 8
STEEP = torch.tensor([1.0, -1.0, -1.0, 0.0]) / 3**0.5  #: a direction of the four weights in which the reward rises most


def brightness(images):
    return images.float().mean((1, 2, 3))


def sample(policy, batch):
    return policy.sample(["a cat"] * BATCH, image_generators(range(batch * BATCH, (batch + 1) * BATCH)))


def mean_brightness(policy):
    return torch.stack([brightness(sample(policy, batch).images).mean() for batch in range(BATCHES)]).mean()


def predicted_gradient(policy, bias, trained_steps):
    """
    E[(r - mean) * d log p]: a mean for each batch, (BATCHES, 4).

    Log-ratios are means over latent elements, so joint log-probabilities are `elements` times larger.
    """
    rollouts = [sample(policy, batch) for batch in range(BATCHES)]
    baseline = torch.cat([brightness(rollout.images) for rollout in rollouts]).mean()
    gradients = []
    for rollout in rollouts:
        advantages = brightness(rollout.images) - baseline
        elements = rollout.trajectory.latents[0, 0].numel()
        rows, steps = torch.cartesian_prod(torch.arange(BATCH), trained_steps).unbind(1)
        log_ratio = policy.ratio_terms(rollout.trajectory, rows, steps).log_ratio * elements
        gradients += torch.autograd.grad((advantages[rows] * log_ratio).sum() / BATCH, bias)
    return torch.stack(gradients)


@torch.no_grad()
def measured_slope(policy, bias, direction, size=0.01):
    """The same seeds sampled with the weights moved both ways."""
    rewards = []
    for sign in (1, -1):
        bias += sign * size * direction
        rewards.append(mean_brightness(policy))
        bias -= sign * size * direction
    return (rewards[0] - rewards[1]) / (2 * size)


def test_the_gradient_predicts_what_a_small_change_does_to_the_reward(tiny_pipeline):
    # Four training timesteps of equal noise, of which three are taken: with the usual ones, the noise of the last but one step
    # is so small, and its gradient so large, that it would drown the others.
    pipeline = tiny_pipeline("v_prediction", num_train_timesteps=4, trained_betas=[0.3] * 4)
    bias = pipeline.unet.requires_grad_(False).conv_out.bias.requires_grad_(True)
    policy = LogProbPipeline(pipeline, STEPS, guidance_scale=1.0)
    along = predicted_gradient(policy, bias, policy.table.stochastic_steps) @ STEEP
    measured = measured_slope(policy, bias, STEEP)
    standard_error = along.std() / BATCHES**0.5
    assert abs(along.mean() - measured) < 3 * standard_error
    assert measured > 6 * standard_error  # so that a wrong sign or a wrong factor would be seen
