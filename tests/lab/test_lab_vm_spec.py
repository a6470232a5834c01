import re
from pathlib import Path
from typing import Any

import pytest

from kvstrata.lab.errors import LabError
from kvstrata.lab.vmspec import VmSpec


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "vm3"}, "machine 'vm3': allowed are vm1, vm2"),
        ({"name": "../vm1"}, "machine '../vm1': allowed are vm1, vm2"),
        ({"drives": -1}, "-1 drives: allowed are 0 to 24"),
        ({"drives": 25}, "25 drives: allowed are 0 to 24"),
        ({"drives": 22, "shared": True}, "22 drives: allowed are 0 to 21"),
        ({"drive_gib": 0}, "drive size 0 GiB: allowed are 1 to 1024"),
        ({"lba": 520}, "sectors of 520 bytes: allowed are 512 and 4096"),
    ],
)
def test_what_cannot_be_is_refused_with_what_can(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(LabError, match=re.escape(message)):
        VmSpec(**({"name": "vm1"} | changes))


def test_machines_have_ports_of_their_own() -> None:
    assert [VmSpec(name).port for name in ("vm1", "vm2")] == [22221, 22222]


def test_a_cache_folder_too_deep_for_a_socket_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KVSTRATA_CACHE", str(tmp_path / ("deep" * 30)))
    with pytest.raises(LabError, match="set KVSTRATA_CACHE to a shorter one"):
        VmSpec("vm1")
