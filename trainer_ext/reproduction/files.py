"""What `ddpo reproduce` itself writes into a run's folder: the plan before training, and what was measured beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from ..runs.atomic import replacing
from .evidence import Reload

RESULT_FILE = "reproduction.json"  #: in the run's folder


@dataclass(frozen=True)
class Plan:
    """
    What is to be trained, decided before training and kept when the run is resumed.

    Parameters:
        task, model, budget (`str`):
            The task, the Hub id or folder of the model, and the budget.
        memory (`int`, *optional*):
            Card memory in GB for which options were chosen; `None` without such options.
        presets, options (`Sequence[str]`):
            The presets, and the options that stand over them; secrets are hidden.
        changed (`Sequence[str]`):
            Options that the user gave, which are not those of the task; secrets are hidden.
        rollouts, updates (`int`):
            Rollouts and optimizer updates of the run.
        hours (`float`):
            Estimated hours of training, with rewards, evaluations, pictures and checkpoints.
        training_bytes (`int`):
            Estimated memory to train: of the card, or of the whole process.
        device_bytes (`int`):
            Memory of the card, or of the machine.
        replay_error (`float`):
            Largest |ratio - 1| of a step that was replayed as it was sampled.
    """

    task: str
    model: str
    budget: str
    memory: int | None
    presets: Sequence[str]
    options: Sequence[str]
    changed: Sequence[str]
    rollouts: int
    updates: int
    hours: float
    training_bytes: int
    device_bytes: int
    replay_error: float


@dataclass(frozen=True)
class Session:
    """
    One process that trained the run.

    Parameters:
        seconds (`float`):
            How long it trained, with rewards, evaluations and pictures.
        peak_bytes (`int`):
            The device's memory at most, or the process's for a CPU.
        updates (`int`):
            Optimizer updates of the run when it ended.
    """

    seconds: float
    peak_bytes: int
    updates: int


@dataclass(frozen=True)
class KitFiles:
    """
    The kit's files of a run.

    Parameters:
        run (`Path`):
            The run's folder.
    """

    run: Path

    @property
    def result_file(self) -> Path:
        """The result, to be sent."""
        return self.run / RESULT_FILE

    def write_plan(self, plan: Plan) -> None:
        """Write the plan of a new run."""
        self._write("plan", asdict(plan))
        self._write("sessions", [])

    def plan(self) -> Plan:
        """
        Return the plan.

        Raises:
            [`ConfigError`]: there is none, or it cannot be read.
        """
        try:
            return Plan(**self._read("plan"))
        except (OSError, ValueError, TypeError) as error:
            raise ConfigError(
                f"{self.run} has no plan of `ddpo reproduce` that can be read ({type(error).__name__}: {error}). Give the "
                "--output_dir of a reproduction, or begin a new one in another folder."
            ) from error

    @property
    def has_plan(self) -> bool:
        """Whether a reproduction was planned here."""
        return self._file("plan").is_file()

    def add_session(self, session: Session) -> None:
        """Add what a process measured that has trained the run."""
        self._write("sessions", [asdict(each) for each in (*self.sessions(), session)])

    def sessions(self) -> list[Session]:
        """Return what each process measured; one that was killed measured nothing."""
        return [Session(**values) for values in self._read("sessions")] if self._file("sessions").is_file() else []

    def write_reload(self, reload: Reload) -> None:
        """Write how the saved adapter drew."""
        self._write("reload", asdict(reload))

    def reload(self) -> Reload | None:
        """Return how the saved adapter drew; `None` before that."""
        return Reload(**self._read("reload")) if self._file("reload").is_file() else None

    def write_result(self, document: Mapping[str, Any]) -> None:
        """Write the result."""
        write_json(self.result_file, document)

    def _file(self, name: str) -> Path:
        return self.run / "reproduction" / f"{name}.json"

    def _read(self, name: str) -> Any:
        return json.loads(self._file(name).read_text(encoding="utf-8"))

    def _write(self, name: str, content: Any) -> None:
        write_json(self._file(name), content)


def write_json(file: Path, content: Any) -> None:
    """Write a file of JSON, whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with replacing(file) as place:
        place.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")
