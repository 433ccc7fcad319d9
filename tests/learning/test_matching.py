"""AWM and DiffusionNFT: their identities, by hand and in float64, and what they need of a run."""

import functools
from functools import partial

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler, UNet2DConditionModel
from safetensors.torch import load_file
from support.trainers import FOUR_ANIMALS, all_records, assert_same, logs_of, trained_weights

from trainer_ext import reward_from_plugin
from trainer_ext.errors import CheckpointError, ConfigError
from trainer_ext.learning.losses import negative_aware_loss, scaled_squares, signed_matching_loss
from trainer_ext.learning.matching import AdvantageWeightedMatching, NegativeAwareFineTuning
from trainer_ext.learning.old_policy import OldPolicy
from trainer_ext.learning.policy_gradient import ImportanceSampling
from trainer_ext.model.earlier.old_policy import OLD_FILE
from trainer_ext.model.loading import DTYPE_ARGUMENT, embedded_model, load_pipeline
from trainer_ext.policy.recording.trajectory import FinalLatents
from trainer_ext.policy.transitions.own import own_noising
from trainer_ext.runs.folder import RunFolder

SIGNS = torch.tensor([0.9, -0.4, 0.2, -1.0, 0.5, -0.1], dtype=torch.float64)
STEPS = torch.tensor([0, 2, 4, 6, 8, 9])
EMBEDDED_FOLDER = embedded_model()


def noising(prediction_type):
    if prediction_type == "flow":
        scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    else:
        scheduler = DDIMScheduler(prediction_type=prediction_type)
    scheduler.set_timesteps(10)
    return own_noising(scheduler)


def case(prediction_type):
    """A linear denoiser, noised images, their targets and the weights of their steps; float64."""
    table = noising(prediction_type)
    final, epsilon = torch.randn(2, 6, 5, dtype=torch.float64)
    signal, noise, to_final, to_noise = (
        column[STEPS, None] for column in (table.signal, table.noise, table.target_denoised, table.target_noise)
    )
    latents, target = signal * final + noise * epsilon, to_final * final + to_noise * epsilon
    weight = torch.randn(5, 5, dtype=torch.float64, requires_grad=True)
    return latents @ weight, weight, target, table.flow_time[STEPS]


def gradient(loss, weight):
    (found,) = torch.autograd.grad(loss, weight, retain_graph=True)
    return found


PREDICTIONS = ["epsilon", "v_prediction", "sample", "flow"]


@pytest.mark.parametrize("strength", [1.0, 0.1])
@pytest.mark.parametrize("prediction_type", PREDICTIONS)
def test_the_first_update_of_nft_is_signed_matching(prediction_type, strength):
    """At the old policy the positive and the negative half pull with r - (1 - r), the sign."""
    prediction, weight, target, step_weights = case(prediction_type)
    matching = gradient(signed_matching_loss(prediction, target, SIGNS, step_weights).loss, weight)
    nft = negative_aware_loss(prediction, prediction.detach(), target, SIGNS, step_weights, strength)
    assert nft.metrics["old_distance"] == 0
    assert matching.norm() > 0
    assert (gradient(nft.loss, weight) - matching).abs().max() <= 1e-15 * matching.abs().max() / strength


def test_away_from_the_old_policy_they_differ():
    prediction, weight, target, step_weights = case("epsilon")
    matching = gradient(signed_matching_loss(prediction, target, SIGNS, step_weights).loss, weight)
    nft = gradient(
        negative_aware_loss(prediction, prediction.detach() + 1, target, SIGNS, step_weights, 1.0).loss, weight
    )
    assert (nft - matching).norm() > 0.1 * matching.norm()


def test_nft_in_the_space_of_images():
    """As the paper has it, for flow matching: x_0 = x_t - t v, errors of x_0, divided by their mean size."""
    table = noising("flow")
    final, epsilon, old, prediction = torch.randn(4, 6, 5, dtype=torch.float64)
    time = table.noise[STEPS, None]
    noised = (1 - time) * final + time * epsilon
    expected = []
    for v, share in ((0.9 * old + 0.1 * prediction, (1 + SIGNS) / 2), (1.1 * old - 0.1 * prediction, (1 - SIGNS) / 2)):
        error = noised - time * v - final
        expected.append(share * error.square().mean(1) / error.abs().mean(1) / 0.1)
    found = negative_aware_loss(prediction, old, epsilon - final, SIGNS, table.flow_time[STEPS], 0.1).loss
    torch.testing.assert_close(found, sum(expected).mean(), rtol=1e-12, atol=0)


