"""The checks of rewards and detectors, one function each."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

from ddpo_plugins.errors import ContractError, cure_of, describe, message_of
from ddpo_plugins.specs import DetectorSpec
from ddpo_plugins.values import shown

from .batch import Batch
from .subject import BreachError, Spec, Subject, event_loop, own_code

UNKNOWN_OPTION = "an_option_that_does_not_exist"


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
    with event_loop() as wait:
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
    with own_code(given):
        function = spec.factory(device=device, **options)
    if not callable(function):
        raise BreachError(f"{given}, the factory returned {shown(function)}, which is no function.")
    return function


@contextlib.contextmanager
def _told(spec: Spec, name: str, rule: str) -> Iterator[None]:
    """Turn a breach into the error that users see."""
    try:
        yield
    except BreachError as breach:
        kind = "Detector" if isinstance(spec, DetectorSpec) else "Reward"
        raise ContractError(f"{kind} {spec.name!r} fails the check {name!r}: {breach} {rule}") from breach.__cause__


def _equal(given: Any, before: Any) -> bool:
    """Return whether two lists, or two tensors, have equal contents."""
    if isinstance(given, list):
        return bool(given == before)
    return given.shape == before.shape and bool((given == before).all())
