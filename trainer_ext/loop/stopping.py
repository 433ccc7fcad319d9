"""Rules that end a run, such as `typographic_attack>0.3`."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..errors import ConfigError

COMPARISONS = {">": operator.gt, "<": operator.lt}
EVALUATION = "eval_"  #: beginning of the names of metrics of evaluations


@dataclass(frozen=True)
class StopRule:
    """
    A comparison of a metric with a number.

    Parameters:
        text (`str`):
            The rule as it was given.
        name (`str`):
            Name of a metric, or of a detector, whose mean is compared.
        sign (`">"` or `"<"`):
            The comparison.
        threshold (`float`):
            The number that the metric is compared with.
    """

    text: str
    name: str
    sign: str
    threshold: float

    @classmethod
    def parse(cls, text: str) -> StopRule:
        """
        Read NAME>NUMBER or NAME<NUMBER.

        Raises:
            [`ConfigError`]: the text is no such rule.
        """
        parts = re.fullmatch(r"\s*([^<>\s]+)\s*([<>])\s*(\S+)\s*", text)
        try:
            if parts is None or not math.isfinite(threshold := float(parts[3])):
                raise ValueError
        except ValueError as error:
            raise ConfigError(
                f"stop_when has {text!r}; a rule is NAME>NUMBER or NAME<NUMBER, such as 'typographic_attack>0.3', where NAME "
                "is a detector, or a metric of the rollout or of an evaluation."
            ) from error
        return cls(text.strip(), parts[1], parts[2], threshold)

    @property
    def of_evaluations(self) -> bool:
        """Whether the rule compares a metric of evaluations."""
        return self.name.startswith(EVALUATION)

    def value(self, metrics: Mapping[str, float]) -> float | None:
        """Return the value to compare; `None` if it is missing."""
        return metrics.get(f"detectors/{self.name}/mean", metrics.get(self.name))

    def is_met(self, metrics: Mapping[str, float]) -> bool:
        """Whether the metrics of a rollout or an evaluation meet this rule. A missing metric meets none."""
        value = self.value(metrics)
        return value is not None and COMPARISONS[self.sign](value, self.threshold)


def rollout_rules(texts: Sequence[str]) -> list[StopRule]:
    """Return the rules that compare metrics of rollouts."""
    return [rule for rule in map(StopRule.parse, texts) if not rule.of_evaluations]


def evaluation_rules(texts: Sequence[str]) -> list[StopRule]:
    """Return the rules that compare metrics of evaluations."""
    return [rule for rule in map(StopRule.parse, texts) if rule.of_evaluations]


class RuleMetError(Exception):
    """
    A rule ends the run. `train()` catches this before anything is learned from the rollout.

    Args:
        rule ([`StopRule`]):
            The rule that was met.
        rollout (`int`):
            Index of the rollout.
        metrics (`Mapping[str, float]`):
            Metrics of the rollout.
    """

    def __init__(self, rule: StopRule, rollout: int, metrics: Mapping[str, float]):
        self.rule = rule
        self.rollout = rollout
        self.metrics = dict(metrics)
        super().__init__(f"Rollout {rollout} meets stop_when {rule.text!r}: it is {rule.value(metrics):.4g}.")

    def advice(self, updates: int) -> str:
        """Return a message: what happened, and what a run resumed from the checkpoint after `updates` updates would do."""
        return (
            f"{self} Training ends after {updates} update(s), and nothing was learned from this rollout. Resumed from "
            f"checkpoint-{updates}, it makes the rollout again, and ends again unless stop_when is changed."
        )


class StopRules:
    """
    Several rules, any of which ends the run.

    Args:
        rules (`Sequence[StopRule]`):
            The rules, in the order in which they are checked.
        detectors (`Sequence[str]`):
            Names of detectors. One may be absent from a rollout's metrics, if it could judge no image.
    """

    def __init__(self, rules: Sequence[StopRule], detectors: Sequence[str] = ()):
        self.rules = tuple(rules)
        self._seen = {name for detector in detectors for name in (detector, *_detector_metrics(detector))}

    def check(self, rollout: int, metrics: Mapping[str, float]) -> None:
        """
        Compare the metrics of a rollout.

        Raises:
            [`RuleMetError`]: a rule is met.
            [`ConfigError`]: a rule names a metric that no rollout has had.
        """
        self._seen |= metrics.keys()
        for rule in self.rules:
            if rule.name not in self._seen:
                raise ConfigError(
                    f"stop_when has {rule.text!r}, and rollout {rollout} has no metric {rule.name!r}; it has "
                    f"{', '.join(sorted(metrics))}. Detectors are run when they are named in `detectors` (--detectors)."
                )
            if rule.is_met(metrics):
                raise RuleMetError(rule, rollout, metrics)


def _detector_metrics(name: str) -> tuple[str, str]:
    return f"detectors/{name}/mean", f"detectors/{name}/max"


def is_evaluation(log: Mapping[str, object]) -> bool:
    """Return whether a log is that of an evaluation."""
    return any(name.startswith(EVALUATION) for name in log)
