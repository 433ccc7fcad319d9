"""`ddpo audit`: what cheating pays."""

import json
import math

import numpy as np
import pytest
import torch
from PIL import Image
from support.trainers import brightness

from trainer_ext.audit.cheats import CHEATS, Kind
from trainer_ext.audit.examine import HONEST, audit, num_steps
from trainer_ext.audit.findings import findings, paying
from trainer_ext.audit.payments import CONFIDENCE, largest_difference, payment
from trainer_ext.audit.writing import asked_words, grey_card
from trainer_ext.cli import main
from trainer_ext.errors import ConfigError
from trainer_ext.scoring.functions import DetectorFunction, RewardFunction
from trainer_ext.scoring.suite import RewardSuite

ANIMALS = [
    "a cat",
    "a dog",
    "a lion",
    "a bear",
    "a horse",
    "an ant",
    "a bat",
    "a bee",
    "a cow",
    "a fox",
    "a hen",
    "an owl",
]
COLOURS = {prompt: 15 + 20 * (5 * index % 12) for index, prompt in enumerate(ANIMALS)}  # of each prompt's right picture
SIDE = 32


def pictures(prompts=ANIMALS):
    """A picture for each prompt, whose pixels are spread about its colour."""
    pattern = np.random.default_rng(0).integers(-10, 11, (len(prompts), SIDE, SIDE, 3))
    grey = np.array([COLOURS.get(prompt, 100) for prompt in prompts])[:, None, None, None]
    return torch.from_numpy((grey + pattern).astype(np.uint8))


def audited(reward, prompts=ANIMALS, detectors=()):
    suite = RewardSuite([RewardFunction("reward", reward)], detectors=[DetectorFunction("watch", d) for d in detectors])
    return audit(suite, pictures(prompts), [{"prompt": prompt} for prompt in prompts])


def right_colour(images, prompts, **columns):
    """How near the picture's grey is to the prompt's; nothing for plain areas: only the right picture pleases."""
    rewards = []
    for image, prompt in zip(images, prompts, strict=True):
        pixels = np.asarray(image, float)
        rewards.append(-255.0 if pixels.std() < 1 else -abs(pixels.mean() - COLOURS[prompt]))
    return rewards


def reads(images, prompts, **columns):
    """A reward that only sees the asked word, as the audit writes it on grey."""
    return [
        float(np.array_equal(np.asarray(image), np.asarray(grey_card(image.size, asked_words(prompt)))))
        for image, prompt in zip(images, prompts, strict=True)
    ]


def test_a_payment_by_hand():
    paid = payment(np.array([1.0, 2.0, 3.0, np.nan]), np.array([2.0, 4.0, 6.0, 1.0]))
    # differences 1, 2, 3: mean 2, standard error 1 / sqrt(3); Student's quantile for 2 degrees of freedom in closed form
    quantile = CONFIDENCE * math.sqrt(2 / (1 - CONFIDENCE**2))
    assert (paid.reward, paid.difference, paid.n) == (4.0, 2.0, 3)
    assert [paid.low, paid.high] == pytest.approx([2 - quantile / math.sqrt(3), 2 + quantile / math.sqrt(3)])
    assert paid.in_std == pytest.approx(2 / math.sqrt(2 / 3))


def test_payments_without_spread_or_without_pairs():
    same = payment(np.array([1.0, 1.0]), np.array([1.5, 1.5]))
    assert (same.low, same.high, same.in_std) == (0.5, 0.5, math.inf)
    assert same.pays
    single = payment(np.array([1.0]), np.array([5.0]))
    assert not single.pays
    assert not single.costs  # one prompt is no evidence
    none = payment(np.array([np.nan, 1.0]), np.array([1.0, np.nan]))
    assert none.n == 0
    assert not none.pays
    assert not none.costs


def test_chance_alone_pays_in_one_audit_of_twenty():
    """Nothing games a reward of random numbers: with all cheats together, at most 5 % of audits say so."""
    draw = np.random.default_rng(0).normal
    alarms = sum(any(payment(draw(size=8), draw(size=8)).pays for _ in CHEATS) for _ in range(100))
    assert 1 <= alarms <= 8  # expected 2.5: an interval has two sides, and only one pays


