"""
From a [`Rollout`] to gradients: algorithms, advantages and weights, the order of training, and losses as pure functions of
tensors. Knows trajectories, but neither pipelines nor the trainer.
"""
