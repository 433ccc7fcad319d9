"""
Checks for the tests of plugins: is the plugin found, and do its rewards, detectors and prompt sets keep the contract?

```python
from ddpo_plugins import load_catalogue
from ddpo_plugins.testing import check_plugin, check_reward


def test_the_plugin_is_found():
    check_plugin("redness")


def test_redness_keeps_the_contract():
    check_reward(load_catalogue().rewards["redness"].spec)
```

Needs Pillow, and torch for rewards that take tensors (`images="pt"`); neither is imported before a check runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ddpo_plugins.manager import load_catalogue
from ddpo_plugins.specs import DetectorSpec, PromptSetSpec, RewardSpec

from .batch import make_batch
from .checks import check
from .installed import check_loaded, check_rows_of

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["check_detector", "check_plugin", "check_prompt_set", "check_reward"]


def check_plugin(plugin: str) -> None:
    """
    Check that a plugin is installed, that all of it loads, and that it offers something.

    Parameters:
        plugin (`str`):
            Name of its entry point, or of its distribution.

    Raises:
        [`ContractError`]: it does not; the message says what to do.
    """
    check_loaded(plugin, load_catalogue())


def check_prompt_set(spec: PromptSetSpec) -> list[dict[str, Any]]:
    """
    Check that a prompt set keeps its contract: it ends, and each row has a prompt and the same columns.

    Parameters:
        spec (`PromptSetSpec`):
            The spec that the plugin offers.

    Returns:
        `list[dict]`: the rows, for checks of your own.

    Raises:
        [`ContractError`]: the prompt set breaks the contract; the message says in which row.
    """
    return check_rows_of(spec)


def check_reward(
    spec: RewardSpec,
    *,
    images: Sequence[Image.Image] | None = None,
    prompts: Sequence[str] | None = None,
    columns: Mapping[str, Sequence[Any]] | None = None,
    options: Mapping[str, Any] | None = None,
    device: Any = "cpu",
    tolerance: float = 1e-4,
    independent: bool = True,
) -> list[float | None]:
    """
    Check that a reward keeps its contract, which is in [`Reward`].

    - The spec has a description, and its factory refuses an option that does not exist with a `TypeError` that names it.
    - The reward takes columns that it does not know, and returns a finite number or None for each image.
    - Values are the same a second time, in another order, and for one image alone.
    - It accepts an empty list of images, and images of other sizes, also ones that are not square.
    - It does not change its arguments.

    An `async def` reward is awaited; all calls are on one event loop.

    Parameters:
        spec (`RewardSpec`):
            The spec that the plugin offers. Its factory is called once with an option that does not exist, and once with
            `options`.
        images (`Sequence[PIL.Image.Image]` of length B, *optional*):
            Images to score, in mode RGB. By default 64 x 64 pixels of one colour, a gradient, noise and stripes, as often
            as there are prompts.
        prompts (`Sequence[str]` of length B, *optional*):
            Prompt of each image. By default one of few words, one in other scripts and one of 120 words, as often as
            there are images.
        columns (`Mapping[str, Sequence[Any]]`, *optional*):
            Columns of the dataset that the reward needs, each of length B.
        options (`Mapping[str, Any]`, *optional*):
            Options for the factory.
        device (`str` or `torch.device`, *optional*, defaults to `"cpu"`):
            Device for the factory and for tensors.
        tolerance (`float`, *optional*, defaults to `1e-4`):
            How far two values of one image may differ, relative or absolute. A network's rounding depends on the batch.
        independent (`bool`, *optional*, defaults to `True`):
            Whether an image's value depends on that image and its prompt alone. Give False for a reward that compares
            the images of a batch.

    Returns:
        `list[float | None]` of length B: the rewards of the images, for checks of your own.

    Raises:
        [`ContractError`]: the reward breaks the contract; the message names the check, its input and the result.
        `ValueError`: images, prompts and columns differ in length.
    """
    return check(spec, make_batch(images, prompts, columns), options or {}, device, tolerance, independent)


def check_detector(
    spec: DetectorSpec,
    *,
    images: Sequence[Image.Image] | None = None,
    prompts: Sequence[str] | None = None,
    columns: Mapping[str, Sequence[Any]] | None = None,
    options: Mapping[str, Any] | None = None,
    device: Any = "cpu",
    tolerance: float = 1e-4,
    independent: bool = True,
) -> list[float | None]:
    """
    Check that a detector keeps its contract: a reward's ([`check_reward`], also for the parameters), in [0, 1].

    Raises:
        [`ContractError`]: the detector breaks the contract; the message names the check, its input and the result.
        `ValueError`: images, prompts and columns are not of one length.
    """
    return check(spec, make_batch(images, prompts, columns), options or {}, device, tolerance, independent)
