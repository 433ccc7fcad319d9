"""Rewards whose vision-language model is on a server, which answers, or fails in every way there is."""

import asyncio
import socket
import sys
import threading
import time
import traceback

import pytest
import torch
from support import chat_server
from support.chat_server import serving
from support.processes import eventually

from ddpo_plugins.errors import PluginError, RewardError
from trainer_ext import reward_from_plugin
from trainer_ext.scoring.suite import RewardSuite

COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255), "black": (0, 0, 0)}


def colour_of(image, question):
    return f"a {next(name for name, rgb in COLOURS.items() if image.getpixel((3, 2)) == rgb)} cat"


@pytest.fixture(autouse=True)
def no_long_waits(monkeypatch):
    monkeypatch.setattr("reward_plugins.servers.waiting.FIRST_DELAY", 0.01)


@pytest.fixture
def server():
    with serving(colour_of) as server:
        yield server


@pytest.fixture
def build(server, encoder_folder):
    """Build `prompt_alignment` with that server."""

    def build(**options):
        defaults = {
            "model": "llava",
            "base_url": server.base_url,
            "similarity": encoder_folder,
            "timeout": 5.0,
            "max_retries": 0,
        }
        return reward_from_plugin("prompt_alignment", **{**defaults, **options})

    return build


def images_of(*names):
    """Images of 6 x 8 pixels, each of one colour."""
    return torch.tensor([COLOURS[name] for name in names], dtype=torch.uint8).repeat_interleave(48, 0).view(-1, 6, 8, 3)


def score(reward, *names):
    return RewardSuite([reward]).score(images_of(*names), [{"prompt": "a cat"} for _ in names])


# The protocol


def test_each_image_gets_its_own_answer(server, build):
    """In order, though they are answered at once and not in order."""
    blue = threading.Event()

    def reply(image, question):
        colour = colour_of(image, question)
        if colour == "a blue cat":
            blue.set()
        elif colour == "a red cat":
            blue.wait()
        return colour

    server.reply = reply
    scores = score(build(batch_size=3), "red", "blue", "green", "black", "red")
    assert scores.extras["prompt_alignment/description"] == [
        f"a {c} cat" for c in ("red", "blue", "green", "black", "red")
    ]
    assert len(server.chats) == 5


def test_the_question_is_the_articles_unless_another_is_given(server, build):
    asked = []
    server.reply = lambda image, question: asked.append(question) or "a cat"
    score(build(), "red")
    score(build(question="What is this?", max_new_tokens=7), "red")
    assert asked == ["Answer concisely: what is going on in this image?", "What is this?"]
    assert [chat["max_tokens"] for chat in server.chats] == [64, 7]


def test_requests_at_once_are_bounded(server, build):
    three = threading.Event()

    def reply(image, question):
        if server.under_way["now"] == 3:
            three.set()
        three.wait()
        time.sleep(0.1)  # in which a fourth would come
        return "a cat"

    server.reply = reply
    score(build(batch_size=3), *["red"] * 10)
    assert server.under_way["most"] == 3


def test_the_key_comes_from_the_environment(server, build, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "key-of-the-judge")
    build()
    monkeypatch.setenv("OPENAI_API_KEY", "")
    build()
    monkeypatch.delenv("OPENAI_API_KEY")
    build()
    assert server.keys == {"Bearer key-of-the-judge", "Bearer none"}


def test_a_reward_can_be_built_and_called_where_an_event_loop_runs(server, build):
    async def notebook():
        return score(build(), "red").total.shape

    assert asyncio.run(notebook()) == (1,)


def test_no_image_is_no_request(server, build):
    assert asyncio.run(build().function(images=[], prompts=[])) == []
    assert server.chats == []