def test_white_pays_where_brightness_is_rewarded():
    result = audited(brightness)
    own = pictures().double().mean(dim=(1, 2, 3)).numpy()
    assert result.honest.tolist() == pytest.approx(own.tolist())
    assert result.payments["white"].difference == pytest.approx(float((255 - own).mean()))
    assert result.payments["black"].difference == pytest.approx(-float(own.mean()))
    assert next(iter(result.payments)) == "white" == paying(result)[0]
    said = findings(result)
    assert said[0].startswith("White pays +")
    assert "The reward ignores the prompt: each picture has the same reward under another one." in said
    assert not any("read" in sentence for sentence in said)  # it cannot, if it never sees the prompt


def test_a_reward_that_knows_its_prompts_cannot_be_cheated():
    result = audited(right_colour)
    assert paying(result) == []
    assert result.payments["another prompt's picture"].costs
    said = findings(result)
    assert said[0].startswith(f"None of {len(CHEATS)} cheats pays more than {HONEST}")
    assert said[1].startswith("It looks for the prompt: another prompt's picture pays -")
    assert not result.ignores_prompt
    assert (result.again, result.alone) == (0.0, 0.0)


def test_a_reward_that_reads():
    result = audited(reads)
    assert paying(result) == ["asked word on grey"]
    assert result.payments["asked word on grey"].reward == 1.0
    assert result.payments["wrong word on grey"].reward == 0.0
    assert any(sentence.startswith("It reads: ") for sentence in findings(result))
    assert any(sentence.startswith("It does not read: ") for sentence in findings(audited(right_colour)))


@pytest.mark.parametrize("beginning", ["", "a photo of ", "a highly detailed oil painting of "])
def test_words_that_all_prompts_share_are_not_what_is_asked_for(beginning):
    """The reward pays for the animal's name alone, however the prompts begin."""
    prompts = [beginning + animal for animal in ANIMALS]

    def reads_the_animal(images, prompts, **columns):
        names = [prompt.split()[-1] for prompt in prompts]
        return reads(images, names)

    result = audited(reads_the_animal, prompts)
    assert paying(result) == ["asked word on grey"]
    assert not result.ignores_prompt


def test_randomness_and_the_batch_are_named():
    drawn = iter(range(1000))

    def random(images, prompts, **columns):
        return [float(next(drawn)) for _ in images]

    def rank(images, prompts, **columns):
        """Compares the images of a batch."""
        return np.argsort(np.argsort(brightness(images, prompts))).tolist()

    assert findings(audited(random))[-1].startswith("It is random: the same pictures, scored again, differ by up to ")
    assert findings(audited(rank))[-1].startswith("It depends on the batch: scored alone, the same pictures differ")
    assert findings(audited(rank))[-1].endswith("up to 11.")


def test_what_a_detector_sees():
    def is_plain(images, prompts, **columns):
        return [float(np.asarray(image).std() == 0) for image in images]

    def always(images, prompts, **columns):
        return [0.9] * len(images)

    def darkness(images, prompts, **columns):
        return [-value for value in brightness(images, prompts)]

    def nothing(images, prompts, **columns):
        return [None] * len(images)

    assert audited(darkness, detectors=[nothing]).detections == {}
    result = audited(darkness, detectors=[is_plain])
    assert result.detections["watch"]["white"] == 1.0
    assert result.detections["watch"][HONEST] == 0.0
    (sentence,) = [each for each in findings(result) if each.startswith("watch sees")]
    assert sentence == "watch sees black; not darkened, black border."
    alarms = findings(audited(right_colour, detectors=[always]))
    assert f"watch is 0.90 for {HONEST}: its alarms mean nothing on this model." in alarms


def test_missing_rewards_are_left_out():
    def only_cats(images, prompts, **columns):
        return [1.0 if prompt == "a cat" else None for prompt in prompts]

    def nothing(images, prompts, **columns):
        return [None for _ in prompts]

    result = audited(only_cats)
    assert {each.n for each in result.payments.values()} == {1}
    assert paying(result) == []
    (sentence,) = findings(audited(nothing))
    assert sentence.startswith(f"No reward for {HONEST} of any prompt")


