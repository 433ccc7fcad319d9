"""The HTTP service: its routes, and which failure is which answer."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from importlib.metadata import version
from typing import Annotated, Any, Literal

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, model_validator

from ddpo_plugins.errors import DDPOError, RewardError
from ddpo_plugins.masking import masked_message
from ddpo_plugins.names import REWARD_ARGUMENTS
from ddpo_plugins.wire import HEALTH, PROTOCOL, SCORE, Health, Reply, decode_images

from .functions import ServedFunction
from .guard import Guard, refusal
from .turns import BusyError, GoneError, Turns

logger = logging.getLogger(__name__)


class ScoreRequest(BaseModel):
    """A [`ddpo_plugins.wire.Request`] that has been checked."""

    model_config = ConfigDict(extra="forbid", strict=True)

    protocol: Literal[1]
    kind: Literal["reward", "detector"]
    name: str
    images: Annotated[list[str], Field(min_length=1)]
    prompts: list[str]
    columns: dict[str, list[Any]] = {}
    trainer_state: dict[str, Any] = {}

    @model_validator(mode="after")
    def _one_each(self) -> ScoreRequest:
        lengths = {"prompts": self.prompts, **self.columns}
        wrong = [f"{name} has {len(values)}" for name, values in lengths.items() if len(values) != len(self.images)]
        taken = sorted(set(self.columns).intersection(REWARD_ARGUMENTS))
        if wrong or taken:
            raise ValueError("; ".join([*wrong, *(f"{name} is no name for a column" for name in taken)]))
        return self


def build_app(
    functions: Iterable[ServedFunction],
    *,
    max_waiting: int = 32,
    max_bytes: int = 256 * 10**6,
    token: str | None = None,
) -> Guard:
    """
    Build the service.

    Args:
        functions (`Iterable[ServedFunction]`):
            Rewards and detectors to serve.
        max_waiting (`int`, *optional*, defaults to 32):
            Batches that may wait; more are refused at once, so that clients ask another server.
        max_bytes (`int`, *optional*, defaults to 256 MB):
            Largest request.
        token (`str`, *optional*):
            What every request must present.
    """
    served = {(each.function.kind, each.function.name): each for each in functions}
    turns = Turns(max_waiting)
    app = FastAPI(title="Rewards of ddpo-plugins", version=version("ddpo-plugins"))

    @app.get(HEALTH)
    async def health() -> JSONResponse:
        described = [each.served for each in served.values()]
        state = Health(protocol=PROTOCOL, version=app.version, functions=described, waiting=turns.waiting)
        return JSONResponse(state)

    @app.post(SCORE)
    async def score(asked: ScoreRequest, request: Request) -> JSONResponse:
        function = served.get((asked.kind, asked.name))
        if function is None:
            names = ", ".join(f"{kind} {name!r}" for kind, name in served)
            return refusal("not_found", f"There is no {asked.kind} {asked.name!r} here; there is {names}.")

        def work() -> Reply:
            return function.score(decode_images(asked.images), asked.prompts, asked.columns, asked.trainer_state)

        return JSONResponse(await turns.take(work, request.is_disconnected))

    _answer_failures(app)
    return Guard(app, token, max_bytes)


def _answer_failures(app: FastAPI) -> None:
    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        faults = [f"{'.'.join(map(str, fault['loc'][1:]))}: {fault['msg']}" for fault in error.errors()[:3]]
        return refusal("bad_request", "; ".join(faults))

    @app.exception_handler(DDPOError)
    async def failed(request: Request, error: DDPOError) -> JSONResponse:
        if isinstance(error, BusyError | GoneError):
            return refusal("busy", str(error))
        logger.error("%s", error)
        return refusal("reward_failed" if isinstance(error, RewardError) else "internal", str(error))

    @app.exception_handler(ValueError)
    async def unreadable(request: Request, error: ValueError) -> JSONResponse:
        return refusal("bad_request", masked_message(str(error)))
