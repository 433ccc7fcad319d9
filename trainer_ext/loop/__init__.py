"""
What the training loop needs for any algorithm and model: [`Lockstep`] of processes, [`StopRequest`] and [`StopRules`],
progress bars, [`RunMetrics`], and the [`RewindPoint`] to return to when an update is cut short.
"""
