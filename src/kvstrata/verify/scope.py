"""What a run looked at, read from its document: a check that is missing there was not asked, or is gone."""

from __future__ import annotations

from dataclasses import dataclass

from kvstrata.verify.document import CheckRow, Document

# Rows that stand for checks that were not made.
_STOPPED = (".all", ".deadline", ".bug")


def is_remark(check: CheckRow) -> bool:
    """Whether the row only says what was not looked at, or that an earlier proof still holds."""
    return check["id"].endswith(".all") or check["id"] == "tiers.proof"


@dataclass(frozen=True)
class Scope:
    """Nodes and layers of a run, and what of them it did not get to."""

    nodes: frozenset[str]
    site: str | None
    layers: frozenset[str]
    """Layers that were left out on every node."""
    stopped: frozenset[tuple[str, str]]
    """A host and a layer of it that was left out, or not done to its end."""
    unreached: frozenset[str]
    provers: frozenset[str]
    """Who took part in the proof of the tiers; each run may choose others."""

    @classmethod
    def of(cls, document: Document) -> Scope:
        """Read the scope of a document."""
        nodes = frozenset(document["nodes"])
        layers, stopped, unreached = set(), set(), set()
        for check in document["checks"]:
            layer = check["layer"]
            # `other nodes` (--limit) is no layer left out: that is what `nodes` says.
            if check["id"].endswith(_STOPPED) and check["what"] == f"{layer} checks":
                if check["host"] in nodes:
                    stopped.add((check["host"], layer))
                else:
                    layers.add(layer)
            if check["id"] == "host.ssh" and check["status"] in ("fail", "error"):
                unreached.add(check["host"])
        if document["tiers"] is None or not document["tiers"]["ran"]:
            layers.add("tiers")
        provers = frozenset(check["host"] for check in document["checks"] if check["layer"] == "tiers")
        return cls(nodes, document["site"], frozenset(layers), frozenset(stopped), frozenset(unreached), provers)

    def covers(self, check: CheckRow) -> bool:
        """Whether the run would hold this check if it were still asked."""
        host, layer = check["host"], check["layer"]
        if layer in self.layers or (host, layer) in self.stopped or host in self.unreached:
            return False
        if layer == "tiers" and host not in self.provers:
            return False
        return host in self.nodes or host == self.site
