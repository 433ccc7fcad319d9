"""Where the global random generators are."""

import random

import numpy as np
import pytest
import torch

from trainer_ext.loop.rewind import RngState, preserved_rng


def draw():
    device = [torch.rand((), device="cuda").item()] if torch.cuda.is_available() else []
    return [random.random(), np.random.random(), np.random.standard_normal(), torch.rand(()).item(), *device]


def test_going_back_to_a_moment():
    draw()
    moment = RngState.now()
    first, second = draw(), draw()
    assert all(a != b for a, b in zip(first, second, strict=True))
    for _ in range(2):
        moment.restore()
        assert draw() == first


@pytest.mark.parametrize("fails", [False, True])
def test_what_a_block_draws_leaves_no_trace(fails):
    moment = RngState.now()
    expected = draw()
    moment.restore()
    try:
        with preserved_rng():
            draw()
            if fails:
                raise ZeroDivisionError
    except ZeroDivisionError:
        pass
    assert draw() == expected
