"""`python -m trainer_ext.cli`, the same as `ddpo`."""

import sys

from ..cli import main

sys.exit(main())
