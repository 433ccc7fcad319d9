import inspect

import pytest
import torch

from trainer_ext.errors import PipelineError
from trainer_ext.policy.pipeline import LogProbPipeline
from trainer_ext.policy.recording.calls import (
    DenoiserCall,
    Recorder,
    flatten,
    infer_layout,
    num_rows,
    unflatten,
)
from trainer_ext.policy.recording.conditioning import Conditioning, branches_first, images_first
from trainer_ext.policy.recording.trajectory import Trajectory
from trainer_ext.policy.recording.verdicts import Verdicts, conditions_of_equality, is_same
from trainer_ext.policy.seeds import image_generators
from trainer_ext.policy.transfer import to_device
from trainer_ext.policy.transitions.gaussian import TransitionTable


class Denoiser(torch.nn.Module):
    """The signature of diffusers' UNet, more or less."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(()))

    def forward(self, sample, timestep, encoder_hidden_states=None, added_cond_kwargs=None, return_dict=True):
        return (sample * self.weight,)


def call(num_images, copies=2, time_name="timestep", **arguments):
    """What a pipeline would hand over for `num_images`; functions of the number of rows become arguments."""
    rows = copies * num_images
    arguments = {name: value(rows) if inspect.isfunction(value) else value for name, value in arguments.items()}
    sample = torch.randn(rows, 4, 8, 8)
    return DenoiserCall(flatten({"sample": sample, time_name: torch.tensor(981), **arguments}), sample)


def layout(copies=2, **arguments):
    return infer_layout(call(2, copies, **arguments), call(3, copies, **arguments))


@pytest.mark.parametrize("copies", [1, 2, 3])
def test_rows_for_each_image_are_told_from_constants(copies):
    inferred = layout(
        copies,
        encoder_hidden_states=lambda rows: torch.randn(rows, 16, 32),
        sizes=torch.tensor([8, 8, 8]),  # as long as 3 images
        pair=[4, 4],  # as long as 2 images
        guidance=torch.tensor(5.0),
        masks=lambda rows: ["mask"] * rows,
        timestep_cond=None,
        return_dict=False,
    )
    assert (inferred.latents_name, inferred.time_name, inferred.copies) == ("sample", "timestep", copies)
    assert inferred.per_image == {"encoder_hidden_states", "masks"}
    assert inferred.dtype == torch.float32


def test_nested_arguments_are_told_apart_one_by_one():
    inferred = layout(
        added_cond_kwargs=lambda rows: {"time_ids": torch.randn(rows, 6), "crop": torch.tensor([0, 0, 0])}
    )
    assert inferred.per_image == {"added_cond_kwargs.time_ids"}


@pytest.mark.parametrize("timestep", [lambda rows: torch.full((rows,), 981), torch.tensor([981]), torch.tensor(981)])
@pytest.mark.parametrize("time_name", ["timestep", "timesteps", "t"])
def test_the_timestep_belongs_to_the_step_not_to_the_image(time_name, timestep):
    inferred = infer_layout(*(call(n, time_name=time_name, **{time_name: timestep}) for n in (2, 3)))
    assert (inferred.time_name, inferred.per_image) == (time_name, frozenset())


def test_a_denoiser_without_a_timestep():
    with pytest.raises(
        PipelineError, match=r"called with sample, sigma; none is a timestep \(timestep, timesteps, t\)"
    ):
        infer_layout(call(2, time_name="sigma"), call(3, time_name="sigma"))


def test_rows_that_do_not_follow_the_number_of_images():
    with pytest.raises(
        PipelineError,
        match="'packed' has 22 rows for 2 images and 33 for 3; expected 4 and 6, or the same number for both",
    ):
        layout(packed=lambda rows: torch.randn(11 * rows // 2, 32))


@pytest.mark.parametrize(("two", "three"), [(5, 6), (4, 4), (4, 8)])
def test_a_batch_that_does_not_follow_the_number_of_images(two, three):
    calls = [call(rows, copies=1) for rows in (two, three)]
    with pytest.raises(PipelineError, match="does not grow with the number of prompts"):
        infer_layout(*calls)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (torch.zeros(3, 2), 3),
        (torch.zeros(()), None),
        ([1, 2], 2),
        ((1, 2), None),
        ("text", None),
        (None, None),
        (3, None),
    ],
)
def test_number_of_rows(value, expected):
    assert num_rows(value) == expected


def test_flattening_is_undone():
    arguments = {"sample": 1, "added_cond_kwargs": {"text_embeds": 2, "time_ids": 3}, "timestep": None, "sizes": [1, 2]}
    flat = flatten(arguments)
    assert flat == {
        "sample": 1,
        "added_cond_kwargs.text_embeds": 2,
        "added_cond_kwargs.time_ids": 3,
        "timestep": None,
        "sizes": [1, 2],
    }
    assert next(iter(flat)) == "sample"
    assert unflatten(flat) == arguments


SAME = [
    (torch.tensor([1.0, 2.0]), torch.tensor([1.0, 2.0])),
    ([torch.ones(2), "a"], [torch.ones(2), "a"]),
    ((1, (2, None)), (1, (2, None))),
    (None, None),
    (0.5, 0.5),
]
DIFFERENT = [
    (torch.tensor([1.0, 2.0]), torch.tensor([1.0, 2.0 + 1e-6])),
    (torch.ones(2), torch.ones(2, 1)),
    (torch.ones(2), torch.ones(1)),
    (torch.ones(2), None),
    (torch.ones(()), 1.0),
    ([torch.ones(2)], [torch.zeros(2)]),
    ([1, 2], [1]),
    ([1], (1,)),
    (True, 1),
    (0.5, 0.25),
]


@pytest.mark.parametrize(("first", "second", "expected"), [(*p, True) for p in SAME] + [(*p, False) for p in DIFFERENT])
def test_is_same(first, second, expected):
    assert is_same(first, second) is expected
    assert is_same(second, first) is expected


def test_images_first_and_back_for_tensors():
    """Two copies of three images: rows are [u0 u1 u2 c0 c1 c2] before, [[u0 c0] [u1 c1] [u2 c2]] after."""
    rows = torch.tensor([[0.0], [1.0], [2.0], [10.0], [11.0], [12.0]])
    grouped = images_first(rows, 2)
    assert grouped.squeeze(-1).tolist() == [[0, 10], [1, 11], [2, 12]]
    assert torch.equal(branches_first(grouped, torch.arange(3)), rows)
    assert branches_first(grouped, torch.tensor([2, 0, 2, 1])).flatten().tolist() == [2, 0, 2, 1, 12, 10, 12, 11]


def test_images_first_and_back_for_lists():
    rows = ["u0", "u1", "u2", "c0", "c1", "c2"]
    grouped = images_first(rows, 2)
    assert grouped == [["u0", "c0"], ["u1", "c1"], ["u2", "c2"]]
    assert branches_first(grouped, torch.arange(3)) == rows
    assert branches_first(grouped, torch.tensor([2, 0])) == ["u2", "u0", "c2", "c0"]
    assert branches_first(images_first(rows, 1), torch.tensor([5, 1])) == ["c2", "u1"]


def test_branches_are_in_the_order_of_their_copies():
    inferred = layout()
    latents = torch.randn(3, 4, 8, 8)
    argument = inferred.latents_argument(latents)
    assert torch.equal(argument, torch.cat([latents, latents]))
    assert all(torch.equal(branch, latents) for branch in inferred.branches(argument, latents.shape[1:]))


def test_the_recorder_sees_what_the_denoiser_gets():
    module, seen = Denoiser(), []

    def trained(**arguments):
        seen.append(arguments)
        return module(**arguments)

    recorder = Recorder(module, trained)
    sample, cond = torch.randn(2, 4, 8, 8), {"time_ids": torch.ones(2, 6)}
    (output,) = recorder(sample, 981, added_cond_kwargs=cond, return_dict=False)
    recorder(sample.double(), 961, encoder_hidden_states=None)
    first, second = recorder.take_calls()
    assert recorder.take_calls() == []
    assert torch.equal(output, sample)
    assert first.output is output
    assert list(first.arguments) == ["sample", "timestep", "added_cond_kwargs.time_ids", "return_dict"]
    assert seen[0]["added_cond_kwargs"] is cond
    assert second.arguments["sample"].dtype == torch.float32, "the dtype of the first latents stays"
    assert second.arguments["timestep"] == 961
    assert recorder.weight is module.weight, "attributes are the module's"
    with pytest.raises(TypeError, match="unexpected keyword argument 'return_dic'"):
        recorder(sample, 981, return_dic=False)


def test_a_denoiser_that_takes_anything():
    class Open(torch.nn.Module):
        def forward(self, sample, timestep, **kwargs):
            assert set(kwargs) == {"mask"}
            return (sample,)

    module = Open()
    recorder = Recorder(module, module)
    recorder(torch.randn(2, 4), 981, mask=torch.ones(2))
    (recorded,) = recorder.take_calls()
    assert list(recorded.arguments) == ["sample", "timestep", "mask"]


def test_tensors_are_moved_wherever_they_are():
    value = {"a": [torch.ones(2), "text"], "b": (None, {"c": torch.ones(1)}), "d": 3}
    moved = to_device(value, "meta")
    assert moved["a"][0].device.type == moved["b"][1]["c"].device.type == "meta"
    assert (moved["a"][1], moved["b"][0], moved["d"]) == ("text", None, 3)
    assert value["a"][0].device.type == "cpu"


def test_a_trajectory_has_one_more_state_than_steps():
    table = TransitionTable(*torch.ones(3, 5, dtype=torch.float64))
    latents, outputs = torch.zeros(2, 6, 4), torch.zeros(2, 5, 4)
    assert len(Trajectory(table, latents, outputs, Conditioning.of_batch((), 2))) == 2
    for bad_latents, bad_outputs in ((latents[:, :5], outputs), (latents, outputs[:, :4]), (latents[:1], outputs)):
        with pytest.raises(ValueError, match="do not fit a table of 5 steps"):
            Trajectory(table, bad_latents, bad_outputs, Conditioning.of_batch((), 2))


# ---- what is judged at the end ----


def test_the_first_condition_that_does_not_hold_is_the_error():
    verdicts = Verdicts()
    for name, holds in {"a": True, "b": False, "c": False}.items():
        verdicts.expect([torch.tensor(True), torch.tensor(holds)], lambda name=name: ValueError(name))
    with pytest.raises(ValueError, match="b"):
        verdicts.judge()
    verdicts.judge()  # each is raised once


def test_what_is_known_at_once_is_raised_at_once_but_for_what_was_wrong_before():
    verdicts = Verdicts()
    verdicts.expect([True], lambda: ValueError("not this"))
    with pytest.raises(ValueError, match="shapes"):
        verdicts.expect(conditions_of_equality(torch.zeros(2), torch.zeros(3)), lambda: ValueError("shapes"))
    verdicts.expect(conditions_of_equality([torch.zeros(2)], [torch.ones(2)]), lambda: ValueError("before"))
    with pytest.raises(ValueError, match="before"):
        verdicts.expect([False], lambda: ValueError("after"))


def not_a_number(step, latents):
    """Changes latents as some callbacks do, so that what comes later fails."""
    return {"latents": latents * 0} if step == 0 else {"latents": latents}


@pytest.mark.parametrize(
    ("stop", "error"),
    [(None, "changes the latents between steps 0 and 1"), (InterruptedError("enough"), "enough")],
)
def test_a_finding_is_not_lost_when_the_run_fails_later(tiny_pipeline, monkeypatch, stop, error):
    """The decoder fails, perhaps because of what was found; but an interruption is no failure of the run."""
    pipeline = tiny_pipeline()
    kwargs = {"callback_on_step_end": lambda _, step, t, kwargs: not_a_number(step, **kwargs)}
    policy = LogProbPipeline(pipeline, 3, 1.0, pipeline_kwargs=kwargs)
    monkeypatch.setattr(pipeline.vae, "decode", lambda *args, **kw: 1 / 0)

    def on_step(step):
        if stop and step == 2:
            raise stop

    with pytest.raises(PipelineError if stop is None else InterruptedError, match=error):
        policy.sample(["a cat"], image_generators([1]), on_step=on_step)