# Faults that pass


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(chat_server.status(503), id="503"),
        pytest.param(chat_server.status(500), id="500"),
        pytest.param(chat_server.status(429, retry_after="0"), id="429"),
        pytest.param(chat_server.hang, id="no answer in time"),
        pytest.param(chat_server.drip, id="a byte now and then"),
        pytest.param(chat_server.cut_off, id="cut off"),
        pytest.param(chat_server.body(b'{"choices": [{'), id="broken JSON"),
        pytest.param(chat_server.body(b"<html>Bad gateway</html>", "text/html"), id="HTML"),
        pytest.param(chat_server.body(b"\xff\xfe{}"), id="not even text"),
        pytest.param(chat_server.body({}), id="no choices"),
        pytest.param(chat_server.body([1, 2]), id="a list"),
        pytest.param(chat_server.body({"choices": []}), id="an empty list of choices"),
        pytest.param(chat_server.body({"choices": [{"index": 0}]}), id="no message"),
        pytest.param(chat_server.content(""), id="empty answer"),
        pytest.param(chat_server.content(" \n"), id="blank answer"),
        pytest.param(chat_server.content(None, "length"), id="answer None"),
    ],
)
class TestFaults:
    def test_is_tried_again(self, server, build, fault):
        reward = build(timeout=1.0, max_retries=1)
        server.faults = [fault]
        assert score(reward, "red").extras["prompt_alignment/description"] == ["a red cat"]
        assert len(server.chats) == 2

    def test_becomes_an_error_with_a_name(self, server, build, fault):
        reward = build(timeout=1.0)
        server.faults = [fault]
        with pytest.raises(RewardError) as raised:  # also where the server never ends
            score(reward, "red", "red", "red")
        message = str(raised.value)
        for part in ("'prompt_alignment'", "'llava'", server.base_url, "in 1 attempt (timeout 1 s, max_retries 0): "):
            assert part in message
        assert message.count(". ") >= 2  # what to do


def test_attempts_are_counted_and_finite(server, build):
    reward = build(max_retries=3)
    server.faults = [chat_server.status(503)] * 9
    with pytest.raises(RewardError, match=r"in 4 attempts .*status 503.*see its log"):
        score(reward, "red")
    assert len(server.chats) == 4


def test_the_wait_doubles_and_is_what_the_server_asks_for(server, build, monkeypatch):
    monkeypatch.setattr("reward_plugins.servers.waiting.FIRST_DELAY", 0.5)  # as it is
    waits = []
    sleep = asyncio.sleep
    monkeypatch.setattr(asyncio, "sleep", lambda seconds: waits.append(seconds) or sleep(0))
    reward = build(max_retries=9)
    server.faults = (
        [chat_server.status(503)] * 3 + [chat_server.status(429, retry_after="7")] * 2 + [chat_server.status(503)] * 3
    )
    score(reward, "red")
    assert [0.75 * full <= wait <= full for wait, full in zip(waits, (0.5, 1, 2, 7, 8, 16, 30, 30), strict=True)] == [
        True
    ] * 8
    assert waits[3] == 7.0


def test_retries_leave_the_random_numbers_of_the_run_alone(server, build):
    import random

    reward = build(max_retries=1)
    server.faults = [chat_server.status(503)]
    random.seed(0)
    state = random.getstate()
    score(reward, "red")
    assert random.getstate() == state


# Faults that stay


@pytest.mark.parametrize(
    ("code", "advice"), [(400, "take images"), (401, "OPENAI_API_KEY"), (403, "OPENAI_API_KEY"), (404, "/v1")]
)
def test_what_another_attempt_does_not_mend_is_not_tried_again(server, build, code, advice):
    reward = build(max_retries=5)
    server.faults = [chat_server.status(code)] * 9
    with pytest.raises(RewardError, match=rf"in 1 attempt .*status {code}.*{advice}"):
        score(reward, "red")
    assert len(server.chats) == 1


