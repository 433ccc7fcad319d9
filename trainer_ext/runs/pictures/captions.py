"""Prompts as captions of pictures: any text, in the width that there is."""

from __future__ import annotations

import textwrap
import unicodedata

from .lettering import can_be_shown

MAX_LINES = 3
LINE_WIDTH = 26  # of a narrow letter
MAX_SCANNED = 1000  # characters of a prompt that are looked at; no caption shows as many


def caption(prompt: str, index: int) -> str:
    """
    Return a prompt as a caption: wrapped, cut, and without characters that no installed font has.

    Args:
        prompt (`str`):
            Any text.
        index (`int`):
            Its number, which stands for a prompt of which nothing can be shown.
    """
    text = "".join(char if can_be_shown(char) else " " for char in prompt[:MAX_SCANNED])
    lines = _wrapped(" ".join(text.split()))
    shown = "\n".join(lines)
    return shown if any(map(str.isalnum, shown)) else f"prompt {index}"


def _wrapped(text: str) -> list[str]:
    """Return at most [`MAX_LINES`] lines. Wide characters, such as Chinese ones, take the place of two."""
    wide = sum(unicodedata.east_asian_width(char) in "WF" for char in text)
    width = LINE_WIDTH // 2 if 2 * wide > len(text) else LINE_WIDTH
    return textwrap.wrap(text, width, max_lines=MAX_LINES, placeholder=" …")
