"""
Makes rollouts: a dataset and the run's seed go in; a [`Rollout`], one record for each image, and metrics come out.
"""
