"""
Makes rollouts: a [`PromptSchedule`] and a policy go in; a [`Rollout`], one record for each image, and metrics come out.
"""
