"""
How a run of an unmodified pipeline is recorded: its scheduler is swapped and its denoiser's calls are noted. Out come
[`Trajectory`] and [`Conditioning`], from which any step of any image can be computed again.
"""
