"""FLUX.1-dev by flow matching with noise, Flow-GRPO: `python flux_lora.py`, on a GPU with 80 GB."""

from peft import LoraConfig

from trainer_ext import DDPOConfig, DDPOTrainer, prompts_from_plugin, reward_from_plugin


def main(model="black-forest-labs/FLUX.1-dev", reward=None, **options):
    config = DDPOConfig(
        **{
            "output_dir": "flux-lora",
            "bf16": True,
            "sampler": "flow_sde",
            "num_inference_steps": 10,
            "guidance_scale": 3.5,
            "pipeline_kwargs": {"height": 512, "width": 512},
            "num_images_per_rollout": 48,
            "num_images_per_prompt": 8,
            "rollout_batch_size": 8,
            "per_device_train_batch_size": 4,
            "gradient_accumulation_steps": 12,
            "advantages": "group",
            "learning_rate": 1e-4,
            **options,
        }
    )
    trainer = DDPOTrainer(
        model,
        reward or reward_from_plugin("pick_score", device=config.device),
        config,
        prompts_from_plugin("animal_activities"),
        peft_config=LoraConfig(r=16, lora_alpha=32, target_modules=["to_q", "to_k", "to_v", "to_out.0"]),
    )
    trainer.train()
    trainer.save_model()
    return trainer


if __name__ == "__main__":
    main()
