"""
Compares everything that two runs wrote, except for measured seconds: did they do the same, bit for bit?

    python -m trainer_ext.runs.equality FOLDER OTHER
"""

from __future__ import annotations

import hashlib
import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open

from ..file_names import KOHYA_FILE, REPORT_FILE, STAGING, VOTE_FILE
from .manifest import FINAL, MANIFEST, checkpoints, find_damage
from .setup.record import OF_A_MOMENT

# Measured times, and the mean loss of the run, which `Trainer` averages since the last start and which affects nothing.
CLOCK = ("seconds/", "images_per_second", "eval_runtime", "train_runtime", "train_loss")
CLOCK_ENDINGS = ("_per_second", "_runtime")
SETUP = "run.json"
NOT_COMPARED = (FINAL, KOHYA_FILE, REPORT_FILE, VOTE_FILE)  # how often something was saved; what is made of other files


def differences(first: Path, second: Path) -> list[str]:
    """Return the differences between two runs. Of checkpoints, only those that are whole in both are compared."""
    found = []
    names = [{path for path in _files(folder) if _is_compared(path)} for folder in (first, second)]
    found += [f"{name}: only in one run" for name in sorted(names[0] ^ names[1])]
    for name in sorted(names[0] & names[1]):
        found += _file_differences(first / name, second / name)
    return found + checkpoint_differences(first, second)


def checkpoint_differences(first: Path, second: Path) -> list[str]:
    """Return the differences between the whole checkpoints that two runs have in common; the runs need not be finished."""
    found = []
    for checkpoint in sorted(set(whole_checkpoints(first)) & set(whole_checkpoints(second))):
        names = [set(_files(folder / checkpoint)) - {MANIFEST} for folder in (first, second)]
        found += [f"{checkpoint}/{name}: only in one run" for name in sorted(names[0] ^ names[1])]
        for name in sorted(names[0] & names[1]):
            between = _file_differences(first / checkpoint / name, second / checkpoint / name)
            found += [f"{checkpoint}/{difference}" for difference in between]
    return found


def whole_checkpoints(folder: Path) -> list[str]:
    """Return the names of a run's checkpoints that can be resumed from."""
    return [path.name for path in checkpoints(folder) if find_damage(path) is None]


def _files(folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]


def _is_compared(path: str) -> bool:
    return not path.startswith(("checkpoint-", f"{STAGING}/")) and path not in NOT_COMPARED


def _file_differences(first: Path, second: Path) -> list[str]:
    """Compare the contents of formats that can hold the same content in different bytes; compare the bytes of all others."""
    if first.suffix in (".pt", ".pth"):
        contents = [torch.load(path, weights_only=False) for path in (first, second)]
    elif first.suffix == ".safetensors":
        contents = [_tensors(path) for path in (first, second)]
    elif first.name == "trainer_state.json":
        contents = [_state(path) for path in (first, second)]
    elif first.name == SETUP:
        contents = [json.loads(path.read_text(encoding="utf-8")) for path in (first, second)]
    else:
        contents = [hashlib.sha256(path.read_bytes()).hexdigest() for path in (first, second)]
    return list(_value_differences(first.name, *contents))


def _tensors(path: Path) -> dict[str, Any]:
    with safe_open(path, "pt") as file:
        return {"metadata": file.metadata(), **{name: file.get_tensor(name) for name in file.keys()}}  # noqa: SIM118


def _state(path: Path) -> dict[str, Any]:
    state = json.loads(path.read_text(encoding="utf-8"))
    if state["best_model_checkpoint"] is not None:  # a path that begins with the run's folder
        state["best_model_checkpoint"] = Path(state["best_model_checkpoint"]).name
    return state


def _value_differences(name: str, first: Any, second: Any) -> Iterator[str]:
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        first, second = ({key: value for key, value in side.items() if not _is_clock(key)} for side in (first, second))
        for key in sorted(first.keys() ^ second.keys(), key=str):
            yield f"{name}.{key}: only in one run"
        for key in first:
            if key in second:
                yield from _value_differences(f"{name}.{key}", first[key], second[key])
    elif isinstance(first, list | tuple) and isinstance(second, list | tuple):
        if len(first) != len(second):
            yield f"{name}: {len(first)} and {len(second)} values"
        for index, pair in enumerate(zip(first, second, strict=False)):
            yield from _value_differences(f"{name}[{index}]", *pair)
    elif not _is_same(first, second):
        yield f"{name}: {_short(first)} and {_short(second)}"


def _is_clock(key: Any) -> bool:
    return isinstance(key, str) and (key.startswith(CLOCK) or key.endswith(CLOCK_ENDINGS) or key in OF_A_MOMENT)


def _is_same(first: Any, second: Any) -> bool:
    if isinstance(first, torch.Tensor) and isinstance(second, torch.Tensor):
        # the bytes, so that NaN equals NaN and -0 differs from 0
        return first.dtype == second.dtype and first.shape == second.shape and _bytes(first) == _bytes(second)
    if isinstance(first, np.ndarray):
        return isinstance(second, np.ndarray) and first.dtype == second.dtype and first.tobytes() == second.tobytes()
    if isinstance(first, float) and isinstance(second, float) and math.isnan(first):
        return math.isnan(second)
    return type(first) is type(second) and bool(first == second)


def _bytes(tensor: torch.Tensor) -> bytes:
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def main(arguments: Sequence[str]) -> int:
    """Print what differs between two folders; return 1 if anything does."""
    found = differences(*map(Path, arguments))
    print("\n".join(found) if found else "The runs are equal.")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
