"""The article's alignment task, small: the embedded model learns from a judge on a server."""

import pytest
from support import chat_server
from support.chat_server import serving
from support.trainers import all_records, logs_of

from ddpo_plugins import load_catalogue
from ddpo_plugins.errors import RewardError
from trainer_ext import prompts_from_plugin, reward_from_plugin
from trainer_ext.cli.parse import load_preset


@pytest.fixture
def server():
    sizes = set()
    with serving(lambda image, question: sizes.add(image.size) or "A cat riding a bike by the sea.") as server:
        server.sizes = sizes
        yield server


@pytest.fixture
def trainer(server, encoder_folder, make_trainer):
    """Eight images, as the preset has it but for sizes."""
    preset = load_preset(["--preset", "lora/alignment"])
    reward = reward_from_plugin(
        *preset["reward_funcs"], model="llava", base_url=server.base_url, similarity=encoder_folder, max_retries=1
    )
    return make_trainer(
        model="embedded",
        reward=reward,
        dataset=prompts_from_plugin(preset["prompts"]),
        num_images_per_rollout=8,
        rollout_batch_size=4,
        gradient_accumulation_steps=2,
        save_strategy="steps",
        stat_min_count=1,
    )


def test_one_rollout(trainer, server):
    trainer.train()
    (rows,) = all_records(trainer.args.folder)
    table = {name: [row[name] for row in rows] for name in rows[0]}
    assert server.sizes == {(64, 64)}
    assert len(server.chats) == 8
    assert table["prompt_alignment/description"] == ["A cat riding a bike by the sea."] * 8
    assert (
        len(set(table["rewards/prompt_alignment"])) == len(set(table["prompt"])) > 1
    )  # the prompts differ, the description not
    for recall, precision, f1 in zip(
        *(table[f"{kind}"] for kind in ("reward", "prompt_alignment/precision", "prompt_alignment/f1")), strict=True
    ):
        assert 0 < recall < 1
        assert f1 == pytest.approx(2 * recall * precision / (recall + precision))
    (log,) = logs_of(trainer, "reward")
    assert log["reward"] == pytest.approx(sum(table["reward"]) / 8)
    assert log["frac_reward_missing"] == 0


def test_a_server_that_fails_for_a_moment_changes_nothing(trainer, server):
    server.faults = [chat_server.status(503), chat_server.body(b"{"), chat_server.content("")]
    trainer.train()
    assert len(server.chats) == 8 + 3


def test_a_server_that_stays_away_ends_the_run(trainer, server):
    server.faults = [chat_server.status(503)] * 99
    with pytest.raises(
        RewardError, match=r"'prompt_alignment' raised RewardError: No answer of model 'llava' .*in 2 attempts"
    ):
        trainer.train()
    assert all_records(trainer.args.folder) == []


@pytest.mark.parametrize("preset", ["paper/alignment", "lora/alignment"])
def test_the_presets_name_what_there_is(preset):
    settings = load_preset(["--preset", preset])
    catalogue = load_catalogue()
    assert settings["reward_funcs"] == ["prompt_alignment"]
    assert catalogue.rewards["prompt_alignment"].plugin == "builtin"
    assert settings["prompts"] in catalogue.prompt_sets
