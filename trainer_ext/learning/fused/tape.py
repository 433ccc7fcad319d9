"""Samples a batch with gradients: each step's backward pass comes right after it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from ...policy.deviations import Replayed
from ...policy.pipeline import LogProbPipeline
from ...policy.recording.calls import Rows, detached
from ...policy.recording.scheduler import Transition
from ...policy.replay import guided_prediction
from ...policy.transitions.gaussian import ratio_terms
from .layers import LayerTaps
from .memory import ImageGradients


class GradientTape:
    """
    The denoiser of one batch of a rollout, which is given to [`LogProbPipeline.sample`] with [`learn`](GradientTape.learn).

    Args:
        policy ([`LogProbPipeline`]):
            Combines the denoiser's outputs as the pipeline does.
        denoiser (`torch.nn.Module`):
            The trained module.
        trained_steps (`Sequence[int]`):
            The steps whose log-probabilities count.
        num_images (`int`):
            Images in the batch.
        keeps_first (`bool`):
            Whether to keep the gradients of the first trained step by themselves, for [`error`](GradientTape.error).
    """

    def __init__(
        self,
        policy: LogProbPipeline,
        denoiser: torch.nn.Module,
        trained_steps: Sequence[int],
        num_images: int,
        keeps_first: bool,
    ):
        self.policy, self.denoiser, self.trained_steps = policy, denoiser, frozenset(trained_steps)
        self._num_images = num_images
        self._taps = LayerTaps(denoiser, num_images)
        self._keeps_first = keeps_first
        self._first: ImageGradients | None = None
        self._step = 0
        self._outputs: list[Rows] = []

    @contextlib.contextmanager
    def recording(self) -> Iterator[Callable[..., Any]]:
        """Context manager for the batch; yields the denoiser to sample with."""
        with self._taps.attached():
            yield self._call

    def _call(self, **named: Any) -> Any:
        """Call the denoiser, with gradients if the step is trained; return outputs without them."""
        self._taps.num_branches = len(next(iter(named.values()))) // self._num_images
        with torch.set_grad_enabled(self._step in self.trained_steps):
            output = self.denoiser(**named)
        self._outputs.append(output[0])
        return detached(output)

    def learn(self, transition: Transition) -> None:
        """Take the gradient of a step's log-probability, image by image."""
        outputs, self._outputs, self._step = self._outputs, [], transition.step + 1
        if transition.step not in self.trained_steps:
            return
        steps = torch.full((len(transition.latents),), transition.step)
        with torch.enable_grad():
            prediction = guided_prediction(self.policy.findings, outputs, transition.latents)
            terms = ratio_terms(
                self.policy.table,
                steps,
                transition.latents,
                prediction,
                transition.model_output,
                transition.next_latents,
            )
            terms.log_ratio.sum().backward()
        if self._keeps_first:
            self._keeps_first = False
            self._first = ImageGradients({name: value.clone() for name, value in self._taps.gradients.items()})

    @property
    def gradients(self) -> ImageGradients:
        """The gradients of the images, over all trained steps so far."""
        return ImageGradients(self._taps.gradients)

    def error(self, replayed: Replayed) -> float:
        """
        Compare the gradients of the first trained step with those of replaying it.

        Args:
            replayed ([`Replayed`]):
                The first trained step of all images.

        Returns:
            `float`: the difference of the sums over images, each with a random weight so that images are told apart, relative
            to their norm.
        """
        assert self._first is not None  # keeps_first, and a trained step
        weights = torch.randn(len(self._first), generator=torch.Generator().manual_seed(0))
        trained = {name: value for name, value in self.denoiser.named_parameters() if value.requires_grad}
        log_ratios = replayed.deviations(self.policy, self.denoiser)
        expected = torch.autograd.grad(
            log_ratios @ weights.to(log_ratios), list(trained.values()), materialize_grads=True
        )
        found = self._first.weighted(weights, torch.arange(len(weights)))
        pairs = [(found[name].float(), value.float()) for name, value in zip(trained, expected, strict=True)]
        difference = torch.stack([(ours - replay).norm() for ours, replay in pairs]).norm()
        return float(difference / torch.stack([replay.norm() for _, replay in pairs]).norm())
