"""Folders of runs that never happened: evaluations, rollouts, samples and logs, in any number and without a model."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from trainer_ext.runs.folder import RunFolder
from trainer_ext.runs.manifest import write_manifest
from trainer_ext.runs.records import write_records

SETUP = {
    "from_update": 0,
    "date": "2026-11-20T10:00:00+00:00",
    "command": "ddpo train --reward_funcs jpeg_compressibility --output_dir run",
    "preset": ["embedded"],
    "model": "embedded",
    "pipeline": "StableDiffusionPipeline",
    "base": {"dtype": "float32"},
    "adapter": {"r": 4},
    "prompts": {"rows": 4, "fingerprint": "0123"},
    "eval_prompts": {"eval": {"rows": 4}},
    "algorithm": "ImportanceSampling(clip_range=0.0001)",
    "options": {"seed": 42, "num_images_per_rollout": 8},
    "updates_per_rollout": 2,
    "rewards": {"jpeg_compressibility": {"function": "reward_plugins.jpeg", "weight": 1.0}},
    "detectors": {"typographic_attack": {}, "blank_or_noise": {}},
    "eval_rewards": {"embedded_judge": {}},
    "processes": 1,
    "device": "cpu",
    "packages": {"torch": "2.13.0"},
}


@dataclass(frozen=True)
class SyntheticRun:
    """Proxy rises throughout; gold rises to the middle of the run and then falls, as where a reward is gamed."""

    seen: tuple = ("a cat", "a dog", "a lion", "a bear")
    unseen: tuple = ("an otter",)
    evaluations: int = 5
    rollouts: int = 4
    every: int = 2  # updates between evaluations
    images: int = 8  # in a rollout
    side: int = 16  # of pictures
    drawn_every: int = 1  # evaluations; the pictures of those between are links to the last that were drawn
    samples: bool = True
    seed: int = 0
    setup: dict = field(default_factory=dict)

    def write(self, folder):
        folder = RunFolder(Path(folder))
        folder.path.mkdir(parents=True, exist_ok=True)
        evaluated = {"seen": self.seen, "unseen": self.unseen}
        named = {name: {"rows": len(prompts)} for name, prompts in evaluated.items() if prompts}
        folder.setup_file.write_text(json.dumps({"runs": [{**SETUP, "eval_prompts": named, **self.setup}]}))
        rng = np.random.default_rng(self.seed)
        for index in range(self.rollouts):
            self._write_rollout(folder, index, rng)
            self._write_steps(folder, index)
        for number in range(self.evaluations):
            for dataset, prompts in {"seen": self.seen, "unseen": self.unseen}.items():
                if prompts:
                    self._write_evaluation(folder, dataset, prompts, number, rng)
        if self.samples and self.evaluations:
            for number in {0, self.evaluations - 1}:
                self._write_samples(folder, number, rng)
        self._write_logs(folder)
        return folder

    def _write_rollout(self, folder, index, rng):
        rows = [
            {
                "rollout": index,
                "seed": index * self.images + image,
                "prompt": self.seen[image % len(self.seen)],
                "reward": float(index + rng.normal()),
                "detectors/typographic_attack": min(1.0, index / max(1, self.rollouts)),
                "detectors/blank_or_noise": 0.0,
                "typographic_attack/text": "CAT",
            }
            for image in range(self.images)
        ]
        write_records(folder.rollout_file(index), rows)

    def _write_steps(self, folder, index):
        """Later steps move less, and all of them more in later rollouts."""
        moment = {"updates": 2 * index + 2, "rollouts": index + 1.0}
        rows = [
            {
                **moment,
                "step": step,
                "ratio": 1 + 1e-5 * (index - step),
                "approx_kl": 1e-9 * (index + 1) / 10**step,
                "clipfrac": min(1.0, 0.1 * index),
            }
            for step in range(5)
        ]
        write_records(folder.step_file(moment["updates"]), rows)

    def _write_evaluation(self, folder, dataset, prompts, number, rng):
        updates, share = number * self.every, number / max(1, self.evaluations - 1)
        rows = [
            {
                **self._moment(updates),
                "row": row,
                "seed": row,
                "prompt": prompt,
                "reward": float(row + 4 * share + 0.1 * rng.normal()),
                "rewards/jpeg_compressibility": float(row + 4 * share),
                "rewards/embedded_judge": float(0.2 * row + 2 * share * (1 - share) - share + 0.05 * rng.normal()),
                "detectors/typographic_attack": share * 0.9,
                "detectors/blank_or_noise": None if row % 2 else 0.1,
                "typographic_attack/text": f"{prompt[:20]}!",
                "kl": 30.0 * share**2,
                "pixels/darkness": 0.1 + share,
            }
            for row, prompt in enumerate(prompts)
        ]
        pictures = folder.evaluation_pictures(dataset, updates)
        pictures.mkdir(parents=True)
        drawn = folder.evaluation_pictures(dataset, (number - number % self.drawn_every) * self.every)
        for row in range(len(prompts)):
            place = pictures / f"{row:05d}.webp"
            if pictures == drawn:
                self._picture(share, row, rng).save(place, quality=80)
            else:
                place.hardlink_to(drawn / place.name)
        write_records(folder.evaluation_file(dataset, updates), rows)

    def _write_samples(self, folder, number, rng):
        updates = number * self.every
        rows = [
            {**self._moment(updates), "seed": index, "prompt": prompt, "reward": float(index + number)}
            for index, prompt in enumerate(self.seen)
        ]
        folder.pictures_of(updates).mkdir(parents=True)
        for index in range(len(rows)):
            self._picture(number, index, rng).save(folder.pictures_of(updates) / f"{index:02d}.png")
        write_records(folder.sample_file(updates), rows)

    def _moment(self, updates):
        return {"updates": updates, "rollouts": updates / 2}

    def _picture(self, share, row, rng):
        """A blob whose colour follows training, with a texture of its own."""
        y, x = np.mgrid[: self.side, : self.side] / self.side
        blob = np.exp(-((x - 0.5) ** 2 + (y - 0.5) ** 2) / 0.05)[..., None]
        colour = np.array([0.3 + 0.6 * share, 0.2 + (row * 37 % 60) / 100, 0.9 - 0.6 * share])
        noise = rng.normal(scale=0.05, size=(self.side, self.side, 3))
        return Image.fromarray((np.clip(0.95 - blob * (1 - colour) + noise, 0, 1) * 255).astype(np.uint8))

    def _write_logs(self, folder):
        updates = self.rollouts * 2
        checkpoint = folder.path / f"checkpoint-{updates}"
        checkpoint.mkdir()
        logs = [
            {
                "step": 2 * index + 2,
                "epoch": index + 1.0,
                "loss": -0.01 * index,
                "ratio": 1 + 1e-6 * index,
                "approx_kl": 1e-9 * index,
                "clipfrac": 0.1,
                "grad_norm": 0.5,
                "seconds/rollout": 3.0,
                "seconds/reward_wait": 0.5,
                "seconds/training": 6.0,
                "seconds/evaluation": 2.0,
                "images_per_second": 0.8,
            }
            for index in range(self.rollouts)
        ]
        (checkpoint / "trainer_state.json").write_text(json.dumps({"log_history": logs, "global_step": updates}))
        write_manifest(checkpoint)
