"""
Rewards and detectors on images: functions and a batch of images with their dataset rows go in, [`Scores`] come out,
computed in the background while the next batch is sampled. A failure becomes a named error, never a number.
"""
