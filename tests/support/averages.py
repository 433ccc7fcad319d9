"""Weights after each update, and what their moving average must be."""

from pathlib import Path

from safetensors.torch import load_file
from transformers import TrainerCallback

from support.trainers import trained_weights


def saved_weights(folder):
    """Of the LoRA file, by the names of the module's parameters."""
    state = load_file(Path(folder) / "pytorch_lora_weights.safetensors")
    return {
        "network.base_model.model." + name.removeprefix("unet.").replace(".weight", ".default.weight"): value
        for name, value in state.items()
    }


class Recorder(TrainerCallback):
    """Records the trained weights before training and after every update."""

    def __init__(self):
        self.weights = []

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        self.weights.append(trained_weights(model))

    def on_step_end(self, args, state, control, model=None, **kwargs):
        self.weights.append(trained_weights(model))


def average_by_hand(weights, decay):
    """The first update as it is; then of update n the share min(decay, n / (n + 9)) of the old average stays."""
    average = {name: value.double() for name, value in weights[1].items()}
    for n, values in enumerate(weights[2:], start=2):
        stays = min(decay, n / (n + 9))
        average = {name: stays * average[name] + (1 - stays) * values[name].double() for name in values}
    return {name: value.float() for name, value in average.items()}
