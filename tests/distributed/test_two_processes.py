"""Two processes, by torchrun and gloo, against each other and against one. What they do is in two_processes.py."""

import pytest
import torch
from support import several_trainings as trainings
from support.divergence import divergences
from support.trainers import difference, records

from trainer_ext.errors import CheckpointError
from trainer_ext.file_names import KOHYA_FILE, LORA_FILE
from trainer_ext.runs.equality import differences
from trainer_ext.runs.folder import RunFolder
from trainer_ext.runs.manifest import find_damage

pytestmark = pytest.mark.timeout(1200)  # the launch that all share is in it


@pytest.fixture(scope="module")
def one(folder):
    """Return what one process sees of the training with one update, in batches of twice the size."""
    torch.set_num_threads(1)
    alone = {**trainings.ONE_UPDATE, "per_device_train_batch_size": 4}
    return trainings.train(folder, "one process", **alone)


def rollout(folder, name, index=0):
    return records(folder / name, index)


# ---- one policy ----


@pytest.mark.parametrize(("name", "updates"), [("ddpo_is", 4), ("kl", 4), ("ema", 4), ("sparse_rwr", 4), ("nft", 6)])
def test_weights_are_bit_equal_after_every_update(two, name, updates):
    first, second = (seen[name] for seen in two)
    assert len(first["after"]) == len(second["after"]) == updates
    before = first["before"]
    for here, there in zip(first["after"], second["after"], strict=True):
        assert torch.equal(here, there)
        assert not torch.equal(here, before)
        before = here
    assert torch.equal(first["averaged"], second["averaged"])


def test_each_option_does_what_it_is_for(two):
    """Lest the test above pass because they do nothing."""
    seen, _ = two
    final = {name: seen[name]["after"][-1] for name in ("ddpo_is", "kl", "ema", "sparse_rwr")}
    assert not torch.equal(final["kl"], final["ddpo_is"])
    assert torch.equal(final["ema"], final["ddpo_is"])  # a reward that takes longer in one process changes nothing
    assert not torch.equal(seen["ema"]["averaged"], final["ema"])
    kept = [int(each["sparse_rwr"]["weights of images"].count_nonzero()) for each in two]
    assert sorted(kept) == [0, 1]


def test_the_old_policy_is_the_same_in_both_processes(two):
    """It has moved, and it is not the trained one."""
    first, second = (seen["nft"] for seen in two)
    assert torch.equal(first["old"], second["old"])
    assert not torch.equal(first["old"], first["before"])
    assert not torch.equal(first["old"], first["after"][-1])
    distances = [[log["old_distance"] for log in seen["logs"] if "old_distance" in log] for seen in (first, second)]
    assert distances[0] == distances[1]
    assert min(distances[0]) > 0


# ---- the same as one process ----


def test_images_prompts_and_rewards_are_those_of_one_process(folder, two, one):
    alone = rollout(folder, "one process")
    assert len({row["seed"] for row in alone}) == 8
    assert rollout(folder, "ddpo_is") == rollout(folder, "one update") == alone


def test_advantages_are_those_of_one_process(two, one):
    together = torch.cat([seen["one update"]["weights of images"] for seen in two])
    assert torch.equal(together, one["weights of images"])


def test_the_update_is_that_of_one_process_with_twice_the_batch(two, one):
    """1.6e-7 apart when measured, which is float32's rounding in sums of another order."""
    assert torch.equal(two[0]["one update"]["before"], one["before"])
    update, alone = (seen["after"][0] - seen["before"] for seen in (two[0]["one update"], one))
    assert alone.norm() > 0
    assert difference(update, alone) < 1e-5


def test_gradients_while_sampling_are_averaged_over_processes(two):
    """Half of each process's images are in the last batch, with which the processes meet."""
    first, second = (seen["one update, fused"] for seen in two)
    assert first["retained"] == second["retained"] == "ImageGradients"
    assert torch.equal(first["after"][0], second["after"][0])
    update, replayed = (
        two[0][name]["after"][0] - two[0][name]["before"] for name in ("one update, fused", "one update")
    )
    assert replayed.norm() > 0
    assert difference(update, replayed) < 1e-5


def test_evaluation_is_that_of_one_process(folder, two):
    torch.set_num_threads(1)
    alone = trainings.evaluate(folder, "evaluated alone")
    assert alone["eval_reward_std"] > 0
    for seen in two:
        assert seen["evaluated"] == pytest.approx(alone, rel=1e-12)


# ---- what only one process measures ----


