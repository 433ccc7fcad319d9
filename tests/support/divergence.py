"""The divergence from the model before training, by hand."""

import torch


def divergences(trainer, record):
    """The KL divergence at each step of the image of a record, in nats: of Gaussians with one spread and two means."""
    generator = torch.Generator().manual_seed(record["seed"])
    trajectory = trainer.policy.sample([record["prompt"]], [generator], denoiser=trainer.model).trajectory
    return [_at(trainer, trajectory, torch.tensor([step])) for step in trajectory.table.stochastic_steps.tolist()]


def _at(trainer, trajectory, step):
    rows = torch.tensor([0])
    arguments = (trajectory.conditioning, trajectory.latents[rows, step], rows, step)
    with trainer.model.reference() as base, torch.no_grad():
        before = trainer.policy.predict(*arguments, base)
    shift = float(trajectory.table.output_coef[step]) * (trajectory.model_outputs[rows, step] - before)
    return float(shift.square().sum()) / (2 * float(trajectory.table.std[step]) ** 2)
