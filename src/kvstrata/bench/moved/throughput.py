"""The same load over one node and over two."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from kvstrata.bench.moved.record import Throughput
from kvstrata.bench.moved.replicas import Pair
from kvstrata.bench.moved.run import warm_up
from kvstrata.verify.faults import requests
from kvstrata.verify.throughput import load
from kvstrata.verify.tiers import prompt

_EVER_S = 1800.0


@dataclass(frozen=True)
class LoadSettings:
    """What is sent each time: `requests` prompts that nobody has seen, `concurrency` at a time."""

    requests: int
    concurrency: int
    prompt_tokens: int
    output_tokens: int
    repeats: int


def measure(pair: Pair, settings: LoadSettings, seed: str, say: Callable[[str], None]) -> Iterator[Throughput]:
    """Yield a load over each node alone and over both, in turn, and leave all replicas in service."""
    try:
        warm_up(pair, seed)
        for repeat in range(settings.repeats):
            for nodes in ((pair.names[0],), (pair.names[1],), pair.names):
                pair.serve_from(*nodes)
                yield _one(pair, settings, nodes, repeat, f"{seed}-load{repeat}-{'-'.join(nodes)}", say)
    finally:
        pair.restore()


def _one(
    pair: Pair, settings: LoadSettings, nodes: tuple[str, ...], repeat: int, seed: str, say: Callable[[str], None]
) -> Throughput:
    engine = pair.subjects[nodes[0]].engine
    words = len(prompt.build(engine, pair.model, settings.prompt_tokens, seed).text.split())
    prompts = [requests.text_of(seed, number, words) for number in range(settings.requests)]
    sent = load.run(pair.router, load.Load(pair.model, prompts, settings.output_tokens, settings.concurrency, _EVER_S))
    good = [sample for sample in sent.samples if sample.error is None and not sample.cut]
    wall_s = max((sample.started_s + sample.e2e_s for sample in sent.samples), default=0.0)
    found = Throughput(
        nodes=nodes,
        repeat=repeat,
        seed=seed,
        requests=len(sent.samples),
        failed=len(sent.samples) - len(good),
        wall_s=round(wall_s, 3),
        prompt_tokens=sum(sample.prompt_tokens for sample in good),
        output_tokens=sum(sample.output_tokens for sample in good),
    )
    say(f"{' and '.join(nodes)}: {found.requests} requests in {found.wall_s:.1f} s, {found.failed} failed")
    return found
