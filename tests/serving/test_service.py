"""`ddpo serve-reward`: what the service refuses, how it waits and stops."""

import base64
import re
import signal
import socket
import subprocess
import sys
import threading
from io import BytesIO

import httpx
import pytest
import torch
from PIL import Image
from support.processes import environment, eventually, start
from support.reward_server import serving_rewards
from support.trainers import brightness

from ddpo_plugins.wire import HEALTH, SCORE, STATUSES, encode_image
from trainer_ext.cli import main
from trainer_ext.serving.run import is_loopback

PIXELS = encode_image(Image.new("RGB", (4, 4), "teal"), "png")


def request(**changes):
    asked = {"protocol": 1, "kind": "reward", "name": "brightness", "images": [PIXELS], "prompts": ["a cat"]}
    return {**asked, **changes}


def ask(url, body=None, **changes):
    return httpx.post(url + SCORE, json=request(**changes) if body is None else body, timeout=60)


def as_(kind):
    data = BytesIO()
    Image.new("RGB", (4, 4)).save(data, format=kind)
    return base64.b64encode(data.getvalue()).decode()


@pytest.fixture(scope="module")
def url():
    with serving_rewards(brightness, nan, fails, leaves, changes_a_setting, max_bytes=10_000) as url:
        yield url


def nan(images, prompts, **columns):
    return [float("nan")]


def fails(images, prompts, **columns):
    raise OSError("no weights at https://me:Canary5@host/x")


def leaves(images, prompts, **columns):
    sys.exit(3)


def changes_a_setting(images, prompts, **columns):
    torch.set_default_dtype(torch.float64)
    return [0.0]


def test_what_it_answers(url):
    answer = ask(url).json()
    assert answer["values"] == [float(sum((0, 128, 128)) / 3)]
    assert answer["served"]["name"] == "brightness"
    assert answer["served"] in httpx.get(url + HEALTH).json()["functions"]


@pytest.mark.parametrize(
    ("changes", "kind", "text"),
    [
        ({"name": "ocr"}, "not_found", "no reward 'ocr' here; there is reward 'brightness'"),
        ({"kind": "detector"}, "not_found", "no detector 'brightness' here"),
        ({"protocol": 2}, "bad_request", "protocol: "),
        ({"images": []}, "bad_request", "images: "),
        ({"prompts": []}, "bad_request", "prompts has 0"),
        ({"prompts": [1]}, "bad_request", "prompts.0: "),
        ({"columns": {"area": [1, 2]}}, "bad_request", "area has 2"),
        ({"columns": {"images": [1]}}, "bad_request", "images is no name for a column"),
        ({"pickle": "gASVAA=="}, "bad_request", "pickle: "),
        ({"images": ["no base64"]}, "bad_request", "image 0 is no PNG or WebP in base64"),
        ({"images": [PIXELS[:40]]}, "bad_request", "image 0 is no PNG or WebP"),
        ({"images": [as_("GIF")]}, "bad_request", "image 0 is no PNG or WebP"),
        ({"images": [as_("JPEG")]}, "bad_request", "image 0 is no PNG or WebP"),
        ({"images": [PIXELS * 200]}, "too_large", "the limit is 0.01 MB, which --max_megabytes sets"),
        ({"name": "nan"}, "reward_failed", "Reward 'nan' returned nan for prompt 'a cat'"),
        ({"name": "fails"}, "reward_failed", r"Reward 'fails' raised OSError: no weights at https://\*+@host/x"),
        ({"name": "leaves"}, "reward_failed", "Reward 'leaves' raised SystemExit: 3"),
        ({"name": "changes_a_setting"}, "reward_failed", "changed torch's default dtype"),
    ],
)
def test_what_is_refused(url, changes, kind, text):
    answer = ask(url, **changes)
    assert answer.status_code == STATUSES[kind]
    assert answer.json()["error"]["kind"] == kind
    assert re.search(text, answer.json()["error"]["message"]), answer.text
    assert "Canary5" not in answer.text
    assert ask(url).status_code == 200  # it goes on


def test_a_body_that_is_no_object_or_has_no_length(url):
    assert ask(url, body=[1]).status_code == STATUSES["bad_request"]
    assert httpx.post(url + SCORE, content=b"{", headers={"Content-Type": "application/json"}).status_code == 400
    chunked = httpx.post(url + SCORE, content=iter([b"{}"]))
    assert chunked.status_code == STATUSES["no_length"]


@pytest.mark.parametrize(
    ("given", "status"), [("Bearer right", 200), ("Bearer wrong", 401), ("", 401), ("Bearer ri\xf6", 401)]
)
def test_without_the_token_nothing_is_said(given, status):
    with serving_rewards(brightness, token="right") as url:
        for path in (HEALTH, "/openapi.json"):
            assert httpx.get(url + path, headers={"Authorization": given.encode("latin-1")}).status_code == status


def test_too_many_that_wait_are_refused_at_once_and_in_order():
    begun, held, order = threading.Event(), threading.Event(), []

    def slow(images, prompts, **columns):
        begun.set()
        held.wait()
        order.extend(prompts)
        return [0.0]

    with serving_rewards(slow, max_waiting=2) as url:
        threads = []
        for name in ("first", "second"):
            threads.append(threading.Thread(target=ask, args=(url,), kwargs={"name": "slow", "prompts": [name]}))
            threads[-1].start()
            eventually(lambda: httpx.get(url + HEALTH).json()["waiting"] == len(threads))
        refused = ask(url, name="slow")
        assert (refused.status_code, refused.headers["Retry-After"]) == (503, "1")
        assert "2 batches are waiting" in refused.json()["error"]["message"]
        held.set()
        for thread in threads:
            thread.join()
        assert order == ["first", "second"]
        assert ask(url, name="slow").status_code == 200


