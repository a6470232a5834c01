"""Talk through the router, one turn at a time, and see from the engines' counters who answers."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from kvstrata.cluster import Router
from kvstrata.verify.check import Check, Json, NotCheckedError, Question
from kvstrata.verify.context import NodeContext, SiteContext
from kvstrata.verify.http import Service
from kvstrata.verify.locality import judge
from kvstrata.verify.locality.conversation import TURNS, Conversation, Messages, Sizes, how_many
from kvstrata.verify.locality.replicas import MixedError, Reading, Replicas
from kvstrata.verify.synthetic import Writer

TABLE = "locality"
# No turn begins after `ENOUGH_S` when those seen are enough for a verdict, and none after `MOST_S`.
ENOUGH_S = 12.0
MOST_S = 60.0


def checks(site: SiteContext) -> Iterator[Check]:
    """One row, of the node that runs the router; where none was reached, the runner says so."""
    for ctx in site.contexts.values():
        router = ctx.node.router
        if router is not None:
            yield _ask(site, ctx, router)
            return


def _ask(site: SiteContext, ctx: NodeContext, router: Router) -> Check:
    question: Question = ctx.question(
        "router.locality",
        "conversations through the router",
        f"at least {judge.WARM_SHARE:.0%} of follow-up turns on the replica that has the conversation",
        ctx.journal(router.unit),
    )
    data: dict[str, Json] = {}

    def probe() -> str:
        replicas = len(site.cluster.engines)
        if replicas < 2:
            raise NotCheckedError("that a conversation comes back to its replica is not proven: there is one replica")
        talk = _Talk(site, ctx.service(router.host, router.port, site.timeout_s), _replicas(site, ctx))
        talk.run(how_many(replicas))
        return judge.locality(talk.turns, replicas, talk.mixed, data)

    return question.ask(probe, data)


def _replicas(site: SiteContext, routing: NodeContext) -> Replicas:
    """Each engine as its own node sees it; where that node is not under verification, as the router's does."""
    found = {}
    for node in site.cluster.nodes:
        for engine in node.engines:
            ctx = site.contexts.get(node.name, routing)
            found[f"{node.name} {engine.unit}"] = ctx.service(engine.host, engine.port)
    return Replicas(found)


@dataclass
class _Talk:
    """The conversations as they go on. Turns that cannot be told from other traffic end theirs; a new one begins."""

    site: SiteContext
    router: Service
    replicas: Replicas
    turns: list[judge.Turn] = field(default_factory=list)
    mixed: int = 0
    _begun: int = 0
    _known: dict[str, Reading] = field(default_factory=dict)

    def run(self, conversations: int) -> None:
        """Every turn of every conversation, or as many as fit into the time."""
        cluster, began = self.site.cluster, time.monotonic()
        chunk = max((node.lmcache.chunk_size for node in cluster.nodes if node.lmcache), default=0)
        sizes = Sizes.of(chunk, cluster.model.max_model_len)
        writer = self._writer()
        self.site.say(f"{conversations} conversations of {TURNS} turns through the router")
        live = [self._begin() for _ in range(conversations)]
        self._known = self.replicas.read()
        for _ in range(TURNS):
            for place, conversation in enumerate(live):
                if time.monotonic() - began > (ENOUGH_S if judge.enough(self.turns) else MOST_S):
                    return
                try:
                    self._turn(conversation, conversation.speak(writer, sizes))
                except MixedError:
                    self.mixed += 1
                    live[place] = self._begin()
                    self._known = self.replicas.read()

    def _writer(self) -> Writer:
        return Writer.of(self.replicas.any(), self.site.cluster.model.name, self.site.seed)

    def _begin(self) -> Conversation:
        self._begun += 1
        return Conversation(f"conversation {self._begun}")

    def _turn(self, conversation: Conversation, said: Messages) -> None:
        body = {
            "model": self.site.cluster.model.name,
            "messages": said,
            # The answer is its first token: when it is there, the prompt was read.
            "max_tokens": 1,
            "temperature": 0,
            # For routers whose affinity is the user's.
            "user": f"{self.site.seed} {conversation.name}",
        }
        if conversation.warm is not None:
            # Just before, so that as little other traffic as can be is counted with it.
            self._known |= self.replicas.read([conversation.warm])
        started = time.monotonic()
        answer = self.router.post("/v1/chat/completions", body, self.site.timeout_s)
        took = time.monotonic() - started
        tokens = int((answer.get("usage") or {}).get("prompt_tokens", 0))
        name, delta = self.replicas.served(self._known, tokens, conversation.warm)
        self._known[name] += delta
        turn = judge.Turn(
            conversation.name,
            conversation.turns,
            name,
            conversation.warm,
            tokens,
            round(delta.local),
            round(delta.external),
            took,
        )
        conversation.warm = name
        self.turns.append(turn)
        self.site.tables.setdefault(TABLE, []).append(turn.as_row())
