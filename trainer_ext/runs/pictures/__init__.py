"""
Pictures in a run's folder. In go images, prompts and records; out come a [`SampleSet`]'s sheets and the reward curve.
"""
