"""The host's IP forwarding and packet filter: recorded before the first lab, put back after the last.

podman (netavark, or CNI's plugins) switches ip_forward on and leaves its chains when its last container
goes. Only what was not there before, and is podman's by name, is removed; everything else is the user's.
"""

import json
import re
import shlex
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from kvstrata.lab import shell

# The packet filters podman may use; each has its -save.
FILTERS = ("iptables", "ip6tables")
_OURS = re.compile(r"NETAVARK|CNI-")
_IP_FORWARD = Path("/proc/sys/net/ipv4/ip_forward")


@dataclass
class Table:
    """A table of one packet filter: chain -> policy ('-' for chains of users), and its rules in order."""

    chains: dict[str, str] = field(default_factory=dict)
    rules: list[str] = field(default_factory=list)


def parse_save(text: str) -> dict[str, Table]:
    """Read the output of iptables-save."""
    tables: dict[str, Table] = {}
    table = Table()
    for line in text.splitlines():
        if line.startswith("*"):
            table = tables.setdefault(line[1:], Table())
        elif line.startswith(":"):
            chain, policy, *_ = line[1:].split()
            table.chains[chain] = policy
        elif line.startswith("-A "):
            table.rules.append(line)
    return tables


def _target(rule: list[str]) -> str:
    for option in ("-j", "-g"):
        if option in rule:
            return rule[rule.index(option) + 1]
    return ""


def removals(before: Mapping[str, Table], now: Mapping[str, Table]) -> Iterator[list[str]]:
    """Yield the arguments for iptables that lead from `now` back to `before`, as far as podman's part goes.

    Order matters: first references, then contents, then the chains, and last the built-in chains of tables
    that did not exist, which nft-based iptables makes on first use and deletes only when empty.
    """
    for name, table in now.items():
        old = before.get(name, Table())
        ours = [chain for chain in table.chains if chain not in old.chains and _OURS.match(chain)]
        remaining = 0
        for rule in table.rules:
            words = shlex.split(rule)
            if words[1] in ours:
                continue
            if _target(words) in ours:
                yield ["-t", name, "-D", *words[1:]]
            else:
                remaining += 1
        yield from (["-t", name, "-F", chain] for chain in ours)
        yield from (["-t", name, "-X", chain] for chain in ours)
        foreign = [chain for chain, policy in table.chains.items() if policy == "-" and chain not in ours]
        if ours and name not in before and not remaining and not foreign:
            yield from (["-t", name, "-X", chain] for chain in table.chains if chain not in ours)


@dataclass(frozen=True)
class Snapshot:
    """What the host's network looked like: ip_forward, the saved rules per filter, nft's tables."""

    ip_forward: str
    saved: dict[str, str]
    nft_tables: list[str]


def take() -> Snapshot:
    """Look at the host now."""
    saved = {
        name: shell.run((f"{name}-save",))
        for name in FILTERS
        if shutil.which(f"{name}-save", path=shell.environment()["PATH"])
    }
    return Snapshot(_IP_FORWARD.read_text().strip(), saved, _nft_tables())


def _nft_tables() -> list[str]:
    """Tables of nft as 'family name'; newer netavark has one of its own."""
    if not shutil.which("nft", path=shell.environment()["PATH"]):
        return []
    found = json.loads(shell.run(("nft", "--json", "list", "tables")))["nftables"]
    return [f"{entry['table']['family']} {entry['table']['name']}" for entry in found if "table" in entry]


def record(path: Path) -> None:
    """Write the snapshot to `path`, unless an earlier lab already did."""
    if path.exists():
        return
    snapshot = take()
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".new")
    draft.write_text(json.dumps(vars(snapshot), indent=1))
    draft.replace(path)


def restore(path: Path) -> list[str]:
    """Put the host back to the snapshot at `path`, forget it, and return what was done, in words."""
    if not path.exists():
        return []
    before = Snapshot(**json.loads(path.read_text()))
    now = take()
    done = []
    for name, text in now.saved.items():
        commands = list(removals(parse_save(before.saved.get(name, "")), parse_save(text)))
        for arguments in commands:
            shell.run((name, "--wait", *arguments))
        chains = sum(1 for arguments in commands if "-F" in arguments)
        if chains:
            done.append(f"{chains} {name} chains removed")
    for table in set(now.nft_tables) - set(before.nft_tables):
        if table.endswith(" netavark"):
            shell.run(("nft", "delete", "table", *table.split()))
            done.append(f"nft table {table} removed")
    if now.ip_forward != before.ip_forward:
        _IP_FORWARD.write_text(before.ip_forward)
        done.append(f"ip_forward back to {before.ip_forward}")
    path.unlink()
    return done
