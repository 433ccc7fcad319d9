"""When a run logs, evaluates and saves."""

import pytest
from transformers import TrainerControl, TrainerState

from trainer_ext import DDPOConfig
from trainer_ext.loop.epochs import EpochOnLastUpdate

EPOCH = {"logging_strategy": "epoch", "save_strategy": "epoch", "eval_strategy": "epoch"}


def due(tmp_path, step, max_steps=6, **options):
    """What is due after an update, of three on each rollout."""
    args = DDPOConfig(output_dir=str(tmp_path), use_cpu=True, **{**EPOCH, **options})
    state = TrainerState(
        global_step=step, max_steps=max_steps, epoch=step / 3, logging_steps=2, save_steps=2, eval_steps=2
    )
    flow = EpochOnLastUpdate(3)
    control = flow.on_step_end(args, state, TrainerControl())
    after = TrainerControl()
    flow.on_epoch_end(args, state, after)
    assert after == TrainerControl()  # nothing: it was done with the update
    names = {"log": control.should_log, "evaluate": control.should_evaluate, "save": control.should_save}
    return {name for name, value in names.items() if value}


@pytest.mark.parametrize(
    ("step", "expected"),
    [(1, set()), (2, set()), (3, {"log", "evaluate", "save"}), (4, set()), (6, {"log", "evaluate", "save"})],
)
def test_epoch_means_with_the_last_update_on_a_rollout(tmp_path, step, expected):
    assert due(tmp_path, step) == expected


def test_epoch_means_also_with_the_last_update_of_the_run(tmp_path):
    assert due(tmp_path, 5, max_steps=5) == {"log", "evaluate", "save"}
    assert due(tmp_path, 4, max_steps=5) == set()


def test_each_strategy_is_its_own(tmp_path):
    assert due(tmp_path, 3, logging_strategy="no") == {"evaluate", "save"}
    assert due(tmp_path, 3, eval_strategy="no") == {"log", "save"}
    assert due(tmp_path, 3, save_strategy="no") == {"log", "evaluate"}
    assert due(tmp_path, 3, eval_delay=2) == {"log", "save"}
    assert due(tmp_path, 4, save_strategy="steps") == {"save"}
    assert due(tmp_path, 3, save_strategy="steps") == {"log", "evaluate"}
