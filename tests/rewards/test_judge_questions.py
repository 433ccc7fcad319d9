"""`counting` and `yes_probability` on a server: what is asked, and what counts as an answer."""

import math

import pytest
import torch
from support import chat_server
from support.chat_server import serving

from ddpo_plugins import load_catalogue
from ddpo_plugins.errors import PluginError, RewardError
from trainer_ext import prompts_from_plugin, reward_from_plugin
from trainer_ext.scoring.suite import RewardSuite


@pytest.fixture
def server():
    with serving(lambda image, question: None) as server:
        yield server


@pytest.fixture
def score(server):
    def score(name, rows, **options):
        reward = reward_from_plugin(
            name, **{"model": "llava", "base_url": server.base_url, "max_retries": 0, **options}
        )
        return RewardSuite([reward]).score(torch.zeros(len(rows), 4, 4, 3, dtype=torch.uint8), rows)

    return score


# counting


@pytest.mark.parametrize(
    ("reply", "answer", "found"),
    [
        ("There are six turtles.", "six", True),
        ("There are 6 turtles.", "six", True),
        ("SIX!", "6", True),
        ("There are 16 turtles.", "six", False),
        ("There are sixteen turtles, sixty or 6.5.", "six", False),
        ("Six-legged ones.", "six", False),
        ("Twenty-one.", "21", True),
        ("Twenty-one.", "one", False),
        ("There are 21.", "twenty-one", True),
        ("zero", "0", True),
        ("These are turtles.", "turtle", True),
        ("A turtle's shell.", "turtles", True),
        ("A turtledove.", "turtle", False),
        ("Mice and geese.", "mouse", True),
        ("Mice and geese.", "goose", True),
        ("Mice and geese.", "moose", False),
        ("Some deer, perhaps sheep", "sheep", True),
        ("Buses", "bus", True),
        ("It is playing chess.", "playing chess", True),
        ("It is playing, and not chess.", "playing chess", False),
        ("chess, playing", "playing chess", False),
        ("A PINK-ish thing", "pink", False),
        ("Ein Bär", "bär", True),
        ("...", "six", False),
    ],
)
def test_an_answer_is_found_as_whole_words(server, score, reply, answer, found):
    server.reply = lambda image, question: reply
    scores = score("counting", [{"prompt": "six turtles", "questions": ["What?"], "answers": [answer]}])
    assert scores.total.tolist() == [float(found)]
    assert scores.extras["counting/replies"] == [[reply]]


def test_the_reward_is_the_share_of_answers(server, score):
    server.reply = lambda image, question: {"How many?": "Three.", "Which?": "Wolves.", "What?": "I see 3 wolves."}[
        question
    ]
    rows = [
        {"questions": ["How many?", "Which?"], "answers": ["3", "wolf"]},
        {
            "questions": ["How many?", "Which?"],
            "answers": ["wolf", "3"],
        },  # in the other's reply, where it does not count
        {"questions": ["How many?", "Which?", "What?"], "answers": ["three", "cat", "dog"]},
        {"questions": ["What?"], "answers": ["three wolves"]},
    ]
    scores = score("counting", [{"prompt": "", **row} for row in rows])
    assert scores.total.tolist() == [1, 0, pytest.approx(1 / 3), 1]
    assert scores.extras["counting/replies"][2] == ["Three.", "Wolves.", "I see 3 wolves."]


