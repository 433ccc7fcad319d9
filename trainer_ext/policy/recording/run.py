"""Turns the steps of one run into a trajectory, and checks that each can be replayed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

import torch

from ...errors import GuidanceError, PipelineError
from ..guidance.inference import TOLERANCE, Guidance
from ..transitions.gaussian import TransitionTable
from ..transitions.noising import NoisingTable
from .calls import CallLayout, DenoiserCall, in_dtype
from .conditioning import CallRecord, Conditioning
from .scheduler import Transition
from .trajectory import Trajectory
from .verdicts import Verdicts, conditions_of_equality


class Recording:
    """
    Collects the steps of one run into a [`Trajectory`], checking that they can be replayed.

    What the device must be asked for is judged at the end of the run, so that the host never waits for a step.
    """

    def __init__(self, layouts: Sequence[CallLayout], guidance: Guidance):
        self.layouts, self.guidance = layouts, guidance
        self.latents: list[torch.Tensor] = []
        self.returned = torch.empty(0)
        self.model_outputs: list[torch.Tensor] = []
        self.timesteps: list[list[torch.Tensor]] = [[] for _ in layouts]
        self.calls: list[CallRecord] = []
        self.firsts: list[DenoiserCall] = []
        self.verdicts = Verdicts()

    def start(self, table: TransitionTable, noising: NoisingTable) -> None:
        """Store the table of the run."""
        self.table = table

    def add(self, calls: list[DenoiserCall], transition: Transition) -> None:
        """
        Check and store one step.

        Raises:
            [`PipelineError`], [`GuidanceError`]: replaying this or an earlier step would not give what the pipeline computed.
        """
        step = transition.step
        if len(calls) != len(self.layouts):
            self.verdicts.judge()
            raise PipelineError(
                f"Step {step} made {len(calls)} denoiser calls; the first step made {len(self.layouts)}. "
                "Guidance that is switched on or off during sampling (guidance_end, cfg intervals), or a second denoiser that "
                "takes over, cannot be replayed yet."
            )
        if step == 0:
            self.firsts = calls
            self.calls = [CallRecord.first(*pair) for pair in zip(self.layouts, calls, strict=True)]
        else:
            self.verdicts.expect(
                conditions_of_equality(transition.given, self.returned),
                lambda: PipelineError(
                    f"The pipeline changes the latents between steps {step - 1} and {step} (in a "
                    "callback, by rounding them, or by painting a known image into them); such a pipeline cannot be replayed."
                ),
            )
        for index, (layout, call) in enumerate(zip(self.layouts, calls, strict=True)):
            self._check_call(layout, call, self.firsts[index], transition)
            self.timesteps[index].append(call.arguments[layout.time_name].reshape(-1)[0].clone())
        self._check_guidance(calls, transition)
        self.latents.append(transition.latents)
        self.returned = transition.next_latents
        self.model_outputs.append(transition.model_output)

    @contextlib.contextmanager
    def given_up_on_error(self) -> Iterator[None]:
        """Context manager for work beside the run: if it fails, the run is given up and no longer judged."""
        try:
            yield
        except BaseException:
            self.verdicts.forget()
            raise

    def finish(self) -> Trajectory:
        """
        Judge the run, and return all of it.

        Raises:
            [`PipelineError`], [`GuidanceError`]: as [`add`](Recording.add).
        """
        self.verdicts.judge()
        calls = tuple(
            replace(call, timesteps=torch.stack(timesteps))
            for call, timesteps in zip(self.calls, self.timesteps, strict=True)
        )
        latents, model_outputs = torch.stack([*self.latents, self.returned], 1), torch.stack(self.model_outputs, 1)
        return Trajectory(self.table, latents, model_outputs, Conditioning.of_batch(calls, len(latents)))

    def _check_call(self, layout: CallLayout, call: DenoiserCall, first: DenoiserCall, transition: Transition) -> None:
        expect_latents(layout, call, transition, self.verdicts)
        for name in sorted(call.arguments.keys() - {layout.latents_name, layout.time_name}):
            self.verdicts.expect(
                conditions_of_equality(call.arguments[name], first.arguments.get(name)),
                partial(_changed_argument, name, transition.step),
            )

    def _check_guidance(self, calls: list[DenoiserCall], transition: Transition) -> None:
        outputs = branches_of(self.layouts, calls, transition.latents.shape[1:])
        error, step = self.guidance.relative_error(outputs, transition.model_output), transition.step
        self.verdicts.expect(
            [error <= TOLERANCE],
            lambda: GuidanceError(
                f"At step {step} the guidance rule {self.guidance.name!r} is off by {float(error):.0e} (relative; "
                f"allowed {TOLERANCE:.0e}). Does the guidance scale change during sampling?"
            ),
        )


def _changed_argument(name: str, step: int) -> PipelineError:
    return PipelineError(
        f"The denoiser's argument {name!r} changes at step {step}; only the latents and the timestep may change from step to "
        "step."
    )


def check_latents(layout: CallLayout, call: DenoiserCall, transition: Transition) -> None:
    """Raise [`PipelineError`] unless the denoiser was called with the scheduler's latents."""
    verdicts = Verdicts()
    expect_latents(layout, call, transition, verdicts)
    verdicts.judge()


def expect_latents(layout: CallLayout, call: DenoiserCall, transition: Transition, verdicts: Verdicts) -> None:
    """Expect that the denoiser was called with the scheduler's latents; raise [`PipelineError`] if their sizes differ."""
    ours = transition.latents.shape[1:]
    if layout.row_shape.numel() != ours.numel():
        verdicts.judge()
        raise PipelineError(
            f"The denoiser gets {tuple(layout.row_shape)} for each image (argument {layout.latents_name!r}), where the scheduler "
            f"has {tuple(ours)}: the pipeline appends something to the latents (an image to edit, a mask), or cuts them into "
            "pieces. Such a pipeline cannot be replayed yet."
        )
    given, expected = call.arguments[layout.latents_name], layout.latents_argument(transition.latents)
    verdicts.expect(
        conditions_of_equality(
            in_dtype(given, torch.float32), in_dtype(expected, torch.float32)
        ),  # as the scheduler keeps them
        partial(_changed_latents, layout.latents_name, transition.step),
    )


def _changed_latents(name: str, step: int) -> PipelineError:
    return PipelineError(
        f"At step {step} the pipeline changes the latents between scheduler and denoiser (argument {name!r}: scaled, noised "
        "again, or in another order); such a pipeline cannot be replayed."
    )


def branches_of(
    layouts: Sequence[CallLayout], calls: Sequence[DenoiserCall], state_shape: torch.Size
) -> list[torch.Tensor]:
    """Return the outputs of a step's calls, one `(B, ...)` for each branch of guidance, in the order of the calls."""
    each = (layout.branches(call.output, state_shape) for layout, call in zip(layouts, calls, strict=True))
    return [branch for branches in each for branch in branches]
