"""Builds a describer from its options."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..hub import LLAVA, LLAVA_REVISION, missing_extra, revision_of
from .interface import Describer
from .options import DescriberOptions

if TYPE_CHECKING:
    import torch


def load_describer(device: torch.device | str, options: DescriberOptions) -> Describer:
    """
    Load a vision-language model, or find it on a server.

    Args:
        device (`torch.device` or `str`):
            Where a local model runs.
        options ([`DescriberOptions`]):
            Which model, and how it is reached.

    Raises:
        [`PluginError`]: the package `openai` is missing, or the revision belongs to another model.
        [`RewardError`]: the server does not answer, or does not have the model.
    """
    if options.base_url is None:
        from .local import LocalDescriber

        revision = revision_of(options.model, options.revision, (LLAVA, LLAVA_REVISION))
        return LocalDescriber(options.model, revision, device, options.dtype, options.batch_size)
    try:
        from .server import ServerDescriber
    except ModuleNotFoundError as error:
        raise missing_extra("The package openai, which talks to servers,", "server") from error
    return ServerDescriber(options.base_url, options.model, options.batch_size, options.timeout, options.max_retries)
