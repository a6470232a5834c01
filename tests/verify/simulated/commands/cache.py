"""LMCache's process, and the probe of its adapter."""

from __future__ import annotations

import json

from kvstrata.verify.layers.cache import adapter, daemon
from kvstrata.verify.layers.cache.state import places
from tests.verify.fakes import nodes
from tests.verify.simulated.commands.registry import Said, answers
from tests.verify.simulated.kvrocks import FULL
from tests.verify.simulated.state import Machine

# The release's interpreter, its imports and a chunk there and back.
PROBE_S = 0.3


@answers("sh", "-c", daemon._MEMORY)
def _memory(machine: Machine, words: list[str]) -> str:
    return "VmLck:\t       0 kB\nVmPin:\t67108864 kB\nVmRSS:\t68000000 kB\nVmSwap:\t       0 kB\n"


@answers("sh", "-c", adapter._SCRIPT)
def _probe(machine: Machine, words: list[str]) -> Said:
    known = places(machine.cluster)
    full = {name: FULL for name, place in known.items() if machine.site.nodes[place.node.name].full}
    found = nodes.found(words[5:], full)
    for name in full.keys() & found["stores"].keys():
        found["stores"][name]["full"] = True
    return Said(json.dumps(found), delay_s=PROBE_S)
