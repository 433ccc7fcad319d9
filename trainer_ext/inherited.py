"""
What each option and method inherited from `transformers` does here. Imports nothing heavy.

One table: refusals follow it, and the manual's table is generated from it. It has the options of all versions that are supported.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import MISSING, fields
from typing import Any

from ddpo_plugins.masking import masked_text

from .errors import ConfigError

WORKS, REFUSED, IGNORED = "works", "refused", "ignored"

OWN_EVALUATION = "evaluation samples images and scores them; Trainer's own loop over batches with labels does not run"
OWN_PRECISION = "evaluation has the precision of training: set bf16 or fp16"
OWN_DATA = "batches are positions in a rollout, and no data is loaded"
OWN_ORDER = "the order of prompts and images follows from seed"
LANGUAGE = "it is for language models"
OTHER_MACHINES = "it is not tried on what it is for"

#: Inherited options by what they do here. The reason is part of the error message, and of the manual.
NAMES: dict[tuple[str, str], str] = {
    (WORKS, "as in transformers"): """
        output_dir per_device_train_batch_size num_train_epochs max_steps learning_rate lr_scheduler_type lr_scheduler_kwargs
        warmup_steps warmup_ratio optim optim_args weight_decay adam_beta1 adam_beta2 adam_epsilon adafactor
        gradient_accumulation_steps max_grad_norm bf16 fp16 tf32 activation_checkpointing
        gradient_checkpointing torch_compile torch_compile_backend torch_compile_mode logging_strategy logging_steps
        logging_first_step logging_dir log_on_each_node log_level log_level_replica disable_tqdm report_to run_name project
        trackio_space_id trackio_bucket_id trackio_static_space_id eval_strategy eval_steps eval_delay eval_on_start
        save_strategy save_steps save_on_each_node save_total_limit push_to_hub hub_token
        hub_private_repo hub_model_id hub_strategy hub_always_push hub_revision load_best_model_at_end metric_for_best_model
        greater_is_better restore_callback_states_from_checkpoint full_determinism seed use_cpu no_cuda
        accelerator_config ddp_find_unused_parameters ddp_bucket_cap_mb ddp_broadcast_buffers ddp_backend ddp_timeout fsdp
        fsdp_config debug skip_memory_metrics resume_from_checkpoint""",
    (
        REFUSED,
        "a smaller batch after an error would change what an update is, and hide the error",
    ): "auto_find_batch_size",
    (
        REFUSED,
        "a resumed run continues where its checkpoint stands, or images would be trained twice and others never",
    ): """
        ignore_data_skip""",
    (REFUSED, "SIGTERM saves a checkpoint without it, which is whole and resumes exactly"): "enable_jit_checkpoint",
    (
        REFUSED,
        "no run could be resumed from checkpoints without the optimizer's state; save_total_limit limits their number",
    ): "save_only_model",
    (REFUSED, "training is a step of its own, which does not call it"): "torch_empty_cache_steps",
    (REFUSED, LANGUAGE): """
        neftune_noise_alpha label_smoothing_factor use_liger_kernel liger_kernel_config use_cache include_num_input_tokens_seen
        include_tokens_per_second""",
    (REFUSED, OWN_ORDER): "group_by_length length_column_name train_sampling_strategy data_seed",
    (REFUSED, "rewards receive every column of the dataset"): "remove_unused_columns",
    (
        REFUSED,
        "an update takes whole batches: num_images_per_rollout must be a multiple of its images",
    ): "dataloader_drop_last",
    (REFUSED, "peft_config and lora_target_modules choose the layers that are trained"): "optim_target_modules",
    (
        REFUSED,
        "images are evaluated in batches of rollout_batch_size",
    ): "per_device_eval_batch_size per_gpu_eval_batch_size",
    (REFUSED, "use per_device_train_batch_size"): "per_gpu_train_batch_size",
    (REFUSED, OWN_PRECISION): "bf16_full_eval fp16_full_eval",
    (REFUSED, OWN_EVALUATION): """
        prediction_loss_only eval_do_concat_batches eval_use_gather_object eval_accumulation_steps include_for_metrics
        include_inputs_for_metrics batch_eval_metrics label_names past_index jit_mode_eval use_legacy_prediction_loop""",
    (REFUSED, "diffusers chooses how activations are computed again"): """
        activation_checkpointing_kwargs gradient_checkpointing_kwargs""",
    (REFUSED, "an update has several backward passes, of which only the last exchanges gradients"): "ddp_static_graph",
    (REFUSED, "DeepSpeed makes an update in every backward pass; use DDP or FSDP2"): "deepspeed",
    (REFUSED, OTHER_MACHINES): """
        parallelism_config tpu_num_cores tpu_metrics_debug mp_parameters use_mps_device ray_scope torchdynamo fp16_opt_level
        half_precision_backend fp16_backend""",
    (REFUSED, "set fsdp_config"): "fsdp_min_num_params fsdp_transformer_layer_cls_to_wrap",
    (REFUSED, "use hub_model_id and hub_token"): "push_to_hub_model_id push_to_hub_organization push_to_hub_token",
    (REFUSED, "weights are always written as safetensors"): "save_safetensors",
    (REFUSED, "a folder that holds another run is never overwritten"): "overwrite_output_dir",
    (IGNORED, "the method that is called decides: train() or evaluate()"): "do_train do_eval do_predict",
    (IGNORED, "launchers set it; processes are found by torchrun's environment"): "local_rank",
    (IGNORED, "there are no tokens"): "average_tokens_across_devices",
    (IGNORED, "the losses that are logged are measured here, and are not filtered"): "logging_nan_inf_filter",
    (IGNORED, OWN_DATA): """
        dataloader_num_workers dataloader_pin_memory dataloader_persistent_workers dataloader_prefetch_factor
        dataloader_multiprocessing_context dataloader_in_order""",
}

INHERITED = {name: status for status, names in NAMES.items() for name in names.split()}


def check_inherited(options: Any) -> None:
    """
    Refuse inherited options that would have no effect, or a wrong one. One that has its default value was not asked for.

    Args:
        options (`TrainingArguments`):
            The options, before transformers changes any of them.

    Raises:
        [`ConfigError`]: names the option, and says why it is refused.
    """
    for field in fields(options):
        status, reason = INHERITED.get(field.name, (WORKS, ""))
        if status == REFUSED:
            value = vars(options).get(field.name)
            default = field.default if field.default_factory is MISSING else field.default_factory()
            if value != default and not (_is_off(value) and _is_off(default)):
                raise ConfigError(f"{field.name} is {value!r}, and DDPO cannot do that: {reason}. Leave it out.")


def _is_off(value: Any) -> bool:
    """Return whether a value asks for nothing; a command line turns one of these into another."""
    return not value or value == "no"


@contextlib.contextmanager
def naming_refusals(what: str = "These options") -> Iterator[None]:
    """
    Context manager for what other libraries check of their options, each with errors of its own.

    Args:
        what (`str`):
            Options with their values, as the subject of a sentence.

    Raises:
        [`ConfigError`]: they refuse something; the message has their reason.
    """
    try:
        yield
    except ConfigError:
        raise
    except Exception as error:
        sentence = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        raise ConfigError(masked_text(f"{what} do not work: {sentence}. Correct them, or leave them out.")) from error


class RefusedMethods:
    """Methods of `Trainer` that have no meaning here."""

    def predict(self, *args: Any, **kwargs: Any) -> Any:
        """Refuse: there are no labels to predict."""
        raise ConfigError(
            "DDPOTrainer has no predict(): a diffusion model makes images, not labels. Use evaluate(dataset) for the rewards of "
            "new prompts, or trainer.policy.pipeline(prompt) for images."
        )

    def hyperparameter_search(self, *args: Any, **kwargs: Any) -> Any:
        """Refuse: a trial would begin from the weights that the last one trained."""
        raise ConfigError(
            "DDPOTrainer has no hyperparameter_search(): every trial needs a new pipeline and its own output_dir. Make a "
            "DDPOTrainer for each trial, and compare RunSummary or evaluate()."
        )
