"""Settings that all code of the process, or of the thread, shares: how each is read and set back."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

UNKNOWN = object()  #: value of a setting that cannot be read


@final
@dataclass(frozen=True)
class Setting:
    """
    A setting that all code of the process, or of the thread, shares.

    Parameters:
        name (`str`):
            Its name in messages.
        module (`str`):
            The module that has it. It is not imported: a setting of a module that nobody imported cannot be changed.
        read (`Callable[[Any], Any]`):
            Returns the value, given the module.
        restore (`Callable[[Any, Any], Any]`):
            Sets the value, given the module and the value.
        fresh (`Any`, *optional*):
            The value when the module is imported, for plugins that import it first. Without it, they are not checked.
        refused (`bool`, *optional*, defaults to `True`):
            Whether a change is an error. What many models set for speed is set back with a warning.
    """

    name: str
    module: str
    read: Callable[[Any], Any]
    restore: Callable[[Any, Any], Any]
    fresh: Any = UNKNOWN
    refused: bool = True

    def value(self) -> Any:
        """Return the value now, or the fresh one where the module is not imported."""
        module = sys.modules.get(self.module)
        return self.fresh if module is None else self.read(module)


def _working_directory(module: Any) -> Any:
    try:
        return module.getcwd()
    except OSError:  # it was removed
        return UNKNOWN


def _signal_handlers(module: Any) -> Any:
    """Return the handlers of Ctrl-C and of a polite end, which only the main thread can set."""
    if threading.current_thread() is not threading.main_thread():
        return UNKNOWN
    return tuple(module.getsignal(number) for number in (module.SIGINT, module.SIGTERM))


def _restore_signal_handlers(module: Any, handlers: Any) -> None:
    for number, handler in zip((module.SIGINT, module.SIGTERM), handlers, strict=True):
        if handler is not None:  # one that Python did not set
            module.signal(number, handler)


def _autocast(torch: Any) -> Any:
    return tuple(torch.is_autocast_enabled(kind) for kind in ("cuda", "cpu"))


def _restore_autocast(torch: Any, value: Any) -> None:
    for kind, enabled in zip(("cuda", "cpu"), value, strict=True):
        torch.set_autocast_enabled(kind, enabled)


def _deterministic(torch: Any) -> Any:
    return torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()


def _matmul_precision(torch: Any) -> Any:
    """Return the precision by torch's older interface, `None` where it refuses since the newer one was used, and by the newer."""
    try:
        older = torch.get_float32_matmul_precision()
    except RuntimeError:
        older = None
    return older, torch.backends.fp32_precision, torch.backends.cuda.matmul.fp32_precision


def _restore_matmul_precision(torch: Any, value: Any) -> None:
    older, everywhere, matmul = value
    if older is not None:
        torch.set_float32_matmul_precision(older)
    torch.backends.fp32_precision = everywhere
    torch.backends.cuda.matmul.fp32_precision = matmul


def _restore_cudnn(torch: Any, value: Any) -> None:
    torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = value


#: The table: what is compared before and after a plugin's code, in the order of messages.
SETTINGS = (
    Setting("the working directory", "os", _working_directory, lambda os, value: os.chdir(value)),
    Setting("the handlers of SIGINT and SIGTERM", "signal", _signal_handlers, _restore_signal_handlers),
    Setting(
        "the level up to which logging is off",
        "logging",
        lambda logging: logging.root.manager.disable,
        lambda logging, value: logging.disable(value),
        0,
    ),
    Setting(
        "torch's default dtype",
        "torch",
        lambda torch: str(torch.get_default_dtype()),
        lambda torch, value: torch.set_default_dtype(vars(torch)[value.removeprefix("torch.")]),
        "torch.float32",
    ),
    Setting(
        "torch's default device",
        "torch",
        lambda torch: str(torch.get_default_device()),
        lambda torch, value: torch.set_default_device(None if value == "cpu" else value),
        "cpu",
    ),
    Setting(
        "torch's gradient mode",
        "torch",
        lambda torch: torch.is_grad_enabled(),
        lambda torch, value: torch.set_grad_enabled(value),
        True,
    ),
    Setting("torch's autocast (cuda, cpu)", "torch", _autocast, _restore_autocast, (False, False)),
    Setting(
        "torch's deterministic algorithms (enabled, only warn)",
        "torch",
        _deterministic,
        lambda torch, value: torch.use_deterministic_algorithms(value[0], warn_only=value[1]),
        (False, False),
    ),
    Setting(
        "torch's anomaly detection",
        "torch",
        lambda torch: torch.is_anomaly_enabled(),
        lambda torch, value: torch.autograd.set_detect_anomaly(value),
        False,
    ),
    Setting(
        "torch's precision of matrix products (set_float32_matmul_precision, fp32_precision, cuda.matmul's)",
        "torch",
        _matmul_precision,
        _restore_matmul_precision,
        ("highest", "none", "none"),
        refused=False,
    ),
    Setting(
        "cuDNN's (benchmark, deterministic)",
        "torch",
        lambda torch: (torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic),
        _restore_cudnn,
        (False, False),
        refused=False,
    ),
    Setting(
        "torch's number of threads",
        "torch",
        lambda torch: torch.get_num_threads(),
        lambda torch, value: torch.set_num_threads(value),
        refused=False,
    ),
    Setting(
        "numpy's treatment of floating-point errors",
        "numpy",
        lambda numpy: numpy.geterr(),
        lambda numpy, value: numpy.seterr(**value),
        {"divide": "warn", "over": "warn", "under": "ignore", "invalid": "warn"},
        refused=False,
    ),
)
