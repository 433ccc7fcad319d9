"""Names of the files that stock libraries look for. Imports nothing."""

LORA_FILE = "pytorch_lora_weights.safetensors"  #: for `load_lora_weights` of diffusers

KOHYA_FILE = "pytorch_lora_weights_kohya.safetensors"  #: for ComfyUI, A1111 and others

PEFT_FILE = "adapter_model.safetensors"  #: PEFT's own, for pipelines of diffusers that have no `load_lora_weights`

PEFT_CONFIG = "adapter_config.json"  #: beside it

PIPELINE_FILE = "model_index.json"  #: of a whole pipeline of diffusers
