"""Rewards whose vision-language model runs in this process: a tiny random LLaVA, loaded by the code that loads the real one."""

import asyncio
import inspect

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from support.tiny_judges import tiny_llava
from transformers import AutoTokenizer, LlavaForConditionalGeneration

from ddpo_plugins import load_catalogue
from ddpo_plugins.errors import PluginError, RewardError
from trainer_ext import reward_from_plugin
from trainer_ext.scoring.suite import RewardSuite

# By which CLIP normalises pixels: mean and standard deviation of red, green and blue.
MEAN = torch.tensor([0.48145466, 0.4578275, 0.40821073])
STD = torch.tensor([0.26862954, 0.26130258, 0.27577711])


@pytest.fixture
def images():
    """Twelve of the size that the model sees, so that nothing is resized."""
    return torch.randint(256, (12, 16, 16, 3), dtype=torch.uint8)


class Oracle:
    """LLaVA without processor, padding, batches, cache and `generate`."""

    def __init__(self, folder):
        self.model = LlavaForConditionalGeneration.from_pretrained(folder).eval()
        self.tokenizer = AutoTokenizer.from_pretrained(folder)

    @torch.no_grad()
    def logits(self, image, question, reply=()):
        """Of the token after `reply`, `(vocabulary,)`."""
        text = "USER: " + "<image>" * 4 + f"\n{question} ASSISTANT:"  # 2 x 2 patches
        ids = torch.tensor([self.tokenizer.encode(text) + list(reply)])
        pixels = ((image / 255 - MEAN) / STD).permute(2, 0, 1)[None]
        return self.model(input_ids=ids, pixel_values=pixels).logits[0, -1]

    def answer(self, image, question, max_new_tokens):
        reply = []
        while len(reply) < max_new_tokens and self.tokenizer.eos_token_id not in reply:
            reply.append(self.logits(image, question, reply).argmax().item())
        return self.tokenizer.decode(reply, skip_special_tokens=True).strip()


@pytest.fixture(scope="module")
def oracle(llava_folder):
    return Oracle(llava_folder)


def score(reward, images, **columns):
    rows = [{"prompt": "a cat", **{name: values[i] for name, values in columns.items()}} for i in range(len(images))]
    return RewardSuite([reward]).score(images, rows)


@pytest.mark.parametrize("batch_size", [1, 5, 12])
def test_descriptions_are_the_models(llava_folder, encoder_folder, oracle, images, batch_size):
    reward = reward_from_plugin(
        "prompt_alignment", model=llava_folder, similarity=encoder_folder, batch_size=batch_size, max_new_tokens=6
    )
    descriptions = score(reward, images).extras["prompt_alignment/description"]
    question = "Answer concisely: what is going on in this image?"
    assert descriptions == [oracle.answer(image, question, 6) for image in images]
    assert len(set(descriptions)) > 6


def test_questions_of_different_lengths_go_together(llava_folder, oracle, images):
    questions = [["How many?", "What animals, if any, can be seen in this image?"], ["Any turtles at all?"]] * 2
    reward = reward_from_plugin("counting", model=llava_folder, batch_size=3, max_new_tokens=6)
    replies = score(reward, images[:4], questions=questions, answers=[["2", "cat"], ["yes"]] * 2).extras[
        "counting/replies"
    ]
    assert replies == [
        [oracle.answer(image, question, 6) for question in own] for image, own in zip(images, questions, strict=False)
    ]


def test_images_are_resized_to_what_the_model_takes(llava_folder, encoder_folder):
    images = torch.randint(256, (2, 40, 24, 3), dtype=torch.uint8)
    reward = reward_from_plugin("prompt_alignment", model=llava_folder, similarity=encoder_folder, max_new_tokens=2)
    assert len(score(reward, images).total) == 2


def yes_no(oracle, image, question):
    """P(yes) and P(no) over all tokens, and whether one of them is among the 20 likeliest."""
    probabilities = oracle.logits(image, question).double().softmax(-1).tolist()
    words = [oracle.tokenizer.decode([index]).strip().lower() for index in range(len(probabilities))]
    likeliest = sorted(range(len(words)), key=lambda index: -probabilities[index])[:20]
    yes, no = (sum(p for p, word in zip(probabilities, words, strict=True) if word == this) for this in ("yes", "no"))
    return yes, no, any(words[index] in ("yes", "no") for index in likeliest)


