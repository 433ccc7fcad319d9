"""Options of `transformers.TrainingArguments`: those with another default here, and those on pages of help."""

from __future__ import annotations

from dataclasses import dataclass

from .descriptions import described, option


@described
@dataclass
class TrainerDefaults:
    """Fields of `transformers.TrainingArguments` with another default or a more specific meaning here."""

    learning_rate: float = option(3e-4, "Initial learning rate of AdamW.")
    weight_decay: float = option(1e-4, "Weight decay of AdamW.")
    lr_scheduler_type: str = option("constant", "Learning rate schedule.")
    num_train_epochs: float = option(100.0, "Number of rollouts, each with the training on it.")
    per_device_train_batch_size: int = option(
        8,
        "Images trained on at once on each device; a forward pass takes one denoising step of each (see rows_per_forward).",
    )
    gradient_accumulation_steps: int = option(8, "Batches of images in one optimizer update.")
    logging_strategy: str = option("epoch", "When to log: 'epoch' (each rollout), 'steps' or 'no'.")
    save_steps: float = option(0.1, "Updates between two checkpoints; below 1, a share of the run.")
    save_total_limit: int | None = option(3, "Number of checkpoints to keep.")
    remove_unused_columns: bool = option(False, "Leave this off: rewards receive every column of the dataset.")
    disable_tqdm: bool | None = option(False, "Show no progress bars, only a line for each rollout.")
    report_to: None | str | list[str] = option(  # noqa: RUF036 - the order that HfArgumentParser can read
        "none", "Trackers to report to: 'tensorboard', 'wandb', ..."
    )
    output_dir: str | None = option("ddpo-output", "Folder for everything that the run writes.")


@described
@dataclass
class InheritedOptions:
    """Fields of `transformers.TrainingArguments` that most runs need, for pages of help; transformers itself defines them."""

    resume_from_checkpoint: str | None = option(
        None, "Checkpoint to resume from: a folder, 'true' for the newest of the output folder, or hf://owner/name."
    )
    seed: int = option(42, "Seed of everything that is drawn at random. Two runs with the same seed are the same.")
    max_steps: int = option(-1, "Optimizer updates; above 0 it replaces num_train_epochs.")
    max_grad_norm: float = option(1.0, "Norm to which gradients are clipped.")
    bf16: bool = option(False, "Mixed precision in bfloat16, with frozen weights in it: half the memory on a GPU.")
    fp16: bool = option(False, "Mixed precision in float16, for GPUs without bfloat16.")
    use_cpu: bool = option(False, "Train on the processor, even if there is a GPU.")
    eval_strategy: str = option("no", "When to evaluate: 'no', 'epoch' (each rollout) or 'steps' (every eval_steps).")
    eval_steps: float | None = option(None, "Updates between two evaluations; below 1, a share of the run.")
    save_strategy: str = option("steps", "When to save a checkpoint: 'no', 'epoch' (each rollout), 'steps' or 'best'.")
    push_to_hub: bool = option(False, "Push checkpoints and the result to the Hub.")
    hub_model_id: str | None = option(None, "Repository to push to; by default the name of the output folder.")


@described
@dataclass
class FileOptions:
    """Options that name a file of options."""

    config: str | None = option(None, "YAML file of options, one `name: value` a line; flags win over it.")
