"""Figures of denoising steps: recorded for each log, and kept out of it."""

import numpy as np
import pytest
from support.trainers import logs_of

from trainer_ext.runs.folder import RunFolder


def test_each_steps_figures_are_recorded(make_trainer):
    """Each step is trained equally often, so that the mean over steps is what is logged."""
    trainer = make_trainer(num_inference_steps=3, num_train_epochs=2, num_inner_epochs=2, learning_rate=1e-2, beta=0.1)
    trainer.train()
    first, second = RunFolder(trainer.args.folder).steps()
    assert [row["step"] for row in first] == [row["step"] for row in second] == [0, 1, 2]
    assert [(row["updates"], row["rollouts"]) for row in (first[0], second[0])] == [(2, 1.0), (4, 2.0)]
    for rows, log in zip((first, second), logs_of(trainer, "ratio"), strict=True):
        for name in ("ratio", "approx_kl", "clipfrac", "kl"):
            assert np.mean([row[name] for row in rows]) == pytest.approx(log[name], rel=1e-6)
        assert not [name for name in log if name.startswith("steps/")]
    assert len({row["ratio"] for row in first}) > 1


def test_an_algorithm_without_such_figures_records_none(make_trainer):
    trainer = make_trainer(algorithm="rwr")
    trainer.train()
    assert RunFolder(trainer.args.folder).steps() == []


def test_losses_have_the_values_of_each_transition():
    import torch

    from trainer_ext.learning.losses import clipped_surrogate_loss

    output = clipped_surrogate_loss(torch.log(torch.tensor([1.0, 1.5])), torch.ones(2), 0.1)
    assert output.by_transition["ratio"].tolist() == pytest.approx([1.0, 1.5])
    assert output.by_transition["clipfrac"].tolist() == [0.0, 1.0]
    assert output.metrics["clipfrac"] == 0.5
