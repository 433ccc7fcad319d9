"""Vision-language judges on a real server: `transformers serve`, with a tiny random model from a folder."""

import signal
import sys

import httpx
import pytest
import torch
from support.processes import environment, free_port, start, wait_until

from ddpo_plugins.errors import RewardError
from trainer_ext import reward_from_plugin
from trainer_ext.scoring.suite import RewardSuite

pytestmark = pytest.mark.full  # starting the server imports everything again
pytest.importorskip("transformers.cli.serve", reason="this transformers has no server")


@pytest.fixture(scope="module")
def judge(llava_folder):
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    program = "from transformers.cli.transformers import main; main()"
    command = [sys.executable, "-c", program, "serve", llava_folder, "--port", port, "--host", "127.0.0.1", "--device", "cpu"]  # fmt: skip
    with start(command, environment()) as server:
        wait_until(lambda: answers(url), server)
        yield {"model": llava_folder, "base_url": f"{url}/v1", "timeout": 60.0, "max_retries": 0}
        server.send_signal(signal.SIGTERM)


def answers(url):
    try:
        return httpx.get(f"{url}/health").status_code == 200
    except httpx.TransportError:
        return False


def images():
    return torch.randint(0, 256, (3, 16, 16, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_descriptions_are_those_in_process(judge, encoder_folder, llava_folder):
    rows = [{"prompt": "a cat"}] * 3
    common = {"similarity": encoder_folder, "max_new_tokens": 6}
    near = reward_from_plugin("prompt_alignment", **{**common, "model": llava_folder, "batch_size": 1})
    far = reward_from_plugin("prompt_alignment", **common, **judge)
    scores = [RewardSuite([each]).score(images(), rows) for each in (near, far)]
    said, heard = (each.extras["prompt_alignment/description"] for each in scores)
    assert all(said)
    assert heard == said
    assert len(set(said)) > 1
    assert scores[1].total.tolist() == pytest.approx(scores[0].total.tolist(), abs=1e-6)


def test_counting(judge):
    rows = [{"prompt": "two cats", "questions": ["How many?"], "answers": ["two"]}] * 3
    scores = RewardSuite([reward_from_plugin("counting", max_new_tokens=6, **judge)]).score(images(), rows)
    assert len(scores.extras["counting/replies"]) == 3
    assert all(reply for (reply,) in scores.extras["counting/replies"])
    assert set(scores.total.tolist()) <= {0.0, 1.0}


def test_it_has_no_log_probabilities(judge):
    reward = reward_from_plugin("yes_probability", **judge)
    with pytest.raises(RewardError, match=r"logprobs.*gives no log-probabilities.*vLLM or SGLang") as caught:
        RewardSuite([reward]).score(images(), [{"prompt": "a cat"}] * 3)
    assert "\n" not in str(caught.value)
