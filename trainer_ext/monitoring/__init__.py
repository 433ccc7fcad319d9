"""
Watches a run. A policy, its [`Judges`] and fixed or held-out prompts go in; pictures, records and logged metrics come out.
"""
