import os

import pytest

from kvstrata.lab import hostpackages
from kvstrata.lab.errors import LabError
from kvstrata.lab.hostpackages import is_debian_like, missing


def test_a_bare_machine_misses_everything() -> None:
    assert set(missing(cgroup_v2=False, present=lambda _: False)) == {*hostpackages.NEEDED, "runc"}


def test_a_complete_machine_misses_nothing() -> None:
    assert missing(cgroup_v2=False, present=lambda _: True) == []


def test_crun_will_do_on_cgroup_v2_only() -> None:
    def all_but_runc(place: str) -> bool:
        return place != "runc"

    assert missing(cgroup_v2=True, present=all_but_runc) == []
    assert missing(cgroup_v2=False, present=all_but_runc) == ["runc"]


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["ID=debian"], True),
        (["NAME=Ubuntu", "ID=ubuntu", "ID_LIKE=debian"], True),
        (["ID=linuxmint", 'ID_LIKE="ubuntu debian"'], True),
        (["ID=fedora", "BUG_REPORT=debian"], False),
        ([], False),
    ],
)
def test_debian_and_its_descendants_are_known(lines: list[str], expected: bool) -> None:
    assert is_debian_like(lines) is expected


def test_a_plain_user_is_told_to_use_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(LabError, match="needs root"):
        hostpackages.ensure(cgroup_v2=False)
