"""The stages, each from files of the work folder to files of the work folder. What is there already is not made again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from . import art, evaluate, export, generator, judge, latents, shards, spelling, taste, vae
from .captions import Writing
from .deadline import Deadline
from .loop import Plan
from .settings import Settings

NOTICE = Path(__file__).with_name("NOTICE")  #: of the art's authors; it goes where the weights go
#: Far from those of the generator's scenes, which count from 0.
JUDGE_SEED, TEST_SEED, READER_SEED, TEST_READER_SEED = 1_000_000, 2_000_000, 3_000_000, 4_000_000
SECOND_JUDGE_SEED, STRANGER_SEED = 5_000_000, 6_000_000
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
        start (`Path`, *optional*): A pipeline folder whose weights training begins with; its autoencoder is kept.
    """

    folder: Path
    settings: Settings
    deadline: Deadline
    icon_sets: Path
    workers: int
    start: Path | None = None

    @property
    def art_file(self) -> Path:
        """All icons: the one file to carry to a machine without a network."""
        return self.folder / "art.npz"

    def scenes(self) -> shards.Collection:
        """Return what the autoencoder and the generator are trained on."""
        writing = Writing(self.settings.sign_share, self.settings.poster_share)
        return replace(self._collection("scenes", self.settings.shards, 0, "generator"), writing=writing)

    def judge_scenes(self) -> shards.Collection:
        """Return what the judge is trained on."""
        return self._collection("judge-scenes", self.settings.judge_shards, JUDGE_SEED, "judge")

    def reader_scenes(self) -> shards.Collection:
        """Return the writing that the judge that reads is trained on, besides the other's pictures."""
        return self._collection("reader-scenes", self.settings.reader_shards, READER_SEED, "reader")

    def test_scenes(self) -> shards.Collection:
        """Return pictures that nothing is trained on."""
        return self._collection("test-scenes", 1, TEST_SEED, "judge")

    def second_judge_scenes(self) -> shards.Collection:
        """Return what the second judge is trained on: all icon sets but one."""
        return self._collection("second-judge-scenes", self.settings.judge_shards, SECOND_JUDGE_SEED, "second judge")

    def stranger_scenes(self) -> shards.Collection:
        """Return pictures of the icon set that the second judge has not seen."""
        return self._collection("stranger-scenes", 1, STRANGER_SEED, "stranger")

    def test_reader_scenes(self) -> shards.Collection:
        """Return writing that nothing is trained on."""
        return self._collection("test-reader-scenes", 1, TEST_READER_SEED, "reader")

    def _collection(self, name: str, count: int, seed: int, viewer: shards.Viewer) -> shards.Collection:
        per_shard = self.settings.scenes_per_shard
        return shards.Collection(self.folder / name, self.art_file, count, per_shard, seed, viewer)


def draw_art(shop: Workshop) -> None:
    """Icon sets -> `art.npz`. Needs `resvg-py` and the icon sets from npm."""
    if not shop.art_file.exists():
        art.save(art.render(shop.icon_sets), shop.art_file)


def draw_scenes(shop: Workshop) -> None:
    """`art.npz` -> `scenes/`, and what the judges are trained on and tested with."""
    for_judges = (shop.judge_scenes(), shop.test_scenes(), shop.reader_scenes(), shop.test_reader_scenes())
    for collection in (shop.scenes(), *for_judges):
        shards.draw(collection, shop.workers)


def train_judge(shop: Workshop) -> None:
    """`judge-scenes/`, `test-scenes/` -> `judge/`, with its own accuracy beside the weights."""
    _train_judge(shop, "judge", judge.LABELS, shop.judge_scenes().files)
    _write_accuracy(shop.folder / "judge", pictures=shop.test_scenes().files)


def train_reading_judge(shop: Workshop) -> None:
    """The same, and `reader-scenes/`, `test-reader-scenes/` -> `reading-judge/`."""
    files = [*shop.judge_scenes().files, *shop.reader_scenes().files]
    _train_judge(shop, "reading-judge", judge.READING_LABELS, files)
    tests = {"pictures": shop.test_scenes().files, "writing": shop.test_reader_scenes().files}
    _write_accuracy(shop.folder / "reading-judge", **tests)


