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
    """Yield the arguments for iptables that take podman's chains out of `now`, in the order that works.

    First the references to them, then their contents, then the chains themselves.
    """
    for name, table in now.items():
        old = before.get(name, Table())
        ours = [chain for chain in table.chains if chain not in old.chains and _OURS.match(chain)]
        for rule in table.rules:
            words = shlex.split(rule)
            if words[1] not in ours and _target(words) in ours:
                yield ["-t", name, "-D", *words[1:]]
        yield from (["-t", name, "-F", chain] for chain in ours)
        yield from (["-t", name, "-X", chain] for chain in ours)


def hollow_tables(before: Mapping[str, Table], now: Mapping[str, Table]) -> list[str]:
    """Return the tables that did not exist before and decide nothing: no rule, every policy ACCEPT.

    iptables on nft makes a table with its built-in chains at the first rule, and leaves it there.
    """
    return [
        name
        for name, table in now.items()
        if name not in before and not table.rules and set(table.chains.values()) == {"ACCEPT"}
    ]


def newcomers(before: Mapping[str, Table], now: Mapping[str, Table]) -> list[str]:
    """Return the chains that somebody other than podman has made since: they may rely on forwarding."""
    return [
        chain
        for name, table in now.items()
        for chain, policy in table.chains.items()
        if policy == "-" and chain not in before.get(name, Table()).chains and not _OURS.match(chain)
    ]


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
    others: list[str] = []
    for name, text in now.saved.items():
        old = parse_save(before.saved.get(name, ""))
        others += newcomers(old, parse_save(text))
        commands = list(removals(old, parse_save(text)))
        for arguments in commands:
            shell.run((name, "--wait", *arguments))
        if commands:
            done.append(f"{sum('-X' in arguments for arguments in commands)} {name} chains removed")
        for table in hollow_tables(old, parse_save(shell.run((f"{name}-save",)))):
            # Restoring an empty table is the one way to have iptables delete it without nft at hand.
            shell.run((f"{name}-restore", "--wait"), stdin=f"*{table}\nCOMMIT\n")
    for table in set(now.nft_tables) - set(before.nft_tables):
        if table.endswith(" netavark"):
            shell.run(("nft", "delete", "table", *table.split()))
            done.append(f"nft table {table} removed")
    if now.ip_forward != before.ip_forward and others:
        done.append(f"ip_forward stays {now.ip_forward} for {', '.join(others)}, made since")
    elif now.ip_forward != before.ip_forward:
        _IP_FORWARD.write_text(before.ip_forward)
        done.append(f"ip_forward back to {before.ip_forward}")
    path.unlink()
    return done
