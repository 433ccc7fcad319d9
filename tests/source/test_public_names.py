"""What `import trainer_ext` offers."""

import subprocess
import sys
from importlib.metadata import version

import pytest

import ddpo_plugins
import trainer_ext

NAMES = [
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


def test_the_eleven_names():
    assert trainer_ext.__all__ == NAMES
    assert dir(trainer_ext) == sorted([*NAMES, "__version__"])
    for name in NAMES:
        assert getattr(trainer_ext, name).__name__ == name


def test_the_version_is_the_distributions():
    assert trainer_ext.__version__ == version("ddpo-plugins")


def test_other_names():
    with pytest.raises(AttributeError, match="module 'trainer_ext' has no attribute 'DDPO'"):
        trainer_ext.DDPO  # noqa: B018


def test_the_import_is_light():
    heavy = "{'torch', 'diffusers', 'transformers', 'numpy'} & set(sys.modules)"
    subprocess.run(
        [sys.executable, "-c", f"import sys, trainer_ext, ddpo_plugins; sys.exit(bool({heavy}))"], check=True
    )


def test_what_plugins_import():
    """Names that plugins of other people import, so that they cannot go."""
    for name in ddpo_plugins.__all__:
        assert getattr(ddpo_plugins, name) is not None
    assert {"LogExtra", "RewardSpec", "hookimpl", "log_nothing"} <= set(ddpo_plugins.__all__)
