"""``python -m netspot``."""

import sys

from netspot.cli import main

sys.exit(main())
