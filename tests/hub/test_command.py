"""`ddpo push` as users run it."""

import signal
import subprocess
import sys

import pytest
from support.loopback_hub import CUT, HANG, Fault
from support.processes import environment, start, wait_until

from trainer_ext.cli import main
from trainer_ext.file_names import LORA_FILE
from trainer_ext.hub import client
from trainer_ext.hub.cards.weights import Weights
from trainer_ext.hub.kohya import write_kohya_file
from trainer_ext.runs.folder import RunFolder

COMMIT = ("POST", "/api/models/*/commit/*")


@pytest.fixture(autouse=True)
def impatient(logged_in, monkeypatch):
    """Logged in at the Hub on this machine, and one attempt of a second."""
    monkeypatch.setattr(client.Hub.__init__, "__defaults__", (None, None, 1.0, ()))


def test_it_prints_the_address(run, loopback, capsys):
    assert main(["push", str(run), "--repo", "cats", "--tag", "v1"]) == 0
    assert capsys.readouterr().out.strip() == f"{loopback.url}/user/cats"
    assert LORA_FILE in loopback.files("user/cats", revision="v1")


def test_the_repository_is_named_like_the_folder(run, loopback):
    assert main(["push", str(run)]) == 0
    assert LORA_FILE in loopback.files("user/run")


def test_a_hub_that_fails_is_a_status_of_its_own(run, loopback, capsys):
    loopback.faults.append(Fault(*COMMIT, CUT, times=-1))
    assert main(["push", str(run)]) == 3
    errors = capsys.readouterr().err
    assert "could not upload to the model user/run: " in errors
    assert "Nothing local is lost; give the same command again later." in errors


#: `ddpo push`, in a process whose user is as impatient as these tests.
PUSH = """
import sys
from trainer_ext.cli import main
from trainer_ext.hub import client
client.Hub.__init__.__defaults__ = (None, None, 1.0, ())
sys.exit(main(["push", *sys.argv[1:]]))
"""


@pytest.fixture
def start_push(run, loopback):
    """Start `ddpo push`, as a process that need not load torch."""
    write_kohya_file(Weights.of(RunFolder(run)))

    def start_push(*command, **options):
        variables = {**environment(), **loopback.environment}
        return start([sys.executable, *command, run], variables=variables, stderr=subprocess.PIPE, **options)

    return start_push


def test_a_hub_that_never_answers_does_not_keep_the_program(loopback, start_push):
    """The client's threads that upload files would: Python waits for them at its end."""
    loopback.faults.append(Fault("PUT", "/lfs/*", HANG, times=-1))
    push = start_push("-c", PUSH)
    _, errors = push.communicate()
    assert push.returncode == 3
    assert "no answer in time. Nothing local is lost; give the same command again later." in errors


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere is no folder; give the output folder of a run"),
        (["{run}", "--update", "9"], "checkpoint-9 cannot be pushed: there is no such folder"),
        (["{run}", "--checkpoints", "some"], "--checkpoints is 'some'; it must be 'last' or 'all'"),
        (["{run}", "--repo", "another/cats"], "may not write there"),
    ],
)
def test_mistakes(run, capsys, arguments, message):
    assert main(["push", *(argument.format(run=run) for argument in arguments)]) == 2
    assert message in capsys.readouterr().err


def test_killed_in_a_push(run, loopback, start_push):
    """The run is as it was, and the same command completes the push without uploading twice."""
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    loopback.faults.append(Fault(*COMMIT, HANG))
    push = start_push("-m", "trainer_ext.cli", "push")
    wait_until(lambda: not loopback.faults[0].times, push)
    push.send_signal(signal.SIGKILL)
    push.communicate()
    assert before == {path: path.read_bytes() for path in before}
    loopback.requests.clear()
    assert main(["push", str(run)]) == 0
    assert loopback.files("user/run")[LORA_FILE] == (run / LORA_FILE).read_bytes()
    assert loopback.asked("PUT", "/lfs/") == []
