"""Secrets are in no record and no message, whatever their names are and wherever they stand; everything else stays legible."""

import json

import pytest

from ddpo_plugins.catalogue import PluginFailure
from ddpo_plugins.errors import DDPOError, RewardError
from ddpo_plugins.masking import (
    is_secret_name,
    masked,
    masked_command,
    masked_message,
    masked_text,
    remember_secrets,
    without_secrets,
)

CANARY = "Canary7Zx91"  # has no shape: it is known by its name alone

SECRET_NAMES = """
api_key apiKey APIKey api-key X-API-KEY x_api_key OPENAI_API_KEY key hf_token hfToken token_2 authToken access_token
passwd db_passwd dbpassword password pwd passphrase secret clientSecret client-secret cookie Set-Cookie session_cookie
credentials awsSecretAccessKey Authorization proxy-authorization auth bearer private_key accesskey signature jwt webhookUrl
session session_id sessionId JSESSIONID otp pin oauth oauth2 cred connection_string connStr dsn csrf_token privkey userpass
service_account_json seed_phrase hmac Passwort
"""
OPEN_NAMES = """
model keyword keywords tokenizer max_new_images monkey author turkey compass description passing_score bypass
guidance hockey base_url question authors pinned spin opinion shuffle side obsession credits
"""


@pytest.mark.parametrize("name", SECRET_NAMES.split())
def test_names_of_secrets(name):
    assert is_secret_name(name)
    for value in (CANARY, [CANARY], {"a": CANARY}, (CANARY, 1), CANARY.encode()):
        assert CANARY not in json.dumps(masked({"options": [{name: value, "scale": 2}]}))


@pytest.mark.parametrize("name", OPEN_NAMES.split())
def test_names_of_what_is_no_secret(name):
    assert masked({name: "cats"}) == {name: "cats"}


@pytest.mark.parametrize(
    "value",
    [
        {"headers": {"Authorization": f"ApiKey {CANARY}"}},
        {"headers": [["X-Api-Key", CANARY], ["Accept", "*"]]},
        {"headers": (("authorization", CANARY),)},
        {"headers": [{"name": "Authorization", "value": CANARY}]},
        {"headers": [f"Authorization: ApiKey {CANARY}", f"Cookie: a={CANARY}; b={CANARY}"]},
        {"headers": {b"Authorization": CANARY.encode()}},
        {"base_url": f"https://host/v1?key={CANARY}"},
        {"base_url": f"https://host/v1?user=a&x={CANARY}#b"},
        {"base_url": f"https://host/v1#access={CANARY}"},
        {"base_url": f"https://me:{CANARY}@host/v1"},
        {"base_url": f"https://me:a@{CANARY}@host/v1"},
        {"base_url": f"https://{CANARY}@host/v1"},
        {"proxy": f"me:{CANARY}@host:80"},
        {"extra": f'{{"apiKey": "{CANARY}"}}'},
        {"extra": json.dumps(json.dumps({"apiKey": CANARY}))},
        {"extra": f"scale=1,api_key={CANARY}"},
        {"args": ["--api-key", CANARY, "--scale", "1"]},
        {"deep": [[{"a": ({"nested": {"hf_token": CANARY}},)}]]},
        {"pin": {"password": 1234567}, "token": 1234567},
        {f"https://host?key={CANARY}": 1},
        {"client": type("Client", (), {"__repr__": lambda self: CANARY})()},
    ],
    ids=str,
)
def test_places_of_secrets(value):
    hidden = json.dumps(masked(value))
    assert CANARY not in hidden
    assert "1234567" not in hidden
    assert "***" in hidden or "Client" in hidden


@pytest.mark.parametrize(
    "shape",
    [
        "hf_" + "aB3" * 11,
        "sk-proj-abc_DEF-123456789",
        "sk-ant-api03-abcDEF123456",
        "sk_live_abcDEF123456",
        "ghp_" + "aB3" * 12,
        "github_pat_" + "aB3" * 12,
        "glpat-abcDEF123456",
        "AKIAIOSFODNN7EXAMPLE",
        "AIzaSyA" + "b1" * 16,
        "xoxb-123456789-abcdef",
        "nvapi-abcDEF123456",
        "r8_" + "aB3" * 12,
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjMifQ.abcDEF_123",
        "Bearer abcdef.123",
        "basic dXNlcjpwYXNz",
        "-----BEGIN RSA PRIVATE KEY-----\nMIIabc\n-----END RSA PRIVATE KEY-----",
    ],
)
def test_shapes_of_secrets(shape):
    secret = shape.split()[-1] if shape[0] in "Bb" else shape
    for text in (shape, f"before {shape} after", f"('{shape}')", f'"{shape}"', f"x={shape},"):
        assert secret not in masked_text(text)
        assert secret not in json.dumps(masked({"note": [text]}))


@pytest.mark.parametrize(
    "value",
    [
        {"max_new_tokens": 64, "token": None, "use_auth_token": True, "key": None},
        {"base_url": "http://localhost:8000/v1", "model": "openai/clip-vit-large-patch14", "revision": "a4e4367c" * 5},
        {"question": "What is this? Answer: yes or no.", "labels": ["a key", "a token"], "scale": 0.5},
        {"columns": ["prompt", "style"], "size": [512, 512], "path": "/data/images", "hub": "hf_transfer"},
        {"note": "user@host.org", "time": "12:30", "ratio": "16:9", "module": "torch.nn.functional"},
        {"name": "clip", "value": 3},
    ],
    ids=str,
)
def test_what_is_no_secret_stays(value):
    assert masked(value) == value


