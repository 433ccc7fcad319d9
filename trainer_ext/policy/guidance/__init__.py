"""
How a pipeline combines its denoiser's outputs: recorded outputs and the combined prediction go in, a verified [`Guidance`]
comes out, or a refusal that says what to do.
"""
