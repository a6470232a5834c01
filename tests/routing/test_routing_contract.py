"""The routing contract, in small: both profiles' routers over the same two mocked engines.

What `kvstrata bench routing` measures for docs/routing.md, with loads so short that only the clear bounds are judged.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from kvstrata.bench.serving import served
from kvstrata.bench.serving.local_host import Environment
from kvstrata.contract.arms import ARMS
from kvstrata.contract.disruption import KILLED, disrupt
from kvstrata.contract.figures import Figures
from kvstrata.contract.load import Load
from kvstrata.contract.local import Engines, LocalTarget
from kvstrata.contract.run import held_figures, shape_for
from kvstrata.contract.workload import Conversations

# A CI machine has two cores, for engines, routers and client, and does other things beside this.
PER_S, SLOW_DOWN = 20.0, 2.0
# Over two workers 50 % land by chance: what counts as memory must be far from that, and what counts as none as well.
# The contract's own bound is for longer loads, in which chance evens out.
LANDED = {"cache_aware": 0.9, "dynamo-kv": 0.75}
CLAIMED = tuple(LANDED)
# Where all of the half that share a prefix are on one of two workers, and the rest are spread evenly.
PILED = 1.5
ENOUGH = 20
LOAD_S, DISRUPTION_S = 7.0, 30.0


@pytest.fixture(scope="module")
def target(node_environment: Environment, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalTarget]:
    """Two engines, each in a process of its own."""
    folder = tmp_path_factory.mktemp("routing")
    model = served.prepare("tiny-llama", folder / "models", dtype=None, load_format=None, most_tokens=16384)
    engines = Engines(model.path, blocks=1500, speedup=1.0 / SLOW_DOWN)
    with LocalTarget(node_environment, engines, folder, folder / "logs") as found:
        found.start([1, 1])
        yield found


def load(target: LocalTarget, arm: str, hot_share: float) -> Figures:
    """Hold conversations under an arm for a short while."""
    shape, slots = shape_for(target, PER_S, hot_share)
    talk = Conversations(shape.slowed(SLOW_DOWN), 1, f"{arm} {hot_share}", 5.0)
    with target.route(ARMS[arm]) as front:
        return held_figures(target, front, Load(shape, slots, LOAD_S).slowed(SLOW_DOWN), talk, 1)


def landed(found: Figures) -> float:
    """Return the share of turns that landed where their prefix is; there must have been enough for that."""
    assert found.locality is not None
    assert found.locality.resident >= ENOUGH, found
    return found.locality.landed / found.locality.resident


@pytest.mark.parametrize("arm", CLAIMED)
def test_turns_land_where_their_prefix_is_and_a_shared_prefix_does_not_pile(target: LocalTarget, arm: str) -> None:
    found = load(target, arm, 0.5)
    assert not found.failed, found.errors
    assert not found.unknown
    assert landed(found) >= LANDED[arm], found
    assert found.spread.requests_ratio < PILED, found


def test_round_robin_does_not_land_by_itself(target: LocalTarget) -> None:
    """What the test above measures can fail: two workers without a memory meet the right one half of the time."""
    found = load(target, "round_robin", 0.0)
    assert landed(found) < min(LANDED.values()), found


@pytest.mark.timeout(180)
@pytest.mark.parametrize("arm", CLAIMED)
def test_nothing_fails_but_cut_streams_when_a_worker_dies(target: LocalTarget, arm: str) -> None:
    shape, slots = shape_for(target, PER_S, 0.0)
    slow = shape.slowed(SLOW_DOWN)
    talk = Conversations(slow, 2, f"{arm} disrupted", 5.0)
    # Health checks and retries have a real clock, and so has this load.
    load = Load(slow, slots, DISRUPTION_S)
    (found,) = asyncio.run(disrupt(target, ARMS[arm], load, talk, 2, 1, only=(KILLED,)))
    assert found.requests
    # vllm-router hands a stream through and cannot go on with it elsewhere; Dynamo can.
    assert found.failed == (found.lost_streams if arm == "cache_aware" else 0), found.errors
    # Once is enough here: in a window of a few turns chance alone takes some away again.
    assert any(share >= LANDED[arm] for _, share in found.shares), found.shares
