"""The routing contract, in small: both profiles' routers over the same two mocked engines.

What `kvstrata bench routing` measures for docs/routing.md, with loads so short that only the clear bounds are judged.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from kvstrata.bench.serving import served
from kvstrata.bench.serving.local_host import Environment
from kvstrata.contract import judge
from kvstrata.contract.arms import ARMS
from kvstrata.contract.disruption import KILLED, disrupt
from kvstrata.contract.figures import Figures, figures
from kvstrata.contract.load import Load, hold
from kvstrata.contract.local import Engines, LocalTarget
from kvstrata.contract.run import shape_for
from kvstrata.contract.workload import Conversations

# A CI machine has two cores, for engines, routers and client.
PER_S = 20.0
CLAIMED = ("cache_aware", "dynamo-kv")
LOAD_S, DISRUPTION_S = 7.0, 30.0


@pytest.fixture(scope="module")
def target(node_environment: Environment, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalTarget]:
    """Two engines, each in a process of its own."""
    folder = tmp_path_factory.mktemp("routing")
    model = served.prepare("tiny-llama", folder / "models", dtype=None, load_format=None, most_tokens=16384)
    with LocalTarget(node_environment, Engines(model.path, blocks=1500, speedup=1.0), folder, folder / "logs") as found:
        found.start([1, 1])
        yield found


def load(target: LocalTarget, arm: str, hot_share: float) -> Figures:
    """Hold conversations under an arm for a short while."""
    shape, slots = shape_for(target, PER_S, hot_share)
    talk = Conversations(shape, 1, f"{arm} {hot_share}", 5.0)
    with target.route(ARMS[arm]) as front:
        held = asyncio.run(hold(front, Load(shape, slots, LOAD_S), talk, 1))
    names = [worker.name for worker in target.workers]
    return figures(held, names, target.events(), target.tokens, target.block_size)


@pytest.mark.parametrize("arm", CLAIMED)
def test_turns_land_where_their_prefix_is_and_a_shared_prefix_does_not_pile(target: LocalTarget, arm: str) -> None:
    found = load(target, arm, 0.5)
    assert not found.failed, found.errors
    assert not found.unknown
    local, pile = judge.locality(arm, [found]), judge.spread(arm, [found], judge.HOT)
    assert local.ok, local.said
    # On a machine so busy that few requests were sent it is not judged.
    assert pile.ok is not False, pile.said


def test_round_robin_does_not_land_by_itself(target: LocalTarget) -> None:
    """What the test above measures can fail: two workers without a memory meet the right one half of the time."""
    found = judge.locality("round_robin", [load(target, "round_robin", 0.0)])
    assert found.ok is False, found.said


@pytest.mark.timeout(180)
@pytest.mark.parametrize("arm", CLAIMED)
def test_nothing_fails_but_cut_streams_when_a_worker_dies(target: LocalTarget, arm: str) -> None:
    shape, slots = shape_for(target, PER_S, 0.0)
    talk = Conversations(shape, 2, f"{arm} disrupted", 5.0)
    load = Load(shape, slots, DISRUPTION_S)
    (found,) = asyncio.run(disrupt(target, ARMS[arm], load, talk, 2, 1, only=(KILLED,)))
    assert found.requests
    # vllm-router hands a stream through and cannot go on with it elsewhere; Dynamo can.
    assert found.failed == (found.cut if arm == "cache_aware" else 0), found.errors
    assert found.back_s is not None, found.shares
