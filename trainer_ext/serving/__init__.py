"""
Serves rewards and detectors to trainings in other environments: functions of plugins go in; an HTTP service comes out, whose
requests and answers are those of `ddpo_plugins.wire`. It needs neither torch nor the trainer, so that a reward can have an
environment of its own.
"""
