"""Everything that scores images in a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ddpo_plugins.names import DETECTORS, PIXEL_FIGURES, PIXELS, REWARDS

from ..errors import ConfigError
from ..options import DDPOOptions
from .background import BackgroundScorer
from .calls import Calls
from .functions import Detector, DetectorFunction, Reward, RewardFunction, named_functions
from .suite import RewardSuite


@dataclass(frozen=True)
class Judges:
    """
    The rewards and detectors of a run, and the thread that calls them.

    Parameters:
        trained ([`RewardSuite`]):
            The rewards that are trained on, with the detectors.
        held_out ([`RewardSuite`], *optional*):
            Rewards that are only evaluated.
        scorer ([`BackgroundScorer`]):
            Calls them while the next images are sampled.
    """

    trained: RewardSuite
    held_out: RewardSuite | None
    scorer: BackgroundScorer

    @classmethod
    def of(
        cls,
        reward_funcs: Reward | Sequence[Reward],
        eval_reward_funcs: Reward | Sequence[Reward] | None,
        detectors: Detector | Sequence[Detector] | None,
        options: DDPOOptions,
        device: torch.device,
    ) -> Judges:
        """
        Build the judges from the trainer's arguments, and the device that samples.

        Raises:
            [`ConfigError`]: there is no reward, something is no function, two have one name, the number of weights is wrong, or
                `diversity_shaping` is no detector.
        """
        rewards, others = (named_functions(given, RewardFunction) for given in (reward_funcs, eval_reward_funcs))
        calls = Calls()
        trained = RewardSuite(
            rewards,
            options.reward_weights,
            named_functions(detectors, DetectorFunction),
            options.detector_weights,
            calls,
        )
        if options.diversity_shaping not in (None, *trained.detector_names):
            raise ConfigError(
                f"diversity_shaping is {options.diversity_shaping!r}, which is no detector of this run; it must be one of "
                f"`detectors`: {', '.join(trained.detector_names) or 'there are none'}."
            )
        RewardSuite([*rewards, *others])  # checks that no name is in both
        held_out = RewardSuite(others, calls=calls) if others else None
        share_cores = device.type == "cpu"
        scorer = BackgroundScorer(calls, options.overlap_rewards, options.reward_timeout, share_cores)
        return cls(trained, held_out, scorer)

    @property
    def suites(self) -> list[RewardSuite]:
        """The suites of an evaluation: the trained rewards and the detectors, then the held-out rewards."""
        return [self.trained] if self.held_out is None else [self.trained, self.held_out]

    @property
    def held_out_columns(self) -> list[str]:
        """Columns of the held-out rewards in records."""
        return [] if self.held_out is None else [f"{REWARDS}{name}" for name in self.held_out.names]

    def evaluated_metrics(self, options: DDPOOptions) -> list[str]:
        """Return the names of an evaluation's metrics, without its prefix."""
        detectors = [f"{DETECTORS}{name}" for name in self.trained.detector_names]
        columns = [f"{REWARDS}{name}" for suite in self.suites for name in suite.names] + detectors
        peaks = [f"{name}/max" for name in detectors]
        gains = [] if self.held_out is None else ["gold", "disagreement"]
        kl = ["kl"] if not options.full_finetuning or options.beta else []  # else there is no model before training
        spread = ["diversity", "diversity_min", "collapsed"] if options.eval_images_per_prompt > 1 else []
        pixels = [f"{PIXELS}{name}" for name in PIXEL_FIGURES]
        means = [f"{name}/mean" for name in columns]
        return ["reward", "reward_std", *means, *peaks, *gains, *kl, *spread, *pixels]