def test_what_a_reward_logs_on_one_process_is_kept(folder, two):
    logs = [[log for log in seen["ema"]["logs"] if "reward" in log] for seen in two]
    assert [log["slept"] for log in logs[0]] == [log["slept"] for log in logs[1]] == [0.3, 0.3]
    assert [row["slow"] for row in rollout(folder, "ema")] == [None] * 4 + [True] * 4


def test_files_are_written_by_one_process(folder, two):
    assert {path.name for path in folder.glob("saved by *")} == {"saved by 0"}


def test_a_rule_stops_both_where_only_one_sees_why(folder, two):
    for seen in two:
        stopped = seen["stopped by a rule"]
        assert not stopped["interrupted"]
        assert len(stopped["after"]) == 2
        assert torch.equal(stopped["after"][-1], seen["ddpo_is"]["after"][1])
        assert stopped["checkpoints"] == {"checkpoint-2": None}
        assert stopped["logs"][-1]["detectors/sure_in_one/mean"] == 0.5
    assert [row["detectors/sure_in_one"] for row in rollout(folder, "stopped by a rule", 1)] == [0.0] * 4 + [1.0] * 4


def test_a_metric_of_an_evaluation_stops_both(two):
    for seen in two:
        stopped = seen["stopped by an evaluation"]
        assert not stopped["interrupted"]
        assert len(stopped["after"]) == 2
        assert torch.equal(stopped["after"][-1], seen["ddpo_is"]["after"][1])
        assert stopped["checkpoints"] == {"checkpoint-2": None}
    first, second = (
        [log["eval_kl"] for log in seen["stopped by an evaluation"]["logs"] if "eval_kl" in log] for seen in two
    )
    assert first == second


def test_the_divergence_of_several_images_a_prompt_covers_every_step(folder, two):
    """
    Process 0 has six of ten images, process 1 four. Each is measured at one of three steps, and stands for its share of the images
    of that step, so that the mean is the sum over steps.
    """
    torch.set_num_threads(1)
    trainer = trainings.make_trainer(folder, "measured alone")
    trainer._weights.load_saved(folder / "stopped by an evaluation" / "checkpoint-2")
    (evaluations,) = RunFolder(folder / "stopped by an evaluation").evaluations().values()
    measured = evaluations[-1].records
    assert [(record["row"], record["seed"]) for record in measured] == [
        (row, row + 5 * i) for row in range(5) for i in (0, 1)
    ]
    at = []
    for record in measured:
        values = [10 / images * value for images, value in zip((4, 3, 3), divergences(trainer, record), strict=True)]
        (step,) = [step for step in range(3) if record["kl"] == pytest.approx(values[step], rel=1e-3)]
        at.append(step)
    assert [at.count(step) for step in range(3)] == [4, 3, 3]
    logged = [log["eval_kl"] for log in two[0]["stopped by an evaluation"]["logs"] if "eval_kl" in log]
    assert logged == pytest.approx([0.0, sum(record["kl"] for record in measured) / 10])


# ---- the Hub ----


def test_one_process_pushes_and_a_push_that_fails_in_the_middle_changes_nothing(folder, two, loopback):
    first, second = (seen["pushed"] for seen in two)
    assert [fault.times for fault in loopback.faults] == [0]  # it was met
    (warning,) = first["heard"]
    assert warning.startswith("The adapter after update 2 was not pushed: ")
    assert warning.endswith(f"ddpo push {folder / 'pushed'} --repo user/cats --update 2")
    assert second["heard"] == []
    assert {request.token for request in loopback.requests} <= {loopback.token, ""}  # of addresses that are signed
    for seen in two:
        assert len(seen["pushed"]["after"]) == 4
        assert all(map(torch.equal, seen["pushed"]["after"], seen["ddpo_is"]["after"]))
    assert differences(folder / "pushed", folder / "ddpo_is") == []
    files = loopback.files("user/cats")
    assert files[LORA_FILE] == (folder / "pushed" / LORA_FILE).read_bytes()
    assert {"README.md", KOHYA_FILE} <= files.keys()


# ---- interruption ----


def test_a_slow_disk_of_one_process_changes_nothing(two):
    """The other waits for it at the end of the checkpoint, so that neither trains on before it is whole."""
    for seen in two:
        assert all(map(torch.equal, seen["slow disk"]["after"], seen["ddpo_is"]["after"]))
        assert seen["slow disk"]["checkpoints"] == {f"checkpoint-{update}": None for update in (1, 2, 3, 4)}


