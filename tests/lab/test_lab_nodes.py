from dataclasses import replace
from pathlib import Path

import pytest

from kvstrata.lab import nodes, shell
from kvstrata.lab.errors import LabError
from kvstrata.lab.nodes import Container, Host, Mounts, parse_ps, real_259_disks, recipe_of, run_argv
from kvstrata.lab.spec import preset

FIXTURES = Path(__file__).parent / "fixtures"
HOST = Host(cgroup_v2=False, nofile=20000, nproc=32768, memlock=8388608, has_259_disks=False)
MOUNTS = Mounts(models=Path("/cache/models"), public_key=Path("/cache/lab/lab/id_ed25519.pub"))
LOOPS = ("/dev/loop0", "/dev/loop1")


def argv(host: Host = HOST, devices: tuple[str, ...] = LOOPS, memory_gib: int | None = None) -> list[str]:
    return run_argv(preset("lab", memory_gib=memory_gib), "node1", "image:tag", devices, MOUNTS, host)


def values(words: list[str], option: str) -> list[str]:
    return [words[index + 1] for index, word in enumerate(words) if word == option]


def test_a_node_has_its_address_drives_and_the_models_read_only() -> None:
    assert values(argv(), "--ip") == ["10.77.0.11"]
    assert values(argv(), "--device") == ["/dev/loop0:/dev/nvme0n1:rwm", "/dev/loop1:/dev/nvme1n1:rwm"]
    assert "/cache/models:/srv/models:ro" in values(argv(), "--volume")


def test_a_node_has_a_release_only_where_it_is_given_one() -> None:
    given = "/cache/lab/releases/bookworm/cpu-1:/opt/kvstrata/releases/cpu-1:O"
    words = run_argv(preset("lab"), "node1", "image:tag", LOOPS, replace(MOUNTS, release=given), HOST)
    assert given in values(words, "--volume")
    assert not [volume for volume in values(argv(), "--volume") if "/opt/kvstrata" in volume]


def test_a_node_knows_the_others_by_name() -> None:
    assert "node2:10.77.0.12" in values(argv(), "--add-host")


def test_a_node_sees_neither_the_hosts_disks_nor_its_sysctls() -> None:
    assert "--privileged" not in argv()
    # Unmasking ALL, or anything of /proc, would make /proc/sys writable.
    unmasked = [word for word in values(argv(), "--security-opt") if word.startswith("unmask=")]
    assert unmasked == ["unmask=/sys/dev/block"]
    assert {"SYS_MODULE", "SYS_TIME", "SYS_RAWIO"} <= set(values(argv(), "--cap-drop"))


def test_partitions_are_allowed_only_where_their_major_holds_no_real_disk() -> None:
    assert values(argv(), "--device-cgroup-rule") == ["b 259:* rwm"]
    assert values(argv(replace(HOST, has_259_disks=True)), "--device-cgroup-rule") == []


@pytest.mark.parametrize(
    ("rows", "real"),
    [
        (["254 0 268435456 vda", "7 0 4194304 loop0"], False),
        (["259 0 1000 loop0p1"], False),
        (["259 0 1000 loop0p1", "259 1 3750738264 nvme0n1"], True),
    ],
)
def test_real_nvme_disks_are_told_from_partitions_of_loops(rows: list[str], real: bool) -> None:
    text = "major minor  #blocks  name\n\n" + "".join(f" {row}\n" for row in rows)
    assert real_259_disks(text) is real


def test_cgroup_v1_needs_runc_and_v2_does_not() -> None:
    v2 = argv(replace(HOST, cgroup_v2=True))
    assert values(argv(), "--runtime") == ["runc"]
    assert values(v2, "--runtime") == []


def test_memory_is_limited_only_when_asked_for() -> None:
    assert "--memory" not in argv()
    assert values(argv(memory_gib=6), "--memory") == ["6g"]


def test_the_recipe_of_a_node_ignores_which_loop_devices_it_got() -> None:
    moved = argv(devices=("/dev/loop4", "/dev/loop5"))
    assert recipe_of(moved) == recipe_of(argv())
    assert recipe_of(argv(devices=("/dev/loop0",))) != recipe_of(argv())
    assert recipe_of(argv(memory_gib=6)) != recipe_of(argv())


def test_only_containers_of_labs_are_read_from_podman() -> None:
    assert parse_ps((FIXTURES / "podman-ps.json").read_text()) == [
        Container(
            lab="lab",
            node="node2",
            name="kvstrata-lab-node2",
            running=False,
            devices=("/dev/loop2", "/dev/loop3"),
            recipe="0c4f49249c15",
        ),
        Container("molecule", "m1", "kvstrata-molecule-m1", True, devices=(), recipe="a", shares_release=True),
    ]


@pytest.mark.parametrize("writable", [True, False])
def test_a_node_that_can_write_the_hosts_sysctls_is_refused(monkeypatch: pytest.MonkeyPatch, writable: bool) -> None:
    monkeypatch.setattr(shell, "succeeds", lambda _argv, **_: writable)
    if writable:
        with pytest.raises(LabError, match="can write /proc/sys/vm"):
            nodes.check_sysctls_are_shielded("kvstrata-lab-node1")
    else:
        nodes.check_sysctls_are_shielded("kvstrata-lab-node1")