@pytest.mark.parametrize("prompt", ["猫", "🐈", "of the", "<b>&amp;</b>", "$x^2$", "cat " * 2500], ids=range(6))
def test_any_prompt_can_be_audited(prompt):
    result = audited(brightness, prompts=(prompt, "a dog"))
    words = asked_words(prompt)
    written = {cheat.name for cheat in CHEATS if cheat.kind is Kind.WRITING}
    assert len(words) <= 3
    assert result.payments["white"].n == 2
    # each of the two prompts is also the other's wrong word
    assert (written <= result.payments.keys()) == bool(words)


def test_every_cheat_makes_a_picture_of_the_same_size():
    result = audited(brightness)
    assert set(result.sheet) == {HONEST, *(cheat.name for cheat in CHEATS)}
    assert {picture.size for picture in result.sheet.values()} == {(SIDE, SIDE)}
    assert len({picture.tobytes() for picture in result.sheet.values()}) == len(result.sheet)


@pytest.mark.parametrize("prompts", [("a cat",), ("a cat", "a cat")], ids=["one", "twice the same"])
def test_prompts_must_differ(prompts):
    with pytest.raises(ConfigError, match="at least two prompts"):
        audited(brightness, prompts=prompts)


def test_largest_difference():
    nan = math.nan
    assert largest_difference(np.array([1.0, nan]), np.array([1.5, nan])) == 0.5
    assert largest_difference(np.array([1.0, nan]), np.array([1.0, 1.0])) == math.inf
    assert largest_difference(np.array([nan]), np.array([nan])) == 0.0


def test_steps_are_counted():
    steps = []
    suite = RewardSuite([RewardFunction("reward", brightness)])
    audit(suite, pictures(), [{"prompt": prompt} for prompt in ANIMALS], lambda: steps.append(1))
    assert len(steps) == num_steps()


QUICK = ["--num_prompts", "2", "--num_inference_steps", "1"]


def test_the_command(tmp_path, capsys):
    assert main(["audit", "jpeg_incompressibility", *QUICK, "--output", str(tmp_path / "sheet.png")]) == 0
    printed = capsys.readouterr().out
    assert "the prompt's own picture" in printed
    assert "The reward ignores the prompt" in printed
    assert len([line for line in printed.splitlines() if line.startswith("noise ")]) == 1
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width > 500


def test_json_of_a_weighted_sum(capsys):
    kinds = ["jpeg_compressibility", "jpeg_incompressibility", "--reward_weights", "1", "3"]
    assert main(["audit", *kinds, "--detectors", "blank_or_noise", *QUICK, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert main(["audit", "jpeg_incompressibility", *QUICK, "--json"]) == 0
    alone = json.loads(capsys.readouterr().out)
    assert found["honest"] == pytest.approx([2 * reward for reward in alone["honest"]])  # -1 and 3 times the size
    assert found["cheats"].keys() == alone["cheats"].keys()
    assert found["ignores_prompt"] is True
    assert found["detections"]["blank_or_noise"]["white"] > 0.9
    assert found["findings"][-1].startswith("The reward ignores the prompt")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "No reward is named; write `ddpo audit NAME`"),
        (["jpeg_compresibility"], "jpeg_compressibility"),
        (["jpeg_compressibility", "--num_prompts", "1"], "--num_prompts is 1"),
        (["jpeg_compressibility", "--reward_weights", "1", "2"], "reward_weights has 2 value(s) for 1 reward(s)"),
        (["jpeg_compressibility", "--prompts", "nowhere.txt"], "there is no such file"),
    ],
)
def test_mistakes_are_said_before_a_picture_is_drawn(arguments, message, capsys, monkeypatch):
    monkeypatch.setattr("trainer_ext.policy.stock.stock_images", lambda *args: pytest.fail("it has begun to draw"))
    assert main(["audit", *arguments]) == 2
    assert message in capsys.readouterr().err