@pytest.mark.parametrize(("name", "step"), list(zip(trainings.INTERRUPTED, (3, 2, 2), strict=True)))
def test_ctrl_c_in_one_process_stops_both_and_resumes_exactly(folder, two, name, step):
    for seen in two:
        assert seen[name]["interrupted"]
        assert len(seen[name]["after"]) == step
        assert seen[name]["checkpoints"] == {f"checkpoint-{step}": None}  # whole when train() returns, in both
        resumed = seen[f"{name}, resumed"]["after"]
        assert len(resumed) == 4 - step
        assert torch.equal(resumed[-1], seen["ddpo_is"]["after"][-1])
    assert [rollout(folder, name, index) for index in (0, 1)] == [rollout(folder, "ddpo_is", i) for i in (0, 1)]


def test_one_process_cannot_resume_what_two_began(folder, two):
    trainer = trainings.make_trainer(folder, "after update 3")
    with pytest.raises(
        CheckpointError, match=r"written by 2 process\(es\), and this run has 1. Resume with the same number"
    ):
        trainer.train(resume_from_checkpoint=True)


def test_ctrl_c_at_the_launcher(folder, launched):
    """As a terminal sends it: to torchrun alone, which passes it on."""
    assert launched.returncode != 0
    assert launched.stdout.count("ddpo train: interrupted.") == 2, launched.stdout
    assert launched.stdout.count("embedded on cpu (2 processes): ") == 1, launched.stdout  # one process speaks for both
    run = folder / "command line"
    (checkpoint,) = run.glob("checkpoint-*")
    assert find_damage(checkpoint) is None
    assert len(list(checkpoint.glob("ddpo_state_*.pt"))) == 2


# ---- failure ----


@pytest.mark.parametrize(
    ("name", "failing", "text"),
    [
        ("reward of process 1 fails", 1, "Reward 'InBatch' raised OSError: the reward's server is gone"),
        ("reward of process 0 is not a number", 0, "Reward 'InBatch' returned nan for prompt"),
        ("reward of process 0 fails in evaluation", 0, "Reward 'InBatch' raised OSError: the reward's server is gone"),
    ],
)
def test_a_failure_of_one_process_is_an_error_of_both(two, name, failing, text):
    kind, message = two[failing][name]
    assert kind == "RewardError"
    assert message.startswith(text)
    other, told = two[1 - failing][name]
    assert other == "DDPOError"
    assert told == f"Process {failing} failed, so all stop. Its error: RewardError: {message}"


def test_a_failure_after_an_update_leaves_one_whole_checkpoint(folder, two):
    name = "reward of process 1 fails in the second rollout"
    assert [seen[name][0] for seen in two] == ["DDPOError", "RewardError"]
    (checkpoint,) = (folder / name).glob("checkpoint-*")
    assert checkpoint.name == "checkpoint-2"
    assert find_damage(checkpoint) is None
    assert len(list(checkpoint.glob("ddpo_state_*.pt"))) == 2


def test_records_that_cannot_be_written_are_an_error_of_both_and_leave_a_checkpoint(folder, two):
    name = "processes log different types"
    (kind, message), (other, told) = (seen[name] for seen in two)
    assert (kind, other) == ("RewardError", "DDPOError")
    assert message.startswith("The column 'mine/x' cannot be recorded: ")
    assert told == f"Process 0 failed, so all stop. Its error: RewardError: {message}"
    (checkpoint,) = (folder / name).glob("checkpoint-*")
    assert (checkpoint.name, find_damage(checkpoint)) == ("checkpoint-2", None)


def test_failures_of_both_processes_are_their_own(two):
    for seen in two:
        kind, message = seen["reward of both fails"]
        assert kind == "RewardError"
        assert "the reward's server is gone" in message


def test_both_processes_end_with_the_error(folder, two):
    """It is not caught, and nothing hangs."""
    assert [seen["exit status of the child"] for seen in two] == [1, 1]
    told, failed = ((folder / f"failed-{process}.log").read_text() for process in (0, 1))
    error = "ddpo_plugins.errors.RewardError: Reward 'InBatch' raised OSError: the reward's server is gone"
    assert failed.count(error) == 1
    assert "DDPOError: Process 1 failed, so all stop. Its error: RewardError: Reward 'InBatch' raised" in told
    assert error not in told


def test_a_killed_process_is_one_sentence_in_the_other(folder, two):
    assert [seen["exit status where one is killed"] for seen in two] == [1, -9]
    told = (folder / "lost-0.log").read_text()
    last = told.strip().splitlines()[-1]
    assert (
        "ProcessLostError: Another process of this run was killed, or did not answer in time, so this one ends too"
        in last
    )
    assert "resume_from_checkpoint=True" in last


def test_the_time_out_of_processes_on_cpus(folder, two):
    """`TrainingArguments` hands `ddp_timeout` on only where there is no `use_cpu`."""
    assert "time-out: 0:01:17" in (folder / "lost-0.log").read_text()
