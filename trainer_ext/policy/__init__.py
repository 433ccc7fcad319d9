"""
Any diffusers text-to-image pipeline as a policy: prompts and seeds go in; images come out, with a [`Trajectory`] whose steps
can be replayed with gradients. The entry is [`LogProbPipeline`](pipeline.py).
"""