def test_the_prompt_set_has_what_it_needs(server, score):
    """The prompts of the typographic attack, by a judge who sees what there is."""
    rows = prompts_from_plugin("counting").to_list()
    assert rows[0]["questions"] == ["How many ants are there in this image?", "What animal is in this image?"]
    assert rows[0]["answers"] == ["two", "ant"]
    turtles = [row for row in rows if row["animal"] == "turtle"]
    server.reply = lambda image, question: (
        "There are 6." if question == "How many turtles are there in this image?" else "Turtles."
    )
    assert score("counting", turtles).total.tolist() == [0.5, 0.5, 0.5, 0.5, 1, 0.5, 0.5]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({}, "needs the columns `questions` and `answers`.*prompt set 'counting'"),
        ({"questions": ["How many?"]}, "needs the columns"),
        ({"questions": [], "answers": []}, r"'six cats' has 0 question\(s\) and 0 answer\(s\)"),
        ({"questions": ["How many?"], "answers": ["six", "cat"]}, r"1 question\(s\) and 2 answer\(s\)"),
    ],
)
def test_a_dataset_without_answers_is_an_error(server, score, columns, message):
    with pytest.raises(RewardError, match=message):
        score("counting", [{"prompt": "six cats", **columns}])
    assert server.chats == []


# yes_probability


def test_yes_and_no_are_renormalised(server, score):
    replies = {
        "plain": ({"Yes": 0.6, "No": 0.2, "Maybe": 0.1}, 0.75, 0.8),
        "every way to write it": ({"Yes": 0.3, " yes": 0.2, "YES": 0.1, "No": 0.1, " no\n": 0.1}, 0.75, 0.8),
        "only yes": ({"Yes": 0.9, "The": 0.05}, 1.0, 0.9),
        "only no": ({"no": 0.7}, 0.0, 0.7),
        "words that begin alike": ({"Yesterday": 0.5, "Nothing": 0.3, "Yes": 0.01, "No": 0.03}, 0.25, 0.04),
    }
    asked = []

    def reply(image, question):
        asked.append(question)
        return replies[question.split('"')[1]][0]

    server.reply = reply
    scores = score("yes_probability", [{"prompt": prompt} for prompt in replies])
    assert scores.total.tolist() == pytest.approx([reward for _, reward, _ in replies.values()])
    assert scores.extras["yes_probability/answered"] == pytest.approx([answered for _, _, answered in replies.values()])
    assert sorted(asked) == sorted(f'Does this image show "{prompt}"? Answer yes or no.' for prompt in replies)
    assert {(chat["max_tokens"], chat["top_logprobs"]) for chat in server.chats} == {(1, 20)}


def test_neither_yes_nor_no_is_no_reward(server, score):
    server.reply = lambda image, question: {"The": 0.9, "A": 0.1}
    assert math.isnan(score("yes_probability", [{"prompt": "a cat"}]).total[0])
    # yes is there, but behind twenty others, and the server tells of twenty
    server.reply = lambda image, question: {**{f"w{index}": 0.04 for index in range(20)}, "yes": 0.01}
    assert math.isnan(score("yes_probability", [{"prompt": "a cat"}]).total[0])


def test_the_question_is_the_users(server, score):
    asked = []
    server.reply = lambda image, question: asked.append(question) or {"yes": 1.0}
    score("yes_probability", [{"prompt": "a {cat}"}], question="{prompt}: is it {prompt}?")
    assert asked == ["a {cat}: is it a {cat}?"]
    with pytest.raises(PluginError, match=r"must contain \{prompt\}.*got 'Is it a cat\?'"):
        score("yes_probability", [{"prompt": "a cat"}], question="Is it a cat?")


@pytest.mark.parametrize(
    "logprobs",
    [None, {}, {"content": None}, {"content": []}, {"content": [{"token": "a", "logprob": 0, "top_logprobs": None}]}],
)
def test_a_server_without_log_probabilities_is_an_error(server, score, logprobs):
    message = {"role": "assistant", "content": "yes"}
    server.faults = [chat_server.body({"choices": [{"index": 0, "message": message, "logprobs": logprobs}]})]
    with pytest.raises(RewardError, match=r"'yes_probability'.*no top_logprobs, which this reward needs"):
        score("yes_probability", [{"prompt": "a cat"}])


def test_the_catalogue_lists_them():
    rewards = load_catalogue().rewards
    for name in ("prompt_alignment", "counting", "yes_probability"):
        assert rewards[name].plugin == "builtin"
        assert "vision-language model" in rewards[name].spec.description