def fit_taste(shop: Workshop) -> None:
    """`art.npz`, `judge/` -> `taste/`."""
    folder = shop.folder / "taste"
    auroc = taste.fit(shop.art_file, shop.folder / "judge", folder, shop.settings.taste_scenes)
    shutil.copy(NOTICE, folder)
    print(f"Taste: it prefers the right one in {auroc:.1%} of pairs of pictures that it has not seen.")


def train_second_judge(shop: Workshop) -> None:
    """
    A judge with another seed and other scenes, without one of the icon sets: what a policy that games the first judge is held
    against in benchmarks. It draws its scenes itself, and is no part of `all`.
    """
    for collection in (shop.second_judge_scenes(), shop.test_scenes(), shop.stranger_scenes()):
        shards.draw(collection, shop.workers)
    _train_judge(shop, "second-judge", judge.LABELS, shop.second_judge_scenes().files, seed=judge.SECOND_SEED)
    tests = {"pictures": shop.test_scenes().files, "unseen icons": shop.stranger_scenes().files}
    _write_accuracy(shop.folder / "second-judge", **tests)


def _train_judge(
    shop: Workshop, name: str, labels: Sequence[str], files: Sequence[Path], seed: int = judge.SEED
) -> None:
    settings = shop.settings
    plan = Plan(settings.judge_steps, settings.judge_batch_size, settings.judge_learning_rate)
    folder = shop.folder / name
    if not folder.exists():
        judge.train(files, labels, folder, plan, shop.deadline, seed)
    shutil.copy(NOTICE, folder)


def _write_accuracy(folder: Path, **tests: Sequence[Path]) -> None:
    loaded = judge.load(folder)
    figures = {name: judge.accuracy(loaded, files) for name, files in tests.items()}
    (folder / "accuracy.json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    print(f"The accuracy of {folder.name} on what it has not seen: {figures}")


def train_vae(shop: Workshop) -> None:
    """`scenes/` -> `vae/`, or what the pipeline has that training starts with."""
    settings = shop.settings
    plan = Plan(settings.vae_steps, settings.vae_batch_size, settings.vae_learning_rate)
    folder = shop.folder / "vae"
    if shop.start:
        shutil.copytree(shop.start / "vae", folder, dirs_exist_ok=True)
    if not folder.exists():
        vae.train(shop.scenes().files, folder, plan, shop.deadline)
    psnr = vae.psnr(folder, shop.test_scenes().files)
    print(f"Autoencoder: {psnr:.1f} dB on scenes it has not seen.")


def encode_latents(shop: Workshop) -> None:
    """`scenes/`, `vae/` -> `latents/`."""
    latents.encode(shop.scenes().files, shop.folder / "vae", shop.folder / "latents")


def train_spelling(shop: Workshop) -> None:
    """`vae/` -> `spelling/`."""
    settings, folder = shop.settings, shop.folder / "spelling"
    plan = Plan(settings.spelling_steps, settings.spelling_batch_size, settings.spelling_learning_rate)
    spelling.train(shop.folder / "vae", folder, plan, shop.deadline, shop.start)


def train_generator(shop: Workshop) -> None:
    """`scenes/`, `latents/`, `spelling/` -> `generator/`."""
    settings = shop.settings
    plan = Plan(settings.generator_steps, settings.generator_batch_size, settings.generator_learning_rate)
    scenes = shop.scenes().files
    encoded = [shop.folder / "latents" / file.name for file in scenes]
    text_encoder = shop.folder / "spelling" / "text_encoder"
    generator.train(scenes, encoded, text_encoder, shop.folder / "generator", plan, shop.deadline, shop.start)


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
        settings.images_per_sign,
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
    "reading-judge": train_reading_judge,
    "taste": fit_taste,
    "vae": train_vae,
    "latents": encode_latents,
    "spelling": train_spelling,
    "generator": train_generator,
    "export": export_pipeline,
    "evaluate": evaluate_pipeline,
    "second-judge": train_second_judge,
}
ALL = [name for name in STAGES if name != "second-judge"]
