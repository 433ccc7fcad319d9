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
    """
    Collects measurements until they are logged as means.

    Tensors stay on their device until the log or a checkpoint, because the host would wait for the device to read one.
    """

    def __init__(self) -> None:
        self._values: dict[str, list[float]] = defaultdict(list)
        self._unread: list[tuple[tuple[str, ...], torch.Tensor | list[float]]] = []

    def note(self, metrics: Mapping[str, float | torch.Tensor]) -> None:
        """Add measurements: numbers, or tensors of one element."""
        for name, value in metrics.items():
            self.note_each((name,), value.reshape(1) if isinstance(value, torch.Tensor) else [float(value)])

    def note_each(self, names: Sequence[str], values: torch.Tensor | list[float]) -> None:
        """Add `values` `(N,)`, each a measurement of the metric of `names` at its place."""
        copied = values.detach().clone() if isinstance(values, torch.Tensor) else values
        self._unread.append((tuple(names), copied))

    def drain(self) -> dict[str, float]:
        """Return the mean of each metric, and forget the measurements."""
        means = {name: float(np.mean(values)) for name, values in self._read().items()}
        self._values.clear()
        return means

    def copy(self) -> RunMetrics:
        """Return another with the same measurements, without reading tensors."""
        other = RunMetrics()
        other.load_state_dict(self._values)
        other._unread = list(self._unread)
        return other

    def state_dict(self) -> dict[str, list[float]]:
        """Return the measurements that are not logged yet, for a checkpoint."""
        return {name: list(values) for name, values in self._read().items()}

    def load_state_dict(self, state: Values) -> None:
        """Restore what [`state_dict`] returned."""
        self._values = defaultdict(list, {name: list(values) for name, values in state.items()})
        self._unread = []

    def _read(self) -> dict[str, list[float]]:
        columns = on_host([values for _, values in self._unread])
        for (names, _), numbers in zip(self._unread, columns, strict=True):
            for name, number in zip(names, numbers, strict=True):
                self._values[name].append(number)
        self._unread.clear()
        return self._values


def on_host(columns: Sequence[torch.Tensor | list[float]]) -> list[list[float]]:
    """Read columns of numbers, waiting once for each device that holds some of them."""
    read = [[] if isinstance(column, torch.Tensor) else column for column in columns]
    places: dict[torch.device, list[tuple[int, torch.Tensor]]] = defaultdict(list)
    for index, column in enumerate(columns):
        if isinstance(column, torch.Tensor):
            places[column.device].append((index, column))
    for found in places.values():
        together = torch.cat([column for _, column in found]).cpu()
        for (index, _), part in zip(found, together.split([len(column) for _, column in found]), strict=True):
            read[index] = list(map(float, part.tolist()))
    return read


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
