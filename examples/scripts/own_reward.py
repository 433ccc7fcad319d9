"""A reward of your own on the embedded model, without a GPU or a network: `python own_reward.py`."""

from datasets import Dataset

from trainer_ext import DDPOConfig, DDPOTrainer


def warmth(images, prompts, **columns):
    """Mean red minus mean blue, from -255 to 255: higher is better, in any unit."""
    pixels = [image.resize((1, 1)).getpixel((0, 0)) for image in images]
    return [float(red - blue) for red, green, blue in pixels]


def main(**options):
    config = DDPOConfig(
        **{
            "output_dir": "warm",
            "num_train_epochs": 10,
            "num_inference_steps": 10,
            "guidance_scale": 1.0,
            "num_images_per_rollout": 32,
            "num_images_per_prompt": 4,
            "gradient_accumulation_steps": 1,
            "learning_rate": 2e-3,
            "clip_range": 0.1,
            "skip_last_steps": 2,
            "stat_min_count": 4,
            **options,
        }
    )
    prompts = Dataset.from_dict(
        {"prompt": ["a cat", "a dog", "a lion", "a fish", "a frog", "an owl", "a bear", "a pig"]}
    )
    trainer = DDPOTrainer("embedded", warmth, config, prompts)
    trainer.train()
    trainer.save_model()
    print(f"reward of the fixed prompts: {trainer.summary.paired}")
    return trainer


if __name__ == "__main__":
    main()
