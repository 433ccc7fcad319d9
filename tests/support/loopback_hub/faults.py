"""Faults that a Hub is told to have."""

import fnmatch
from dataclasses import dataclass

CUT, HANG = "cut", "hang"


@dataclass
class Fault:
    """
    Parameters:
        method (`str`):
            HTTP method, or "*".
        path (`str`):
            A pattern of paths: "/api/models/*/commit/*".
        what (`int` or `str`):
            A status, [`CUT`] (the connection is closed without an answer) or [`HANG`] (nothing is ever answered).
        times (`int`):
            How often; -1: for ever.
        after (`bool`):
            The request is carried out first, so that only its answer is lost.
    """

    method: str
    path: str
    what: int | str
    times: int = 1
    after: bool = False

    def hits(self, method, path):
        """Whether a request is to fail; counts."""
        if self.times == 0 or self.method not in ("*", method) or not fnmatch.fnmatch(path, self.path):
            return False
        self.times -= 1
        return True
