"""Default models of rewards, with their revisions, and errors for missing packages."""

from __future__ import annotations

from pathlib import Path

from ddpo_plugins import PluginError

LLAVA = "llava-hf/llava-1.5-7b-hf"
LLAVA_REVISION = "b234b804b114d9e37bb655e11cbbb5f5e971b7a9"
DEBERTA = "microsoft/deberta-xlarge-mnli"
DEBERTA_REVISION = "5b07a9086c1dbb79981ff7b05b4d1ad83b3af51c"


def revision_of(model: str, revision: str | None, pinned: tuple[str, str], option: str = "revision") -> str | None:
    """
    Return the revision to load; `None` for a folder, which has no revision.

    Args:
        model (`str`):
            Hub id or folder.
        revision (`str`, *optional*):
            The revision that the user asked for, or the default.
        pinned (`tuple[str, str]`):
            The default model and its revision.
        option (`str`, *optional*, defaults to `"revision"`):
            Name of the option, for the message.

    Raises:
        [`PluginError`]: the revision is the default model's, and the model is not.
    """
    if Path(model).is_dir():
        return None
    if model != pinned[0] and revision == pinned[1]:
        raise PluginError(
            f"{option} {revision!r} belongs to the default model {pinned[0]!r}, not to {model!r}. Choose one of its revisions "
            f"to load: {option}='main' for the newest, or better a commit, which never changes."
        )
    return revision


def missing_extra(what: str, extra: str) -> PluginError:
    """Return the error for a package that is not installed."""
    return PluginError(f"{what} is not installed. Install it: pip install 'ddpo-plugins[{extra}]'.")
