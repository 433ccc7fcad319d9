"""PLACEHOLDER until the branch `cards` is merged."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ..file_names import LORA_FILE
from ..runs.folder import RunFolder


def adapter_card(folder: RunFolder, repo_id: str, dataset_id: str | None = None, existing: str | None = None) -> str:
    """PLACEHOLDER."""
    return f"---\nlibrary_name: diffusers\n---\n# {repo_id}\n"


def adapter_files(folder: RunFolder) -> Mapping[str, Path | bytes]:
    """PLACEHOLDER."""
    names = (LORA_FILE, "run.json", "reward_curve.png", "samples/before_after.png")
    return {name: folder.path / name for name in names if (folder.path / name).is_file()}
