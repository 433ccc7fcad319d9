"""Calls a served function as the trainer would."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from ddpo_plugins.contract import RewardLog
from ddpo_plugins.errors import RewardError
from ddpo_plugins.guarding import unchanged_settings
from ddpo_plugins.masking import without_secrets
from ddpo_plugins.wire import Reply

from ..scoring.faults import what_it_did
from ..scoring.functions import ImageFunction
from ..scoring.threads import EventLoop

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True)
class ServedFunction:
    """
    A reward or detector that is served.

    Parameters:
        function ([`ImageFunction`]):
            The function.
        device (`str`):
            Device of its weights, and of its images where it wants tensors.
        loop ([`EventLoop`]):
            Runs it if it is an `async def` function.
    """

    function: ImageFunction
    device: str
    loop: EventLoop

    @property
    def served(self) -> dict[str, Any]:
        """Its name and origin, as JSON holds them."""
        function = self.function
        return {"kind": function.kind, "name": function.name, **function.provenance.as_dict()}

    def score(
        self,
        images: Sequence[Image.Image],
        prompts: Sequence[str],
        columns: Mapping[str, Sequence[Any]],
        trainer_state: Mapping[str, Any],
    ) -> Reply:
        """
        Score B images.

        Raises:
            [`RewardError`]: the function raised an error, broke its contract, or changed settings of the process.
        """
        log = RewardLog(len(images))
        arguments = {
            **{name: list(values) for name, values in columns.items()},
            "images": list(images) if self.function.images == "pil" else as_tensor(images, self.device),
            "prompts": list(prompts),
            "trainer_state": SimpleNamespace(**trainer_state),
            **log.arguments(str(self.function)),
        }
        values = self.function.check(self._call(arguments), prompts)
        numbers = [None if math.isnan(value) else value for value in values]
        return Reply(served=self.served, values=numbers, metrics=log.metrics, extras=log.extras)

    def _call(self, arguments: Mapping[str, Any]) -> Any:
        try:
            with unchanged_settings():
                returned = self.function.function(**arguments)
                return self.loop.run(_awaited(returned)) if inspect.isawaitable(returned) else returned
        except BaseException as error:  # also SystemExit, which would end the thread that calls
            raise RewardError(f"{self.function} {what_it_did(error)}") from without_secrets(error)


async def _awaited(value: Any) -> Any:
    return await value


def as_tensor(images: Sequence[Image.Image], device: str) -> Any:
    """
    Stack images as float32 `(B, 3, H, W)` in [0, 1], as the trainer does.

    Raises:
        [`RewardError`]: they differ in size.
    """
    import numpy as np
    import torch

    sizes = sorted({image.size for image in images})
    if len(sizes) > 1:
        raise RewardError(f"The images have the sizes {sizes}; a tensor holds images of one size.")
    pixels = torch.from_numpy(np.stack([np.asarray(image) for image in images]))
    return pixels.permute(0, 3, 1, 2).float().div_(255).to(device)
