"""Routers to compare a site's own with: the same program with the same flags, at another port, with another policy."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from kvstrata.bench.errors import BenchError
from kvstrata.bench.serving.engine_options import ROUTER_POLICY_FLAGS
from kvstrata.cluster import Router
from kvstrata.contract import site_units
from kvstrata.contract.arms import ROUTER, Arm
from kvstrata.verify import dynamo, wait
from kvstrata.verify.check import UnableError
from kvstrata.verify.context import NodeContext
from kvstrata.verify.http import Service, UnansweredError
from kvstrata.verify.shell import Shell

LOOPBACK = "127.0.0.1"
_START_S = 180.0
_ASK_S = 10.0
_ARGV = re.compile(r"argv\[\]=(.*?) ;")
# Of kv_aware and of cache_aware alone: another policy has no use for them, and events are not read twice.
_POLICY_FLAGS = (
    "--kv-event-source",
    "--kv-event-replay-source",
    "--kv-event-block-size",
    "--kv-event-model",
    "--router-policy-config",
    *(flag for flags in ROUTER_POLICY_FLAGS.values() for flag in flags),
)
# Where workers send a frontend their answers: roles/dynamo fixes the deployed one's port.
_RESPONSES = "DYN_TCP_RESPONSE_STREAM_PORT"


def deployed_argv(shell: Shell, unit: str) -> list[str]:
    """Return the command of a router's unit.

    Raises:
        BenchError: systemd tells none.
    """
    told = shell.run(["systemctl", "show", "--property=ExecStart", "--value", "--", unit]).text()
    match = _ARGV.search(told)
    if match is None:
        raise BenchError(f"systemd tells no command of {unit}: {told[:200]!r}")
    return match.group(1).split()


def changed(argv: Sequence[str], values: Mapping[str, str], without: Sequence[str]) -> list[str]:
    """Return a command with other values of flags, and without some flags and their values.

    Raises:
        BenchError: a flag that is to have another value is not there: what it does would not be known.
    """
    found, seen, words = [], set(), iter(argv)
    for word in words:
        if word in without:
            next(words, None)
        elif word in values:
            next(words, None)
            found += [word, values[word]]
            seen.add(word)
        else:
            found.append(word)
    if missing := sorted(values.keys() - seen):
        raise BenchError(f"the router's command has no {', '.join(missing)}: {' '.join(argv)}")
    return found


@contextmanager
def beside(ctx: NodeContext, router: Router, arm: Arm, engines: int) -> Iterator[Service]:
    """Have another router run on a router host, on loopback, once it knows all engines; yield how to ask it.

    Raises:
        BenchError: it does not start, or does not find the engines.
        UnableError: the node cannot be reached, or systemd does not start it.
    """
    shell, (port, other) = ctx.shell, site_units.free_ports(ctx.shell, 2)
    argv = deployed_argv(shell, router.unit)
    # What it has of systemd: no files of root's, and what its discovery needs.
    properties = {"DynamicUser": "yes", "LimitNOFILE": "1048576", "Environment": "HOME=/tmp"}
    if arm.profile == ROUTER:
        ports = {"--host": LOOPBACK, "--port": str(port), "--prometheus-port": str(other), "--policy": arm.policy}
        argv = changed(argv, ports, _POLICY_FLAGS)
    else:
        values = {"--http-host": LOOPBACK, "--http-port": str(port), "--router-mode": arm.policy}
        argv = ["/usr/bin/env", f"{_RESPONSES}={other}", *changed(argv, values, _POLICY_FLAGS)]
        properties |= _inherited(shell, router.unit)
    with site_units.running(shell, arm.name, argv, properties) as unit:
        service = ctx.service(LOOPBACK, port, _ASK_S)

        def serves() -> bool | None:
            if shell.run(["systemctl", "is-active", "--quiet", "--", unit]).exit_code != 0:
                said = shell.run(["journalctl", "-u", unit, "-n", "5", "-o", "cat", "--no-pager"]).stdout
                raise BenchError(f"{unit} ended: {said[-400:]}")
            return (known(service, arm.profile) >= engines) or None

        if wait.until(serves, _START_S) is None:
            raise BenchError(f"{unit} does not know all {engines} engines after {_START_S:g} s")
        yield service


def known(service: Service, profile: str) -> int:
    """Return how many engines a router would choose from; 0 where it does not answer yet."""
    try:
        if profile == ROUTER:
            return sum(row.get("is_healthy") is True for row in service.json("/workers").get("workers", []))
        # It lists workers before it has read their model's card.
        return len(dynamo.instances(service)) if service.json("/v1/models").get("data") else 0
    except (UnansweredError, UnableError):
        return 0


def _inherited(shell: Shell, unit: str) -> dict[str, str]:
    """What a frontend needs to find its workers: its environment, and the group of a folder of discovery."""
    found = {}
    names = {
        "EnvironmentFiles": "EnvironmentFile",
        "SupplementaryGroups": "SupplementaryGroups",
        "ReadWritePaths": "ReadWritePaths",
    }
    for name, own in names.items():
        told = shell.run(["systemctl", "show", f"--property={name}", "--value", "--", unit]).text()
        if value := told.partition(" (")[0].strip():
            found[own] = value
    return found
