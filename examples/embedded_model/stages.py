"""The stages, each from files of the work folder to files of the work folder. What is there already is not made again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from . import art, evaluate, export, generator, judge, latents, shards, vae
from .deadline import Deadline
from .loop import Plan
from .settings import Settings

NOTICE = Path(__file__).with_name("NOTICE")  #: of the art's authors; it goes where the weights go
JUDGE_SEED, TEST_SEED = 1_000_000, 2_000_000  #: far from those of the generator's scenes, which count from 0
GUIDANCE_SCALES = (1.0, 3.0)  #: none, as in the package's preset, and what the model card suggests


@dataclass(frozen=True)
class Workshop:
    """
    Where the stages work and what with.

    Args:
        folder (`Path`): Of all files that they read and write.
        settings ([`Settings`]): How much of everything.
        deadline ([`Deadline`]): When to stop.
        icon_sets (`Path`): The folder `node_modules/@iconify-json`; only `art` reads it.
        workers (`int`): Processes that draw scenes.
    """

    folder: Path
    settings: Settings
    deadline: Deadline
    icon_sets: Path
    workers: int

    @property
    def art_file(self) -> Path:
        """All icons: the one file to carry to a machine without a network."""
        return self.folder / "art.npz"

    def scenes(self) -> shards.Collection:
        """Return what the autoencoder and the generator are trained on."""
        return self._collection("scenes", self.settings.shards, 0)

    def judge_scenes(self) -> shards.Collection:
        """Return what the judge is trained on."""
        return self._collection("judge-scenes", self.settings.judge_shards, JUDGE_SEED, for_judge=True)

    def test_scenes(self) -> shards.Collection:
        """Return what neither has seen."""
        return self._collection("test-scenes", 1, TEST_SEED, for_judge=True)

    def _collection(self, name: str, count: int, seed: int, for_judge: bool = False) -> shards.Collection:
        per_shard = self.settings.scenes_per_shard
        return shards.Collection(self.folder / name, self.art_file, count, per_shard, seed, for_judge)


def draw_art(shop: Workshop) -> None:
    """Icon sets -> `art.npz`. Needs `resvg-py` and the icon sets from npm."""
    if not shop.art_file.exists():
        art.save(art.render(shop.icon_sets), shop.art_file)


def draw_scenes(shop: Workshop) -> None:
    """`art.npz` -> `scenes/`, `judge-scenes/`, `test-scenes/`."""
    for collection in (shop.scenes(), shop.judge_scenes(), shop.test_scenes()):
        shards.draw(collection, shop.workers)


def train_judge(shop: Workshop) -> None:
    """`judge-scenes/`, `test-scenes/` -> `judge/`, with its own accuracy beside the weights."""
    settings, folder = shop.settings, shop.folder / "judge"
    plan = Plan(settings.judge_steps, settings.judge_batch_size, settings.judge_learning_rate)
    if not folder.exists():
        judge.train(shop.judge_scenes().files, folder, plan, shop.deadline)
    shutil.copy(NOTICE, folder)
    figures = judge.accuracy(judge.load(folder), shop.test_scenes().files)
    (folder / "accuracy.json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    print(f"The judge's own accuracy on scenes it has not seen: {figures}")


def train_vae(shop: Workshop) -> None:
    """`scenes/` -> `vae/`."""
    settings = shop.settings
    plan = Plan(settings.vae_steps, settings.vae_batch_size, settings.vae_learning_rate)
    folder = shop.folder / "vae"
    if not folder.exists():
        vae.train(shop.scenes().files, folder, plan, shop.deadline)
    psnr = vae.psnr(folder, shop.test_scenes().files)
    print(f"Autoencoder: {psnr:.1f} dB on scenes it has not seen.")


def encode_latents(shop: Workshop) -> None:
    """`scenes/`, `vae/` -> `latents/`."""
    latents.encode(shop.scenes().files, shop.folder / "vae", shop.folder / "latents")


def train_generator(shop: Workshop) -> None:
    """`scenes/`, `latents/` -> `generator/`."""
    settings = shop.settings
    plan = Plan(settings.generator_steps, settings.generator_batch_size, settings.generator_learning_rate)
    scenes = shop.scenes().files
    encoded = [shop.folder / "latents" / file.name for file in scenes]
    generator.train(scenes, encoded, shop.folder / "generator", plan, shop.deadline)


def export_pipeline(shop: Workshop) -> None:
    """`generator/`, `vae/` -> `pipeline/`."""
    export.export(shop.folder / "generator", shop.folder / "vae", shop.folder / "pipeline")
    shutil.copy(NOTICE, shop.folder / "pipeline")


def evaluate_pipeline(shop: Workshop, pipeline: Path | None = None) -> None:
    """`pipeline/` (or another), `judge/` -> `evaluation/`."""
    pipeline = pipeline or shop.folder / "pipeline"
    settings = shop.settings
    sampling = evaluate.Sampling(
        settings.prompts_per_set,
        settings.images_per_prompt,
        settings.num_inference_steps,
        settings.sheet_steps,
        GUIDANCE_SCALES,
        settings.sampling_batch_size,
    )
    judged_by = judge.load(shop.folder / "judge")
    figures = evaluate.evaluate(
        evaluate.load(pipeline), judged_by, shop.folder / "evaluation" / pipeline.name, sampling
    )
    print(json.dumps(figures, indent=2))


STAGES: dict[str, Callable[[Workshop], None]] = {
    "art": draw_art,
    "scenes": draw_scenes,
    "judge": train_judge,
    "vae": train_vae,
    "latents": encode_latents,
    "generator": train_generator,
    "export": export_pipeline,
    "evaluate": evaluate_pipeline,
}
