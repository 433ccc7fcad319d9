"""Z-Image's guidance with `cfg_normalization`, which limits the length of the guided prediction."""

from ddpo_plugins import GuidanceSpec, hookimpl

PIPELINES = ("ZImagePipeline", "ZImageImg2ImgPipeline", "ZImageInpaintPipeline")


def norm_limited(outputs, guidance_scale, arguments):
    """As `ZImagePipeline.__call__` does it, operation by operation: ratios are then exactly 1 before any update."""
    import torch  # here, not above: plugins are listed without it

    cond, uncond = outputs
    guided = cond + guidance_scale * (cond - uncond)
    limit = float(arguments.get("cfg_normalization") or 0.0)  # times the conditional prediction's length
    if not limit > 0:
        return guided
    longest = [limit * torch.linalg.vector_norm(own) for own in cond]
    return torch.stack([_limited(*both) for both in zip(guided, longest, strict=True)])


def _limited(prediction, longest):
    import torch

    length = torch.linalg.vector_norm(prediction)  # of one image: it must not depend on the batch
    return prediction * (longest / length) if length > longest else prediction


@hookimpl
def ddpo_register_guidance():
    return [
        GuidanceSpec(
            "zimage_norm_limited",
            norm_limited,
            "cfg_from_cond, no longer than cfg_normalization x the conditional prediction.",
            pipelines=PIPELINES,
        )
    ]
