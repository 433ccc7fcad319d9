"""What benchmarks share that run `ddpo` in processes of its own: one sentence, not a traceback, where they cannot."""

import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path


def check_new(folders: Iterable[Path]) -> None:
    """End before anything is measured if a folder holds an earlier run, which `ddpo train` would refuse only at its turn."""
    old = [str(folder) for folder in folders if folder.is_dir() and any(folder.iterdir())]
    if old:
        raise SystemExit(
            f"There are files of an earlier run in {', '.join(old)}. Remove them, or give another --output_dir."
        )


def run(command: Sequence[str], environment: Mapping[str, str] | None = None, shows: bool = True) -> None:
    """Run a command, which says itself what is wrong, and end with it if it fails."""
    found = subprocess.run(command, env=environment, stdout=None if shows else subprocess.DEVNULL)
    if found.returncode:
        raise SystemExit(f"The command failed with status {found.returncode}: {' '.join(command)}")
