"""docs/driver.md says what the code does."""

from __future__ import annotations

import re
import sys

from kvstrata.paths import PROJECT
from tests.driver.tables import PAGE, filled

sys.path.insert(0, str(PROJECT / "plugins" / "module_utils"))
import kvstrata_gpuhealth as health  # type: ignore[import-not-found]


def test_the_tables_are_those_of_the_code() -> None:
    page = PAGE.read_text()
    assert filled(page) == page, "python -m tests.driver.tables writes them"


def test_the_xids_that_fail_a_run_are_all_named() -> None:
    match = re.search(r"the Xid errors ([\d, \nand]+)", PAGE.read_text())
    assert match is not None
    assert {int(number) for number in re.findall(r"\d+", match[1])} == set(health.FAILING_XIDS)
