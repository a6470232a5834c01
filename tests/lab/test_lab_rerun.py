import pytest

from kvstrata.lab.errors import LabError
from kvstrata.lab.rerun import parse

# As ansible-core 2.21 with profile_tasks prints it.
OUTPUT = """\
PLAY RECAP *********************************************************************
node1                      : ok=18   changed=0    unreachable=0    failed=0    skipped=17   rescued=0    ignored=0
node2                      : ok=18   changed=2    unreachable=0    failed=0    skipped=17   rescued=0    ignored=0


TASKS RECAP ********************************************************************
Tuesday 24 November 2026  19:34:56 +0000 (0:00:01.292)       0:00:25.764 ******
===============================================================================
host : Install the packages of a node ----------------------------------- 3.67s
Gathering Facts --------------------------------------------------------- 1.80s
"""


def test_what_changed_and_what_took_long_is_read_from_the_recap() -> None:
    run = parse(OUTPUT, 27.5)
    assert run.hosts == ("node1", "node2")
    assert run.changed == {"node2": 2}
    assert run.slowest == {"host : Install the packages of a node": 3.67, "Gathering Facts": 1.8}
    assert run.seconds == 27.5


def test_a_run_without_a_recap_is_no_run() -> None:
    with pytest.raises(LabError, match="no recap"):
        parse("ERROR! the playbook could not be found", 1)
