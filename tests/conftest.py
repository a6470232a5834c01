"""What every test shares: the repository's root on the path, where the tests' own helpers are found."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
