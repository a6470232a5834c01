"""A load that ends: so many conversations held once, or once more, as `kvstrata bench serve` does it."""

from __future__ import annotations

from kvstrata.plan.simulate import Outcome, Setup, Simulation
from kvstrata.plan.workload import Workload


def held(setup: Setup, workload: Workload, passes: int = 1, seed: int = 1, think_s: float = 0.0) -> Outcome:
    """Return what one replica does in the last of `passes` times that all conversations of a workload are held.

    Tiers are empty before the first; each begins when the one before has ended. Requests are counted to the very end,
    as a benchmark does.

    Args:
        setup: the replica.
        workload: its own share of conversations, `active` of them at a time.
        passes: 1 is the cold pass, 2 the warm one.
        seed: of the lengths; `bench serve` draws the same ones from it.
        think_s: mean seconds between an answer and the next question.
    """
    count = workload.conversations
    simulation = Simulation(setup, workload, workload.active, think_s, seed)
    for earlier in range(1, passes):
        simulation.run(count * earlier, counted_from=count * passes, distinct=count, to_the_end=True)
    return simulation.run(count * passes, count * (passes - 1), distinct=count, to_the_end=True)
