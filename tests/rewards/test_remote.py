"""The reward `remote`: servers that die, hang, lie, and come back; never a number that no server gave."""

import contextlib
import json
import logging
import math
import socket
import threading
import traceback

import pytest
import torch
from support import chat_server
from support.processes import eventually
from support.reward_server import TOY, answer, faulty_server, serving_rewards
from support.trainers import brightness
from transformers import TrainerState

from ddpo_plugins.errors import PluginError, RewardError
from trainer_ext import DetectorFunction, RewardFunction, detector_from_plugin, reward_from_plugin
from trainer_ext.errors import ConfigError
from trainer_ext.scoring.suite import RewardSuite

ROWS = [{"prompt": f"a cat {i}", "area": [i, 0.5], "place": {"x": None}} for i in range(5)]


@pytest.fixture(autouse=True)
def no_long_waits(monkeypatch):
    monkeypatch.setattr("reward_plugins.servers.waiting.FIRST_DELAY", 0.01)


def build(*urls, name="toy", make=reward_from_plugin, **options):
    return make("remote", function=name, urls=list(urls), **{"timeout": 5.0, "max_retries": 3, **options})


def noise(count=5):
    return torch.randint(0, 256, (count, 6, 8, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def score(*rewards, rows=ROWS):
    return RewardSuite(rewards).score(noise(len(rows)), rows)


@pytest.fixture
def server():
    with faulty_server() as server:
        yield server


@pytest.fixture
def two():
    with faulty_server() as first, faulty_server() as second:
        yield first, second


# What arrives


def thorough(images, prompts, trainer_state, log_metric, log_extra, area, place, **columns):
    assert columns == {}
    assert place == [{"x": None}] * len(images)
    log_metric("thorough/images", len(images))
    log_extra("thorough/step", [trainer_state.global_step] * len(images))
    values = [a + brightness([image], [p])[0] for image, p, (a, _) in zip(images, prompts, area, strict=True)]
    return [None if prompt == "a cat 2" else value for value, prompt in zip(values, prompts, strict=True)]


@pytest.mark.parametrize("image_format", ["png", "webp"])
@pytest.mark.parametrize("images_per_request", [None, 2])
def test_values_and_what_is_logged_are_those_in_process(image_format, images_per_request):
    with serving_rewards(thorough) as url:
        far = build(url, name="thorough", image_format=image_format, images_per_request=images_per_request)
        scores = [
            RewardSuite([reward]).score(noise(), ROWS, TrainerState(global_step=7))
            for reward in (far, RewardFunction("remote", thorough))
        ]
    assert math.isnan(scores[1].total[2])
    torch.testing.assert_close(*(torch.tensor(each.total) for each in scores), rtol=0, atol=0, equal_nan=True)
    assert scores[0].extras == scores[1].extras == {"thorough/step": [7] * 5}
    (several,) = scores[0].metrics.values()
    assert several == (5 if images_per_request is None else (2 * 2 + 2 * 2 + 1) / 5)  # the mean over images


def test_tensors_and_detectors_and_async_functions():
    def tensor(images, prompts, **columns):
        assert (images.shape[1:], images.dtype) == ((3, 6, 8), torch.float32)
        return images.mean((1, 2, 3))

    async def waiting(images, prompts, **columns):
        return [0.25] * len(images)

    near = RewardFunction("tensor", tensor, images="pt")
    detector = DetectorFunction("waiting", waiting)
    with serving_rewards(near, detector) as url:
        far = build(url, name="tensor")
        watching = build(url, name="waiting", make=detector_from_plugin)
        scores = RewardSuite([far], detectors=[watching]).score(noise(), ROWS)
    assert scores.total.tolist() == RewardSuite([near]).score(noise(), ROWS).total.tolist()
    assert scores.detections["remote"].tolist() == [0.25] * 5


def test_requests_at_once_are_bounded(caplog):
    """Many small ones do not overrun a server of which one process asks."""
    with serving_rewards(brightness, max_waiting=4) as url:
        reward = build(url, name="brightness", images_per_request=1)
        assert len(score(reward, rows=[{"prompt": "a cat"}] * 20).total) == 20
    assert caplog.records == []


def test_columns_can_be_chosen(server):
    score(build(server.url, columns=["area"]))
    assert [sorted(chat["columns"]) for chat in server.chats] == [["area"]]


@pytest.mark.parametrize("value", [math.nan, {1, 2}, b"bytes"])
def test_a_column_that_json_does_not_have_is_named(server, value):
    rows = [{"prompt": "a cat", "mask": value}]
    with pytest.raises(RewardError, match=r"The column 'mask' cannot be sent .*Name the columns .*`columns`"):
        score(build(server.url), rows=rows)
    assert len(score(build(server.url, columns=[]), rows=rows).total) == 1


def test_the_token_is_sent_and_never_shown(server, monkeypatch):
    monkeypatch.setenv("DDPO_REWARD_TOKEN", "Canary4-of-the-server")
    reward = build(server.url)
    assert server.keys == {"Bearer Canary4-of-the-server"}
    server.faults = [chat_server.status(401)]
    with pytest.raises(RewardError, match="DDPO_REWARD_TOKEN") as caught:
        score(reward)
    assert "Canary4" not in "".join(traceback.format_exception(caught.value))


def test_what_serves_is_in_the_provenance(server):
    provenance = build(server.url).provenance.as_dict()
    assert provenance["served"] == TOY
    assert provenance["options"]["urls"] == [server.url]


# The fault table. Each fault stands for the first answer; then the server is well again.

PASSING = {
    "internal error": chat_server.status(500),
    "busy": chat_server.status(503, retry_after="0"),
    "no JSON": chat_server.body(b"<html>", "text/html"),
    "cut off": chat_server.cut_off,
    "silent": chat_server.hang,
    "dripping": chat_server.drip,
}
LYING = {
    "NaN": (answer([1.0] * 4 + [math.nan]), "returned nan"),
    "Inf": (answer([1.0] * 4 + [math.inf]), "returned inf"),
    "text": (answer(["1.0"] * 5), "str"),
    "too few": (answer([1.0] * 4), "4 value.s. for 5 images"),
    "too many": (answer([1.0] * 6), "6 value.s. for 5 images"),
    "a number": (answer(1.0), "returned a float"),
    "no values": ({"status": "ok"}, "answered without values"),
    "a list": ([1.0] * 5, "answered without values"),
    "another version": (answer([1.0] * 5, {**TOY, "version": "1.1"}), "version '1.0' -> '1.1'"),
    "wrong extras": (answer([1.0] * 5, extras={"toy/area": [1]}), "one value of 'toy/area' for each of 5 images"),
    "NaN in extras": (answer([1.0] * 5, extras={"toy/area": [math.nan] * 5}), "toy/area"),
    "NaN as a metric": (answer([1.0] * 5, metrics={"toy/area": math.nan}), "toy/area"),
}
REFUSALS = {400: "same there", 401: "DDPO_REWARD_TOKEN", 404: "urls", 413: "max_megabytes", 422: "Repair it there"}


@pytest.mark.parametrize("fault", PASSING)
def test_what_passes_is_tried_again(server, fault):
    reward = build(server.url, timeout=0.5)
    server.faults = [PASSING[fault]]
    assert score(reward).total.tolist() == [1.0] * 5
    assert len(server.chats) == 2


@pytest.mark.parametrize("fault", PASSING)
def test_what_does_not_pass_ends_the_run_by_name(server, fault):
    reward = build(server.url, timeout=0.3, max_retries=1)
    server.faults = [PASSING[fault]] * 9
    with pytest.raises(RewardError, match=rf"Reward 'remote' raised .*'toy' in 2 attempts .*{server.url}: "):
        score(reward)
    assert len(server.chats) == 2


@pytest.mark.parametrize("fault", PASSING)
def test_the_other_server_answers_instead(two, fault, caplog):
    """Half of the servers are gone: they are named once, and the run goes on."""
    reward = build(*(server.url for server in two), timeout=0.5, images_per_request=1)
    ill, well = two
    ill.faults = [PASSING[fault]] * 99
    with caplog.at_level(logging.WARNING, "reward_plugins"):
        assert score(reward).total.tolist() == [1.0] * 5
    assert len(well.chats) == 5
    left_out = [record.getMessage() for record in caplog.records if "left out" in record.getMessage()]
    assert len(left_out) == 1
    assert f"{ill.url} is left out: " in left_out[0]
    assert "1 of 2 servers" in left_out[0]


@pytest.mark.parametrize("lie", LYING)
def test_a_lie_ends_the_run_by_name(server, lie):
    reply, text = LYING[lie]
    reward = build(server.url)
    server.faults = [chat_server.body(json.dumps(reply).encode())] * 9
    with pytest.raises(RewardError, match=text) as caught:
        score(reward)
    assert server.url in str(caught.value) or "toy/area" in str(caught.value)
    assert len(server.chats) == 1


def test_a_detector_that_lies():
    with faulty_server(lambda request: [1.5] * 5, {**TOY, "kind": "detector"}) as server:
        detector = build(server.url, make=detector_from_plugin)
        suite = RewardSuite([RewardFunction("brightness", brightness)], detectors=[detector])
        with pytest.raises(RewardError, match=rf"{server.url} breaks the contract .*1.5 .*in \[0, 1\]"):
            suite.score(noise(), ROWS)


@pytest.mark.parametrize("code", REFUSALS)
def test_a_refusal_is_final(server, code):
    reward = build(server.url)
    server.faults = [chat_server.status(code)] * 9
    with pytest.raises(RewardError, match=rf"{server.url}/v1/score refused: {code} status {code}\. .*{REFUSALS[code]}"):
        score(reward)
    assert len(server.chats) == 1


def test_a_server_that_dies(server):
    with faulty_server() as dying:
        reward = build(dying.url, max_retries=1)
        assert len(score(reward).total) == 5
    with pytest.raises(RewardError, match=rf"in 2 attempts .*{dying.url}: ConnectError.*Start the servers"):
        score(reward)


def test_a_server_that_is_started_again(caplog):
    """While it is away, the run waits for it; only the same function may come back."""
    with faulty_server() as dying:
        reward = build(dying.url, max_retries=99)
    with contextlib.ExitStack() as later, caplog.at_level(logging.WARNING, "reward_plugins"):
        back = threading.Timer(0.2, lambda: later.enter_context(faulty_server(port=dying.server_port)))
        back.start()
        assert score(reward).total.tolist() == [1.0] * 5
        back.join()
    assert [record.getMessage().split(" is ")[0].split(" answers ")[0] for record in caplog.records] == [
        f"Reward 'toy': the server at {dying.url}"
    ] * 2
    with faulty_server(served={**TOY, "version": "2.0"}, port=dying.server_port):
        with pytest.raises(
            RewardError, match=r"no longer serves what it did when the run began: version '1.0' -> '2.0'"
        ):
            score(reward)


def test_the_least_busy_is_asked(two):
    """While one is held up by its first request, the other answers all that follow."""
    asked, held = [], threading.Event()

    def reply(request):
        asked.append(request)
        if len(asked) == 1:
            held.wait()
        return [1.0]

    for server in two:
        server.reply = reply
    reward = build(*(server.url for server in two))
    first = threading.Thread(target=lambda: score(reward, rows=ROWS[:1]))
    first.start()
    eventually(lambda: asked)
    for _ in range(3):
        score(reward, rows=ROWS[:1])
    held.set()
    first.join()
    assert sorted(len(server.chats) for server in two) == [1, 3]


def test_a_batch_is_cut_by_the_number_of_servers_also_when_one_is_gone(two):
    """So that values do not depend on which servers are there."""
    reward = build(*(server.url for server in two))
    ill, well = two
    ill.faults = [chat_server.status(500)] * 99
    score(reward)
    assert sorted(len(chat["images"]) for chat in well.chats) == [2, 3]


# At the start


def test_no_server_is_known_at_the_start(server):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        with pytest.raises(PluginError, match=rf"No answer of reward 'toy' in 2 attempts .*{url}: ConnectError.*Start"):
            build(server.url, url, max_retries=1)


@pytest.mark.parametrize("fault", PASSING)
def test_the_check_at_the_start_is_tried_again(server, fault):
    server.model_faults = [PASSING[fault]]
    build(server.url, timeout=0.5)


@pytest.mark.parametrize(
    ("health", "text"),
    [
        ({"data": []}, "is no `ddpo serve-reward`"),
        ([], "is no `ddpo serve-reward`"),
        ({"protocol": 2, "functions": [TOY]}, "speaks version 2 of the protocol, this is 1"),
        ({"protocol": 1, "functions": []}, "has no reward 'toy'; it has none"),
        ({"protocol": 1, "functions": [{**TOY, "name": "ocr"}]}, "has no reward 'toy'; it has reward 'ocr'"),
    ],
)
def test_another_server_is_known_at_the_start(server, health, text):
    server.model_faults = [chat_server.body(health)]
    with pytest.raises(PluginError, match=text):
        build(server.url)
    assert server.chats == []


def test_servers_that_differ_are_known_at_the_start(server):
    with faulty_server(served={**TOY, "options": {"scale": 2}}) as other:
        with pytest.raises(
            PluginError, match=r"serve different rewards: options .*'scale': 2.*Start them with the same"
        ):
            build(server.url, other.url)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"urls": []}, r"urls is \[\]"),
        ({"urls": ["127.0.0.1:8900"]}, "it must be addresses such as"),
        ({"urls": ["http://a", "http://a"]}, "it must be different addresses"),
        ({"images_per_request": 0}, "images_per_request is 0; it must be at least 1"),
        ({"image_format": "jpeg"}, "it must be 'png' or 'webp'"),
        ({"timeout": 0}, "timeout is 0; it must be above 0"),
        ({"max_retries": -1}, "max_retries is -1; it must be at least 0"),
    ],
)
def test_options(options, text):
    with pytest.raises(PluginError, match=text):
        reward_from_plugin("remote", **{"function": "toy", "urls": "http://127.0.0.1:1", **options})


def test_a_misspelt_option():
    with pytest.raises(ConfigError, match="did you mean 'urls'"):
        reward_from_plugin("remote", function="toy", url="http://127.0.0.1:1")