@pytest.mark.parametrize(
    ("key", "said"),
    [("plain-Canary3", "Incorrect API key provided: {}."), ("Canary3-of-the-server", "{}" + 490 * "." + "{}")],
)
def test_a_server_that_repeats_its_key_is_not_quoted(server, build, monkeypatch, key, said):
    """Also where the message is cut in the middle of the key, and in the traceback with the client's own error."""
    monkeypatch.setenv("OPENAI_API_KEY", key)
    reward = build()
    server.faults = [lambda handler: handler.send(401, {"error": {"message": said.format(key, key)}})]
    with pytest.raises(RewardError, match="OPENAI_API_KEY") as caught:
        score(reward, "red")
    assert "Canary3" not in "".join(traceback.format_exception(caught.value))


def test_one_failure_ends_the_batch(server, build):
    """The requests that are left are not sent, and no task or connection is left behind."""
    server.reply = lambda image, question: server.closing.wait() and "a cat"
    reward = build(batch_size=2, timeout=60.0)
    server.faults = [chat_server.status(400)]
    with pytest.raises(RewardError, match="status 400"):
        score(reward, *["red"] * 20)
    assert len(server.chats) < 4  # two under way, and one that may have begun when the first had failed


def test_a_server_that_went_away(encoder_folder):
    with serving(colour_of) as server:
        options = {
            "model": "llava",
            "base_url": server.base_url,
            "similarity": encoder_folder,
            "timeout": 1.0,
            "max_retries": 1,
        }
        reward = reward_from_plugin("prompt_alignment", **options)
        assert len(score(reward, "red").total) == 1
    with pytest.raises(RewardError, match=r"in 2 attempts .*Connection error.*Start it, or correct `base_url`"):
        score(reward, "red")


# At the start


def test_a_wrong_model_is_known_at_the_start(server, build):
    server.models = ("qwen", "llava-13b")
    with pytest.raises(
        PluginError, match=r"has no model 'llava'; it has 'llava-13b', 'qwen'\. Pass one of these as `model`"
    ):
        build()
    assert server.chats == []


def test_no_server_is_known_at_the_start(build):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/v1"
        with pytest.raises(
            PluginError, match=rf"from the server at {url} in 2 attempts .*Start it, or correct `base_url`"
        ):
            build(base_url=url, max_retries=1)


@pytest.mark.parametrize(
    "fault",
    [
        chat_server.status(503),
        chat_server.hang,
        chat_server.body(b"<html>", "text/html"),
        chat_server.body({"data": None}),
    ],
)
def test_the_check_at_the_start_is_tried_again_too(server, build, fault):
    server.model_faults = [fault]
    build(timeout=1.0, max_retries=1)
    server.model_faults = [fault]
    with pytest.raises(PluginError, match="in 1 attempt"):
        build(timeout=1.0)


def test_a_server_that_is_none_is_not_waited_for(server, build):
    with pytest.raises(PluginError, match=r"in 1 attempt .*Correct `base_url`, which usually ends in /v1"):
        build(base_url=server.base_url.removesuffix("/v1"), max_retries=5)


def test_without_the_openai_package_the_error_names_the_extra(build, monkeypatch):
    for name in [name for name in sys.modules if name.startswith("reward_plugins.describers.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(PluginError, match=r"pip install 'ddpo-plugins\[server\]'"):
        build()


@pytest.mark.parametrize(
    ("option", "value", "allowed"),
    [
        ("batch_size", 0, "at least 1"),
        ("timeout", 0, "above 0"),
        ("timeout", -1.0, "above 0"),
        ("max_retries", -1, "at least 0"),
    ],
)
def test_options_with_which_it_would_hang(build, option, value, allowed):
    with pytest.raises(PluginError, match=f"{option} is {value}; it must be {allowed}"):
        build(**{option: value})


def test_nothing_is_left_running(server, build):
    before = set(threading.enumerate())  # other tests of this process may have left some
    reward = build()
    score(reward, "red", "green")

    def left():
        return {thread.name for thread in set(threading.enumerate()) - before}

    eventually(lambda: len(left()) <= 2)  # the server's own
    eventually(lambda: not any("ThreadPoolExecutor" in name or "asyncio" in name for name in left()))
