"""The command that shows more, complete enough to be pasted into a terminal of the controller."""

from __future__ import annotations

import shlex

from kvstrata.cluster import Ssh


def on_node(ssh: Ssh, command: str) -> str:
    """The ssh command line that runs `command` on the node as root."""
    argv = ["ssh"]
    if ssh.key is not None:
        argv += ["-i", str(ssh.key)]
    if ssh.known_hosts is not None:
        argv += ["-o", f"UserKnownHostsFile={ssh.known_hosts}"]
    if ssh.port != 22:
        argv += ["-p", str(ssh.port)]
    argv.append(f"{ssh.user}@{ssh.host}")
    remote = f"sudo {command}" if ssh.become else command
    # Only what the local shell would change needs quoting: plain words stay readable.
    special = shlex.join(remote.split()) != remote
    return f"{shlex.join(argv)} {shlex.quote(remote) if special else remote}"


def journal(ssh: Ssh, unit: str) -> str:
    """The last words of a unit."""
    return on_node(ssh, f"journalctl -u {unit} -n 50 --no-pager")
