"""The replicas under measurement: where a request went, and which tier its prompt came from."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kvstrata.bench.errors import BenchError
from kvstrata.drain.leave import QUIET_S, Leaving, drain
from kvstrata.drain.rejoin import undrain
from kvstrata.drain.replicas import Replica, every
from kvstrata.drain.site import Site
from kvstrata.verify import wait
from kvstrata.verify.check import UnmetError
from kvstrata.verify.http import Service, UnansweredError
from kvstrata.verify.tiers.counters import Counters
from kvstrata.verify.tiers.proof import Subject

SETTLE_S = 15.0
STORE_S = 120.0
# Longer than a chunk needs to be written, or to be given up.
REST_S = 4.0
POLL_S = 0.1
DRAIN_S = 600.0
HEALTHY_S = 900.0


@dataclass(frozen=True)
class Answer:
    """A streamed completion, in seconds from its sending, and its text."""

    ttft_s: float
    text: str
    prompt_tokens: int


class Pair:
    """Two nodes with a replica each, behind the site's first router."""

    def __init__(self, site: Site, names: Sequence[str]) -> None:
        """Two nodes of the site.

        Raises:
            BenchError: they can't be measured, or the site can't be asked to move a conversation.
        """
        self.site = site
        if site.dynamo:
            raise BenchError(
                "kvstrata_serving_profile is dynamo; allowed: router, for draining a worker of Dynamo restarts it, and "
                "a conversation cannot be moved without losing its node's cache"
            )
        router = next((node for node in site.cluster.nodes if node.router is not None), None)
        if router is None or router.router is None:
            raise BenchError("the inventory has no router (group router), and no conversation can be moved without one")
        self.subjects = {name: Subject.of(site.contexts[name]) for name in names}
        crowded = [name for name in names if len(site.cluster.node(name).engines) != 1]
        if crowded or len(self.subjects) != 2:
            raise BenchError(f"nodes are {', '.join(names)}; allowed: two with one replica each")
        # The inventory's word for how the router chooses; None where it isn't told.
        self.policy: str | None = getattr(router.router, "policy", None)
        self.model = site.cluster.model.name
        self.router: Service = site.contexts[router.name].service(router.router.host, router.router.port, HEALTHY_S)

    @property
    def names(self) -> tuple[str, str]:
        """Both nodes."""
        first, second = self.subjects
        return first, second

    @property
    def one_machine(self) -> bool:
        """Whether both nodes run on one kernel, as a lab's do."""
        boots = {
            subject.ctx.shell.run(["cat", "/proc/sys/kernel/random/boot_id"]).text()
            for subject in self.subjects.values()
        }
        return len(boots) == 1

    def other(self, name: str) -> str:
        """The node that isn't `name`."""
        first, second = self.names
        return second if name == first else first

    def replica(self, name: str) -> Replica:
        """The replica of a node."""
        return next(one for one in every(self.site.cluster) if one.node.name == name)

    def serve_from(self, *names: str) -> None:
        """Have only these nodes in service: nobody else gets a request."""
        inside = [self.replica(name) for name in names]
        outside = [one for one in every(self.site.cluster) if one.node.name not in names]
        undrain(self.site, inside, HEALTHY_S)
        if outside:
            drain(self.site, outside, Leaving(DRAIN_S, quiet_s=QUIET_S))

    def rejoin(self, name: str) -> None:
        """Put a node back into service beside those that are in it."""
        undrain(self.site, [self.replica(name)], HEALTHY_S)

    def restore(self) -> None:
        """Put every replica of the site back into service."""
        undrain(self.site, every(self.site.cluster), HEALTHY_S)

    def ask(self, prompt: str, output_tokens: int, through: Service | None = None) -> Answer:
        """Send a prompt through the router, or to one engine; the answer as it streams."""
        body = {
            "model": self.model,
            "prompt": prompt,
            "max_tokens": output_tokens,
            "temperature": 0,
            "ignore_eos": True,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        started, first, text, tokens = time.monotonic(), None, "", 0
        for event in (through or self.router).events("/v1/completions", body, HEALTHY_S):
            if "error" in event:
                raise UnmetError(f"the stream carried an error: {event['error']}")
            for choice in event.get("choices", []):
                first = first or time.monotonic()
                text += choice.get("text") or ""
            tokens = (event.get("usage") or {}).get("prompt_tokens", tokens)
        if first is None:
            raise UnmetError("an answer without a token")
        return Answer(first - started, text, tokens)

    def read(self) -> dict[str, Counters]:
        """The counters of both nodes now."""
        return {name: subject.read() for name, subject in self.subjects.items()}

    def went_to(self, before: Mapping[str, Counters]) -> tuple[str, Counters]:
        """Which node ended the one request since `before`, and what its counters counted for it."""

        def told() -> dict[str, Counters] | None:
            delta = {name: now - before[name] for name, now in self.read().items()}
            done = [one for one in delta.values() if one.requests]
            return delta if done and all(one.l1_hits + one.l2_hits >= one.external_hits for one in done) else None

        delta = wait.until(told, SETTLE_S, POLL_S)
        served = [name for name, one in (delta or {}).items() if one.requests]
        if delta is None or len(served) != 1 or delta[served[0]].requests > 1:
            raise UnmetError(
                f"requests counted by {' and '.join(served) or 'no node'} while one was measured: "
                "repeat without other traffic"
            )
        return served[0], delta[served[0]]

    def await_stored(self, name: str, before: Counters) -> int:
        """Wait until a node's LMCache writes nothing to the stores any more; return the chunks written since `before`.

        A chunk that a store did not take in time is not written later: how many were is for the caller to judge.
        """
        subject = self.subjects[name]
        last, since = list[Counters](), list[float]()

        def at_rest() -> int | None:
            try:
                now = subject.read() - before
            except UnansweredError:
                return None
            if last != [now]:
                last[:], since[:] = [now], [time.monotonic()]
            return round(now.l2_completed_chunks) if time.monotonic() - since[0] >= REST_S else None

        written = wait.until(at_rest, STORE_S, min(0.5, REST_S))
        if written is None:
            raise UnmetError(f"{name}'s LMCache still writes to the stores after {STORE_S:g} s")
        return written
