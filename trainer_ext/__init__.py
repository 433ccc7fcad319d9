"""
The DDPO trainer for diffusers pipelines.

Names are imported when they are first used, so that `import trainer_ext` and the command line's help stay fast.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .config import DDPOConfig
    from .learning.algorithm import Algorithm
    from .plugins import detector_from_plugin, guidance_from_plugins, prompts_from_plugin, reward_from_plugin
    from .policy.pipeline import LogProbPipeline
    from .scoring.functions import DetectorFunction, RewardFunction
    from .shipped import embedded_model
    from .trainer import DDPOTrainer

    __version__: str

_MODULES = {
    "Algorithm": ".learning.algorithm",
    "DDPOConfig": ".config",
    "DDPOTrainer": ".trainer",
    "DetectorFunction": ".scoring.functions",
    "LogProbPipeline": ".policy.pipeline",
    "RewardFunction": ".scoring.functions",
    "detector_from_plugin": ".plugins",
    "embedded_model": ".shipped",
    "guidance_from_plugins": ".plugins",
    "prompts_from_plugin": ".plugins",
    "reward_from_plugin": ".plugins",
}

__all__ = [
    "Algorithm",
    "DDPOConfig",
    "DDPOTrainer",
    "DetectorFunction",
    "LogProbPipeline",
    "RewardFunction",
    "detector_from_plugin",
    "embedded_model",
    "guidance_from_plugins",
    "prompts_from_plugin",
    "reward_from_plugin",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return version("ddpo-plugins")
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if "ipykernel" in sys.modules and "trainer_ext.loop.quiet" not in sys.modules:
        import_module(".loop.quiet", __name__).quiet_notebook()
    return getattr(import_module(_MODULES[name], __name__), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
