"""Which of the controller's apt settings a node image of a suite needs, so that its mirror is used."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from kvstrata.lab import shell

KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
_FALLBACK = """\
Types: deb
URIs: http://deb.debian.org/debian
Suites: {suite} {suite}-updates
Components: main
Signed-By: {keyring}

Types: deb
URIs: http://deb.debian.org/debian-security
Suites: {suite}-security
Components: main
Signed-By: {keyring}
"""
# How to reach a mirror, and what to forgive it; the rest of the host's apt settings are its own business.
_TRANSPORT = re.compile(
    r"Acquire::(Check-Valid-Until|Check-Date|ForceIPv4|ForceIPv6|Retries|https?(::[^ ]+)?) \"[^\"]+\";"
)
_ONE_LINE = re.compile(r"deb\s+(\[[^\]]*\]\s+)?(\S+)\s+(\S+)\s+(.+)")


@dataclass(frozen=True)
class Stanza:
    """One apt source: where, which suites and components, and the key that signs it (a path) if named."""

    uris: tuple[str, ...]
    suites: tuple[str, ...]
    components: tuple[str, ...]
    signed_by: str

    def render(self) -> str:
        """Return the stanza in deb822 form."""
        return (
            f"Types: deb\nURIs: {' '.join(self.uris)}\nSuites: {' '.join(self.suites)}\n"
            f"Components: {' '.join(self.components)}\nSigned-By: {self.signed_by}\n"
        )


def parse_deb822(text: str) -> list[Stanza]:
    """Read the binary sources of a .sources file; disabled ones are left out."""
    found = []
    for block in re.split(r"\n\s*\n", text):
        fields: dict[str, str] = {}
        key = ""
        for line in block.splitlines():
            if line.startswith("#") or not line.strip():
                continue
            if line[0].isspace():
                fields[key] += " " + line.strip()
            elif ":" in line:
                key, value = line.split(":", 1)
                key = key.lower()
                fields[key] = value.strip()
        if "deb" not in fields.get("types", "").split() or fields.get("enabled", "yes").lower() == "no":
            continue
        found.append(
            Stanza(
                tuple(fields.get("uris", "").split()),
                tuple(fields.get("suites", "").split()),
                tuple(fields.get("components", "").split()),
                fields.get("signed-by", "") or KEYRING,
            )
        )
    return found


def parse_one_line(text: str) -> list[Stanza]:
    """Read the binary sources of a sources.list file."""
    found = []
    for line in text.splitlines():
        match = _ONE_LINE.match(line.split("#", 1)[0].strip())
        if match:
            options, uri, suite, components = match.groups()
            signed = re.search(r"signed-by=(\S+?)[\s\]]", options or "")
            found.append(Stanza((uri,), (suite,), tuple(components.split()), signed.group(1) if signed else KEYRING))
    return found


def for_suite(stanzas: Iterable[Stanza], suite: str) -> str:
    """Return, as deb822 text, the Debian sources of `suite` among `stanzas`.

    Debian's own mirror when the host knows none, as on Ubuntu. A source without `main` is a third
    party's, which names its suites after Debian's but is no archive to build a system from.
    """
    wanted = {suite, f"{suite}-updates", f"{suite}-security"}
    kept = []
    for stanza in stanzas:
        suites = tuple(name for name in stanza.suites if name.rstrip("/") in wanted)
        usable = stanza.signed_by == KEYRING or Path(stanza.signed_by).is_file()
        if suites and "main" in stanza.components and usable:
            kept.append(Stanza(stanza.uris, suites, stanza.components, stanza.signed_by))
    if not any(suite in stanza.suites for stanza in kept):
        return _FALLBACK.format(suite=suite, keyring=KEYRING)
    return "\n".join(stanza.render() for stanza in kept)


def host_stanzas(folder: Path = Path("/etc/apt")) -> list[Stanza]:
    """Read every apt source of this machine."""
    lists = [folder / "sources.list", *sorted(folder.glob("sources.list.d/*.list"))]
    found = [stanza for path in lists if path.is_file() for stanza in parse_one_line(path.read_text())]
    for path in sorted(folder.glob("sources.list.d/*.sources")):
        found += parse_deb822(path.read_text())
    return found


def transport_options(dump: str) -> tuple[str, ...]:
    """Return the lines of `apt-config dump` output that say how mirrors are reached."""
    return tuple(line for line in dump.splitlines() if _TRANSPORT.fullmatch(line))


def host_transport_options() -> tuple[str, ...]:
    """Return how this machine reaches its mirrors; empty where there is no apt."""
    if not shell.succeeds(("apt-config", "--version")):
        return ()
    return transport_options(shell.run(("apt-config", "dump")))