def test_signed_matching_by_hand():
    """
    Two images with errors (1, 3) and (-2, 2): squares 5 and 4 over sizes 2 and 2. Signs 1 and -1/2, step weights 1/2 and 1; mean
    over 2 images: loss (1/2 * 5/2 - 1/2 * 2) / 2, gradient sign * weight * (2 error / 2 elements) / size 2 / 2 images.
    """
    prediction = torch.tensor([[2.0, 4.0], [-1.0, 3.0]], dtype=torch.float64, requires_grad=True)
    target = torch.ones(2, 2, dtype=torch.float64)
    signs, step_weights = torch.tensor([1.0, -0.5]).double(), torch.tensor([0.5, 1.0]).double()
    output = signed_matching_loss(prediction, target, signs, step_weights)
    assert output.loss.item() == pytest.approx(0.125)
    assert output.metrics["denoising_loss"].item() == 4.5
    expected = [[0.5 * 1 / 4, 0.5 * 3 / 4], [-0.5 * -2 / 4, -0.5 * 2 / 4]]
    assert gradient(output.loss, prediction).tolist() == [pytest.approx(row) for row in expected]


def test_errors_have_a_smallest_size():
    prediction = torch.full((1, 4), 1e-8, dtype=torch.float64, requires_grad=True)
    assert scaled_squares(prediction, torch.zeros(1, 4, dtype=torch.float64)).item() == pytest.approx(1e-16 / 1e-5)


@pytest.mark.parametrize("prediction_type", PREDICTIONS)
def test_how_far_the_image_moves_with_the_output(prediction_type):
    """`denoised_coef` against x_0 as autograd moves it, of the two equations of the forward process."""
    table = noising(prediction_type)
    for step in range(10):
        matrix = torch.tensor(
            [[table.signal[step], table.noise[step]], [table.target_denoised[step], table.target_noise[step]]]
        )
        moved = torch.linalg.solve(matrix, torch.tensor([0.0, 1.0]).double())[0]
        assert table.denoised_coef[step].item() == pytest.approx(abs(moved.item()))
    assert ((table.flow_time > 0) & (table.flow_time <= 1)).all()


# ---- the old policy ----


@pytest.mark.parametrize(
    ("policy", "decays"),
    [
        (NegativeAwareFineTuning().old_policy, {0: 0, 1: 0.001, 499: 0.499, 600: 0.5}),
        (NegativeAwareFineTuning(strength=0.1).old_policy, {0: 0, 75: 0, 76: 0.0075, 400: 0.999}),
        (AdvantageWeightedMatching().old_policy, {0: 0, 10: 0.01, 300: 0.3, 301: 0.3}),
    ],
    ids=["nft", "nft of several rewards", "awm"],
)
def test_it_follows_more_slowly_with_time(policy, decays):
    assert {moves: policy.decay(moves) for moves in decays} == pytest.approx(decays)


def test_when_it_moves():
    after_rollouts, after_updates = OldPolicy(0.1, 1.0), OldPolicy(0.1, 1.0, each_update=True)
    assert [after_rollouts.moves_after(updates, 3) for updates in range(1, 7)] == [None, None, 0, None, None, 1]
    assert [after_updates.moves_after(updates, 3) for updates in range(1, 4)] == [0, 1, 2]


class Slow(NegativeAwareFineTuning):
    """NFT whose old policy keeps nine tenths from the second rollout on, so that it is seen."""

    @property
    def old_policy(self):
        return OldPolicy(growth=0.9, limit=0.9, samples=True)


@pytest.fixture
def run_options():
    """Two updates on each rollout."""
    batches = {"num_images_per_rollout": 8, "rollout_batch_size": 8, "advantages": "batch"}
    return {"dataset": FOUR_ANIMALS, "learning_rate": 1e-2, "num_train_epochs": 2, **batches}


