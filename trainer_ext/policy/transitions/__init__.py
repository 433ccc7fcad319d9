"""
Denoising steps as Gaussians: a stock scheduler and sampling options go in, a [`TransitionTable`] with three numbers for
each step comes out. One log-probability formula serves every sampler.
"""
