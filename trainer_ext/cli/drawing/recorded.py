"""What the record of a run says about how its images are drawn, and where its weights are."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...errors import ConfigError
from ...file_names import why_no_place
from ...options import DDPOOptions

SETTINGS = ("num_inference_steps", "guidance_scale", "eta", "pipeline_kwargs")  #: options that determine an image
SETUP_FILE = "run.json"


def recorded_settings(run: str) -> dict[str, Any]:
    """
    Return the model of a run, and the settings with which it sampled, from its record; nothing if it has none.

    Args:
        run (`str`):
            A run's folder, a checkpoint in one, any other folder, or the id of an adapter on the Hub.

    Raises:
        [`ConfigError`]: there is no such folder, and no id on the Hub looks like this.
        [`HubError`]: the Hub cannot be asked.
    """
    problem = why_no_place(run)
    if problem is not None:
        raise ConfigError(
            f"The adapter {run!r} does not load: {problem}. Give the folder of a run, or an id on the Hub."
        )
    setup = _setup_on_disk(Path(run).expanduser()) if Path(run).expanduser().exists() else _setup_on_hub(run)
    if setup is None:
        return {}
    settings = {name: setup.get("options", {}).get(name, vars(DDPOOptions)[name]) for name in SETTINGS}
    settings["sampler"] = setup.get("sampler")
    return {**settings, **({"model_name_or_path": setup["model"]} if setup.get("model") else {})}


def newest_weights_of(run: str) -> str:
    """
    Return the folder with the newest weights of a run: its own, or a checkpoint if it was interrupted; a Hub id as it is.

    Raises:
        [`ConfigError`]: the folder holds none.
    """
    from ...runs.final_weights import WEIGHTS, newest_weights

    path = Path(run).expanduser()
    if not path.exists():
        return run
    for folder in newest_weights(path):
        if any((folder / name).is_file() for name in WEIGHTS):
            return str(folder)
    raise ConfigError(
        f"The adapter {run!r} does not load: the folder holds none of {', '.join(WEIGHTS)}, and no checkpoint. Give the output "
        "folder of a run that was trained."
    )


def _setup_on_disk(path: Path) -> Mapping[str, Any] | None:
    """Return the last setup of a run, of which `path` is the folder, or a checkpoint."""
    for folder in (path, path.resolve().parent):
        if (folder / SETUP_FILE).is_file():
            return _last((folder / SETUP_FILE).read_text(encoding="utf-8"))
    return None


def _setup_on_hub(name: str) -> Mapping[str, Any] | None:
    from ...hub.client import Hub

    content = Hub().read(name, SETUP_FILE)
    return None if content is None else _last(content)


def _last(content: str) -> Mapping[str, Any]:
    try:
        return dict(json.loads(content)["runs"][-1])
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise ConfigError(
            f"{SETUP_FILE} of this run cannot be read ({type(error).__name__}: {error}). Give a folder without it, and the "
            "options --model_name_or_path, --num_inference_steps, --guidance_scale and --eta."
        ) from error