def test_the_old_policy_samples_and_is_saved(make_trainer):
    trainer = make_trainer(algorithm=Slow(), save_strategy="steps", save_steps=1, save_total_limit=None)
    before = trained_weights(trainer.model)
    lent = []
    sample = trainer.policy.sample

    def watched(*arguments, **named):
        lent.append(trained_weights(trainer.model))
        return sample(*arguments, **named)

    trainer.policy.sample = watched
    trainer.train()
    old, trained = trainer._weights.old.values, trained_weights(trainer.model)
    assert_same(lent[0], before)
    first = load_file(f"{trainer.args.output_dir}/checkpoint-2/{OLD_FILE}")
    assert_same(lent[1], first)  # a decay of 0 after the first rollout: the trained weights of then
    assert_same(load_file(f"{trainer.args.output_dir}/checkpoint-1/{OLD_FILE}"), before)  # none is due inside a rollout
    for name, value in trained.items():
        torch.testing.assert_close(old[name], 0.9 * first[name] + 0.1 * value)
    distances = [log["old_distance"] for log in logs_of(trainer, "old_distance")]
    assert min(distances) > 0


@pytest.mark.parametrize("algorithm", ["nft", pytest.param("awm", marks=pytest.mark.full)])
def test_a_resumed_run_is_the_run(make_trainer, algorithm):
    options = {"algorithm": algorithm, "save_strategy": "steps", "save_steps": 1, "beta": 0.1, "num_train_epochs": 3}
    whole = make_trainer("whole", **options, save_total_limit=None)
    whole.train()
    for updates in (1, 4):
        again = make_trainer("again", **options)
        again.train(resume_from_checkpoint=f"{whole.args.output_dir}/checkpoint-{updates}")
        assert_same(trained_weights(again.model), trained_weights(whole.model))
        assert_same(again._weights.old.values, whole._weights.old.values)


def test_a_checkpoint_without_an_old_policy(make_trainer):
    options = {"save_strategy": "epoch", "num_train_epochs": 1}
    make_trainer(algorithm=AdvantageWeightedMatching(old_weight=0.0), **options).train()
    with pytest.raises(CheckpointError, match="no weights of an old policy"):
        make_trainer(algorithm="awm", num_train_epochs=2).train(resume_from_checkpoint=True)


def test_without_an_anchor_there_is_no_old_policy(make_trainer):
    trainer = make_trainer(algorithm=AdvantageWeightedMatching(old_weight=0.0), num_train_epochs=1)
    trainer.train()
    assert trainer._weights.old is None
    assert not logs_of(trainer, "old_distance")
    assert logs_of(trainer, "denoising_loss")


# ---- what they need of a run ----


@pytest.mark.parametrize("algorithm", ["awm", "nft", "rwr"])
def test_only_final_images_are_retained(make_trainer, algorithm):
    trainer = make_trainer(algorithm=algorithm, num_train_epochs=1, num_inference_steps=3)
    trainer.train()
    kept = trainer._rollout.data
    assert isinstance(kept, FinalLatents)
    assert {name: tuple(rows.shape) for name, rows in kept.rows().items()} == {"latents": (8, 4, 8, 8)}
    assert trainer.policy.sampler == ("ddim" if algorithm == "rwr" else "own")


def test_advantages_are_cut_to_signs(make_trainer):
    """An image whose advantage is beyond the clip counts fully, one at half of it half."""
    seen = []

    class Spy(AdvantageWeightedMatching):
        def loss(self, minibatch, prediction):
            seen.append((minibatch.weights, self.signs(minibatch)))
            return super().loss(minibatch, prediction)

    trainer = make_trainer(algorithm=Spy(advantage_clip=0.5), num_train_epochs=1)
    trainer.train()
    weights, signs = (torch.cat(column) for column in zip(*seen, strict=True))
    torch.testing.assert_close(signs, (2 * weights).clamp(-1, 1))
    assert signs.min() == -1
    assert ((signs > -1) & (signs < 1)).any()


