"""A reward or detector under test: how it is built and called, and what of its own code breaks the contract."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import math
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeAlias, final

from ddpo_plugins.contract import RewardLog, check_detections, check_rewards
from ddpo_plugins.errors import PluginError, RewardError, cure_of, describe, message_of
from ddpo_plugins.guarding import ChangedSettingError, unchanged_settings
from ddpo_plugins.specs import DetectorSpec, RewardSpec

from .batch import Batch

Spec: TypeAlias = RewardSpec | DetectorSpec


class BreachError(Exception):
    """The contract was broken; the message says by which input and which result."""


@final
@dataclass(frozen=True)
class Subject:
    """
    A reward or detector that was built, and how to call it.

    Parameters:
        spec (`RewardSpec` or `DetectorSpec`):
            The spec that it was built from.
        function (`Callable`):
            The function that the factory returned.
        device (`str` or `torch.device`):
            Device of tensors.
        tolerance (`float`):
            How far two values of one image may differ.
        wait (`Callable[[Awaitable], Any]`):
            Waits for the result of an `async def` reward.
    """

    spec: Spec
    function: Callable[..., Any]
    device: Any
    tolerance: float
    wait: Callable[[Awaitable[Any]], Any]

    def arguments(self, batch: Batch) -> dict[str, Any]:
        """Return the arguments for a batch, without state and logging."""
        return batch.arguments(self.spec.images, self.device)

    def score(self, batch: Batch, given: str) -> list[float]:
        """Return the values of a batch, NaN for `None`; `given` describes the batch in messages."""
        return self.call(self.arguments(batch), given)

    def call(self, arguments: Mapping[str, Any], given: str) -> list[float]:
        """
        Call as the trainer does.

        Raises:
            [`BreachError`]: it raised an error, or returned or logged something that the trainer refuses.
        """
        prompts = list(arguments["prompts"])
        log = RewardLog(len(prompts)).arguments(self.spec.name)
        with own_code(f"called with {given}"):
            returned = self.function(**arguments, trainer_state=None, **log)
            returned = self.wait(returned) if inspect.isawaitable(returned) else returned
        try:
            check_values = check_detections if isinstance(self.spec, DetectorSpec) else check_rewards
            return check_values(self.spec.name, returned, prompts)
        except RewardError as error:
            raise BreachError(f"called with {given}: {error}") from error

    def compare(self, expected: Sequence[float], values: Sequence[float], given: str) -> None:
        """
        Compare values of the same images.

        Raises:
            [`BreachError`]: two differ.
        """
        for image, (before, now) in enumerate(zip(expected, values, strict=True)):
            same = math.isclose(before, now, rel_tol=self.tolerance, abs_tol=self.tolerance)
            if not same and not (math.isnan(before) and math.isnan(now)):
                raise BreachError(
                    f"called with {given}, image {image} got {_value(now)}; before, it got {_value(before)} "
                    f"(tolerance {self.tolerance:g})."
                )


@contextlib.contextmanager
def own_code(given: str) -> Iterator[None]:
    """Turn an error of the plugin's own code, or a setting that it changes, into a breach; `given` says how it was called."""
    try:
        with unchanged_settings():
            yield
    except KeyboardInterrupt:
        raise
    except ChangedSettingError as error:
        raise BreachError(f"{given}, it {error}") from error
    except PluginError as error:  # of a check of this package
        raise BreachError(f"{given}: {message_of(error)}") from error
    except BaseException as error:
        raise BreachError(f"{given}, it raised {describe(error)}. {cure_of(error)}".strip()) from error


@contextlib.contextmanager
def event_loop() -> Iterator[Callable[[Awaitable[Any]], Any]]:
    """Yield one loop for all calls, as in the trainer; in a thread, because a notebook's loop may be running in this one."""

    async def settle(value: Awaitable[Any]) -> Any:
        with unchanged_settings():  # in this thread, too
            return await value

    loop = asyncio.new_event_loop()
    with ThreadPoolExecutor(max_workers=1) as executor, contextlib.closing(loop):
        yield lambda value: executor.submit(loop.run_until_complete, settle(value)).result()


def _value(value: float) -> str:
    return "None" if math.isnan(value) else f"{value:.9g}"
