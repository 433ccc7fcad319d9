"""Emoji art: from the icon sets on npm to one small file that needs neither npm nor a network."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from .words import ICON_NAMES, PROPS, SUBJECTS

SIZE = 96  #: pixels, of the longer side: a little more than scenes need

#: Sets whose icons the generator is trained on, and those that only the judge sees besides. MIT or Apache-2.0, all.
GENERATOR_SETS = ("noto", "fluent-emoji-flat")
JUDGE_SETS = ("noto-v1", "fluent-emoji")

#: word -> icon set -> RGBA image, cropped to what is not transparent
Art = Mapping[str, Mapping[str, Image.Image]]


def render(icon_sets: Path) -> Art:
    """
    Draw the icons of all words.

    Args:
        icon_sets (`Path`): The folder that `npm install @iconify-json/noto ...` made: `node_modules/@iconify-json`.

    Raises:
        `FileNotFoundError`: An icon set is not installed.
        `ValueError`: One of the generator's sets has no icon for a word.
    """
    art: dict[str, dict[str, Image.Image]] = {}
    for name in (*GENERATOR_SETS, *JUDGE_SETS):
        for word, icon in _drawn(_read_set(icon_sets / name), name):
            art.setdefault(word, {})[name] = icon
    return art


def save(art: Art, file: Path) -> None:
    """Write icons to one `.npz`: `word/set` -> the bytes of a PNG."""
    icons = {f"{word}/{name}": _png(icon) for word, icons in art.items() for name, icon in icons.items()}
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_suffix(".part.npz")
    np.savez(temporary, **icons)  # type: ignore[arg-type] # numpy's stub takes the names for its own option
    temporary.replace(file)


def load(file: Path) -> Art:
    """Read what [`save`] wrote."""
    art: dict[str, dict[str, Image.Image]] = {}
    with np.load(file) as icons:
        for key in icons.files:
            word, name = key.split("/")
            art.setdefault(word, {})[name] = _image(icons[key])
    return art


def only(art: Art, sets: tuple[str, ...]) -> Art:
    """Keep the icons of some sets."""
    return {word: {name: icon for name, icon in icons.items() if name in sets} for word, icons in art.items()}


def _read_set(folder: Path) -> dict[str, Any]:
    try:
        return json.loads((folder / "icons.json").read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"There is no icon set in {folder}. Install it with `npm install @iconify-json/{folder.name}` and give the "
            f"folder node_modules/@iconify-json as --icon_sets."
        ) from error


def _drawn(icon_set: dict[str, Any], name: str) -> Iterator[tuple[str, Image.Image]]:
    """Draw the words that the set has an icon for; the generator's sets must have all."""
    for word in tqdm((*SUBJECTS, *PROPS), desc=name, unit="icon"):
        icon = _find(icon_set, ICON_NAMES.get(word, word))
        if icon is not None:
            yield word, _draw(icon, icon_set)
        elif name in GENERATOR_SETS:
            raise ValueError(f"The icon set {name!r} has no icon for {word!r}: name one in ICON_NAMES.")


def _find(icon_set: dict[str, Any], name: str) -> dict[str, Any] | None:
    name = icon_set.get("aliases", {}).get(name, {}).get("parent", name)
    return icon_set["icons"].get(name)


def _draw(icon: dict[str, Any], icon_set: dict[str, Any]) -> Image.Image:
    import resvg_py  # type: ignore[import-not-found, unused-ignore] # here: only this stage needs it

    width, height = (icon.get(side, icon_set.get(side, 16)) for side in ("width", "height"))
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="0 0 {width} {height}" width="{2 * SIZE}" height="{2 * SIZE}">{icon["body"]}</svg>'
    )
    image = Image.open(io.BytesIO(bytes(resvg_py.svg_to_bytes(svg_string=svg)))).convert("RGBA")
    image = image.crop(image.getchannel("A").getbbox())
    image.thumbnail((SIZE, SIZE), Image.Resampling.LANCZOS)
    return image


def _png(image: Image.Image) -> NDArray[np.uint8]:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return np.frombuffer(buffer.getvalue(), np.uint8)


def _image(png: NDArray[np.uint8]) -> Image.Image:
    return Image.open(io.BytesIO(png.tobytes())).convert("RGBA")
