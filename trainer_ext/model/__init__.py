"""
From a model's name to trained weights and back: load a pipeline, add a LoRA adapter, average, and save in formats that
stock diffusers loads. In go a Hub id or folder and a `LoraConfig`; out come a pipeline and a [`TrainedDenoiser`].
"""
