"""A run in a notebook: one display, whose table has the rewards; pictures at its end; what objects say of themselves."""

import re
from types import SimpleNamespace

import pytest
from support.trainers import CAT_AND_DOG, brightness, returning

from trainer_ext import DetectorFunction

pytest.importorskip("IPython")

OPTIONS = {"num_train_epochs": 2, "num_sample_images": 2, "sample_every": 1, "disable_tqdm": False}


class Displays:
    """Stands for the front end of a notebook: keeps the newest state of each display."""

    def __init__(self):
        self.shown = []

    def display(self, content, display_id=False):
        self.shown.append(content)
        index = len(self.shown) - 1

        def update(newer):
            self.shown[index] = newer

        return SimpleNamespace(update=update)


@pytest.fixture
def displays(monkeypatch):
    import IPython.display
    from transformers.utils import notebook

    from trainer_ext.loop.progress import bars, views

    found = Displays()
    for module in (bars, views):
        monkeypatch.setattr(module, "is_in_notebook", lambda: True)
    monkeypatch.setattr(IPython.display, "display", found.display)
    monkeypatch.setattr(notebook.disp, "display", found.display)
    return found


def test_a_notebook_has_one_display_and_then_the_pictures(displays, make_trainer, tmp_path):
    trainer = make_trainer(**OPTIONS)
    trainer.train()
    table, sheet, curve = displays.shown
    header, *rows = [re.findall(r"<t[hd]>(.*?)</t[hd]>", row) for row in re.findall(r"<tr.*?</tr>", table.data, re.S)]
    assert header[:4] == ["rollout", "reward", "std", "fixed prompts"]
    rewards = [f"{log['reward']:.4g}" for log in trainer.state.log_history if "reward" in log]
    assert [row[:2] for row in rows] == [[str(index), reward] for index, reward in enumerate(rewards)]
    assert "Training Loss" not in table.data
    assert "2/2 updates" in table.data
    for picture, name in ((sheet, "samples/before_after.png"), (curve, "reward_curve.png")):
        assert picture.data == (tmp_path / "run" / name).read_bytes()


def test_without_bars_a_notebook_has_lines(displays, make_trainer, capsys):
    make_trainer(**{**OPTIONS, "disable_tqdm": True}).train()
    assert displays.shown == []
    assert re.search(r"^rollout 1: reward ", capsys.readouterr().err, re.M)


def test_objects_say_what_they_are(make_trainer):
    blank = DetectorFunction("blank", returning(0.0, 0.0))
    trainer = make_trainer(
        reward=[brightness], detectors=[blank], dataset=CAT_AND_DOG, reward_weights=[0.5], learning_rate=0.25
    )
    assert repr(trainer.judges.trained) == "RewardSuite(0.5 * brightness; watching: blank)"
    assert (
        repr(trainer.policy)
        == "LogProbPipeline(StableDiffusionPipeline, sampler='ddim', num_inference_steps=2, guidance_scale=1.0)"
    )
    text = repr(trainer)
    for part in (
        "DDPOTrainer(StableDiffusionPipeline",
        "LoRA of rank 4",
        "rewards brightness",
        "detectors blank",
        "2 prompts",
        "on cpu",
    ):
        assert part in text
    config = repr(trainer.args)
    assert config.startswith("DDPOConfig(output_dir=")
    assert "learning_rate=0.25" in config
    assert "adam_beta1" not in config
