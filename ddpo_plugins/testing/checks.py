"""The checks, one function each, and the error for a breach."""

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
from ddpo_plugins.errors import ContractError, RewardError, cure_of, describe, message_of
from ddpo_plugins.guarding import ChangedSettingError, unchanged_settings
from ddpo_plugins.specs import DetectorSpec, RewardSpec
from ddpo_plugins.values import shown

from .batch import Batch

Spec: TypeAlias = RewardSpec | DetectorSpec

UNKNOWN_OPTION = "an_option_that_does_not_exist"


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
        with _own_code(f"called with {given}"):
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


def _same_again(subject: Subject, batch: Batch, values: Sequence[float]) -> None:
    given = "the same images again"
    subject.compare(values, subject.score(batch, given), given)


def _order(subject: Subject, batch: Batch, values: Sequence[float]) -> None:
    given = "the same images in reverse order"
    subject.compare(values, subject.score(batch.select(range(len(batch))[::-1]), given)[::-1], given)


def _alone(subject: Subject, batch: Batch, values: Sequence[float]) -> None:
    alone = [subject.score(batch.select([i]), f"image {i} alone")[0] for i in range(len(batch))]
    subject.compare(values, alone, "each image alone")


def _empty(subject: Subject, batch: Batch, values: Sequence[float]) -> None:
    subject.score(batch.select([]), "no images")


def _untouched(subject: Subject, batch: Batch, values: Sequence[float]) -> None:
    given, before = subject.arguments(batch), subject.arguments(batch)
    subject.call(given, f"{len(batch)} images")
    for name, value in before.items():
        if not _equal(given[name], value):
            raise BreachError(f"called with {len(batch)} images, it changed {name!r}, which it was given.")


def _sizes(subject: Subject, batch: Batch, values: Sequence[float]) -> None:
    for width, height in ((96, 48), (40, 40)):
        subject.score(batch.select([0]).resized((width, height)), f"an image of {width} x {height} pixels")


@final
@dataclass(frozen=True)
class Check:
    """
    One part of the contract.

    Parameters:
        name (`str`):
            Name of the check, for messages.
        rule (`str`):
            The requirement, as a sentence.
        run (`Callable[[Subject, Batch, Sequence[float]], None]`):
            Called with the values of the batch. Raises [`BreachError`].
        compares (`bool`, *optional*, defaults to `False`):
            True if the check asks that an image's value does not depend on the other images.
    """

    name: str
    rule: str
    run: Callable[[Subject, Batch, Sequence[float]], None]
    compares: bool = False


#: The checks that follow the scoring of one batch, in order.
CHECKS = (
    Check("determinism", "The same images and prompts have the same values: draw nothing at random.", _same_again),
    Check("batch order", "A value goes with its image and prompt, wherever in the batch they are.", _order),
    Check("one image", "A value depends on its image and prompt alone (else say independent=False).", _alone, True),
    Check("empty batch", "No images have no values: return an empty list.", _empty),
    Check(
        "arguments",
        "Leave what you are given as it is, and copy what you change: not every caller hands over copies.",
        _untouched,
    ),
    Check("sizes", "Images are as large as the pipeline makes them: take any width and height.", _sizes),
)

DESCRIPTION_RULE = "Say in one line what is measured, in which unit and range."
OPTIONS_RULE = "Name each option in the factory's signature, so that a misspelt one is an error."
CONTRACT_RULE = "Take **columns, and return a finite number for each image, or None where there is none."


def check(
    spec: Spec, batch: Batch, options: Mapping[str, Any], device: Any, tolerance: float, independent: bool
) -> list[float | None]:
    """
    Build the reward or detector of a spec and run every check on it.

    Returns:
        `list[float | None]` of length B: the values of the batch.

    Raises:
        [`ContractError`]: a check fails.
    """
    with _told(spec, "description", DESCRIPTION_RULE):
        if not spec.description.strip() or len(spec.description.splitlines()) > 1:
            raise BreachError(f"the spec has description={spec.description!r}.")
    with _told(spec, "options", OPTIONS_RULE):
        _check_options(spec, options, device)
    with _told(spec, "factory", "It must return a function."):
        function = _build(spec, options, device)
    with _event_loop() as wait:
        subject = Subject(spec, function, device, tolerance, wait)
        with _told(spec, "contract", CONTRACT_RULE):
            values = subject.score(batch, f"{len(batch)} images")
        for part in CHECKS:
            if independent or not part.compares:
                with _told(spec, part.name, part.rule):
                    part.run(subject, batch, values)
    return [None if math.isnan(value) else value for value in values]


def _check_options(spec: Spec, options: Mapping[str, Any], device: Any) -> None:
    given = f"built with the option {UNKNOWN_OPTION!r}"
    try:
        spec.factory(device=device, **{**options, UNKNOWN_OPTION: None})
    except TypeError as error:
        if UNKNOWN_OPTION not in message_of(error):
            raise BreachError(f"{given}, it raised a TypeError that does not name it: {message_of(error)}.") from error
    except (Exception, SystemExit) as error:
        raise BreachError(f"{given}, it raised no TypeError but {describe(error)}. {cure_of(error)}".strip()) from error
    else:
        raise BreachError(f"{given}, it raised nothing.")


def _build(spec: Spec, options: Mapping[str, Any], device: Any) -> Callable[..., Any]:
    given = f"built with device={device!r} and {dict(options) or 'no options'}"
    with _own_code(given):
        function = spec.factory(device=device, **options)
    if not callable(function):
        raise BreachError(f"{given}, the factory returned {shown(function)}, which is no function.")
    return function


@contextlib.contextmanager
def _own_code(given: str) -> Iterator[None]:
    """Turn an error of the plugin's own code, or a setting that it changes, into a breach; `given` says how it was called."""
    try:
        with unchanged_settings():
            yield
    except KeyboardInterrupt:
        raise
    except ChangedSettingError as error:
        raise BreachError(f"{given}, it {error}") from error
    except BaseException as error:
        raise BreachError(f"{given}, it raised {describe(error)}. {cure_of(error)}".strip()) from error


@contextlib.contextmanager
def _told(spec: Spec, name: str, rule: str) -> Iterator[None]:
    """Turn a breach into the error that users see."""
    try:
        yield
    except BreachError as breach:
        kind = "Detector" if isinstance(spec, DetectorSpec) else "Reward"
        raise ContractError(f"{kind} {spec.name!r} fails the check {name!r}: {breach} {rule}") from breach.__cause__


@contextlib.contextmanager
def _event_loop() -> Iterator[Callable[[Awaitable[Any]], Any]]:
    """Yield one loop for all calls, as in the trainer; in a thread, because a notebook's loop may be running in this one."""

    async def settle(value: Awaitable[Any]) -> Any:
        with unchanged_settings():  # in this thread, too
            return await value

    loop = asyncio.new_event_loop()
    with ThreadPoolExecutor(max_workers=1) as executor, contextlib.closing(loop):
        yield lambda value: executor.submit(loop.run_until_complete, settle(value)).result()


def _equal(given: Any, before: Any) -> bool:
    """Return whether two lists, or two tensors, have equal contents."""
    if isinstance(given, list):
        return bool(given == before)
    return given.shape == before.shape and bool((given == before).all())


def _value(value: float) -> str:
    return "None" if math.isnan(value) else f"{value:.9g}"
