"""The autoencoder: 64 x 64 pixels to 16 x 16 latents of 4 channels and back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from diffusers import AutoencoderTiny
from diffusers.models.autoencoders.vae import AutoencoderTinyBlock
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from .data import batch, pixels, read
from .deadline import Deadline
from .hardware import autocast, device, generator
from .loop import Plan, Trainer

SEED = 1
CHANNELS = 32
NOISE = 0.12  #: of latents in training, at most: samplers err, and the decoder has to forgive


class Autoencoder(nn.Module):
    """An `AutoencoderTiny` whose latents are standardised by running statistics, until they are folded into it."""

    def __init__(self) -> None:
        super().__init__()
        # No blocks at full resolution: they would take most of the time and add little.
        self.vae = AutoencoderTiny(
            encoder_block_out_channels=(CHANNELS,) * 3,
            decoder_block_out_channels=(CHANNELS,) * 3,
            num_encoder_blocks=(0, 2, 3),
            num_decoder_blocks=(3, 3, 0),
            latent_channels=4,
            scaling_factor=1.0,
        )
        self.norm = nn.BatchNorm2d(4, affine=False, momentum=0.02)
        self.apply(_initialise)
        with torch.no_grad():  # gray pictures, to begin with
            self.vae.decoder.layers[-1].weight.mul_(0.1)
            self.vae.decoder.layers[-1].bias.fill_(0.5)

    def encode(self, images: Tensor) -> Tensor:
        """Return standardised latents (B, 4, 16, 16) of images (B, 3, 64, 64) in [-1, 1]."""
        return self.norm(self.vae.encoder(images))

    def decode(self, latents: Tensor) -> Tensor:
        """Return images of latents."""
        return self.vae.decoder(latents)

    @torch.no_grad()
    def folded(self) -> AutoencoderTiny:
        """Return the `AutoencoderTiny` that standardises its latents itself, by the weights of its last convolution."""
        mean, variance = self.norm.running_mean, self.norm.running_var
        assert mean is not None
        assert variance is not None
        std = (variance + self.norm.eps).sqrt()
        last = self.vae.encoder.layers[-1]
        last.weight.div_(std[:, None, None, None])
        last.bias.sub_(mean).div_(std)
        return self.vae


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    if isinstance(module, AutoencoderTinyBlock):
        with torch.no_grad():
            module.conv[4].weight.mul_(0.2)


def reconstruction_loss(images: Tensor, targets: Tensor) -> Tensor:
    """Return L1 + L2 / 2 of pixels, plus half the L1 of their horizontal and vertical differences and of 4 x 4 means."""
    error = images - targets
    edges = (error[..., 1:] - error[..., :-1]).abs().mean() + (error[..., 1:, :] - error[..., :-1, :]).abs().mean()
    return error.abs().mean() + 0.5 * error.pow(2).mean() + 0.5 * edges + 0.5 * avg_pool2d(error, 4).abs().mean()


def step_loss(model: Autoencoder, images: Tensor, plan: Plan) -> Callable[[int], Tensor]:
    """Return the loss as a function of the step."""

    def loss(step: int) -> Tensor:
        targets = pixels(images[batch(len(images), plan.batch_size, SEED, step)])
        rng = generator(SEED + 1, step)
        with autocast():
            latents = model.encode(targets).float()
            level = NOISE * torch.rand(len(latents), 1, 1, 1, generator=rng, device=device())
            noise = torch.randn(latents.shape, generator=rng, device=device())
            decoded = model.decode(latents + level * noise).float()
        outliers = (latents.abs() - 2.7).relu().pow(2).mean()  # the decoder squashes what is beyond 3
        return reconstruction_loss(decoded, targets) + 0.01 * outliers

    return loss


def train(shards: Sequence[Path], folder: Path, plan: Plan, deadline: Deadline) -> None:
    """Train an autoencoder and write it to a folder that `AutoencoderTiny.from_pretrained` reads."""
    torch.manual_seed(SEED)
    model = Autoencoder()
    trainer = Trainer(model, plan, folder.with_suffix(".checkpoint.safetensors"))
    trained = trainer.train(step_loss(model, read(shards, "images"), plan), deadline)
    trained.folded().save_pretrained(folder)


@torch.no_grad()
def psnr(folder: Path, shards: Sequence[Path]) -> float:
    """Return the peak signal-to-noise ratio, in dB, of scenes that go there and back."""
    vae = AutoencoderTiny.from_pretrained(folder).to(device(), memory_format=torch.channels_last)
    errors = []
    for part in read(shards, "images").split(256):
        targets = pixels(part)
        decoded = vae.decode(vae.encode(targets).latents).sample.clamp(-1, 1)
        errors.append((decoded - targets).pow(2).mean((1, 2, 3)))
    return float(-10 * torch.log10(torch.cat(errors).mean() / 4))
