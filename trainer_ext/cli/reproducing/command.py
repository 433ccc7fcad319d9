"""`ddpo reproduce`: train a task's preset on this card, and say by rules fixed beforehand whether it worked."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ...options import DDPOOptions, FileOptions, InheritedOptions, TrainerDefaults
from ...reproduction.planning import BUDGETS, TASKS
from ...reproduction.rules import Outcome, judge, outcome_of
from ..options import LoraOptions, RunOptions
from ..parse import parse_own
from ..screens.groups import GROUPS
from ..screens.pages import options_page
from .options import ReproduceOptions, check_options
from .planned import PROG, training_to_do

if TYPE_CHECKING:
    from ...trainer import DDPOTrainer
    from ..train import Training

STATUS = {Outcome.PASS: 0, Outcome.FAIL: 1, Outcome.INCONCLUSIVE: 3}

NOTE = f"""
Tasks: {", ".join(TASKS)}. Budgets: {", ".join(BUDGETS)}. Every option of `ddpo train` can be given too, and is named in the
result. What is downloaded, hours, memory and disk are said first; more than a quarter of an hour is asked for. An interrupted
run goes on with the same command and --resume_from_checkpoint true. The exit status is 0 for PASS, 1 for FAIL, 3 for
INCONCLUSIVE.
"""


def run(arguments: list[str]) -> int:
    """Run the command."""
    if {"-h", "--help"} & set(arguments):
        return _help()
    named = ["--task"] if arguments and not arguments[0].startswith("-") else []
    options, given = parse_own(ReproduceOptions, [*named, *arguments], PROG)
    check_options(options, given)
    return _reproduce(options, given, arguments)


def _help() -> int:
    kinds = (ReproduceOptions, RunOptions, LoraOptions, DDPOOptions, TrainerDefaults, InheritedOptions, FileOptions)
    own = {"what to reproduce": ("task", "model", "budget", "memory", "yes")}
    print(options_page(PROG, f"{PROG} TASK [options]", kinds, {**own, **GROUPS}) + NOTE)
    return 0


def _reproduce(options: ReproduceOptions, given: list[str], arguments: list[str]) -> int:
    from ddpo_plugins.masking import masked_command

    from ..quiet import quiet_libraries
    from ..screens.ending import resuming
    from ..train import trained

    quiet_libraries()
    command = masked_command(["ddpo", "reproduce", *arguments])
    training = training_to_do(options, given, command)
    trained(training, resuming(arguments, "reproduce"), around=_session)
    return STATUS[conclude(training)]


@contextlib.contextmanager
def _session(trainer: DDPOTrainer) -> Iterator[None]:
    """Context manager for the training: what it took is added to the kit's files, however it ends."""
    import torch

    from ...doctor.cost import peak_bytes
    from ...reproduction.files import KitFiles, Session

    device, began = trainer.args.device, time.monotonic()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    try:
        yield
    finally:
        session = Session(time.monotonic() - began, peak_bytes(device), trainer.state.global_step)
        KitFiles(trainer.args.folder).add_session(session)


def conclude(training: Training) -> Outcome:
    """Draw with the saved adapter, judge, and write and print the result and the report."""
    from ...file_names import REPORT_FILE
    from ...report.page import write_report
    from ...reproduction.document import document_of
    from ...reproduction.files import KitFiles
    from ...reproduction.reading import evidence_of
    from ...runs.folder import RunFolder
    from .reload import reload_of

    folder = RunFolder(training.config.folder)
    kit = KitFiles(folder.path)
    reload = reload_of(folder, training.config)
    if reload is not None:
        kit.write_reload(reload)
    kit.write_result(document_of(folder))
    write_report(folder.path, folder.path / REPORT_FILE)
    findings = judge(evidence_of(folder))
    print()
    for finding in findings:
        print(finding)
    outcome = outcome_of(findings)
    print(f"\n{outcome.value}   {kit.plan().task} on {kit.plan().model}")
    print(f"{kit.result_file}   the result, to be sent: docs/reproductions.md says how")
    print(f"{folder.path / REPORT_FILE}   the report", flush=True)
    return outcome
