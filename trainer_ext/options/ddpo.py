"""The options that DDPO adds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .descriptions import described, option

CLIP_RANGES = {"ddpo_is": 1e-4, "grpo_guard": 2e-6}  #: the authors', by algorithm


def clip_range_of(algorithm: str, given: float | None) -> float:
    """
    Return the `clip_range` of a run: the one that was given, or that of the algorithm's authors.

    Algorithms that clip nothing have DDPO-IS's, because replayed steps are held to a part of it.
    """
    return CLIP_RANGES.get(algorithm, CLIP_RANGES["ddpo_is"]) if given is None else given


@described
@dataclass
class DDPOOptions:
    """Options that DDPO adds to `transformers.TrainingArguments`. Defaults are those of the article's authors for LoRA."""

    num_inference_steps: int = option(50, "Denoising steps of each image, T.")
    guidance_scale: float | None = option(
        5.0, "Guidance scale, the same in sampling and training; null in a config file leaves it to the pipeline."
    )
    eta: float = option(
        1.0,
        "Weight of DDIM's noise, in (0, 1]; or 0 for the algorithms that need no log-probability: 'rwr', 'sparse_rwr', 'awm' and "
        "'nft'.",
    )
    sampler: str | None = option(
        None,
        "How the next latents are drawn: 'ddim', or for flow matching 'flow_sde' (Flow-GRPO), 'dance_sde' (DanceGRPO), 'cps' "
        "(coefficients-preserving sampling) or 'precise' (the same coefficients, with noise that follows the step's length); or "
        "'own', the pipeline's own scheduler, for algorithms without log-probabilities. "
        "The default depends on the pipeline's scheduler, 'ddim' or 'flow_sde'; for 'awm' and 'nft' it is 'own'.",
    )
    noise_level: float = option(
        0.7, "Weight of the flow samplers' noise, above 0; for 'cps' at most 1. The authors of 'precise' use 1.5."
    )
    sde_window: list[int] | None = option(
        None,
        "First and last step with noise, counted from 0, for flow matching. The other steps are deterministic and never trained "
        "(MixGRPO). By default all steps have noise.",
    )
    sde_window_size: int | None = option(
        None,
        "For flow matching, draw for each rollout so many successive steps that have noise and are trained, among those that "
        "otherwise would be (Flow-GRPO-Fast). By default all of these.",
    )
    guidance: str | None = option(
        None, "Name of a guidance rule (`ddpo rewards` lists them). Inferred from the pipeline by default."
    )
    pipeline_kwargs: dict[str, Any] | str | None = option(
        None, 'Additional arguments for every call of the pipeline, as JSON: \'{"negative_prompt": "blurry"}\'.'
    )
    num_images_per_rollout: int = option(256, "Images in a rollout, over all processes.")
    num_images_per_prompt: int = option(1, "Images of each prompt in a rollout.")
    rollout_batch_size: int = option(8, "Images sampled at once on each device.")
    vae_slicing: bool = option(
        False, "Decode one image of a batch after another: large images of a whole batch may not fit into a decoder."
    )
    vae_tiling: bool = option(
        False, "Decode each image in tiles that overlap, for very large images; changes them a little where tiles meet."
    )
    offload_components: bool = option(
        False,
        "Keep text encoders and VAE in host memory, and bring each of their layers to the device while it computes: more memory "
        "for training, and slower rollouts.",
    )
    rollout_on_disk: bool = option(
        False,
        "Hold a rollout's denoising runs in a file in output_dir that is mapped into memory: for rollouts larger than host "
        "memory.",
    )
    num_inner_epochs: int = option(1, "Training passes over each rollout.")
    rows_per_forward: int | None = option(
        None,
        "Rows in a forward pass of training: images x denoising steps x branches of guidance. It changes speed and memory, and "
        "the gradient only by rounding. By default a pass takes one step of each of per_device_train_batch_size images.",
    )
    fused: bool = option(
        False,
        "Where one update covers a rollout ('ddpo_sf', or 'ddpo_is' with one update), take the gradient of each image while it "
        "is sampled instead of replaying its steps: the same update with fewer forward passes. Where that is impossible, the log "
        "says why.",
    )
    timestep_fraction: float = option(
        1.0, "Share of the denoising steps to train, drawn at random for each image and pass."
    )
    skip_last_steps: int = option(
        0,
        "Final steps that are sampled but not trained: with few steps their gradients dominate although their noise is "
        "invisible.",
    )
    algorithm: str = option(
        "ddpo_is",
        "What is learned from a rollout: 'ddpo_is', 'ddpo_sf', 'rwr', 'sparse_rwr', 'awm', 'nft', 'grpo_guard' or 'flow_dppo'.",
    )
    clip_range: float | None = option(
        None,
        "Half-width of the interval around 1 to which DDPO-IS and GRPO-Guard clip the ratio. By default that of the algorithm's "
        "authors: 1e-4, and for 'grpo_guard', whose ratios are normalised, 2e-6.",
    )
    kl_threshold: float = option(
        1e-5,
        "Flow-DPPO leaves out steps whose policy is this far from the one that sampled, as KL divergence in nats per latent "
        "element, and that would move on.",
    )
    beta: float = option(
        0.0,
        "Weight in the loss of the distance from the model before training: for DDPO the KL divergence in nats per latent "
        "element, for the other algorithms the mean squared difference of the predicted final latents.",
    )
    kl_gate: bool = option(
        False,
        "Let beta's distance count only for images that the trained reward overrates most: those that beat more of the rollout "
        "by it than by the rewards whose reward_weights is 0, which are only compared with (GARDO). Of these images it takes a "
        "tenth, and then from 2 to 20 %, as they become less or more.",
    )
    reference_reset: int | None = option(
        None,
        "Rollouts after which the reference of beta's distance becomes the trained policy of then; GARDO takes 15. By default it "
        "stays the model before training.",
    )
    reference_reset_kl: float | None = option(
        None,
        "The same at the end of a rollout in which an update's mean distance was above this value.",
    )
    diversity_shaping: str | None = option(
        None,
        "Name of a detector of the run. Advantages above 0 are multiplied by 1 minus its value; with 'near_duplicates', a good "
        "image counts by its distance from the nearest other image of its prompt (GARDO).",
    )
    rwr_beta: float = option(0.2, "Inverse temperature of RWR's weights, softmax(rwr_beta * reward).")
    rwr_resample: bool = option(
        False,
        "RWR draws the images of a pass in proportion to their weights (systematic resampling), instead of multiplying their "
        "losses by them. The expected loss is the same, and no image that hardly counts takes a place in a batch: for a large "
        "rwr_beta.",
    )
    rwr_quantile: float = option(0.9, "Sparse RWR keeps the images whose reward is at or above this quantile.")
    nft_strength: float = option(
        1.0,
        "DiffusionNFT's beta: how far its positive and negative policy are from the old one. The authors use 1 for one reward, "
        "and 0.1 for several rewards or for text in images.",
    )
    advantages: str = option(
        "per_prompt",
        "Which rewards a reward is compared with: 'per_prompt' (the last rewards of its prompt), 'batch' (the whole rollout) or "
        "'group' (the images of its prompt in the rollout, as in GRPO); 'group_over_batch' is 'group', divided by the standard "
        "deviation of the whole rollout (Flow-GRPO), and 'win_rate' compares the share of its group that an image beats "
        "(Pref-GRPO). RWR's softmax or quantile is over the images of the prompt in the rollout, or with 'batch' over the whole "
        "rollout.",
    )
    scale_rewards: bool = option(
        True, "Divide advantages by the standard deviation of the rewards that they are compared with."
    )
    multi_objective_aggregation: str = option(
        "sum_then_normalize",
        "How several rewards are combined: 'sum_then_normalize' (the advantage of their weighted sum), 'normalize_then_sum' "
        "(the weighted sum of their advantages) or 'gdpo' (that sum, standardised once more over the rollout: GDPO with "
        "advantages='group').",
    )
    advantage_clip: float = option(5.0, "Advantages are clipped to the interval from minus to plus this value.")
    stat_buffer_size: int = option(32, "Number of rewards that are remembered for each prompt.")
    stat_min_count: int = option(
        16, "Rewards that a prompt must have before its own mean and standard deviation are used."
    )
    reward_weights: list[float] | None = option(None, "Weight of each reward; 1 by default.")
    detector_weights: list[float] | None = option(
        None,
        "Weight with which each detector is added to the reward, usually negative. By default detectors only watch.",
    )
    detector_every: int = option(
        1,
        "In rollouts, detectors that only watch look at each n-th image of a `rollout_batch_size`: for slow ones, such as those "
        "that read text. In evaluations they look at all images.",
    )
    stop_when: list[str] | None = option(
        None,
        "Rules that end the run, NAME>NUMBER or NAME<NUMBER, such as 'typographic_attack>0.3'. NAME is a detector (its mean "
        "over the rollout), 'reward', 'rewards/{name}/mean', 'detectors/{name}/max' or a metric that a reward logs: nothing is "
        "learned from the rollout that meets a rule. Or NAME is a metric of evaluations, as in 'eval_gold<0'.",
    )
    overlap_rewards: bool = option(
        True,
        "Call rewards in a separate thread while the next batch is sampled. Turn this off for a reward that needs the main "
        "thread, uses the pipeline that is trained, or communicates with other processes.",
    )
    reward_timeout: float | None = option(
        None,
        "Seconds that a reward or detector may take for a batch; after that the run ends with an error. No limit by default.",
    )
    sample_defaults: bool = option(
        False,
        "After training, also score the fixed prompts as users of the base draw them, with its own scheduler at its default "
        "steps and guidance, without and with the adapter: what was learned with training's sampler may be lost there.",
    )
    keep_images: float | None = option(
        None,
        "Share of the rollouts' images to keep as PNG files in rollouts/images/, for a dataset: 0.1 keeps a tenth of them, 1 "
        "all. None by default.",
    )
    keep_images_gb: float = option(
        10.0, "Disk space for images that are kept, in GB: once it is used, no images of later rollouts are kept."
    )
    full_finetuning: bool = option(False, "Train all weights of the denoiser instead of a LoRA adapter.")
    quantization: str | None = option(
        None,
        "Bits of the denoiser's frozen weights under the adapter: 'int8' (torchao), 'int4' (optimum-quanto) or 'nf4' "
        "(bitsandbytes, on a GPU; QLoRA). For models that are larger than the memory.",
    )
    ema_decay: float | None = option(
        None,
        "Decay of an exponential moving average of the trained weights, in (0, 1). The average is evaluated, drawn and saved.",
    )
    eval_images_per_prompt: int = option(
        1,
        "Images of each prompt in an evaluation, each with its own seed. From 2 on, the diversity of a prompt's images is "
        "measured.",
    )
    num_sample_images: int = option(
        16, "Number of fixed prompts and seeds that are drawn and scored through training, in samples/; 0 for none."
    )
    sample_every: int = option(
        10, "Rollouts between two drawings of the fixed prompts; 0 for only the first and the last."
    )
