"""Stable Diffusion 1.5 for LAION's aesthetic score, as in the article, on one GPU: `python sd15_aesthetic.py`."""

from trainer_ext import DDPOConfig, DDPOTrainer, prompts_from_plugin, reward_from_plugin


def main(model="stable-diffusion-v1-5/stable-diffusion-v1-5", reward_options=None, **options):
    config = DDPOConfig(
        **{
            "output_dir": "sd15-aesthetic",
            "bf16": True,
            "num_images_per_rollout": 256,
            "per_device_train_batch_size": 8,
            "gradient_accumulation_steps": 16,
            "num_train_epochs": 100,
            "eval_strategy": "steps",
            "eval_steps": 0.1,
            **options,
        }
    )
    trainer = DDPOTrainer(
        model,
        reward_from_plugin("aesthetic", device=config.device, **(reward_options or {})),
        config,
        prompts_from_plugin("animals"),
        eval_dataset=prompts_from_plugin("unseen_animals").select(range(8)),
    )
    trainer.train()
    trainer.save_model()
    print(f"reward of the fixed prompts: {trainer.summary.paired}")
    return trainer


if __name__ == "__main__":
    main()
