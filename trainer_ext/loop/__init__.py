"""
What the training loop itself needs, whatever is trained: processes in lockstep, interrupts, rules that end a run, progress,
metrics, and what to rewind to when an update is cut short.
"""
