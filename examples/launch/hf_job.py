# /// script
# requires-python = ">=3.11"
# dependencies = ["ddpo-plugins @ git+https://github.com/ddpo-plugins/ddpo-plugins"]
# ///
"""
Trains on a machine of Hugging Face Jobs:

    hf jobs uv run --flavor a10g-small --timeout 4h --secrets HF_TOKEN examples/launch/hf_job.py \
        --push_to_hub true --hub_model_id NAME/ddpo-lora [OPTIONS of ddpo train]

The machine keeps nothing: checkpoints are pushed, and a job that is started again goes on from
`--resume_from_checkpoint hf://NAME/ddpo-lora`. Without options, it trains the embedded model.
"""

import sys

from trainer_ext.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *(sys.argv[1:] or ["--reward_funcs", "jpeg_incompressibility"])]))