@pytest.mark.parametrize("clip", [0.0, np.inf])
def test_a_clip_that_advantages_cannot_be_divided_by(clip):
    with pytest.raises(ConfigError, match="advantage_clip is .*for 'awm' it must be greater than 0 and finite"):
        AdvantageWeightedMatching(clip)


@pytest.mark.parametrize(
    "algorithm", ["awm", *(pytest.param(name, marks=pytest.mark.full) for name in ("rwr", "sparse_rwr", "nft"))]
)
def test_beta_holds_predicted_images_near_those_before_training(make_trainer, algorithm):
    last = {}
    for beta in (1e-4, 100.0):
        trainer = make_trainer(algorithm=algorithm, beta=beta, num_train_epochs=3, folder=str(beta))
        trainer.train()
        last[beta] = logs_of(trainer, "reference_distance")[-1]["reference_distance"]
    assert 0 < last[100.0] < last[1e-4] / 2


@pytest.mark.parametrize("algorithm", ["rwr", "awm"])
def test_eta_0_where_no_log_probability_is_needed(make_trainer, algorithm):
    trainer = make_trainer(algorithm=algorithm, sampler="ddim", eta=0.0, num_train_epochs=1)
    trainer.train()
    assert not len(trainer.policy.table.stochastic_steps)
    assert trainer.algorithm.trained_steps.tolist() == [0, 1]
    assert np.isfinite([row["reward"] for rows in all_records(trainer.args.output_dir) for row in rows]).all()


def test_eta_0_is_refused_for_an_algorithm_object_too(make_trainer):
    with pytest.raises(ConfigError, match="eta is 0.0.*'ddpo_is'.*rwr, sparse_rwr, awm, nft need none"):
        make_trainer(algorithm="rwr", eta=0.0).args.resolve_algorithm(ImportanceSampling())


def test_every_option_reaches_its_algorithm(make_trainer):
    build = partial(make_trainer, num_train_epochs=1)
    assert build(algorithm="nft", nft_strength=0.1).algorithm.algorithm == NegativeAwareFineTuning(5.0, 0.1)
    assert build(algorithm="awm", advantage_clip=3.0).algorithm.algorithm == AdvantageWeightedMatching(3.0)


class PredictsNoise(UNet2DConditionModel):
    """The embedded model's denoiser, which predicts v, as one that predicts the noise: signal * v + noise * latents."""

    @functools.wraps(UNet2DConditionModel.forward)  # the recorder looks at the names of its parameters
    def forward(self, sample, timestep, *arguments, **named):
        v = super().forward(sample, timestep, *arguments, **named)[0]
        alpha = DDIMScheduler.from_pretrained(EMBEDDED_FOLDER, subfolder="scheduler").alphas_cumprod[timestep.cpu()]
        alpha = alpha.to(sample).reshape(-1, 1, 1, 1)
        return (alpha.sqrt() * v + (1 - alpha).sqrt() * sample,)


def predicting_noise():
    pipeline = load_pipeline("embedded")
    unet = PredictsNoise.from_pretrained(EMBEDDED_FOLDER, subfolder="unet", **{DTYPE_ARGUMENT: torch.float32})
    scheduler = DDIMScheduler.from_config(pipeline.scheduler.config, prediction_type="epsilon")
    pipeline.register_modules(unet=unet.eval(), scheduler=scheduler)
    return pipeline


@pytest.mark.parametrize(
    "model", [lambda: "embedded", pytest.param(predicting_noise, marks=pytest.mark.full)], ids=["v", "epsilon"]
)
def test_the_embedded_model_learns(make_trainer, model):
    """Incompressibility in three rollouts of five steps: the pictures of fixed prompts and seeds grow."""
    trainer = make_trainer(
        model=model(),
        reward=reward_from_plugin("jpeg_incompressibility"),
        algorithm="awm",
        advantages="group",
        num_inference_steps=5,
        num_images_per_rollout=16,
        num_images_per_prompt=8,
        rollout_batch_size=16,
        num_train_epochs=3,
        learning_rate=2.5e-3,
        num_sample_images=16,
        sample_every=0,
    )
    trainer.train()
    before, after = (sheet.rewards for sheet in RunFolder(trainer.args.folder).samples())
    assert np.mean(after) > np.mean(before) + 0.05  # kB
