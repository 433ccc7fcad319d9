"""
Policy gradients that hold several updates on a rollout near the policy that sampled it by other means than DDPO-IS: ratios that
are on one scale at every step, or a divergence in place of the ratio.
"""
