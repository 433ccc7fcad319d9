"""`python -m trainer_ext.cli`, the same as `ddpo`."""

import sys

from . import main

sys.exit(main())
