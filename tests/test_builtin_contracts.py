"""Every reward and detector that ships with the project, through the public door, by the author's kit."""

import pytest

from ddpo_plugins import load_catalogue
from ddpo_plugins.testing import check_detector, check_reward

CATALOGUE = load_catalogue()


def built_in(offers):
    return [name for name in offers if offers[name].distribution == "ddpo-plugins"]


@pytest.fixture
def how():
    """What a check needs, by name: options with tiny stand-ins for weights, prompts, columns."""
    return {}


@pytest.mark.parametrize("name", built_in(CATALOGUE.rewards))
def test_rewards(name, how):
    check_reward(CATALOGUE.rewards[name].spec, **how.get(name, {}))


@pytest.mark.parametrize("name", built_in(CATALOGUE.detectors))
def test_detectors(name, how):
    check_detector(CATALOGUE.detectors[name].spec, **how.get(name, {}))
