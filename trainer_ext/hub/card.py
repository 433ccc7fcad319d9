"""The repository of a run's adapter on the Hub: its files, and the card that says what they are and how good."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from ..file_names import KOHYA_FILE
from ..runs.folder import RunFolder
from ..runs.summary import PairedFigure
from .cards.base import Base
from .cards.description import describe
from .cards.markdown import one_line, render
from .cards.readme import merged_readme
from .cards.results import Results
from .cards.weights import Weights

TAGS = ("text-to-image", "diffusers", "diffusers-training", "ddpo", "reinforcement-learning", "trl")
FIXED_PROMPTS = "fixed prompts and seeds of the training"  #: by this name our evaluation results are known


def adapter_files(folder: RunFolder, checkpoint: Path | None = None) -> dict[str, Path]:
    """
    Return the files of a run that go into the repository of its adapter, without the card.

    Args:
        folder ([`RunFolder`]):
            The run.
        checkpoint (`Path`, *optional*):
            The folder whose weights are meant, a checkpoint or the run's own; by default the newest, see [`Weights.of`].

    Returns:
        `dict[str, Path]`: each file by its path in the repository: weights, pictures and the record of the run; neither pickles
        nor anything unfinished.

    Raises:
        [`ConfigError`]: the run has no weights yet.
    """
    weights = Weights.of(folder, checkpoint)
    found = weights.files()
    for pair in Results(folder).pairs:
        found |= pair.files
    others = {
        KOHYA_FILE: weights.kohya_file,
        folder.comparison_file.name: folder.comparison_file,
        folder.curve_file.name: folder.curve_file,
        folder.setup_file.name: folder.setup_file,
    }
    return found | {name: path for name, path in others.items() if path is not None and path.is_file()}


def adapter_card(
    folder: RunFolder,
    repo_id: str,
    dataset_id: str | None = None,
    existing: str | None = None,
    checkpoint: Path | None = None,
    base_licence: Mapping[str, str] | None = None,
) -> str:
    """
    Return the README.md of the repository of a run's adapter.

    Args:
        folder ([`RunFolder`]):
            The run.
        repo_id (`str`):
            The repository, `user/name`.
        dataset_id (`str`, *optional*):
            The run's repository of images, `user/name`.
        existing (`str`, *optional*):
            The README.md that is in the repository. What a person wrote there stays; see [`merged_readme`].
        checkpoint (`Path`, *optional*):
            As for [`adapter_files`].
        base_licence (`Mapping[str, str]`, *optional*):
            Licence of the base, if that is on the Hub; see [`licence_of`]. For other bases it is found here.

    Raises:
        [`ConfigError`]: the run has no weights yet, or no `run.json`.
    """
    results, weights = Results(folder), Weights.of(folder, checkpoint)
    base = Base.of(results.setup, base_licence)
    context = {
        **describe(results, base),
        "repo_id": repo_id,
        "dataset_id": dataset_id,
        "weights": weights,
        "files": adapter_files(folder, checkpoint),
        "kohya_file": KOHYA_FILE,
        "update": weights.updates,
    }
    front_matter = _front_matter(results, weights, base, repo_id, dataset_id)
    return merged_readme(front_matter, render("adapter_card.md.jinja", context), existing)


def _front_matter(
    results: Results, weights: Weights, base: Base, repo_id: str, dataset_id: str | None
) -> dict[str, Any]:
    name, form = repo_id.rpartition("/")[2], weights.form
    figure = results.summary.paired
    data = ModelCardData(
        base_model=base.hub_id,
        base_model_relation=form.relation if base.hub_id else None,
        datasets=None if dataset_id is None else [dataset_id],
        library_name=form.library,
        license=base.licence.get("license"),
        license_name=base.licence.get("license_name"),
        license_link=base.licence.get("license_link"),
        pipeline_tag="text-to-image",
        tags=[*TAGS, *form.tags, _family(results.setup["pipeline"])],
        widget=_gallery(results) or None,
        model_name=None if figure is None else name,
        eval_results=None if figure is None else _evaluations(figure, results, dataset_id),
    )
    return dict(data.to_dict())


def _family(pipeline: str) -> str:
    """Return the tag of a class of pipelines: its words, with hyphens between them, as in `stable-diffusion-xl`."""
    words = re.findall(r"[A-Z]+(?![a-z])|[A-Z][a-z]*|\d+", pipeline.removesuffix("Pipeline"))
    return "-".join(words).lower()


def _gallery(results: Results) -> list[dict[str, Any]]:
    return [{"text": one_line(pair.after["prompt"]), "output": {"url": pair.name_after}} for pair in results.pairs]


def _evaluations(figure: PairedFigure, results: Results, dataset_id: str | None) -> list[EvalResult]:
    reward = " + ".join(results.setup["rewards"])
    metrics = {"before training": figure.before, "after training": figure.after}
    return [
        EvalResult(
            task_type="text-to-image",
            dataset_type=dataset_id or "prompts",
            dataset_name=FIXED_PROMPTS,
            metric_type="reward",
            metric_name=f"{reward}, mean of {figure.n} images {moment}",
            metric_value=round(value, 6),
        )
        for moment, value in metrics.items()
    ]
