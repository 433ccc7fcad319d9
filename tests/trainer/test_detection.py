"""Detectors in training: watched, recorded, weighed, and what they may return."""

import numpy as np
import pytest
import torch
from support.trainers import (
    CAT_AND_DOG,
    all_records,
    assert_same,
    brightness,
    differ,
    logs_of,
    returning,
    trained_weights,
)

from ddpo_plugins.errors import RewardError
from trainer_ext import DetectorFunction, RewardFunction
from trainer_ext.errors import ConfigError
from trainer_ext.scoring.scores import Scores
from trainer_ext.scoring.suite import RewardSuite

ROWS = [{"prompt": "a cat"}, {"prompt": "a dog"}, {"prompt": "a cat"}]
IMAGES = torch.zeros(3, 2, 2, 3, dtype=torch.uint8)


def darkness(images, prompts, log_metric, log_extra, **columns):
    values = [1 - value / 255 for value in brightness(images, prompts)]
    log_metric("batch_of", len(images))
    log_extra("darkness/percent", [round(100 * value) for value in values])
    return values


def scores(detector, weight=None, rewards=(1.0, 2.0, 3.0)):
    suite = RewardSuite(
        [RewardFunction("mine", returning(*rewards))],
        detectors=[DetectorFunction("text", detector)],
        detector_weights=None if weight is None else [weight],
    )
    return suite.score(IMAGES, ROWS)


@pytest.fixture
def run_options():
    return {"detectors": darkness, "learning_rate": 1e-2}


def records_of(trainer):
    (rows,) = all_records(trainer.args.output_dir)
    return rows


# ---- one batch ----


def test_a_detector_is_only_watched_without_a_weight():
    seen = scores(returning(0.0, 1, None))
    assert seen.total.tolist() == [1, 2, 3]
    np.testing.assert_array_equal(seen.detections["text"], [0, 1, np.nan])


def test_a_weight_enters_the_reward():
    assert scores(returning(0.5, 0.25, None), -4.0).total.tolist() == [1 - 2, 2 - 1, 3]  # None adds nothing


def test_an_image_without_a_reward_gets_none_from_a_detector():
    np.testing.assert_array_equal(scores(returning(0.5, 0.5, 0.5), -4.0, (1.0, None, 3.0)).total, [-1, np.nan, 1])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ((0.0, 1.5, 0.0), r"Detector 'text' returned 1.5 for prompt 'a dog'.*in \[0, 1\]"),
        ((0.0, -0.1, 0.0), "Detector 'text' returned -0.1 for prompt 'a dog'"),
        ((0.0, float("nan"), 0.0), "Detector 'text' returned nan for prompt 'a dog'"),
        ((0.0,), r"Detector 'text' returned 1 value\(s\) for 3 images"),
    ],
)
def test_detectors_are_held_to_their_contract(values, message):
    with pytest.raises(RewardError, match=message):
        scores(returning(*values))


def test_a_detector_that_raises_is_named():
    def broken(images, prompts, **columns):
        raise OSError("no model")

    with pytest.raises(RewardError, match="Detector 'text' raised OSError: no model.*repair the detector"):
        scores(broken)


def test_batches_are_joined():
    one, two = scores(returning(0.0, 1, None)), scores(returning(0.5, 0.5, 0.5))
    np.testing.assert_array_equal(Scores.concatenate([one, two]).detections["text"], [0, 1, np.nan, 0.5, 0.5, 0.5])


# ---- a run ----


def test_detectors_are_logged_and_recorded(make_trainer):
    trainer = make_trainer()
    trainer.train()
    records = records_of(trainer)
    for record in records:
        assert record["detectors/darkness"] == pytest.approx(1 - record["rewards/brightness"] / 255)
        assert record["darkness/percent"] == round(100 * record["detectors/darkness"])
        assert record["reward"] == record["rewards/brightness"]
    values = [record["detectors/darkness"] for record in records]
    (log,) = logs_of(trainer, "reward")
    assert log["detectors/darkness/mean"] == pytest.approx(np.mean(values), rel=1e-12)
    assert log["detectors/darkness/max"] == max(values)
    assert log["batch_of"] == 2


def test_a_watching_detector_changes_nothing(make_trainer):
    watched, alone = make_trainer("watched"), make_trainer("alone", detectors=())
    watched.train()
    alone.train()
    assert_same(trained_weights(watched.model), trained_weights(alone.model))


@pytest.mark.parametrize("aggregation", ["sum_then_normalize", "normalize_then_sum"])
def test_a_weighed_detector_trains_like_a_reward(make_trainer, aggregation):
    """Against the same function given as a reward."""
    options = {"multi_objective_aggregation": aggregation, "advantages": "batch"}
    detector = make_trainer("detector", detector_weights=[-300.0], **options)
    reward = make_trainer(
        "reward", reward=[brightness, darkness], detectors=(), reward_weights=[1.0, -300.0], **options
    )
    alone = make_trainer("alone", detectors=(), **options)
    for trainer in (detector, reward, alone):
        trainer.train()
    weights = [trained_weights(trainer.model) for trainer in (detector, reward, alone)]
    assert_same(weights[0], weights[1])
    assert differ(weights[0], weights[2])
    for record in records_of(detector):
        assert record["reward"] == pytest.approx(record["rewards/brightness"] - 300 * record["detectors/darkness"])


