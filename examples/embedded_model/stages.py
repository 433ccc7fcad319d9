"""The stages, each from files of the work folder to files of the work folder. What is there already is not made again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from . import art, evaluate, export, generator, judge, latents, posters, shards, spelling, taste, vae
from .loop import Plan
from .workshop import Workshop

NOTICE = Path(__file__).with_name("NOTICE")  #: of the art's authors; it goes where the weights go
GUIDANCE_SCALES = (1.0, 3.0)  #: none, as in the package's preset, and what the model card suggests


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


def train_posters(shop: Workshop) -> None:
    """
    `art.npz`, the pipeline that training starts with -> `posters/adapter/`. It draws its scenes itself, and is no part of `all`.

    Raises:
        `ValueError`: No pipeline was named.
    """
    if shop.start is None:
        raise ValueError("The adapter is for a pipeline: name its folder with --start.")
    settings, folder, scenes = shop.settings, shop.folder / "posters", shop.poster_scenes()
    shards.draw(scenes, shop.workers)
    latents.encode(scenes.files, shop.start / "vae", folder / "latents")
    encoded = [folder / "latents" / file.name for file in scenes.files]
    plans = (
        Plan(settings.adapter_spelling_steps, settings.spelling_batch_size, settings.adapter_learning_rate),
        Plan(settings.adapter_steps, settings.generator_batch_size, settings.adapter_learning_rate),
    )
    posters.train(scenes.files, encoded, shop.start, folder, plans, shop.deadline)


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
    "posters": train_posters,
}
ALL = [name for name in STAGES if name not in ("second-judge", "posters")]
