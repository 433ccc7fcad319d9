"""
Errors of the trainer. All are `DDPOError`s: the command line prints them without a traceback.

```
DDPOError
├── ConfigError (ValueError)        an argument, or two that do not go together
│   ├── OutputDirError              the output folder holds another run, or cannot be written
│   └── CheckpointError             a checkpoint that cannot be resumed from
├── ProcessLostError                another process of the run is gone
├── HubError                        an upload failed; everything local is there
│   └── HubAccessError              the user must do something first: a token, a right, a name
└── PipelineError (ValueError)      this pipeline cannot be used as a policy
    └── GuidanceError               its rule for combining guided predictions is unknown
```
"""

from ddpo_plugins.errors import DDPOError


class ConfigError(DDPOError, ValueError):
    """An argument is wrong, or two arguments do not go together."""


class OutputDirError(ConfigError):
    """The output folder already holds another run, another process writes it, or it cannot be written."""


class CheckpointError(ConfigError):
    """A checkpoint is damaged, cut short, or not there."""


class ProcessLostError(DDPOError):
    """Another process of the run was killed, or did not answer in time."""


class HubError(DDPOError):
    """An upload to the Hub failed. Everything local is there, and it can be done later."""


class HubAccessError(HubError):
    """An upload cannot work before the user does something: the token, its rights, or a name is wrong."""


class PipelineError(DDPOError, ValueError):
    """The pipeline cannot be recorded and replayed."""


class GuidanceError(PipelineError):
    """The rule that combines the denoiser's outputs into the guided prediction is unknown or ambiguous."""
