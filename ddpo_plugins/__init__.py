'''
Rewards, detectors, prompt sets and guidance rules for `DDPOTrainer`, from any package.

A complete plugin is one module, `ddpo_redness.py`:

```python
from ddpo_plugins import RewardSpec, hookimpl
from PIL import ImageStat


def redness(images, prompts, **columns):
    """Mean red minus the mean of green and blue, in [-1, 1]."""
    means = [ImageStat.Stat(image).mean for image in images]  # RGB in [0, 255]
    return [(red - (green + blue) / 2) / 255 for red, green, blue in means]


@hookimpl
def ddpo_register_rewards():
    return [RewardSpec("redness", lambda device: redness, "Mean red minus mean of green and blue, in [-1, 1].")]
```

and two lines of its `pyproject.toml`:

```toml
[project.entry-points.ddpo_plugins]
redness = "ddpo_redness"
```

Once installed, `load_catalogue().rewards["redness"].spec.factory(device="cpu")` is the reward. What a hook may do is in
`ddpo_plugins.hookspecs`, how a reward is called in [`Reward`].
'''

from .catalogue import Catalogue
from .contract import LogExtra, log_nothing
from .errors import (
    ContractError,
    DDPOError,
    DuplicateNameError,
    InvalidSpecError,
    PluginError,
    RewardError,
    UnknownNameError,
)
from .hookspecs import hookimpl
from .manager import load_catalogue
from .specs import DetectorSpec, GuidanceSpec, PromptSetSpec, Reward, RewardSpec

__all__ = [
    "Catalogue",
    "ContractError",
    "DDPOError",
    "DetectorSpec",
    "DuplicateNameError",
    "GuidanceSpec",
    "InvalidSpecError",
    "LogExtra",
    "PluginError",
    "PromptSetSpec",
    "Reward",
    "RewardError",
    "RewardSpec",
    "UnknownNameError",
    "hookimpl",
    "load_catalogue",
    "log_nothing",
]
