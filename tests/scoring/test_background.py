"""Rewards beside the sampler: in order, bounded, and without taking the run along when they hang."""

import asyncio
import gc
import subprocess
import sys
import threading
import time
import weakref
from functools import partial

import numpy as np
import pytest
import torch
from support.trainers import CAT_AND_DOG, TINY, assert_same, brightness, checkpoints, logs_of, trained_weights

from ddpo_plugins.errors import RewardError
from trainer_ext import DDPOConfig, LogProbPipeline
from trainer_ext.errors import ConfigError
from trainer_ext.loop.interrupts import StoppedError
from trainer_ext.loop.rewind import RngState
from trainer_ext.policy.seeds import image_generators
from trainer_ext.scoring.background import BackgroundScorer
from trainer_ext.scoring.calls import Calls
from trainer_ext.scoring.functions import RewardFunction
from trainer_ext.scoring.suite import RewardSuite
from trainer_ext.scoring.threads import EventLoop, Worker

ROWS = [{"prompt": "a cat"}, {"prompt": "a dog"}]
IMAGES = torch.zeros(2, 2, 2, 3, dtype=torch.uint8)


# ---- beside the sampler ----


def test_sampling_draws_nothing_from_the_global_generators(tiny_pipeline):
    """So a reward may draw from them meanwhile, and still draws what it would have drawn alone."""
    policy = LogProbPipeline(tiny_pipeline(), 3, 2.0)
    before = RngState.now()
    policy.sample(["a cat", "a dog"], image_generators([1, 2]))
    after = RngState.now()
    assert before.python == after.python
    assert torch.equal(before.torch, after.torch)
    assert all(np.array_equal(a, b) for a, b in zip(before.numpy, after.numpy, strict=True))


@pytest.mark.parametrize("overlap", [True, False])
def test_a_batch_is_scored_while_the_next_is_sampled(make_trainer, monkeypatch, overlap):
    samplings, scored, seen = [], [], []
    sample = LogProbPipeline.sample

    def counting(*args, **kwargs):
        samplings.append(len(scored))  # batches that are scored when this one begins
        return sample(*args, **kwargs)

    def reward(images, prompts, **columns):
        if overlap and len(seen) < 2:
            while len(samplings) < len(seen) + 2:  # until the next one begins
                time.sleep(0.001)
        seen.append(threading.current_thread() is threading.main_thread())
        scored.append(len(images))
        return brightness(images, prompts)

    monkeypatch.setattr(LogProbPipeline, "sample", counting)
    make_trainer(
        reward=reward, num_images_per_rollout=6, per_device_train_batch_size=6, overlap_rewards=overlap
    ).train()
    assert scored == [2, 2, 2]
    assert samplings == ([0, 0, 1] if overlap else [0, 1, 2])  # never two that wait to be scored
    assert seen == [not overlap] * 3


def test_seconds_of_waiting(make_trainer):
    def reward(images, prompts, **columns):
        time.sleep(0.2)
        return brightness(images, prompts)

    for overlap in (True, False):
        trainer = make_trainer(str(overlap), reward=reward, overlap_rewards=overlap)
        trainer.train()
        (log,) = logs_of(trainer, "seconds/reward")
        assert log["seconds/reward"] >= 0.4
        assert log["seconds/reward_wait"] >= (0.2 if overlap else 0.4)


def score(*works, error=None):
    """Score several batches, then fail."""
    with BackgroundScorer(Calls()).overlapping() as scoring:
        for work in works:
            scoring.put(work)
        if error is not None:
            raise error
    return scoring.results


@pytest.mark.parametrize("error", [ZeroDivisionError, StoppedError])
def test_an_error_waits_for_what_is_being_scored(error):
    """Or a reward would draw random numbers while the state before it is saved."""
    done = []

    def slow():
        time.sleep(0.2)
        done.append(True)

    with pytest.raises(error):
        score(slow, error=error)
    assert done == [True]


def test_a_second_ctrl_c_waits_for_nothing():
    release = threading.Event()
    with pytest.raises(KeyboardInterrupt):
        score(release.wait, error=KeyboardInterrupt)  # or it would wait for ever
    release.set()


def test_an_error_of_a_reward_ends_the_rollout():
    begun = []
    with pytest.raises(ZeroDivisionError):
        score(lambda: 1 / 0, partial(begun.append, True))
    assert begun == []
    assert score(lambda: 1, lambda: 2, lambda: 3) == [1, 2, 3]


def test_a_worker_keeps_nothing_that_is_done():
    class Batch:
        def score(self):
            return Batch()

    worker, batch = Worker("test"), Batch()
    done = worker.submit(batch.score)
    result = done.result()
    gone = [weakref.ref(batch), weakref.ref(result)]
    del batch, result, done
    worker.submit(int).result()
    assert [reference() for reference in gone] == [None, None]