def test_who_hangs_up_is_not_computed_for():
    held, seen = threading.Event(), []

    def slow(images, prompts, **columns):
        seen.extend(prompts)
        held.wait()
        return [0.0]

    with serving_rewards(slow) as url:
        first = threading.Thread(target=ask, args=(url,), kwargs={"name": "slow", "prompts": ["first"]})
        first.start()
        eventually(lambda: seen)
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(url + SCORE, json=request(name="slow", prompts=["impatient"]), timeout=0.2)
        held.set()
        first.join()
        ask(url, name="slow", prompts=["last"])
    assert seen == ["first", "last"]


# The command


@pytest.mark.parametrize(
    ("host", "mine"), [("127.0.0.1", True), ("127.3.2.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("::", False), ("node7", False)]
)  # fmt: skip
def test_what_only_this_machine_reaches(host, mine):
    assert is_loopback(host) is mine


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ([], "required: NAME"),
        (["jpeg_compresibility"], "did you mean 'jpeg_compressibility'"),
        (["jpeg_compressibility", "--host", "0.0.0.0"], "--host 0.0.0.0 can be reached from other machines"),
        (["jpeg_compressibility", "--host", "192.0.2.1"], "DDPO_REWARD_TOKEN"),
        (["jpeg_compressibility", "--port", "70000"], "70000 is not between 0 and 65535"),
        (["jpeg_compressibility", "--port", "http"], "invalid _port value: 'http'"),
        (["jpeg_compressibility", "--max_waiting", "0"], "0 is below 1"),
        (["jpeg_compressibility", "--reward_kwargs", "[1]"], "reward_kwargs is a JSON list"),
        (["jpeg_compressibility", "--reward_kwargs", '{"aesthetic": {}}'], "'aesthetic', which is not used"),
        (["jpeg_compressibility", "--reward_kwargs", '{"jpeg_compressibility": {"q": 1}}'], "has no option 'q'"),
    ],
)
def test_mistakes_are_known_before_it_serves(arguments, text, capsys, monkeypatch):
    monkeypatch.delenv("DDPO_REWARD_TOKEN", raising=False)
    assert main(["serve-reward", *arguments]) == 2
    assert text in capsys.readouterr().err


def test_a_port_that_is_taken(capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert main(["serve-reward", "jpeg_compressibility", "--port", port]) == 2
    assert f"port {port}: " in capsys.readouterr().err


def test_without_the_extra_the_error_names_it(monkeypatch, capsys):
    for name in [name for name in sys.modules if name.startswith("trainer_ext.serving.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "fastapi", None)
    assert main(["serve-reward", "jpeg_compressibility"]) == 2
    assert "pip install 'ddpo-plugins[serve]'" in capsys.readouterr().err


LEAN = (
    "torch torchvision diffusers transformers trl datasets accelerate peft pyarrow rich scipy inflect matplotlib yaml"
)


def serve(*names, code="", **variables):
    """Start the command; return it with its address."""
    program = f"import sys\n{code}\nfrom trainer_ext.cli import main\nsys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", program, "serve-reward", *names, "--port", "0"]
    server = start(command, {**environment(), **variables}, stdout=subprocess.PIPE)
    line = server.stdout.readline()
    return server, line.split(" at ")[-1].split(";")[0]


def test_it_needs_neither_torch_nor_the_trainer():
    """What a reward's own environment has to install beside the reward."""
    server, url = serve("jpeg_compressibility", code=f"sys.modules.update(dict.fromkeys({LEAN.split()}))")
    with server:
        assert ask(url, name="jpeg_compressibility").json()["values"] == [pytest.approx(-0.6, abs=0.4)]
        server.send_signal(signal.SIGINT)
    assert server.returncode == 130


SLOW = """
import os, time
from ddpo_plugins import RewardSpec, hookimpl

def slow(images, prompts, **columns):
    open(os.environ["BEGUN"], "w").close()
    while not os.path.exists(os.environ["GO"]):
        time.sleep(0.01)
    return [4.0] * len(images)

@hookimpl
def ddpo_register_rewards():
    return [RewardSpec("slow", lambda device: slow)]
"""


def test_sigterm_finishes_what_is_begun(install, tmp_path):
    install("slow-reward", "slow", SLOW)
    begun, go = tmp_path / "begun", tmp_path / "go"
    server, url = serve("slow", BEGUN=str(begun), GO=str(go))
    answers = []
    with server:
        asking = threading.Thread(target=lambda: answers.append(ask(url, name="slow")))
        asking.start()
        eventually(begun.exists)
        server.send_signal(signal.SIGTERM)
        eventually(lambda: refuses(url))
        go.touch()
        asking.join()
    assert answers[0].json()["values"] == [4.0]
    assert server.returncode == -signal.SIGTERM


def refuses(url):
    try:
        httpx.get(url + HEALTH, timeout=1)
    except httpx.TransportError:
        return True
    return False
