"""
Examines a pipeline with the policy's own functions, and says whether it can be trained: a pipeline and a [`DDPOConfig`] go
in, a report of facts comes out.
"""
