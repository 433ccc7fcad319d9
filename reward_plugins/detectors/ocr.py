"""Reads the text in images, with the models that are part of the package `rapidocr`: nothing is downloaded."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, lru_cache
from hashlib import sha256
from typing import TYPE_CHECKING, Any, TypeAlias

from ddpo_plugins.errors import PluginError, RewardError

from .resemblance import Line

if TYPE_CHECKING:
    from PIL import Image

#: Sides in pixels to which images are resized: the smaller finds words that fill the image, the larger finds small ones.
SIDES = (160, 448)

#: Chosen on `benchmarks/labelled_images.py`'s world "tune". Detection is more sensitive than rapidocr's defaults, because
#: noise that is taken for text resembles no prompt.
SETTINGS = {
    "Global.log_level": "critical",
    "Global.text_score": 0.0,
    "Global.use_cls": False,
    "Det.limit_type": "max",
    "Det.thresh": 0.2,
    "Det.box_thresh": 0.3,
    "EngineConfig.onnxruntime.inter_op_num_threads": 1,
}

Reading: TypeAlias = tuple[Line, ...]  # in reading order


@contextmanager
def needed_packages() -> Iterator[None]:
    """
    Context manager for imports of packages that the extra installs.

    Raises:
        [`PluginError`]: the extra is missing; the message says how to install it.
    """
    try:
        yield
    except ImportError as error:
        raise PluginError(
            f"This detector needs packages that are not installed: {error}. Run: pip install 'ddpo-plugins[detectors]'"
        ) from error


class Reader:
    """
    Reads images with PP-OCRv6, as included in rapidocr 3.10, on the CPU.

    Args:
        num_threads (`int`):
            Threads that read one image.

    Raises:
        [`PluginError`]: rapidocr or onnxruntime is missing, or does not load.
    """

    def __init__(self, num_threads: int):
        with needed_packages():
            import onnxruntime  # noqa: F401 - rapidocr imports it at the first image only
            from rapidocr import RapidOCR
        threads = {"EngineConfig.onnxruntime.intra_op_num_threads": num_threads}
        try:
            self._engine = RapidOCR(params={**SETTINGS, **threads, "Det.limit_side_len": max(SIDES)})
            self._load()
        except Exception as error:  # of many kinds: onnxruntime's, omegaconf's, a download where a model's file is gone
            raise PluginError(
                f"rapidocr does not load: {type(error).__name__}: {error}. It brings its models along; if they are gone, "
                "run: pip install --force-reinstall --no-deps rapidocr"
            ) from error
        self._read = lru_cache(maxsize=64)(self._read_pixels)  # for the second detector that asks about the same batch

    def read(self, image: Image.Image) -> tuple[Reading, ...]:
        """
        Return the text in an image: one reading for each of [`SIDES`].

        Raises:
            [`RewardError`]: rapidocr failed.
        """
        image = image.convert("RGB")
        return self._read(_Pixels(sha256(image.tobytes() + repr(image.size).encode()).digest(), image))

    def _load(self) -> None:
        """Load both models now, not at the first text."""
        import numpy as np

        blank = np.full((32, 64, 3), 255, np.uint8)
        self._engine(blank, use_det=True, use_rec=False)
        self._engine(blank, use_det=False, use_rec=True)

    def _read_pixels(self, pixels: _Pixels) -> tuple[Reading, ...]:
        try:
            return tuple(self._read_at(pixels.image, side) for side in SIDES)
        except Exception as error:
            raise RewardError(
                f"rapidocr failed to read an image of {pixels.image.width} x {pixels.image.height} pixels: "
                f"{type(error).__name__}: {error}. If the image is sound, please report it to rapidocr."
            ) from error

    def _read_at(self, image: Image.Image, side: int) -> Reading:
        import numpy as np
        from PIL import Image, ImageOps

        middle = tuple(int(value) for value in np.asarray(image).mean(axis=(0, 1)))
        square = ImageOps.pad(image, (side, side), Image.Resampling.BICUBIC, middle)
        shown = min(image.size) / max(image.size)  # share of the square that is image
        result = self._engine(np.asarray(square)[..., ::-1], use_det=True, use_rec=True)
        if result.txts is None:
            return ()
        return tuple(
            Line(text, float(confidence), min(1.0, _area(box) / side**2 / shown))
            for text, confidence, box in zip(result.txts, result.scores, result.boxes, strict=True)
        )


@dataclass(frozen=True)
class _Pixels:
    digest: bytes
    image: Image.Image = field(compare=False)


def _area(box: Any) -> float:
    """Return the area of a polygon `(N, 2)` by the shoelace formula, in square pixels."""
    import numpy as np

    x, y = box.T
    return abs(float((x * np.roll(y, -1) - y * np.roll(x, -1)).sum())) / 2


@cache
def shared_reader(num_threads: int) -> Reader:
    """Return this process's reader, which all detectors of text share."""
    return Reader(num_threads)