def test_torch_uses_one_thread_in_a_worker_that_shares_its_cores():
    """And what other threads use, those that start later too, stays as it was."""
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        alone, other = Worker("alone", alone=True), Worker("other")
        assert alone.submit(torch.get_num_threads).result() == 1
        assert other.submit(torch.get_num_threads).result() == torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(("overlap", "number"), [(True, 1), (False, 2)])
def test_rewards_beside_a_sampler_on_the_processor_leave_it_its_threads(make_trainer, overlap, number):
    """Threads of two teams are more than there are cores: all then sleep at each operation, and training took twice as long."""
    seen, before = [], torch.get_num_threads()

    def reward(images, prompts, **columns):
        seen.append(torch.get_num_threads())
        return brightness(images, prompts)

    torch.set_num_threads(2)
    try:
        make_trainer(reward=reward, overlap_rewards=overlap).train()
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert set(seen) == {number}


def test_the_threads_end_with_their_owner(make_trainer):
    async def later(images, prompts, **columns):
        return brightness(images, prompts)

    def ours():
        return {thread for thread in threading.enumerate() if thread.name in ("rewards", "async rewards")}

    before = ours()
    trainer = make_trainer(reward=later)
    assert ours() <= before  # they begin with the first batch
    trainer.train()
    mine = ours() - before
    assert sorted(thread.name for thread in mine) == ["async rewards", "rewards"]
    del trainer
    gc.collect()
    for thread in mine:
        thread.join(10)
    assert not any(thread.is_alive() for thread in mine)


# ---- async ----


def test_one_event_loop_for_the_life_of_the_trainer(make_trainer):
    """A client that is bound to its loop works in rollouts, evaluations and pictures, and for several rewards."""
    loops, connected = [], {}

    async def ask(images, prompts, **columns):
        loop = asyncio.get_running_loop()
        lock = connected.setdefault("lock", asyncio.Lock())
        async with lock:  # bound to the loop that first waits for it
            await asyncio.sleep(0.001)
        loops.append(loop)
        return brightness(images, prompts)

    async def ask_too(images, prompts, **columns):
        return await ask(images, prompts, **columns)

    trainer = make_trainer(reward=[ask, ask_too], eval_dataset=CAT_AND_DOG, num_sample_images=1)
    trainer.train()
    trainer.evaluate()
    assert len(loops) == 2 * (2 + 2 + 1)  # pictures before and after, batches, evaluation, each by both
    assert len(set(map(id, loops))) == 1
    assert all(loop.is_running() for loop in loops)


@pytest.mark.parametrize("error", [OSError, SystemExit, KeyboardInterrupt])
def test_an_async_reward_that_fails_ends_the_others_and_not_the_loop(error):
    ended = []

    async def endless(images, prompts, **columns):
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(True)

    async def fails(images, prompts, **columns):
        await asyncio.sleep(0)
        raise error("no server")

    async def works(images, prompts, **columns):
        return [1.0, 2.0]

    calls = Calls()
    suite = RewardSuite([RewardFunction("endless", endless), RewardFunction("fails", fails)], calls=calls)
    with pytest.raises(RewardError, match=f"Reward 'fails' raised {error.__name__}: no server"):
        suite.score(IMAGES, ROWS)
    assert ended == [True]
    assert calls.running == []
    assert RewardSuite([RewardFunction("works", works)], calls=calls).score(IMAGES, ROWS).total.tolist() == [1, 2]


def test_an_async_reward_beside_one_that_fails_is_never_begun():
    begun = []

    async def later(images, prompts, **columns):
        begun.append(True)

    def fails(images, prompts, **columns):
        raise OSError

    suite = RewardSuite([RewardFunction("later", later), RewardFunction("fails", fails)])
    with pytest.raises(RewardError, match="'fails' raised OSError"):
        suite.score(IMAGES, ROWS)  # a coroutine that is never awaited would be a warning, and so an error
    gc.collect()
    assert begun == []


def test_a_loop_that_is_blocked_does_not_keep_the_program(monkeypatch):
    monkeypatch.setattr("trainer_ext.scoring.threads.GRACE_SECONDS", 0.1)
    blocked, release = threading.Event(), threading.Event()

    def block():
        blocked.set()
        release.wait()

    async def begin():
        asyncio.get_running_loop().call_later(0.01, block)  # nobody waits for it, so that nobody keeps the loop

    loop = EventLoop()
    loop.run(begin())
    blocked.wait()
    gone = weakref.ref(loop)
    del loop
    gc.collect()  # does not wait for what is never released
    assert gone() is None
    release.set()


# ---- time-outs ----


def hanging(release):
    def hangs(images, prompts, trainer_state, **columns):
        if trainer_state is None or trainer_state.global_step:
            release.wait()
        return brightness(images, prompts)

    return hangs


