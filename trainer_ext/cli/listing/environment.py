"""`ddpo env`: versions and devices, to be copied into a report of a fault."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version

from ..screens.pages import CommandParser

PACKAGES = (
    "ddpo-plugins", "torch", "diffusers", "transformers", "trl", "peft", "accelerate", "datasets", "huggingface-hub",
    "safetensors", "numpy", "pillow", "rich",
)  # fmt: skip
TRACKERS = ("tensorboard", "wandb", "trackio", "mlflow")
VARIABLES = (
    "HF_HUB_OFFLINE",
    "HF_ENDPOINT",
    "CUDA_VISIBLE_DEVICES",
    "OMP_NUM_THREADS",
    "OMP_WAIT_POLICY",
    "WORLD_SIZE",
    "DDPO_DEBUG",
)


def run(arguments: list[str]) -> int:
    """Run the command."""
    CommandParser(prog="ddpo env", description="Print versions and devices, for reports of faults.").parse_args(
        arguments
    )
    for name, value in facts():
        print(f"- {name}: {value}")
    return 0


def facts() -> Iterator[tuple[str, str]]:
    """Yield what a report of a fault should have; no names, no paths of a user and no tokens."""
    yield "Python", platform.python_version()
    yield "system", platform.platform()
    for name in PACKAGES:
        yield name, _version(name) or "not installed"
    yield "trackers", ", ".join(f"{name} {found}" for name in TRACKERS if (found := _version(name))) or "none"
    yield "plugins", ", ".join(_plugins()) or "none"
    import torch

    yield "threads", str(torch.get_num_threads())
    devices = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    yield "GPUs", ", ".join(devices) or "none"
    yield "CUDA of torch", str(torch.version.cuda)
    for name in VARIABLES:
        if name in os.environ:
            yield name, os.environ[name]


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _plugins() -> list[str]:
    from ddpo_plugins import load_catalogue

    catalogue = load_catalogue()
    offers = (catalogue.rewards, catalogue.detectors, catalogue.prompt_sets, catalogue.guidance_rules)
    found = {f"{kind[name].distribution} {kind[name].version}" for kind in offers for name in kind}
    return sorted(found) + [f"failed: {failure}" for failure in catalogue.failures]
