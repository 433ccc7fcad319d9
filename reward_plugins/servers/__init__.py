"""Rewards that are computed on servers: how long to wait for one, which of several to ask, and the reward `remote`."""
