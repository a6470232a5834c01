"""What only real nodes can show: run by molecule's scenario `lab`, which has some."""

import os
from pathlib import Path

import pytest

from kvstrata.lab import lab, nodes, shell
from kvstrata.lab.spec import preset


@pytest.fixture
def node() -> nodes.Container:
    name = os.environ.get("KVSTRATA_TEST_LAB")
    if name is None:
        pytest.skip("NOT CHECKED: needs running nodes; molecule's scenario `lab` sets KVSTRATA_TEST_LAB and runs this")
    return next(container for container in nodes.containers() if container.running and container.lab == name)


def over_ssh(node: nodes.Container, command: str) -> str:
    address = str(preset(node.lab).address(node.node))
    return shell.run([*lab.access(node.lab).argv(address), command])


def test_a_node_cannot_write_the_sysctls_of_this_machine(node: nodes.Container) -> None:
    # What is there is written back: were it possible, this test would still change nothing.
    with pytest.raises(shell.CommandError, match="Read-only file system"):
        over_ssh(node, "value=$(cat /proc/sys/vm/swappiness); echo $value >/proc/sys/vm/swappiness")


def test_a_node_sees_the_models_read_only(node: nodes.Container) -> None:
    with pytest.raises(shell.CommandError, match="Read-only file system"):
        over_ssh(node, "touch /srv/models/x")


def test_a_node_has_shared_memory_for_vllm_and_lmcache(node: nodes.Container) -> None:
    assert int(over_ssh(node, "stat -f -c '%b %S' /dev/shm").split()[0]) * 4096 >= 2 * 2**30


def test_a_node_cannot_open_the_disk_of_this_machine(node: nodes.Container) -> None:
    root = Path("/").stat().st_dev
    if os.major(root) == 0:
        pytest.skip("the root file system of this machine is on no block device of its own")
    # Below /dev, for the other tmpfs are mounted nodev and would refuse on their own.
    make = f"mknod /dev/probe b {os.major(root)} {os.minor(root)}"
    with pytest.raises(shell.CommandError, match="Operation not permitted"):
        over_ssh(node, f"trap 'rm -f /dev/probe' EXIT; {make} && head -c1 /dev/probe")
