"""A reward that was changed is another one; the same reward in another place, or after some calls, is the same."""

import functools

import pytest

from trainer_ext.scoring.code import code_fingerprint

REWARD = '''
import math

SCALE = 2.0
API_KEY = "one"
CALLS = 0


def helper(image):
    return SCALE * len(image)


class Judge:
    """A judge."""

    floor = 0.0

    def __init__(self, bias=1.0):
        self.bias = bias
        self.calls = 0
        self.seen = []

    def __call__(self, images, prompts, **columns):
        self.calls += 1
        self.seen.append(images)
        return [max(self.floor, self.score(image)) for image in images]

    def score(self, image):
        return math.sqrt(helper(image)) + self.bias


def reward(images, prompts, power=1, **columns):
    """A reward."""
    global CALLS
    CALLS += 1
    bad = {"a", "b", "c"}
    return [helper(image) ** power if image not in bad else 0.0 for image in images]


def factory(device, scale=1.0):
    def scaled(images, prompts, **columns):
        return [scale * helper(image) for image in images]

    return scaled


scaled = factory("cpu")
judge = Judge()
method = judge.score
partial = __import__("functools").partial(reward, power=2)
'''
NAMES = ("reward", "factory", "scaled", "judge", "method", "partial")

CHANGES = {  # of the text, and which of the names do something else then
    ("len(image)", "len(image) + 1"): NAMES,
    ("SCALE = 2.0", "SCALE = 3.0"): NAMES,
    ("power=1", "power=3"): ("reward", "partial"),
    ("power=2", "power=3"): ("partial",),
    ('"c"}', '"d"}'): ("reward", "partial"),
    ("bias=1.0", "bias=2.0"): ("judge", "method"),
    ("floor = 0.0", "floor = 1.0"): ("judge", "method"),
    ("math.sqrt", "math.cbrt"): ("judge", "method"),
    ("scale=1.0", "scale=2.0"): ("factory", "scaled"),
    ('factory("cpu")', 'factory("cpu", 2.0)'): ("scaled",),
    ('"""A reward."""', '"""Another text."""'): (),
    ('"""A judge."""', '"""Another text."""'): (),
    ("    bad = ", "\n    # what is bad\n    bad = "): (),
    ("CALLS = 0", "CALLS = 7"): (),
    ('API_KEY = "one"', 'API_KEY = "two"'): (),
    ("self.calls = 0", "self.calls = 1"): ("judge", "method"),  # what it says; how often it was called changes nothing
}


def fingerprints(text):
    module = {"__name__": "rewards"}
    exec(compile(text, "rewards.py", "exec"), module)
    return {name: code_fingerprint(module[name]) for name in NAMES}


@pytest.mark.parametrize(("change", "changed"), CHANGES.items(), ids=lambda value: str(value[-1:]))
def test_what_a_change_changes(change, changed):
    assert REWARD.count(change[0]) == 1
    before, after = fingerprints(REWARD), fingerprints(REWARD.replace(*change))
    assert {name for name in NAMES if before[name] != after[name]} == set(changed)


def test_calls_change_nothing():
    module = {"__name__": "rewards"}
    exec(compile(REWARD, "rewards.py", "exec"), module)
    before = {name: code_fingerprint(module[name]) for name in NAMES}
    for name in ("reward", "scaled", "judge", "partial"):
        module[name](images=["ab", "a"], prompts=[])
    assert module["CALLS"] == 2
    assert {name: code_fingerprint(module[name]) for name in NAMES} == before


def test_what_has_no_code():
    assert code_fingerprint(len) == code_fingerprint(len) != code_fingerprint(sum)
    assert code_fingerprint(str.upper) != code_fingerprint(functools.partial(str.upper, "a"))
    assert code_fingerprint(test_what_has_no_code) == code_fingerprint(test_what_has_no_code)