def test_normalized_alone_a_detector_teaches_nothing_about_images_without_a_reward(make_trainer):
    def first_half(images, prompts, trainer_state, **columns):
        return [brightness(images, prompts)[0], None]

    options = {"multi_objective_aggregation": "normalize_then_sum", "advantages": "batch"}
    trainer = make_trainer(reward=first_half, detector_weights=[-1.0], **options)
    trainer.train()
    assert [record["reward"] is None for record in records_of(trainer)] == [False, True, False, True]
    assert [weight == 0 for weight in trainer._rollout.weights.tolist()] == [False, True, False, True]


def test_a_detector_that_can_say_nothing(make_trainer):
    trainer = make_trainer(detectors=DetectorFunction("blind", returning(None, None)))
    trainer.train()
    assert [record["detectors/blind"] for record in records_of(trainer)] == [None] * 4
    (log,) = logs_of(trainer, "reward")
    assert "detectors/blind/mean" not in log


def test_evaluations_run_them(make_trainer):
    trainer = make_trainer(
        eval_dataset={"seen": CAT_AND_DOG, "unseen": CAT_AND_DOG.select([1])}, detector_weights=[-2.0]
    )
    metrics = trainer.evaluate()
    for name in ("seen", "unseen"):
        mean = metrics[f"eval_{name}_detectors/darkness/mean"]
        assert mean == pytest.approx(1 - metrics[f"eval_{name}_rewards/brightness/mean"] / 255)
        assert metrics[f"eval_{name}_reward"] == pytest.approx(
            metrics[f"eval_{name}_rewards/brightness/mean"] - 2 * mean
        )
    assert metrics["eval_seen_detectors/darkness/max"] > metrics["eval_seen_detectors/darkness/mean"]
    assert metrics["eval_unseen_detectors/darkness/max"] == metrics["eval_unseen_detectors/darkness/mean"]


@pytest.mark.parametrize(
    ("weight", "judged"), [(None, [True, False, True, False]), (0.0, [True, False, True, False]), (-2.0, [True] * 4)]
)
def test_a_slow_detector_that_only_watches_sees_a_part_of_a_rollout_and_whole_evaluations(make_trainer, weight, judged):
    """Batches have two images, of which it sees the first; what it logs stays with the images that it saw."""
    trainer = make_trainer(
        detector_every=2, detector_weights=None if weight is None else [weight], eval_dataset=CAT_AND_DOG
    )
    trainer.train()
    records = records_of(trainer)
    assert [record["detectors/darkness"] is not None for record in records] == judged
    for record, seen in zip(records, judged, strict=True):
        value = 1 - record["rewards/brightness"] / 255
        assert record["detectors/darkness"] == (pytest.approx(value) if seen else None)
        assert record["darkness/percent"] == (round(100 * value) if seen else None)
    (log,) = logs_of(trainer, "reward")
    values = [record["detectors/darkness"] for record in records if record["detectors/darkness"] is not None]
    assert log["detectors/darkness/mean"] == pytest.approx(np.mean(values), rel=1e-12)
    metrics = trainer.evaluate()
    assert metrics["eval_detectors/darkness/mean"] == pytest.approx(1 - metrics["eval_rewards/brightness/mean"] / 255)


def test_pictures_do_not_run_them(make_trainer):
    calls = []

    def counted(images, prompts, **columns):
        calls.append(len(images))
        return [0.0] * len(images)

    make_trainer(detectors=counted, num_sample_images=1).train()
    assert calls == [2, 2]


@pytest.mark.parametrize(
    ("detectors", "options", "message"),
    [
        ("text", {}, r"detectors holds the text 'text'.*trainer_ext.detector_from_plugin\('text'\)"),
        (RewardFunction("x", brightness), {}, "detectors holds a reward, 'x'; it takes detectors"),
        ([darkness, darkness], {}, "Two detectors have the same name"),
        (lambda images: [], {}, r"Detector '<lambda>' takes only \(images\).*def detector\(images"),
        (
            darkness,
            {"detector_weights": [1.0, 2.0]},
            r"detector_weights has 2 value\(s\) for 1 detector\(s\) \(darkness\)",
        ),
        ((), {"detector_weights": [1.0]}, r"detector_weights has 1 value\(s\) for 0 detector\(s\) \(none\)"),
    ],
)
def test_mistakes(make_trainer, detectors, options, message):
    with pytest.raises(ConfigError, match=message):
        make_trainer(detectors=detectors, **options)
