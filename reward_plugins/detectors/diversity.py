"""Detector of similar images of one prompt, from a model that always makes the same picture."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ddpo_plugins import DetectorSpec, LogExtra, log_nothing
from ddpo_plugins.prompt_rows import images_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

THUMBNAIL = 8  # pixels per side: enough for layout and colours, without detail
FAR = 0.2  #: root mean square difference of two thumbnails, RGB in [0, 1], at and above which two images have nothing in common


def thumbnail(image: Image.Image) -> NDArray[np.float64]:
    """Return the mean colours of an image's 8 x 8 parts, RGB in [0, 1], as `(192,)`."""
    import numpy as np
    from PIL import Image

    small = image.convert("RGB").resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX)
    return np.asarray(small, np.float64).ravel() / 255


def distances(thumbnails: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return how far images `(N, D)` are apart, `(N, N)` in [0, 1]: min(1, root mean square difference / `FAR`)."""
    import numpy as np

    squares = np.stack([((thumbnails - one) ** 2).mean(axis=1) for one in thumbnails])
    return np.minimum(1.0, np.sqrt(squares) / FAR)


def low_diversity(
    images: list[Image.Image],
    prompts: list[str],
    log_extra: LogExtra = log_nothing,
    **columns: Any,
) -> list[float | None]:
    """
    Return 1 - mean distance to the other images of the same prompt in this call, in [0, 1].

    1 for equal images, about 0 for independent ones; `None` for the only image of its prompt. The mean over a prompt's
    images is 1 - their mean pairwise distance. It sees the images of one call, so put those of a prompt into one batch.
    """
    import numpy as np

    groups = images_of(prompts)
    scores: list[float | None] = [None] * len(images)
    for members in groups.values():
        if len(members) > 1:
            apart = distances(np.stack([thumbnail(images[index]) for index in members])).sum(axis=1)
            for index, total in zip(members, apart, strict=True):
                scores[index] = float(1 - total / (len(members) - 1))
    log_extra("low_diversity/group_size", [len(groups[prompt]) for prompt in prompts])
    return scores


DETECTORS = (
    DetectorSpec(
        "low_diversity",
        lambda device: low_diversity,
        "Are the images of a prompt alike? Compares those in one batch; None for the only one of its prompt.",
    ),
)
