"""The memory of a rollout: one copy of everything, in host memory or in a file."""

import memory as benchmark
import pytest
import torch
from support.trainers import RESUMABLE, assert_same, trained_weights

from trainer_ext.errors import OutputDirError
from trainer_ext.policy.pipeline import LogProbPipeline
from trainer_ext.policy.recording.memory import RolloutMemory, allocation, on_disk
from trainer_ext.policy.seeds import image_generators


@pytest.fixture(scope="module")
def policy(tiny_pipeline):
    return LogProbPipeline(tiny_pipeline(), 2, 5.0)


@pytest.fixture(scope="module")
def batches(policy):
    """Two prompts with two images each, twice."""
    prompts, seeds = ["a cat", "a dog"], [[1, 2, 3, 4], [5, 6, 7, 8]]
    sampled = (policy.sample(prompts, image_generators(own), num_images_per_prompt=2) for own in seeds)
    return [one.trajectory for one in sampled]


@pytest.mark.parametrize("where", ["memory", "disk"])
def test_batches_are_written_to_their_places(batches, tmp_path, where):
    memory = RolloutMemory(8, allocation(tmp_path if where == "disk" else None))
    memory.add(batches[0])
    places = {name: rows.tensor.data_ptr() for name, rows in memory._rows.items()}
    with pytest.raises(ValueError, match="4 of 8 images were added"):
        memory.whole()
    memory.add(batches[1])
    whole = memory.whole()
    for name, value in whole.rows().items():
        assert torch.equal(value, torch.cat([batch.rows()[name] for batch in batches]))
        assert value.data_ptr() == places[name], "no second copy"
        assert value.untyped_storage().nbytes() == value.nbytes
    assert list(tmp_path.iterdir()) == [], "the file has no name"


def test_a_disk_without_space_is_an_error_before_anything_is_written(tmp_path):
    with pytest.raises(OSError):
        on_disk(tmp_path, (1 << 50,), torch.float32)
    assert list(tmp_path.iterdir()) == []


def test_the_conditioning_of_a_prompt_is_kept_once(policy, batches):
    (whole,) = batches[:1]
    compact = whole.by_prompt(2)
    ((call,),) = compact.conditioning.groups
    assert [len(value) for value in call.per_image.values() if isinstance(value, torch.Tensor)] == [2]
    rows, steps = torch.tensor([3, 0, 2, 1, 1]), torch.tensor([0, 1, 1, 0, 1])
    expected = policy.predict(whole.conditioning, whole.latents[rows, steps], rows, steps)
    assert torch.equal(policy.predict(compact.conditioning, whole.latents[rows, steps], rows, steps), expected)


@pytest.mark.parametrize("number", [1, 3, 4], ids=["one image of each", "that do not divide the batch", "that differ"])
def test_conditioning_that_cannot_be_shared_stays(batches, number):
    assert batches[0].by_prompt(number).conditioning is batches[0].conditioning


def test_a_training_with_its_rollouts_on_the_disk(make_trainer):
    """Bit for bit the one with its rollouts in memory, also when it is resumed in the middle of a rollout."""
    options = {**RESUMABLE, "per_device_train_batch_size": 2, "num_images_per_prompt": 2}
    whole = make_trainer("whole", **options)
    whole.train()
    stored = make_trainer("stored", rollout_on_disk=True, **{**options, "max_steps": 3})
    stored.train()
    again = make_trainer("stored", rollout_on_disk=True, **options)
    again.train(resume_from_checkpoint=True)
    assert_same(trained_weights(again.model), trained_weights(whole.model))
    assert not list(whole.args.folder.parent.rglob(".rollout-*"))


def test_a_full_disk_ends_a_run_in_one_sentence(make_trainer, monkeypatch):
    def full(*size):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("trainer_ext.policy.recording.memory.os.posix_fallocate", full)
    with pytest.raises(OutputDirError, match="no space is left on its disk"):
        make_trainer(rollout_on_disk=True).train()


def test_the_benchmark(tmp_path, capsys):
    benchmark.measure("on disk", 16, 8, 2, tmp_path)
    *_, size = capsys.readouterr().out.split()
    assert int(size) == round(16 * (3 + 2) * 4 * 8 * 8 * 4 / 1e6)
