"""Processes that tests start."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]


def environment():
    """What processes of tests have in common with the tests: paths, no network, one thread."""
    paths = [str(TESTS), *filter(None, sys.path)]
    return {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": os.pathsep.join(paths)}


def torchrun(*arguments, timeout=600, on_start=lambda launcher: None):
    """Run a script in two processes, as users do. Returns when both have ended, or fails the test."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    launcher = subprocess.Popen(
        [*command, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment(),
    )
    try:
        on_start(launcher)
        output, _ = launcher.communicate(timeout=timeout)
    except BaseException as error:
        launcher.terminate()  # which ends the two
        output, _ = launcher.communicate(timeout=60)
        if isinstance(error, subprocess.TimeoutExpired | AssertionError):
            pytest.fail(f"{error} ({arguments}); it said:\n{output}")
        raise
    return subprocess.CompletedProcess(command, launcher.returncode, output)


def free_port():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return unused.getsockname()[1]


def wait_until(condition, process, seconds=240):
    """Wait for what a process does, or for its end; fail the test if neither comes."""
    deadline = time.monotonic() + seconds
    while not condition() and process.poll() is None:
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.05)
