import json
import random

import numpy as np
import pytest
import torch

from trainer_ext.loop.metrics import RunMetrics, mean_of
from trainer_ext.loop.rewind import RewindPoint


def test_means_since_the_last_drain():
    metrics = RunMetrics()
    metrics.note({"reward": 1.0, "kl": torch.tensor(4.0)})
    metrics.note({"reward": 3.0})
    assert metrics.drain() == {"reward": 2.0, "kl": 4.0}
    metrics.note({"reward": 7.0})
    assert metrics.drain() == {"reward": 7.0}
    assert metrics.drain() == {}


def test_a_resumed_run_goes_on():
    metrics, resumed = RunMetrics(), RunMetrics()
    metrics.note({"reward": 1.0})
    resumed.note({"reward": 5.0})
    resumed.load_state_dict(json.loads(json.dumps(metrics.state_dict())))
    resumed.note({"reward": 2.0})
    assert resumed.drain() == {"reward": 1.5}


def test_an_interrupted_run_goes_back_to_a_moment():
    metrics = RunMetrics()
    metrics.note({"reward": 1.0})
    torch.manual_seed(3)
    moment = RewindPoint.now(2, metrics)
    drawn = torch.rand(2).tolist(), random.random(), np.random.random()
    metrics.note({"ratio": 9.0})
    moment.restore(metrics)
    assert (torch.rand(2).tolist(), random.random(), np.random.random()) == drawn
    assert metrics.drain() == {"reward": 1.0}


def test_a_state_is_not_a_view():
    metrics = RunMetrics()
    metrics.note({"reward": 1.0})
    state = metrics.state_dict()
    metrics.note({"reward": 2.0})
    assert state == {"reward": [1.0]}


def test_processes_are_averaged_where_they_measured():
    assert mean_of([{"reward": 1.0, "rare": 5.0}, {"reward": 2.0}]) == {"reward": 1.5, "rare": 5.0}
    assert mean_of([{}, {"late": 3.0}]) == {"late": 3.0}


def test_tensors_are_read_in_their_place_and_kept_as_they_were():
    metrics, value = RunMetrics(), torch.tensor([1.0])
    metrics.note({"kl": value})
    metrics.note({"kl": 2.0})
    metrics.note_each(["steps/0/ratio", "steps/1/ratio", "kl"], torch.tensor([5.0, 6.0, 3.0], dtype=torch.bfloat16))
    value.zero_()
    copied = metrics.copy()
    assert metrics.state_dict() == {"kl": [1.0, 2.0, 3.0], "steps/0/ratio": [5.0], "steps/1/ratio": [6.0]}
    metrics.note({"kl": 10})
    assert metrics.drain()["kl"] == 4.0
    assert copied.drain()["kl"] == 2.0


def test_a_metric_of_several_elements_is_an_error_where_it_is_noted():
    with pytest.raises(RuntimeError):
        RunMetrics().note({"kl": torch.zeros(2)})
