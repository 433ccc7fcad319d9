"""
The host does not wait for the device in the loops over denoising steps, where a GPU would then stand still.

There is no GPU here, so what would wait is counted: questions whose answer the host needs. More steps must not ask more.
"""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten
QUESTIONS = {aten._local_scalar_dense, aten.equal, aten.is_nonzero, aten.nonzero, aten.masked_select}


class Questions(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.asked = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function.overloadpacket in QUESTIONS and any(isinstance(a, torch.Tensor) and a.dim() != 1 for a in args):
            self.asked += 1  # indices and tables, of one dimension, are in the host's memory
        return function(*args, **(kwargs or {}))


def asked(trainer):
    with Questions() as questions:
        trainer.train()
    return questions.asked


@pytest.mark.parametrize(
    "options",
    [
        {"algorithm": "ddpo_is", "per_device_train_batch_size": 2, "beta": 0.1},
        pytest.param({"algorithm": "rwr", "advantages": "batch"}, marks=pytest.mark.full),
    ],
)
def test_more_denoising_steps_ask_no_more_questions(make_trainer, options):
    few, many = (
        asked(make_trainer(num_inference_steps=steps, guidance_scale=3.0, folder=str(steps), **options))
        for steps in (3, 7)
    )
    assert 0 < few == many
