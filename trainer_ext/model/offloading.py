"""Components in host memory: each of their layers is on the device only while it computes, by diffusers' own hooks."""

from __future__ import annotations

import weakref

import torch
from diffusers.hooks import HookRegistry, apply_group_offloading

HOOK = "group_offloading"  #: diffusers' name of its hook

_COMPUTES_ON: weakref.WeakKeyDictionary[torch.nn.Module, torch.device] = weakref.WeakKeyDictionary()


def offload(component: torch.nn.Module, device: torch.device) -> None:
    """
    Keep a component in host memory, and bring its layers to `device` one by one.

    Larger groups than layers would wait for the component's `forward`, which the VAE's `decode` is not.
    """
    apply_group_offloading(component, onload_device=device, offload_type="leaf_level")
    _COMPUTES_ON[component] = device


def stop_offloading(component: torch.nn.Module) -> None:
    """Leave a component that is offloaded where it is, in host memory."""
    HookRegistry.check_if_exists_or_initialize(component).remove_hook(HOOK, recurse=True)
    del _COMPUTES_ON[component]


def offloaded_from(component: torch.nn.Module) -> torch.device | None:
    """Return where a component computes that is offloaded."""
    return _COMPUTES_ON.get(component)
