"""Measurements since the last log."""

from __future__ import annotations

import contextlib
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, MutableMapping, Sequence

import numpy as np
import torch

Values = Mapping[str, Sequence[float]]


class RunMetrics:
    """Collects measurements until they are logged as means."""

    def __init__(self) -> None:
        self._values: dict[str, list[float]] = defaultdict(list)

    def note(self, metrics: Mapping[str, float | torch.Tensor]) -> None:
        """Add measurements."""
        for name, value in metrics.items():
            self._values[name].append(float(value))

    def drain(self) -> dict[str, float]:
        """Return the mean of each metric, and forget the measurements."""
        means = {name: float(np.mean(values)) for name, values in self._values.items()}
        self._values.clear()
        return means

    def state_dict(self) -> dict[str, list[float]]:
        """Return the measurements that are not logged yet, for a checkpoint."""
        return {name: list(values) for name, values in self._values.items()}

    def load_state_dict(self, state: Values) -> None:
        """Restore what [`state_dict`] returned."""
        self._values = defaultdict(list, {name: list(values) for name, values in state.items()})


def mean_of(processes: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Average over processes. A metric that only some of them have is averaged over those."""
    names = dict.fromkeys(name for means in processes for name in means)
    return {name: float(np.mean([means[name] for means in processes if name in means])) for name in names}


@contextlib.contextmanager
def timed(seconds: MutableMapping[str, float], name: str) -> Iterator[None]:
    """Add the seconds that the block takes to `seconds[name]`."""
    start = time.perf_counter()
    yield
    seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - start