@pytest.mark.parametrize(
    "message",
    [
        f"Error code: 401 - {{'error': {{'message': 'Incorrect API key provided: {CANARY}. You can find yours there.'}}}}",
        f"The API key '{CANARY}' is not valid",
        f'invalid api_key "{CANARY}"',
        f"Invalid token '{CANARY}'",
        f"bad password: {CANARY}",
        f"Judge(model='a', api_key='{CANARY}')",
        f"unused arguments: ['--api-key', '{CANARY}', '--scale']",
        f"unused arguments: ['--apiKey={CANARY}']",
        f"Unknown options: --apiKey={CANARY}.",
        f"failed: api_key={CANARY}",
        f"curl --api-key {CANARY} failed",
        f"GET https://host/v1?api={CANARY} failed",
        f"Authorization: Bearer {CANARY}",
        f'{{"Authorization": "ApiKey {CANARY}"}}',
        f"key => {CANARY}",
    ],
)
def test_messages(message):
    for error in (DDPOError(message), RewardError(message)):
        assert CANARY not in str(error)
        assert "***" in str(error)
    assert masked_message(masked_message(message)) == masked_message(message)
    assert without_secrets(ValueError(message)) is None


@pytest.mark.parametrize(
    "message",
    [
        "Reward 'a' raised KeyError: 'style'. Repair it.",
        "Set its key in the environment: OPENAI_API_KEY.",
        "The tokenizer of 'a/b' has no token 'purple', so it cannot say how likely that answer is.",
        "Reward 'scaled' has no option 'api_ke'; did you mean 'api_key'? It has: model, api_key.",
        "No reward is named; give one with --reward_funcs NAME. Installed: aesthetic, clip.",
        "RuntimeError: Missing key(s) in state_dict: conv.weight",
        "num_images_per_rollout=3 is not a multiple of 2 (per_device_train_batch_size=2 x 1 process(es)).",
    ],
)
def test_messages_without_secrets_stay(message):
    assert str(DDPOError(message)) == message
    error = ValueError(message)
    assert without_secrets(error) is error


def test_a_plugin_that_failed_repeats_no_secret():
    assert CANARY not in str(PluginFailure("a", "b", "1", OSError(f"no server at http://h/?key={CANARY}"), "Mend it."))


def test_an_error_without_a_message():
    class MuteError(Exception):
        def __str__(self):
            raise ValueError(CANARY)

    error = MuteError()
    assert without_secrets(error) is error


def test_what_was_given_under_a_secret_name_is_known_in_later_messages():
    assert "opensesame" in masked_text("the server does not know opensesame")
    remember_secrets({"judge": [{"options": {"apiKey": "opensesame", "password": "EMPTY"}}]})
    assert masked_text("the server does not know opensesame") == "the server does not know ***"
    assert masked_text("the folder is EMPTY") == "the folder is EMPTY"  # how one gives no key


def test_secrets_of_the_environment_are_known(monkeypatch):
    monkeypatch.setenv("SOME_SERVICE_API_KEY", "opensesame2")
    monkeypatch.setenv("PASSWORD_STORE_DIR", "/home/someone/store")
    assert masked_text("opensesame2 at /home/someone/store") == "*** at /home/someone/store"


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        (["--hub_token", CANARY, "--eta", "0.5"], "--hub_token '***' --eta 0.5"),
        ([f"--hub_token={CANARY}"], "'--hub_token=***'"),
        (["--hub_token", f"-{CANARY}"], "--hub_token '***'"),
        (["--reward_kwargs", f'{{"judge": {{"apiKey": "{CANARY}", "n": 1}}}}'], '--reward_kwargs \'{"judge": {"apiKey": "***", "n": 1}}\''),
        ([f'--reward_kwargs={{"judge": {{"apiKey": "{CANARY}"}}}}'], '\'--reward_kwargs={"judge": {"apiKey": "***"}}\''),
        (["--reward_kwargs", f'{{"judge": {CANARY}'], "--reward_kwargs '***'"),
        (["--reward_kwargs", f'{{"judge": {{"base_url": "http://h/?k={CANARY}"}}}}'], '--reward_kwargs \'{"judge": {"base_url": "http://h/?***"}}\''),
        (["--prompts", "a b.txt", "--bf16", "true"], "--prompts 'a b.txt' --bf16 true"),
    ],
)  # fmt: skip
def test_command_lines(arguments, command):
    assert masked_command(["ddpo", "train", *arguments]) == f"ddpo train {command}"


def test_the_current_folder_is_no_secret(monkeypatch):
    """Shells keep it in PWD, whose last letters otherwise mean a password."""
    monkeypatch.setenv("PWD", "/home/someone/runs")
    monkeypatch.setenv("OLDPWD", "/home/someone/earlier")
    monkeypatch.setenv("DB_PWD", "a-real-password")
    text = "ddpo train --output_dir /home/someone/runs/cats --data /home/someone/earlier/x a-real-password"
    assert masked_text(text) == text.replace("a-real-password", "***")
