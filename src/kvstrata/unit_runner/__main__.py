"""The program: `python -m kvstrata.unit_runner`."""

import sys

from kvstrata.unit_runner.cli import main

sys.exit(main())
