"""Talk through the router, and see from the engines' counters who answers."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from kvstrata.cluster import Router
from kvstrata.verify.check import Check, Json, NotCheckedError, Question, UnableError, UnmetError
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
# Rounds more than four at most, where some are unclear: each costs the follow-up turns of two.
UNCLEAR = 6


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
        if not all(engine.has_model for engine in site.cluster.engines):
            raise NotCheckedError(
                "that a conversation comes back to its replica is not proven: mockers count no tokens"
            )
        service, engines = ctx.service(router.host, router.port, site.timeout_s), _replicas(site, ctx)

        def asked(names_user: bool, data: dict[str, Json]) -> str:
            talk = _Talk(site, service, engines, names_user)
            talk.run(how_many(replicas))
            return judge.locality(talk.turns, replicas, talk.mixed, data)

        try:
            return asked(False, data)
        except UnmetError as unmet:
            try:
                seen = asked(True, {})
            except (UnmetError, UnableError):
                raise unmet from None
            # By choice of its policy: no failure, but clients must know.
            return f"only where requests name their `user`: {seen}. Where they do not: {unmet}"

    return question.ask(probe, data)


def _replicas(site: SiteContext, routing: NodeContext) -> Replicas:
    """Each engine as its own node sees it; where that node is not under verification, as the router's does."""
    found = {}
    for node in site.cluster.nodes:
        for engine in node.engines:
            ctx = site.contexts.get(node.name, routing)
            found[f"{node.name} {engine.unit}"] = ctx.engine(engine)
    return Replicas(found)


@dataclass
class _Talk:
    """The conversations as they go on. After a turn that other traffic made unclear, it is not known who is warm."""

    site: SiteContext
    router: Service
    replicas: Replicas
    names_user: bool
    turns: list[judge.Turn] = field(default_factory=list)
    mixed: int = 0

    def run(self, conversations: int) -> None:
        """Round after round, each with the next turn of every conversation, or as many as fit into the time."""
        cluster, began = self.site.cluster, time.monotonic()
        chunk = max((node.lmcache.chunk_size for node in cluster.nodes if node.lmcache), default=0)
        sizes = Sizes.of(chunk, cluster.model.max_model_len)
        # With a seed of its own: what a first attempt left in caches must not serve a second one.
        seed = f"{self.site.seed}{'u' if self.names_user else ''}"
        writer = Writer.of(self.replicas.any(), cluster.model.name, seed)
        self.site.say(f"{conversations} conversations of {TURNS} turns through the router")
        live = [Conversation(number) for number in range(conversations)]
        clear = 0
        for _ in range(TURNS + UNCLEAR):
            if clear == TURNS or time.monotonic() - began > (ENOUGH_S if judge.enough(self.turns) else MOST_S):
                return
            clear += self._round(live, [conversation.speak(writer, sizes) for conversation in live])

    def _round(self, live: Sequence[Conversation], said: Sequence[Messages]) -> bool:
        """Send a turn of each conversation at the same time; whether it is clear who served which."""
        before = self.replicas.read()
        with ThreadPoolExecutor(len(live)) as pool:
            answers = list(pool.map(self._send, live, said))
        asked = list(zip(live, answers, strict=True))
        try:
            served, now = self.replicas.served(before, {talk.number: tokens for talk, (tokens, _) in asked})
        except MixedError:
            self.mixed += len(live)
            for talk in live:
                talk.warm = None
            return False
        for talk, (tokens, took) in asked:
            name = served[talk.number]
            delta = now[name] - before[name]
            self._keep(talk, name, tokens, delta.times(tokens / delta.tokens), took)
        return True

    def _send(self, conversation: Conversation, said: Messages) -> tuple[int, float]:
        """Send a turn; how many tokens its prompt has, and the seconds it took."""
        body: dict[str, object] = {
            "model": self.site.cluster.model.name,
            "messages": said,
            # The answer is its first token: when it is there, the prompt was read.
            "max_tokens": 1,
            "temperature": 0,
        }
        if self.names_user:
            # Not alike at their beginnings: some routers compare these as they compare texts.
            body["user"] = hashlib.sha256(f"{self.site.seed} {conversation.name}".encode()).hexdigest()[:16]
        started = time.monotonic()
        answer = self.router.post("/v1/chat/completions", body, self.site.timeout_s)
        took = time.monotonic() - started
        return int((answer.get("usage") or {}).get("prompt_tokens", 0)), took

    def _keep(self, conversation: Conversation, name: str, tokens: int, delta: Reading, took: float) -> None:
        local, external = round(delta.local), round(delta.external)
        turn = judge.Turn(conversation.name, conversation.turns, name, conversation.warm, tokens, local, external, took)
        conversation.warm = name
        self.turns.append(turn)
        self.site.tables.setdefault(TABLE, []).append(turn.as_row() | {"names_user": self.names_user})
