"""Prompts as captions of pictures: any text, in the width that there is."""

from __future__ import annotations

import functools
import textwrap
import unicodedata

MAX_LINES = 3
LINE_WIDTH = 26  # of a narrow letter
MAX_SCANNED = 1000  # characters of a prompt that are looked at; no caption shows as many
# Matplotlib ships the first one. The others are used where they are installed.
FONTS = (
    "DejaVu Sans",
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "Source Han Sans SC",
    "WenQuanYi Zen Hei",
    "WenQuanYi Micro Hei",
    "PingFang SC",
    "Hiragino Sans",
    "Microsoft YaHei",
    "Yu Gothic",
    "Malgun Gothic",
    "Arial Unicode MS",
    "Noto Sans Devanagari",
    "Noto Sans Thai",
    "Noto Emoji",
)


def caption(prompt: str, index: int) -> str:
    """
    Return a prompt as a caption: wrapped, cut, and without characters that no installed font has.

    Args:
        prompt (`str`):
            Any text.
        index (`int`):
            Its number, which stands for a prompt of which nothing can be shown.
    """
    text = "".join(char if _can_be_shown(char) else " " for char in prompt[:MAX_SCANNED])
    lines = _wrapped(" ".join(text.split()))
    shown = "\n".join(lines)
    return shown if any(map(str.isalnum, shown)) else f"prompt {index}"


def font_families() -> list[str]:
    """Return the fonts of captions that are installed: each character is drawn with the first that has it."""
    return [name for name, _ in _fonts()]


@functools.cache
def _fonts() -> list[tuple[str, frozenset[int]]]:
    """Return name and characters of each font that is installed."""
    from matplotlib import font_manager
    from matplotlib.ft2font import FT2Font

    installed = {font.name for font in font_manager.fontManager.ttflist}
    files = {name: font_manager.findfont(name) for name in FONTS if name in installed}  # of the regular weight
    return [(name, frozenset(FT2Font(file).get_charmap())) for name, file in files.items()]


def _can_be_shown(char: str) -> bool:
    return char.isprintable() and any(ord(char) in characters for _, characters in _fonts())


def _wrapped(text: str) -> list[str]:
    """Return at most [`MAX_LINES`] lines. Wide characters, such as Chinese ones, take the place of two."""
    wide = sum(unicodedata.east_asian_width(char) in "WF" for char in text)
    width = LINE_WIDTH // 2 if 2 * wide > len(text) else LINE_WIDTH
    return textwrap.wrap(text, width, max_lines=MAX_LINES, placeholder=" …")
