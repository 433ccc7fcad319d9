"""Processes that tests start."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

TESTS = Path(__file__).parents[1]


def environment():
    """What processes of tests have in common with the tests: paths, no network, one thread."""
    paths = [str(TESTS), *filter(None, sys.path)]
    return {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": os.pathsep.join(paths)}


def start(command, variables=None, **options):
    """Start a program whose Ctrl-C works, also where the tests run in the background, in which a shell ignores it."""
    heard = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}
    return subprocess.Popen(list(map(str, command)), env=variables or environment(), text=True, **heard, **options)


def torchrun(*arguments, processes=2, on_start=lambda launcher: None, **variables):
    """Run a script in several processes, as users do. Returns when all have ended."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    launcher = start(
        [*command, *arguments], {**environment(), **variables}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        on_start(launcher)
        output, _ = launcher.communicate()
    except BaseException:  # the test was interrupted, or took too long
        launcher.terminate()  # which ends the two
        print(launcher.communicate()[0])
        raise
    return subprocess.CompletedProcess(command, launcher.returncode, output)


def free_port():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return unused.getsockname()[1]


def wait_until(condition, process):
    """Wait for what a process does, or for its end."""
    eventually(lambda: condition() or process.poll() is not None)


def eventually(condition):
    """Wait until something is so. That it never is, is found by the time-out of all tests."""
    while not condition():
        time.sleep(0.01)
