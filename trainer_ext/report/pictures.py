"""Pictures of a page: inside of it as data URIs under a limit, or copied beside it."""

from __future__ import annotations

import base64
import io
import os
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import quote

from PIL import Image

PREFIX = "data:image/webp;base64,"
#: Longest side in pixels and quality of WebP, the best first.
LEVELS = ((256, 82), (256, 70), (192, 70), (160, 60), (128, 55), (96, 50), (64, 40))
EFFORT = 2  #: of WebP's encoder, in half the time of its usual 4, for files that are 2 % larger
NUM_TRIED = 24  #: pictures from which the size of all is estimated
MARGIN = 0.9  #: share of the limit that an estimate may take


@dataclass(frozen=True)
class Pictures:
    """
    Where the pictures of a page are.

    Parameters:
        addresses (`Mapping[Path, str]`):
            The `src` of each picture that the page has.
        note (`str`):
            How they differ from the files, for the reader; empty where they do not.
    """

    addresses: Mapping[Path, str]
    note: str = ""

    def address(self, file: Path | None) -> str | None:
        """Return the `src` of a picture; `None` if the page does not have it."""
        return None if file is None else self.addresses.get(file)


def embedded(files: Sequence[Path], limit: int) -> Pictures:
    """
    Return pictures as data URIs, smaller if they must be, and as many as go into the limit.

    Args:
        files (`Sequence[Path]`):
            The pictures, as often as the page shows them, the most important first. Those that cannot be read are left out.
        limit (`int`):
            Bytes that all URIs may take.
    """
    side, quality = _level(files, limit)
    addresses, used, left_out, changed = {}, 0, 0, False
    counted = Counter(files)
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # Pillow lets other threads run while it works
        contents = list(pool.map(partial(_webp, side=side, quality=quality), counted))
    for (file, times), content in zip(counted.items(), contents, strict=True):
        if content is None:
            continue
        size = times * _uri_length(len(content))
        if used + size > limit:
            left_out += 1
            continue
        used += size
        addresses[file] = PREFIX + base64.b64encode(content).decode()
        changed = changed or len(content) != file.stat().st_size
    shown = f"at most {side} pixels wide and high, as WebP of quality {quality}" if changed else ""
    lost = f"{left_out} more do not go into this page" if left_out else ""
    return Pictures(addresses, "; ".join(filter(None, (shown, lost))))


def copied(files: Sequence[Path], root: Path, folder: Path) -> Pictures:
    """
    Copy pictures, as they are, into the folder of a page.

    Args:
        files (`Sequence[Path]`):
            Pictures below `root`.
        root (`Path`):
            The run's folder.
        folder (`Path`):
            The folder of the page.
    """
    addresses = {}
    for file in dict.fromkeys(files):
        place = Path("pictures") / file.relative_to(root)
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, folder / place)
        addresses[file] = quote(place.as_posix())
    return Pictures(addresses)


def _level(files: Sequence[Path], limit: int) -> tuple[int, int]:
    """Return the best level at which all pictures go into the limit, by the sizes of some; the last if none does."""
    tried = files[:: max(1, len(files) // NUM_TRIED)]
    for side, quality in LEVELS:
        sizes = [_uri_length(len(content)) for file in tried if (content := _webp(file, side, quality)) is not None]
        if not sizes or sum(sizes) / len(sizes) * len(files) <= MARGIN * limit:
            return side, quality
    return LEVELS[-1]


def _uri_length(num_bytes: int) -> int:
    return len(PREFIX) + -(-num_bytes // 3) * 4


def _webp(file: Path, side: int, quality: int) -> bytes | None:
    """Return a picture as WebP, as it is if it is small enough; `None` if it cannot be read."""
    try:
        with Image.open(file) as image:
            image.load()
            if image.format == "WEBP" and max(image.size) <= side and (side, quality) == LEVELS[0]:
                return file.read_bytes()
            image.thumbnail((side, side))
            buffer = io.BytesIO()
            image.convert("RGB").save(buffer, "WEBP", quality=quality, method=EFFORT)
            return buffer.getvalue()
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):  # Pillow's kinds of damage
        return None
