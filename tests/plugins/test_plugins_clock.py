"""kvstrata_clock: the kernel's own word on its clock."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from kvstrata.paths import PROJECT
from tests.plugins.modules import run_module

sys.path.insert(0, str(PROJECT / "plugins" / "modules"))
import kvstrata_clock  # type: ignore[import-not-found]


class Libc:
    """Answers adjtimex with a status, in the place where 64-bit Linux has it."""

    def __init__(self, status: int, result: int = 0) -> None:
        self.status, self.result = status, result

    def adjtimex(self, buffer: bytearray) -> int:
        kvstrata_clock.ctypes.c_int.from_buffer(buffer, kvstrata_clock.STATUS_AT).value = self.status
        return self.result


@pytest.mark.parametrize(("status", "synchronised"), [(0x2001, True), (0, True), (0x40, False), (0x2041, False)])
def test_the_unsynchronised_bit_is_what_counts(
    monkeypatch: pytest.MonkeyPatch, status: int, synchronised: bool
) -> None:
    monkeypatch.setattr(kvstrata_clock.ctypes, "CDLL", lambda *_args, **_named: Libc(status))
    assert kvstrata_clock.synchronised() is synchronised


def test_a_kernel_that_does_not_tell_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kvstrata_clock.ctypes, "CDLL", lambda *_args, **_named: Libc(0, -1))
    with pytest.raises(OSError, match=r"\[Errno"):
        kvstrata_clock.synchronised()


def test_this_machine_tells_and_its_running_daemons_are_named(tmp_path: Path) -> None:
    systemctl = tmp_path / "systemctl"
    systemctl.write_text(
        "#!/bin/sh\nprintf 'Id=chrony.service\\nActiveState=active\\n\\n"
        "Id=chrony.service\\nActiveState=active\\n\\nId=ntpd.service\\nActiveState=inactive\\n'\n"
    )
    systemctl.chmod(0o755)
    started = time.monotonic()
    result = run_module("kvstrata_clock", {"timeout": 0}, path=tmp_path, check_mode=True)
    assert result["synchronised"] in (True, False)
    assert result["daemons"] == ["chrony.service"]
    assert time.monotonic() - started < 30