def test_yes_probability_is_the_models(llava_folder, oracle, images):
    assert [oracle.tokenizer.decode([index]) for index in range(len(oracle.tokenizer))].count(" Yes") == 1
    prompts = [f"{'very ' * index}{animal}" for animal in ("cat", "ant", "zebra") for index in range(4)]
    reward = reward_from_plugin("yes_probability", model=llava_folder, batch_size=5)
    scores = RewardSuite([reward]).score(images, [{"prompt": prompt} for prompt in prompts])
    expected = [
        yes_no(oracle, image, f'Does this image show "{prompt}"? Answer yes or no.')
        for image, prompt in zip(images, prompts, strict=True)
    ]
    likely = torch.tensor([among for _, _, among in expected])
    assert likely.any()
    assert not likely.all()
    assert torch.equal(torch.tensor(scores.total).isnan(), ~likely)  # None: the model does not answer the question
    for reward, answered, (yes, no, among) in zip(
        scores.total, scores.extras["yes_probability/answered"], expected, strict=True
    ):
        if among:
            assert (reward, answered) == (pytest.approx(yes / (yes + no), abs=1e-5), pytest.approx(yes + no, abs=1e-5))
        else:
            assert answered == 0


def test_a_tokenizer_without_yes(tmp_path, images):
    reward = reward_from_plugin("yes_probability", model=tiny_llava(tmp_path / "mute", words="maybe no"))
    with pytest.raises(RewardError, match=r"tokenizer of .*mute' has no token 'yes'.*Use another model"):
        score(reward, images[:1])


def test_no_description_is_no_reward(tmp_path, encoder_folder, images):
    folder = tmp_path / "silent"
    weights = folder / "model.safetensors"
    tiny_llava(folder)
    state = load_file(weights)
    heads = [name for name in state if "lm_head" in name]
    assert heads
    save_file({**state, **{name: torch.zeros_like(state[name]) for name in heads}}, weights, {"format": "pt"})
    # All logits are equal now, and the first token is padding.
    scores = score(
        reward_from_plugin("prompt_alignment", model=str(folder), similarity=encoder_folder, max_new_tokens=2),
        images[:2],
    )
    assert scores.extras["prompt_alignment/description"] == ["", ""]
    assert scores.total.tolist() == [pytest.approx(float("nan"), nan_ok=True)] * 2
    columns = {"questions": [["How many?"]], "answers": [["two"]]}
    scores = score(reward_from_plugin("counting", model=str(folder), max_new_tokens=2), images[:1], **columns)
    assert scores.total.tolist() == [pytest.approx(float("nan"), nan_ok=True)]


def test_dtype(llava_folder, images):
    answered = [
        score(reward_from_plugin("yes_probability", model=llava_folder, dtype=dtype), images).extras[
            "yes_probability/answered"
        ]
        for dtype in ("auto", "float32", "bfloat16")
    ]
    assert answered[0] == answered[1] != answered[2]
    with pytest.raises(PluginError, match="dtype is 'float31'; allowed: 'auto', 'float32'"):
        reward_from_plugin("yes_probability", model=llava_folder, dtype="float31")


def test_another_model_needs_a_revision_of_its_own():
    for name in ("prompt_alignment", "counting", "yes_probability"):
        with pytest.raises(
            PluginError,
            match=r"revision 'b234\w+' belongs to the default model 'llava-hf/llava-1.5-7b-hf', not to 'a/b'",
        ):
            reward_from_plugin(name, model="a/b")


def test_the_defaults_are_the_articles():
    rewards = load_catalogue().rewards
    for name in ("prompt_alignment", "counting", "yes_probability"):
        defaults = {key: p.default for key, p in inspect.signature(rewards[name].spec.factory).parameters.items()}
        assert (defaults["model"], len(defaults["revision"])) == ("llava-hf/llava-1.5-7b-hf", 40)
        if name == "prompt_alignment":
            assert (defaults["similarity"], len(defaults["similarity_revision"])) == (
                "microsoft/deberta-xlarge-mnli",
                40,
            )
            assert (defaults["max_new_tokens"], defaults["reference"]) == (64, "The image contains {prompt}")


def test_random_numbers_of_the_run_are_left_alone(llava_folder, images):
    reward = reward_from_plugin("yes_probability", model=llava_folder)
    state = torch.get_rng_state()
    score(reward, images)
    assert torch.equal(torch.get_rng_state(), state)


def test_others_are_heard_meanwhile(llava_folder):
    """Generation does not hold the event loop, on which other rewards wait for servers."""
    reward = reward_from_plugin("counting", model=llava_folder, max_new_tokens=60)
    columns = {"prompts": ["two cats"], "questions": [["How many?"]], "answers": [["two"]]}

    async def call():
        task = asyncio.ensure_future(reward.function(images=[Image.new("RGB", (16, 16))], **columns))
        turns = 0
        while not task.done():
            await asyncio.sleep(0.001)
            turns += 1
        return turns, await task

    turns, rewards = asyncio.run(call())
    assert len(rewards) == 1
    assert turns > 5


@pytest.mark.parametrize("name", ["prompt_alignment", "counting", "yes_probability"])
def test_no_image_is_no_reward(name, llava_folder, encoder_folder):
    options = {"similarity": encoder_folder} if name == "prompt_alignment" else {}
    assert asyncio.run(reward_from_plugin(name, model=llava_folder, **options).function(images=[], prompts=[])) == []
