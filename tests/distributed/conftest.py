import signal

import pytest
import torch
from support import two_processes
from support.loopback_hub import Fault, LoopbackHub
from support.processes import free_port, torchrun, wait_until


@pytest.fixture(scope="session")
def folder(tmp_path_factory, tiny_pipeline):
    folder = tmp_path_factory.mktemp("two")
    torch.manual_seed(0)
    tiny_pipeline().save_pretrained(folder / "model")
    return folder


@pytest.fixture(scope="session")
def loopback(folder):
    """The Hub of the two processes. The first push of an adapter fails, in a way that is not tried again."""
    with LoopbackHub(folder / "hub") as hub:
        hub.faults.append(Fault("POST", "/api/models/*/commit/*", 400))
        yield hub


@pytest.fixture(scope="session")
def launched(folder, loopback):
    """Run two_processes.py, with Ctrl-C at the launcher when the command line has trained; return the launcher's result."""

    def ctrl_c(launcher):
        wait_until((folder / "command line" / "rollouts" / "rollout-00001.parquet").is_file, launcher)
        launcher.send_signal(signal.SIGINT)

    return torchrun(two_processes.__file__, folder, free_port(), free_port(), on_start=ctrl_c, **loopback.environment)


@pytest.fixture(scope="session")
def two(folder, launched):
    """Return what each process saw, by training."""
    assert (folder / "1.pt").is_file(), launched.stdout
    return [torch.load(folder / f"{process}.pt", weights_only=False) for process in (0, 1)]
