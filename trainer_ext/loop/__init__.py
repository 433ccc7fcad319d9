"""
What the training loop needs for any algorithm and model: processes in lockstep, interrupts, rules that end a run, progress,
metrics, and what to rewind to when an update is cut short.
"""
