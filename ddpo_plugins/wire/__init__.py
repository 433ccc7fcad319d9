"""
What a server of rewards (`ddpo serve-reward`) and its clients say to each other: JSON over HTTP, and never a pickle.
"""

from .images import IMAGE_FORMATS, ImageFormat, decode_images, encode_image
from .messages import HEALTH, PROTOCOL, SCORE, STATUSES, TOKEN, FailureKind, Health, Reply, Request

__all__ = [
    "HEALTH",
    "IMAGE_FORMATS",
    "PROTOCOL",
    "SCORE",
    "STATUSES",
    "TOKEN",
    "FailureKind",
    "Health",
    "ImageFormat",
    "Reply",
    "Request",
    "decode_images",
    "encode_image",
]
