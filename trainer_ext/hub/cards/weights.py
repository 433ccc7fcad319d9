"""The trained weights of a run: which files they are, and what the Hub calls their form."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from safetensors import safe_open

from ...errors import ConfigError
from ...file_names import KOHYA_FILE, LORA_FILE, PEFT_CONFIG, PEFT_FILE, PIPELINE_FILE, STAGING
from ...runs.folder import RunFolder
from ...runs.manifest import MANIFEST

#: In a whole pipeline: what its components are loaded from, and nothing that can hold code.
PIPELINE_SUFFIXES = (".safetensors", ".json", ".txt", ".model")


@dataclass(frozen=True)
class WeightsForm:
    """
    A form of trained weights, and what the Hub calls it.

    Parameters:
        name (`str`):
            In a sentence: "A LoRA adapter for ...".
        file (`str`):
            The file by which it is known.
        also (`tuple[str, ...]`):
            Files beside it that are needed.
        snippet (`str`):
            Template of the code that loads it.
        relation, library (`str`):
            `base_model_relation` and `library_name` of the front matter.
        tags (`tuple[str, ...]`):
            Its tags.
    """

    name: str
    file: str
    also: tuple[str, ...]
    snippet: str
    relation: str
    library: str
    tags: tuple[str, ...]


FORMS = (
    WeightsForm(
        "LoRA adapter", LORA_FILE, (), "load_lora.md.jinja", "adapter", "diffusers", ("lora", "template:sd-lora")
    ),
    WeightsForm("LoRA adapter", PEFT_FILE, (PEFT_CONFIG,), "load_peft.md.jinja", "adapter", "peft", ("lora",)),
    WeightsForm("fine-tuned pipeline", PIPELINE_FILE, (), "load_pipeline.md.jinja", "finetune", "diffusers", ()),
)


@dataclass(frozen=True)
class Weights:
    """
    The trained weights of a run.

    Parameters:
        folder (`Path`):
            The run's folder, or a checkpoint.
        form ([`WeightsForm`]):
            Their form.
    """

    folder: Path
    form: WeightsForm

    @classmethod
    def of(cls, folder: RunFolder, checkpoint: Path | None = None) -> Weights:
        """
        Find the weights of a run.

        Args:
            folder ([`RunFolder`]):
                The run.
            checkpoint (`Path`, *optional*):
                The checkpoint whose weights are meant; by default the newest: those at the end of the run, or of a checkpoint if
                it was resumed since or never ended.

        Raises:
            [`ConfigError`]: there are none.
        """
        for place in folder.weights() if checkpoint is None else [checkpoint]:
            for form in FORMS:
                if (place / form.file).is_file():
                    return cls(place, form)
        names = ", ".join(form.file for form in FORMS)
        raise ConfigError(
            f"{checkpoint or folder.path} holds no adapter or pipeline ({names}), and no checkpoint that is whole. Give the "
            "output folder of a run that ended, or that left a checkpoint."
        )

    @property
    def file(self) -> Path:
        """The file by which they are known."""
        return self.folder / self.form.file

    @property
    def updates(self) -> int | None:
        """Optimizer updates before them, if they are those of a checkpoint."""
        is_checkpoint = (self.folder / MANIFEST).is_file()
        return int(self.folder.name.removeprefix("checkpoint-")) if is_checkpoint else None

    @property
    def kohya_file(self) -> Path | None:
        """Place of a UNet's adapter by Kohya's names, outside of checkpoints, which it would damage; `None` for other weights."""
        if self.form.file != LORA_FILE or self.denoiser != "unet":
            return None
        if self.updates is None:
            return self.folder / KOHYA_FILE
        return self.folder.parent / STAGING / f"{self.folder.name}-kohya.safetensors"

    @property
    def denoiser(self) -> str:
        """Name of the component that an adapter belongs to: `"unet"` or `"transformer"`."""
        with safe_open(self.file, "np") as opened:
            metadata = (opened.metadata() or {}).get("lora_adapter_metadata", "{}")
        return next((name.partition(".")[0] for name in json.loads(metadata)), "transformer")

    def files(self) -> dict[str, Path]:
        """Return the files by their path in a repository: tensors and texts, never pickles or code."""
        found = {name: self.folder / name for name in (self.form.file, *self.form.also)}
        if self.form.file == PIPELINE_FILE:
            found |= {f"{path.parent.name}/{path.name}": path for path in _component_files(self.folder)}
        return {name: path for name, path in found.items() if path.is_file()}


def _component_files(pipeline: Path) -> Iterator[Path]:
    """Yield the files of the components of a saved pipeline, which are in folders of their own that it names."""
    for name in json.loads((pipeline / PIPELINE_FILE).read_text(encoding="utf-8")):
        yield from (path for path in sorted(pipeline.glob(f"{name}/*")) if path.suffix in PIPELINE_SUFFIXES)
