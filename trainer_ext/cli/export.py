"""`ddpo export`: a run's adapter for other programs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ConfigError
from ..file_names import KOHYA_FILE, LORA_FILE
from ..options import described, option
from ..values import CheckedOptions
from .parse import parse

if TYPE_CHECKING:
    from ..hub.export import Adapter

PROG = "ddpo export"
FORMATS = {"kohya": KOHYA_FILE, "diffusers": LORA_FILE, "merged": "merged"}


@described
@dataclass
class ExportOptions(CheckedOptions):
    """Options of `ddpo export`: which adapter, and in which form."""

    run: str = option("ddpo-output", "Output folder of a run, or a checkpoint of it.")
    format: str = option(
        "kohya",
        "'kohya' (one file for ComfyUI, A1111 and others), 'diffusers' (one file for load_lora_weights) or 'merged' (a whole "
        "pipeline).",
    )
    output: str | None = option(
        None, "File or folder to write; by default in the run's folder, or beside a checkpoint."
    )
    model_name_or_path: str | None = option(
        None, "'merged': the base pipeline; by default the one that the run trained."
    )


def run(arguments: list[str]) -> int:
    """Run the command."""
    if arguments and not arguments[0].startswith("-"):
        arguments = ["--run", *arguments]
    (options,) = parse((ExportOptions,), arguments, PROG, {})
    if options.format not in FORMATS:
        raise ConfigError(f"--format is {options.format!r}; it must be one of {', '.join(FORMATS)}.")
    from .quiet import quiet_libraries

    quiet_libraries()
    print(_export(options))
    return 0


def _export(options: ExportOptions) -> Path:
    from ..hub.export import adapter_of, write_kohya, write_merged
    from ..model.loading import load_pipeline
    from ..runs.atomic import replacing

    adapter = adapter_of(Path(options.run))
    output = Path(options.output) if options.output else _place(Path(options.run), options.format)
    if options.format == "kohya":
        write_kohya(adapter, output)
    elif options.format == "merged":
        write_merged(adapter, load_pipeline(options.model_name_or_path or _base_of(Path(options.run), adapter)), output)
    elif not (output.exists() and output.samefile(adapter.file)):
        output.parent.mkdir(parents=True, exist_ok=True)
        with replacing(output) as place:
            place.write_bytes(adapter.file.read_bytes())
    return output


def _place(run: Path, form: str) -> Path:
    """Return what is written by default: in the run's folder; for a checkpoint beside it, as one file more would damage it."""
    from ..runs.manifest import MANIFEST

    place = run / FORMATS[form]
    if form == "diffusers" or not (run / MANIFEST).is_file():
        return place
    return run.resolve().parent / f"{place.stem}-{run.resolve().name}{place.suffix}"


def _base_of(run: Path, adapter: Adapter) -> str:
    """Return the pipeline that a run trained, by its record."""
    from ..runs.folder import RunFolder

    for folder in (run, *adapter.file.resolve().parents[:2]):
        if RunFolder(folder).setup_file.is_file():
            name = str(RunFolder(folder).setups()[0]["model"])
            if name:
                return name
    raise ConfigError(
        f"{run} does not say which pipeline it trained. Name it with --model_name_or_path, a Hub id or folder."
    )
