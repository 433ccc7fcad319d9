"""`python -m embedded_model STAGE`."""

import sys

if (
    __name__ == "__main__"
):  # not so in the processes that draw scenes: they import this file, and shall not wait for torch
    from .cli import main

    sys.exit(main())
