"""Detector of degenerate images: one colour, noise, pure colours, periodic grids."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ddpo_plugins import DetectorSpec, LogExtra, log_nothing

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

    FloatArray = NDArray[np.float64]

SMALLEST = 16  # pixels per side; smaller images have no useful spectrum
LOWEST_FREQUENCY = 4  # periods in an image; fewer do not count as a grid


def ramp(value: float, zero: float, one: float) -> float:
    """Return 0 on one side of `zero`, 1 on the other side of `one`, and a straight line between."""
    return min(1.0, max(0.0, (value - zero) / (one - zero)))


def flatness(pixels: FloatArray) -> float:
    """
    Return how sure it is that an image has collapsed to one colour.

    Measured by the standard deviation of the pixels, root mean square over channels: 1 up to 0.01, 0 from 0.04.

    Args:
        pixels (`np.ndarray` of shape `(H, W, 3)`):
            RGB in [0, 1], as for the other functions.
    """
    return ramp(float(pixels.var(axis=(0, 1)).mean()) ** 0.5, zero=0.04, one=0.01)


def neighbor_correlation(pixels: FloatArray) -> float:
    """
    Return the correlation of neighbouring pixels: 0 for white noise, near 1 for pictures.

    By von Neumann's ratio (Annals of Mathematical Statistics 12, 1941): 1 - mean squared difference of neighbours / twice
    the variance, over rows, columns and channels. 1 for one colour.
    """
    import numpy as np

    variance = pixels.var(axis=(0, 1)).mean()
    if variance == 0:
        return 1.0
    differences = [np.diff(pixels, axis=axis) ** 2 for axis in (0, 1)]
    return float(1 - sum(squares.mean() for squares in differences if squares.size) / 4 / variance)


def noisiness(pixels: FloatArray) -> float:
    """Return how sure it is that an image is noise: 1 where neighbours are correlated by less than 0.3, 0 from 0.6."""
    if min(pixels.shape[:2]) < SMALLEST:
        return 0.0
    return ramp(neighbor_correlation(pixels), zero=0.6, one=0.3)


def oversaturation(pixels: FloatArray) -> float:
    """
    Return how sure it is that an image consists of pure colours.

    Measured by the share of pixels whose chroma, the largest channel minus the smallest, is 0.9 or more: 0 up to 0.4, 1 from 0.8.
    """
    chroma = pixels.max(axis=2) - pixels.min(axis=2)
    return ramp(float((chroma >= 0.9).mean()), zero=0.4, one=0.8)


def periodicity(pixels: FloatArray) -> float:
    """
    Return how sure it is that an image has a grid, such as upsampling layers leave (Zhang, Karaman, Chang, arXiv:1907.06515).

    A grid is an isolated peak in the power spectrum of the luminance. Of all frequencies with `LOWEST_FREQUENCY` periods or
    more, the one with the largest product of two ramps counts. One is over the ratio, from 10 to 100 by logarithm, of its power
    to the largest power 3 or 4 bins around it, where the streaks and clouds of edges and textures would continue; the other is
    over its share of the variance, from 0.005 to 0.03.
    """
    import numpy as np

    height, width = pixels.shape[:2]
    if min(height, width) < SMALLEST:
        return 0.0
    power = _power(pixels @ np.array([0.299, 0.587, 0.114]))
    total = power.sum()
    if total <= 1e-12 * height * width:
        return 0.0
    near = _sum_of_neighbors(_sum_of_neighbors(power, 0), 1)
    share = 2 * near / total  # twice: the spectrum of a real image is symmetric
    rows, columns = np.fft.fftfreq(height, 1 / height), np.fft.fftfreq(width, 1 / width)
    high = np.maximum(abs(rows)[:, None], abs(columns)) >= LOWEST_FREQUENCY
    peaks = np.argwhere(high & (share > 0.005))
    ring = np.array([(y, x) for y in range(-4, 5) for x in range(-4, 5) if max(abs(y), abs(x)) >= 3])
    around = power[tuple(np.moveaxis((peaks[:, None] + ring) % power.shape, 2, 0))].max(axis=1, initial=1e-12 * total)
    prominence = np.log10(np.maximum(power[tuple(peaks.T)] / around, 1))
    scores = np.clip(prominence - 1, 0, 1) * np.clip((share[tuple(peaks.T)] - 0.005) / 0.025, 0, 1)
    return float(scores.max(initial=0.0))


def _sum_of_neighbors(values: FloatArray, axis: int) -> FloatArray:
    import numpy as np

    return np.roll(values, 1, axis) + values + np.roll(values, -1, axis)


def _power(luminance: FloatArray) -> FloatArray:
    """Return the power spectrum under a Hann window, which keeps aperiodic content from leaking everywhere."""
    import numpy as np

    window = np.hanning(luminance.shape[0])[:, None] * np.hanning(luminance.shape[1])
    spectrum = np.fft.fft2((luminance - np.average(luminance, weights=window)) * window)
    return np.square(np.abs(spectrum), dtype=np.float64)


KINDS: dict[str, Callable[[FloatArray], float]] = {
    "one colour": flatness,
    "noise": noisiness,
    "pure colours": oversaturation,
    "grid": periodicity,
}


def blank_or_noise(
    images: list[Image.Image],
    prompts: list[str],
    log_extra: LogExtra = log_nothing,
    **columns: Any,
) -> list[float]:
    """Return for each image how sure it is that it is degenerate: the largest value of all `KINDS`, in [0, 1]."""
    import numpy as np

    arrays = [np.asarray(image.convert("RGB"), np.float64) / 255 for image in images]
    found = [{kind: measure(pixels) for kind, measure in KINDS.items()} for pixels in arrays]
    surest = [max(scores, key=lambda kind: scores[kind]) for scores in found]
    scores = [scores[kind] for scores, kind in zip(found, surest, strict=True)]
    log_extra("blank_or_noise/kind", [kind if score else "" for kind, score in zip(surest, scores, strict=True)])
    return scores


DETECTORS = (
    DetectorSpec(
        "blank_or_noise",
        lambda device: blank_or_noise,
        "Is the image one colour, noise, pure colours, or under a periodic grid?",
    ),
)
