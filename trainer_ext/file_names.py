"""Names of the files that stock libraries look for. Imports nothing."""

LORA_FILE = "pytorch_lora_weights.safetensors"  #: for `load_lora_weights` of diffusers

PEFT_FILE = "adapter_model.safetensors"  #: PEFT's own, for pipelines of diffusers that have no `load_lora_weights`
