"""SSH to the nodes: the lab's own key, the nodes' host keys, and waiting until a login works."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kvstrata.lab import shell
from kvstrata.lab.errors import LabError

_POLL_S = 0.1


@dataclass(frozen=True)
class Access:
    """How to log in to the nodes of one lab: folder of key and known_hosts, the user, and the port."""

    folder: Path
    user: str = "root"
    port: int = 22

    @property
    def key(self) -> Path:
        """The private key."""
        return self.folder / "id_ed25519"

    @property
    def known_hosts(self) -> Path:
        """The file with the nodes' host keys."""
        return self.folder / "known_hosts"

    def ensure_key(self) -> Path:
        """Make the key pair unless it is there, and return the public half."""
        public = self.key.with_suffix(".pub")
        if not (self.key.exists() and public.exists()):
            self.folder.mkdir(parents=True, exist_ok=True)
            self.key.unlink(missing_ok=True)
            comment = f"kvstrata-{self.folder.name}"
            shell.run(("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(self.key)))
        return public

    def argv(self, address: str, *options: str) -> list[str]:
        """Return the ssh command line up to and with the host; a remote command may follow."""
        return [
            *("ssh", "-i", str(self.key), "-o", "IdentitiesOnly=yes"),
            *("-o", f"UserKnownHostsFile={self.known_hosts}", "-o", "StrictHostKeyChecking=yes"),
            *("-o", "GlobalKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR", "-p", str(self.port)),
            *(*options, f"{self.user}@{address}"),
        ]

    def login_works(self, address: str) -> bool:
        """Say whether a login with the key succeeds against the known host key now."""
        probe = self.argv(address, "-o", "BatchMode=yes", "-o", "ConnectTimeout=2")
        return shell.succeeds((*probe, "true"), timeout_s=10)

    def write_known_hosts(self, host_keys: Mapping[str, str], addresses: Mapping[str, str]) -> None:
        """Write known_hosts from node -> public host key and node -> address."""
        draft = self.known_hosts.with_suffix(".new")
        draft.write_text(render_known_hosts(host_keys, addresses))
        draft.replace(self.known_hosts)


def render_known_hosts(host_keys: Mapping[str, str], addresses: Mapping[str, str]) -> str:
    """Return known_hosts lines, `address,node type key`, without the key's comment."""
    lines = []
    for node, key in host_keys.items():
        kind, blob, *_ = key.split()
        lines.append(f"{addresses[node]},{node} {kind} {blob}\n")
    return "".join(lines)


def host_key(container: str, *, deadline: float) -> str:
    """Return the node's public host key, read inside the container: the first boot makes it.

    LabError when there is none by `deadline` (time.monotonic).
    """
    argv: Sequence[str] = ("podman", "exec", container, "cat", "/etc/ssh/ssh_host_ed25519_key.pub")
    while True:
        try:
            key = shell.run(argv)
            if len(key.split()) >= 2:
                return key.strip()
            problem = "the host key file is empty"
        except shell.CommandError as error:
            problem = str(error)
        if time.monotonic() > deadline:
            raise LabError(f"{container} made no SSH host key in time. Last: {problem}")
        time.sleep(_POLL_S)


def await_login(access: Access, address: str, *, deadline: float) -> None:
    """Return when a login works; LabError when none does by `deadline` (time.monotonic)."""
    while not access.login_works(address):
        if time.monotonic() > deadline:
            raise LabError(f"no SSH login on {address} in time. See: {' '.join(access.argv(address, '-v'))} true")
        time.sleep(_POLL_S)
