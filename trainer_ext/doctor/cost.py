"""What one image of a model takes, measured on a few of its steps."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass

import psutil
import torch
from transformers import Trainer

from ..config import DDPOConfig
from ..learning.order import num_kept
from ..loop.metrics import timed
from ..model.denoiser import TrainedDenoiser
from ..model.offloading import offloaded_from
from ..policy.deviations import Replayed, comparable_steps
from ..policy.pipeline import LogProbPipeline
from ..policy.recording.trajectory import Trajectory
from .activations import SavedTensors, checkpointing
from .estimate import Shapes


@dataclass(frozen=True)
class Effort:
    """
    How much is computed to measure a pipeline. The fewest images and pairs show all that can be wrong; as many as a run's own
    batches also take as long as they will.

    Parameters:
        num_images (`int`):
            Images that are sampled at once.
        num_pairs (`int`):
            Pairs of an image and a step that are trained at once.
        warm_ups (`int`):
            Passes of training before the one that is timed.
    """

    num_images: int = 2
    num_pairs: int = 3
    warm_ups: int = 0

    @classmethod
    def of_run(cls, args: DDPOConfig, num_branches: int) -> Effort:
        """Return that of a run's own batches."""
        rows = args.rows_per_forward or args.per_device_train_batch_size * num_branches
        return cls(args.rollout_batch_size, max(rows // num_branches, 1), warm_ups=1)


def mixed_steps(trajectory: Trajectory, num_pairs: int = Effort.num_pairs) -> tuple[torch.Tensor, torch.Tensor]:
    """Return pairs of an image and a step in a combination that no rollout has: from the last comparable step to the first."""
    steps = comparable_steps(trajectory)
    chosen = torch.linspace(len(steps) - 1, 0, num_pairs).ceil().long()
    return (1 + torch.arange(num_pairs)) % len(trajectory), steps[chosen]


def measured_shapes(
    policy: LogProbPipeline,
    denoiser: TrainedDenoiser,
    args: DDPOConfig,
    trajectory: Trajectory,
    activation_bytes: int,
    seconds: tuple[float, float],
) -> Shapes:
    """Return what an image takes, given the bytes that a row keeps for the backward pass, and seconds to sample and train one."""
    algorithm = args.resolve_algorithm(None)
    retained = algorithm.retain(trajectory).rows().values()
    calls = trajectory.conditioning.groups[0]
    prompts = [value for call in calls for value in call.per_image.values() if isinstance(value, torch.Tensor)]
    modules = [module for module in policy.pipeline.components.values() if isinstance(module, torch.nn.Module)]
    on_device = [module for module in modules if offloaded_from(module) in (None, torch.device("cpu"))]
    weights = [value for module in on_device for value in (*module.parameters(), *module.buffers())]
    return Shapes(
        weights_bytes=sum(value.nbytes for value in weights),
        trained_parameters=sum(value.numel() for value in denoiser.parameters() if value.requires_grad),
        retained_bytes=sum(value.nbytes for value in retained) // len(trajectory),
        conditioning_bytes=sum(value.nbytes for value in prompts) // len(trajectory),
        num_branches=policy.num_branches,
        trained_steps=num_kept(
            algorithm.steps(policy.table, args.skip_last_steps)[: args.sde_window_size], args.timestep_fraction
        ),
        activation_bytes=activation_bytes,
        block_bytes=_block_bytes(policy, denoiser, trajectory),
        sampling_seconds=seconds[0],
        training_seconds=seconds[1],
    )


def _block_bytes(policy: LogProbPipeline, denoiser: TrainedDenoiser, trajectory: Trajectory) -> int | None:
    """Return what a row keeps with gradient checkpointing; `None` if the denoiser has no checkpoints."""
    rows, steps = mixed_steps(trajectory)
    saved = SavedTensors(denoiser)
    with checkpointing(denoiser) as possible, saved.counting():
        if not possible:
            return None
        Replayed(trajectory, rows, steps).deviations(policy, denoiser)
    return saved.num_bytes // (len(rows) * policy.num_branches)


def update_seconds(denoiser: TrainedDenoiser, args: DDPOConfig) -> float:
    """Return what an update takes by the run's own optimizer, with gradients that are there and a learning rate of 0."""
    trained = [value for value in denoiser.parameters() if value.requires_grad]
    kind, options = Trainer.get_optimizer_cls_and_kwargs(args)
    optimizer = kind(trained, **{**options, "lr": 0.0})
    seconds: dict[str, float] = {}
    for name in ("first, which allocates its state", "second"):
        with timed(seconds, name):
            torch.nn.utils.clip_grad_norm_(trained, args.max_grad_norm or math.inf)
            optimizer.step()
            if args.device.type == "cuda":
                torch.cuda.synchronize()
    return seconds["second"]


def peak_bytes(device: torch.device) -> int:
    """Return the device's memory, or the process's for a CPU, from its start."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    import resource  # exists only on Unix

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
