"""
The messages of the protocol.

`GET /v1/health` answers with a [`Health`]. `POST /v1/score` takes a [`Request`] and answers with a [`Reply`]. Every refusal has a
status of [`STATUSES`] and the body `{"error": {"kind": ..., "message": ...}}`.
"""

from __future__ import annotations

from typing import Any, Literal, TypedDict

PROTOCOL = 1
HEALTH, SCORE = "/v1/health", "/v1/score"
TOKEN = "DDPO_REWARD_TOKEN"  #: environment variable, of the server and of its clients

FailureKind = Literal[
    "bad_request", "unauthorized", "not_found", "no_length", "too_large", "reward_failed", "internal", "busy"
]
#: HTTP status of each kind of failure. After the last two, another attempt may succeed.
STATUSES: dict[FailureKind, int] = {
    "bad_request": 400,
    "unauthorized": 401,
    "not_found": 404,
    "no_length": 411,
    "too_large": 413,
    "reward_failed": 422,
    "internal": 500,
    "busy": 503,
}


class Health(TypedDict):
    """
    The state of a server.

    Parameters:
        protocol (`int`):
            Version of this protocol, [`PROTOCOL`].
        version (`str`):
            Version of ddpo-plugins on the server.
        functions (`list[dict[str, Any]]`):
            Rewards and detectors that it serves: `kind`, `name`, and the fields of their provenance, secrets hidden.
        waiting (`int`):
            Batches that are being scored or wait for it.
    """

    protocol: int
    version: str
    functions: list[dict[str, Any]]
    waiting: int


class Request(TypedDict):
    """
    B images to be scored.

    Parameters:
        protocol (`int`):
            [`PROTOCOL`].
        kind (`"reward"` or `"detector"`), name (`str`):
            The function that is asked.
        images (`list[str]` of length B):
            Each image as PNG or WebP in base64.
        prompts (`list[str]` of length B):
            Prompt of each image.
        columns (`dict[str, list[Any]]`):
            Other columns of the dataset, each of length B.
        trainer_state (`dict[str, Any]`):
            The numbers and texts of the trainer's state, such as `global_step`.
    """

    protocol: int
    kind: str
    name: str
    images: list[str]
    prompts: list[str]
    columns: dict[str, list[Any]]
    trainer_state: dict[str, Any]


class Reply(TypedDict):
    """
    The scores of B images.

    Parameters:
        served (`dict[str, Any]`):
            The function that gave them, as in [`Health`].
        values (`list[float | None]` of length B):
            What it returned, checked by its contract: finite numbers, and null where there is none.
        metrics (`dict[str, float]`):
            What it logged about the batch.
        extras (`dict[str, list[Any]]`):
            What it logged about each image.
    """

    served: dict[str, Any]
    values: list[float | None]
    metrics: dict[str, float]
    extras: dict[str, list[Any]]
