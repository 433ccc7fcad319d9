"""The training loop of all three networks: interruptible after any step, resumable bit for bit."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from tqdm import tqdm

from .deadline import Deadline, Stopped
from .hardware import device

M = TypeVar("M", bound=nn.Module)

LOG_EVERY = 50  #: steps


@dataclass(frozen=True)
class Plan:
    """
    How long and how fast to train.

    Args:
        steps (`int`): Optimizer steps.
        batch_size (`int`): Images a step.
        learning_rate (`float`): Of AdamW, reached after `warmup` steps and falling to 0 over the last `decay` steps.
        warmup (`int`): In steps.
        decay (`float`): Share of all steps.
        ema (`float`): Of the averaged weights, which are the result.
    """

    steps: int
    batch_size: int
    learning_rate: float
    warmup: int = 200
    decay: float = 0.3
    ema: float = 0.999

    def learning_rate_at(self, step: int) -> float:
        """Return the learning rate of a step."""
        falling = (self.steps - step) / max(1.0, self.decay * self.steps)
        return self.learning_rate * min(1.0, (step + 1) / self.warmup, falling)

    def ema_at(self, step: int) -> float:
        """Return the share of the old average that a step keeps: little at first, when weights are still random."""
        return min(self.ema, (1 + step) / (10 + step))


class Trainer(Generic[M]):
    """
    AdamW with averaged weights.

    Args:
        module (`nn.Module`): What to train; it is moved to the [`device`].
        plan ([`Plan`]): How long and how fast.
        checkpoint (`Path`): A safetensors file; if there is one, training goes on from there.
    """

    def __init__(self, module: M, plan: Plan, checkpoint: Path) -> None:
        self.module = module.to(device(), memory_format=torch.channels_last).train()  # type: ignore[call-overload]
        self.average = copy.deepcopy(module).requires_grad_(False).eval()
        self.step = 0
        self._plan = plan
        self._file = checkpoint
        self._name = checkpoint.name.split(".")[0]
        self._optimizer = torch.optim.AdamW(
            [{"params": _matrices(module), "weight_decay": 0.01}, {"params": _vectors(module), "weight_decay": 0.0}],
            betas=(0.9, 0.99),
            fused=True,
        )
        self._parameters = [parameter for group in self._optimizer.param_groups for parameter in group["params"]]
        if checkpoint.exists():
            self._load()

    def train(self, loss: Callable[[int], Tensor], deadline: Deadline, save_minutes: float = 3.0) -> M:
        """
        Train to the plan's end.

        Args:
            loss (`Callable`): Number of a step -> its loss, a scalar.
            deadline ([`Deadline`]): When to stop before.
            save_minutes (`float`, *optional*, defaults to 3.0): Between two checkpoints.

        Returns:
            `nn.Module`: See [`result`].

        Raises:
            [`Stopped`]: The deadline passed.
        """
        progress = tqdm(total=self._plan.steps, initial=self.step, desc=self._name, unit="step")
        with deadline.listening(), progress:
            saved = time.monotonic()
            while self.step < self._plan.steps:
                value = self._update(loss)
                progress.update()
                if self.step % LOG_EVERY == 0:
                    progress.set_postfix(loss=f"{self._log(value):.4f}")
                if deadline.passed or time.monotonic() - saved > 60 * save_minutes:
                    self.save()
                    saved = time.monotonic()
                if deadline.passed and self.step < self._plan.steps:
                    raise Stopped(f"{self._name} stopped after {self.step} of {self._plan.steps} steps.")
        self.save()
        return self.result()

    def result(self) -> M:
        """Return the averaged weights so far, on the CPU and in the memory format that files have."""
        return copy.deepcopy(self.average).to("cpu", memory_format=torch.contiguous_format)  # type: ignore[call-overload]

    def _update(self, loss: Callable[[int], Tensor]) -> Tensor:
        for group in self._optimizer.param_groups:
            group["lr"] = self._plan.learning_rate_at(self.step)
        value = loss(self.step)
        self._optimizer.zero_grad(set_to_none=True)
        value.backward()
        nn.utils.clip_grad_norm_(self._parameters, 1.0)
        self._optimizer.step()
        self._follow()
        self.step += 1
        return value.detach()

    @torch.no_grad()
    def _follow(self) -> None:
        averages: list[Tensor] = list(self.average.parameters())
        parameters: list[Tensor] = list(self.module.parameters())
        torch._foreach_lerp_(averages, parameters, 1 - self._plan.ema_at(self.step))
        for average, buffer in zip(self.average.buffers(), self.module.buffers(), strict=True):
            average.copy_(buffer)

    def _log(self, value: Tensor) -> float:
        line = {"step": self.step, "views": self.step * self._plan.batch_size, "loss": round(value.item(), 5)}
        with self._file.with_suffix(".jsonl").open("a", encoding="utf-8") as log:
            log.write(json.dumps(line) + "\n")
        return line["loss"]

    def save(self) -> None:
        """Write the checkpoint."""
        tensors = {f"module.{key}": value for key, value in self.module.state_dict().items()}
        tensors |= {f"average.{key}": value for key, value in self.average.state_dict().items()}
        for number, parameter in enumerate(self._parameters):
            tensors |= {f"optimizer.{number}.{key}": value for key, value in self._optimizer.state[parameter].items()}
        temporary = self._file.with_suffix(".part")
        self._file.parent.mkdir(parents=True, exist_ok=True)
        save_file({key: value.contiguous() for key, value in tensors.items()}, temporary)
        temporary.replace(self._file)

    def _load(self) -> None:
        tensors = load_file(self._file, str(device()))
        self.module.load_state_dict(_under("module.", tensors))
        self.average.load_state_dict(_under("average.", tensors))
        for number, parameter in enumerate(self._parameters):
            state = _under(f"optimizer.{number}.", tensors)
            # In the parameter's own memory format, or the fused optimizer would fall back to slow loops.
            self._optimizer.state[parameter] = {
                key: value if key == "step" else torch.empty_like(parameter).copy_(value)
                for key, value in state.items()
            }
        self.step = int(tensors["optimizer.0.step"].item())


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def _matrices(module: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in module.parameters() if parameter.requires_grad and parameter.ndim > 1]


def _vectors(module: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in module.parameters() if parameter.requires_grad and parameter.ndim < 2]
