"""
Finds out what cheating pays, before training: pictures of prompts and a reward go in, an [`Audit`] comes out, with the reward
of each cheat beside that of the honest picture, and sentences that say where the optimum lies.
"""