def hanging_async(release):
    async def hangs(images, prompts, trainer_state, **columns):
        if trainer_state is None or trainer_state.global_step:
            await asyncio.Event().wait()
        return brightness(images, prompts)

    return hangs


def blocking_async(release):
    async def hangs(images, prompts, trainer_state, **columns):
        if trainer_state is None or trainer_state.global_step:
            release.wait()
        return brightness(images, prompts)

    return hangs


@pytest.mark.parametrize("kind", [hanging, hanging_async, blocking_async])
def test_a_reward_that_hangs_ends_the_run_with_a_checkpoint(make_trainer, kind):
    release, quick = threading.Event(), brightness
    trainer = make_trainer(reward=[quick, kind(release)], num_train_epochs=3, reward_timeout=0.9)
    with pytest.raises(
        RewardError, match=r"Reward 'hangs' has not answered for \d+\.\d.*2 prompt\(s\) are 'a (cat|dog)', 'a"
    ):
        trainer.train()
    assert checkpoints(trainer.args.output_dir) == ["checkpoint-1"]
    release.set()


@pytest.mark.parametrize("kind", [hanging, hanging_async, blocking_async])
def test_the_next_batch_after_one_that_hangs_has_a_thread_and_a_loop(kind):
    release, scorer = threading.Event(), BackgroundScorer(Calls(), timeout=0.2)

    async def later(images, prompts, **columns):
        return [1.0, 2.0]

    suite = RewardSuite([RewardFunction("hangs", kind(release))], calls=scorer.calls)
    with pytest.raises(RewardError, match="'hangs' has not answered"):
        scorer.run(partial(suite.score, IMAGES, ROWS))
    suite = RewardSuite([RewardFunction("later", later)], calls=scorer.calls)
    scorer.timeout = None  # however slow this machine is
    assert scorer.run(partial(suite.score, IMAGES, ROWS)).total.tolist() == [1, 2]
    release.set()


def test_a_reward_that_hangs_does_not_keep_the_program(tmp_path):
    """A process of its own, whose end is what is tested."""
    code = """
import time
from functools import partial
import torch
from trainer_ext.scoring.calls import Calls
from trainer_ext.scoring.functions import RewardFunction
from trainer_ext.scoring.suite import RewardSuite
from trainer_ext.scoring.background import BackgroundScorer

def hangs(images, prompts, **columns):
    time.sleep(300)

async def waits(images, prompts, **columns):
    return [1.0]

scorer = BackgroundScorer(Calls(), timeout=0.2)
images, rows = torch.zeros(1, 2, 2, 3, dtype=torch.uint8), [{"prompt": "a cat"}]
scorer.run(partial(RewardSuite([RewardFunction("waits", waits)], calls=scorer.calls).score, images, rows))
scorer.run(partial(RewardSuite([RewardFunction("hangs", hangs)], calls=scorer.calls).score, images, rows))
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 1
    assert "Reward 'hangs' has not answered" in result.stderr.splitlines()[-1]


def test_a_time_out_needs_a_thread():
    with pytest.raises(
        ConfigError, match="reward_timeout is 5 and overlap_rewards False; .*needs overlap_rewards=True"
    ):
        DDPOConfig(**TINY, reward_timeout=5, overlap_rewards=False)
    with pytest.raises(ConfigError, match="reward_timeout is 0 .*greater than 0"):
        DDPOConfig(**TINY, reward_timeout=0)


# ---- failures ----


@pytest.mark.parametrize("overlap", [True, False])
def test_a_reward_that_fails_later_leaves_a_checkpoint_that_resumes_exactly(make_trainer, overlap):
    options = {"num_train_epochs": 3, "overlap_rewards": overlap}
    broken = True

    def reward(images, prompts, trainer_state, **columns):
        noise = torch.rand(()).item()  # of the global generator, which goes back to where it was
        if broken and trainer_state.global_step == 2 and noise > 0:
            raise OSError("no server")
        return [value + 20 * noise for value in brightness(images, prompts)]

    stopped = make_trainer("stopped", reward=reward, **options)
    with pytest.raises(RewardError, match="'reward' raised OSError: no server"):
        stopped.train()
    assert checkpoints(stopped.args.output_dir) == ["checkpoint-2"]
    broken = False
    resumed = make_trainer("stopped", reward=reward, **options)
    resumed.train(resume_from_checkpoint=True)
    whole = make_trainer("whole", reward=reward, **options)
    whole.train()
    assert_same(trained_weights(resumed.model), trained_weights(whole.model))


def test_a_reward_that_fails_at_once_leaves_nothing(make_trainer):
    """So that the same command can be run again."""

    def reward(images, prompts, **columns):
        raise OSError("no server")

    trainer = make_trainer(reward=reward)
    with pytest.raises(RewardError):
        trainer.train()
    assert checkpoints(trainer.args.output_dir) == []
    make_trainer(reward=brightness).train()
