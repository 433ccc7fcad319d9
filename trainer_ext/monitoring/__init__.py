"""
Watches a run: fixed prompts and seeds drawn through training, and rewards of held-out prompts.
"""
