"""The results of a run, as the cards on the Hub show them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ...errors import ConfigError
from ...runs.drawings import SampleSheet
from ...runs.folder import RunFolder
from ...runs.summary import RunSummary

MAX_PAIRS = 16  #: that cards show


@dataclass(frozen=True)
class Pair:
    """
    A prompt and a seed, drawn before and after training.

    Parameters:
        index (`int`):
            Its number.
        before, after (`Mapping[str, Any]`):
            The records. `before` is empty for runs without pictures from before training.
        files (`Mapping[str, Path]`):
            The pictures by their path in the adapter's repository.
    """

    index: int
    before: Mapping[str, Any]
    after: Mapping[str, Any]
    files: Mapping[str, Path]

    @property
    def name_before(self) -> str:
        """Path of the first picture in the repository."""
        return f"images/before-{self.index:02d}.png"

    @property
    def name_after(self) -> str:
        """Path of the second picture in the repository."""
        return f"images/after-{self.index:02d}.png"


@dataclass(frozen=True)
class Results:
    """
    The results of a run, for its two repositories on the Hub.

    Parameters:
        folder ([`RunFolder`]):
            The run.
    """

    folder: RunFolder

    @cached_property
    def setups(self) -> list[dict[str, Any]]:
        """
        The record of how the run was made: an entry for each time that something changed.

        Raises:
            [`ConfigError`]: there is none.
        """
        try:
            return self.folder.setups()
        except (OSError, ValueError, KeyError) as error:
            raise ConfigError(
                f"{self.folder.path} holds no run.json that can be read ({type(error).__name__}). Give the output folder of a "
                "run."
            ) from error

    @property
    def setup(self) -> dict[str, Any]:
        """The newest entry."""
        return self.setups[-1]

    @cached_property
    def summary(self) -> RunSummary:
        """The result."""
        return RunSummary.of(self.folder)

    @cached_property
    def sheets(self) -> tuple[SampleSheet, SampleSheet] | None:
        """The fixed samples at the beginning and at the end, as far as their pictures are complete; `None` without any."""
        whole = [sheet for sheet in self.folder.samples() if sheet.is_complete]
        return (whole[0], whole[-1]) if whole else None

    @cached_property
    def pairs(self) -> list[Pair]:
        """The first of the fixed samples, each before and after training."""
        if self.sheets is None:
            return []
        first, last = self.sheets
        before = {}
        if first.updates == 0 < last.updates:
            before = {_key(record): (record, file) for record, file in zip(first.records, first.files, strict=True)}
        pairs = []
        for index, (record, file) in enumerate(zip(last.records[:MAX_PAIRS], last.files, strict=False)):
            earlier, picture = before.get(_key(record), ({}, None))
            named = {f"images/after-{index:02d}.png": file, f"images/before-{index:02d}.png": picture}
            pairs.append(Pair(index, earlier, record, {name: path for name, path in named.items() if path is not None}))
        return pairs


def _key(record: Mapping[str, Any]) -> tuple[int, str]:
    return record["seed"], record["prompt"]
