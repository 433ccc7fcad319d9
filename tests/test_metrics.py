import json

import torch

from trainer_ext.metrics import RunMetrics, mean_of


def test_means_since_the_last_drain():
    metrics = RunMetrics()
    metrics.note({"reward": 1.0, "kl": torch.tensor(4.0)})
    metrics.note({"reward": 3.0})
    assert metrics.drain() == {"reward": 2.0, "kl": 4.0}
    metrics.note({"reward": 7.0})
    assert metrics.drain() == {"reward": 7.0}
    assert metrics.drain() == {}


def test_an_update_counts_when_it_is_complete():
    metrics = RunMetrics()
    metrics.note({"reward": 1.0})
    metrics.note_pending({"ratio": 1.0})
    metrics.note_pending({"ratio": torch.tensor(2.0)})
    assert metrics.state_dict() == {"reward": [1.0]}
    metrics.settle()
    assert metrics.drain() == {"reward": 1.0, "ratio": 1.5}


def test_a_resumed_run_has_forgotten_the_update_in_progress():
    metrics, resumed = RunMetrics(), RunMetrics()
    metrics.note({"reward": 1.0})
    metrics.note_pending({"ratio": 9.0})
    resumed.note({"reward": 5.0})
    resumed.note_pending({"ratio": 7.0})
    resumed.load_state_dict(json.loads(json.dumps(metrics.state_dict())))
    resumed.settle()
    assert resumed.drain() == {"reward": 1.0}


def test_a_state_is_not_a_view():
    metrics = RunMetrics()
    metrics.note({"reward": 1.0})
    state = metrics.state_dict()
    metrics.note({"reward": 2.0})
    assert state == {"reward": [1.0]}


def test_processes_are_averaged_where_they_measured():
    assert mean_of([{"reward": 1.0, "rare": 5.0}, {"reward": 2.0}]) == {"reward": 1.5, "rare": 5.0}
    assert mean_of([{}, {"late": 3.0}]) == {"late": 3.0}
