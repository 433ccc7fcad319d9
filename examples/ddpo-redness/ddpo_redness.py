from PIL import ImageStat

from ddpo_plugins import RewardSpec, hookimpl


def redness(images, prompts, **columns):
    means = [ImageStat.Stat(image).mean for image in images]  # red, green, blue in [0, 255]
    return [(red - (green + blue) / 2) / 255 for red, green, blue in means]


@hookimpl
def ddpo_register_rewards():
    return [RewardSpec("redness", lambda device: redness, "Mean red minus mean of green and blue, in [-1, 1].")]
