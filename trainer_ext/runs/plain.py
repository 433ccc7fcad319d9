"""
A checkpoint without pickles, to be handed on: torch's own files become safetensors for tensors and JSON for all else.

torch saves by pickling, which can run code where a file is loaded. The way back gives the same values, bit for bit.
"""

from __future__ import annotations

import base64
import json
import shutil
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from ..errors import CheckpointError
from .atomic import replacing
from .contents import load_plain
from .manifest import MANIFEST, find_damage, write_manifest

PICKLED = (".pt", ".pth")
TREE = ".tree.json"  #: end of the name of a file with the structure of a pickled one
TENSORS = ".tensors.safetensors"  #: end of the name of the file with its tensors
Tensors = dict[str, torch.Tensor]


def is_plain(folder: Path) -> bool:
    """Return whether a folder is a checkpoint without pickles."""
    return (folder / MANIFEST).is_file() and any(folder.glob(f"*{TREE}"))


def write_plain(checkpoint: Path, folder: Path) -> None:
    """
    Write a checkpoint without pickles.

    Args:
        checkpoint (`Path`):
            The checkpoint, as training writes it.
        folder (`Path`):
            The folder to write; what it holds is replaced.

    Raises:
        [`CheckpointError`]: the checkpoint is damaged, or holds values of other types than checkpoints do.
    """
    _check(checkpoint)
    with replacing(folder) as place:
        for file in (path for path in sorted(checkpoint.rglob("*")) if path.is_file() and path.name != MANIFEST):
            target = place / file.relative_to(checkpoint)
            target.parent.mkdir(parents=True, exist_ok=True)
            if file.suffix in PICKLED:
                _write(load_plain(file), target)
            else:
                shutil.copyfile(file, target)
        write_manifest(place)


def restore(folder: Path, checkpoint: Path) -> None:
    """
    Write the checkpoint that [`write_plain`] was given, as training reads it.

    Raises:
        [`CheckpointError`]: the folder is damaged.
    """
    _check(folder)
    with replacing(checkpoint) as place:
        for file in (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != MANIFEST):
            target = place / file.relative_to(folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            if file.name.endswith(TREE):
                torch.save(_read(file), target.with_name(file.name.removesuffix(TREE)))
            elif not file.name.endswith(TENSORS):
                shutil.copyfile(file, target)
    write_manifest(checkpoint)


def _check(folder: Path) -> None:
    problem = find_damage(folder) if folder.is_dir() else "there is no such folder"
    if problem is not None:
        raise CheckpointError(f"{folder} cannot be used: {problem}.")


def _write(value: Any, target: Path) -> None:
    tensors: Tensors = {}
    tree = _encoded(value, tensors)
    target.with_name(target.name + TREE).write_text(json.dumps(tree), encoding="utf-8")
    save_file(tensors, target.with_name(target.name + TENSORS))


def _read(file: Path) -> Any:
    tensors = load_file(file.with_name(file.name.removesuffix(TREE) + TENSORS))
    try:
        return _decoded(json.loads(file.read_text(encoding="utf-8")), tensors)
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{file} is not what a checkpoint's file says: {type(error).__name__}: {error}"
        ) from error


def _encoded(value: Any, tensors: Tensors) -> Any:
    """Return a value that JSON can hold: itself, or `[kind, content]`. Tensors are added to `tensors`."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, torch.Tensor | np.ndarray):
        name = str(len(tensors))
        tensors[name] = (
            (torch.from_numpy(value) if isinstance(value, np.ndarray) else value.detach()).contiguous().clone()
        )
        return ["array" if isinstance(value, np.ndarray) else "tensor", name]
    if isinstance(value, Mapping):
        pairs = [[_encoded(key, tensors), _encoded(item, tensors)] for key, item in value.items()]
        return ["ordered" if isinstance(value, OrderedDict) else "dict", pairs]
    for kind, type_ in (("size", torch.Size), ("tuple", tuple), ("list", list)):
        if isinstance(value, type_):
            return [kind, [_encoded(item, tensors) for item in value]]
    if isinstance(value, torch.dtype | torch.device):
        return [type(value).__name__, str(value).removeprefix("torch.")]
    if isinstance(value, bytes):
        return ["bytes", base64.b64encode(value).decode()]
    raise CheckpointError(
        f"A checkpoint holds a {type(value).__name__}, which has no form without pickles: {value!r:.100}"
    )


def _decoded(value: Any, tensors: Tensors) -> Any:
    if not isinstance(value, list):
        return value
    kind, content = value
    return DECODERS[kind](content, tensors)


def _sequence(make: Callable[[list[Any]], Any]) -> Callable[[Any, Tensors], Any]:
    return lambda content, tensors: make([_decoded(item, tensors) for item in content])


def _mapping(make: Callable[[list[tuple[Any, Any]]], Any]) -> Callable[[Any, Tensors], Any]:
    return lambda content, tensors: make([(_decoded(k, tensors), _decoded(v, tensors)) for k, v in content])


def _dtype(content: Any, tensors: Tensors) -> torch.dtype:
    dtype = vars(torch)[content]
    if not isinstance(dtype, torch.dtype):
        raise ValueError(f"torch has no dtype {content!r}")
    return dtype


DECODERS: Mapping[str, Callable[[Any, Tensors], Any]] = {
    "tensor": lambda content, tensors: tensors[content],
    "array": lambda content, tensors: tensors[content].numpy(),
    "dict": _mapping(dict),
    "ordered": _mapping(OrderedDict),
    "list": _sequence(list),
    "tuple": _sequence(tuple),
    "size": _sequence(torch.Size),
    "dtype": _dtype,
    "device": lambda content, tensors: torch.device(content),
    "bytes": lambda content, tensors: base64.b64decode(content),
}
