"""Run the proof: the same prompt cold, after a restart with only the stores left, and on another node."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from kvstrata.cluster import LMCache
from kvstrata.verify import units, wait
from kvstrata.verify.check import Check, Json, NotCheckedError, Question, Status, UnableError, UnmetError
from kvstrata.verify.context import NodeContext
from kvstrata.verify.http import Service, UnansweredError
from kvstrata.verify.layers import router
from kvstrata.verify.layers.cache import LOOPBACK
from kvstrata.verify.tiers import counters, judge, prompt, stream
from kvstrata.verify.tiers.counters import Counters
from kvstrata.verify.tiers.record import Step
from kvstrata.verify.tiers.stream import Streamed

OUTPUT_TOKENS = 16
# Counters are published by background threads, a moment after the answer.
SETTLE_S = 15.0
POLL_S = 0.5
COLD, RESTARTED, OTHER = "cold", "after restart", "other node"


@dataclass(frozen=True)
class Subject:
    """A node in its part in the proof."""

    ctx: NodeContext
    lmcache: LMCache
    engine: Service
    cache: Service

    @classmethod
    def of(cls, ctx: NodeContext) -> Subject:
        """The node's first engine and its LMCache; UnableError when it lacks one."""
        if ctx.node.lmcache is None or not ctx.node.engines:
            raise UnableError(f"{ctx.node.name} has no engine with LMCache")
        engine = ctx.node.engines[0]
        return cls(
            ctx,
            ctx.node.lmcache,
            ctx.engine(engine),
            ctx.service(LOOPBACK, ctx.node.lmcache.http_port),
        )

    @property
    def name(self) -> str:
        """The node's name."""
        return self.ctx.node.name

    @property
    def engine_unit(self) -> str:
        """The unit of the engine that is measured."""
        return self.ctx.node.engines[0].unit

    def read(self) -> Counters:
        """The counters now."""
        return counters.read(self.engine, self.cache, self.ctx.cluster.model.name)


@dataclass
class TiersProof:
    """One run of the proof. `steps` and `seed` are what it leaves to print and to record."""

    first: Subject
    other: Subject | None
    routing: NodeContext | None
    seed: str
    say: Callable[[str], None]
    steps: list[Step] = field(default_factory=list)
    _answers: dict[str, Streamed] = field(default_factory=dict)
    _before_store: Counters | None = None
    _prompt: prompt.Prompt | None = None

    def run(self) -> list[Check]:
        """Every check of the proof, in order. One that can't be asked any more is a skip that says why."""
        cold = self._ask(self._cold_question(), self._cold)
        stored = self._after([cold], self._stored_question(), self._stored)
        restarted = self._after([stored], self._restart_question(), self._restart)
        again = self._after(
            [restarted], self._hit_question(RESTARTED, self.first), partial(self._from_store, RESTARTED, self.first)
        )
        elsewhere = self._elsewhere(stored)
        same = self._after([cold], self._identical_question(), self._identical)
        done = [cold, stored, restarted, again, elsewhere, same]
        if restarted.status is not Status.SKIP:
            done.append(self._ask(self._routing_question(), self._routed))
        return done

    # -- the questions ---------------------------------------------------------------------------

    def _cold_question(self) -> Question:
        return self.first.ctx.question(
            "tiers.cold",
            f"new prompt on {self.first.name} (seed {self.seed})",
            "asked of LMCache and found in no cache: 0 hit tokens",
            self.first.ctx.command(f"curl -s {self._engine_url(self.first)}/metrics"),
        )

    def _stored_question(self) -> Question:
        return self.first.ctx.question(
            "tiers.stored",
            f"{self.first.name}'s LMCache writes the prompt to the stores",
            "every whole chunk stored in L2",
            self.first.ctx.journal(self.first.lmcache.unit),
        )

    def _restart_question(self) -> Question:
        unit = self.first.engine_unit
        return self.first.ctx.question(
            "tiers.restart",
            f"{self.first.lmcache.unit} and {unit} restarted on {self.first.name}",
            "both are new processes, healthy again, L1 empty",
            self.first.ctx.journal(unit),
        )

    def _hit_question(self, step: str, subject: Subject) -> Question:
        return subject.ctx.question(
            "tiers.restarted" if step == RESTARTED else "tiers.other_node",
            f"same prompt on {subject.name}, {step}",
            f"at least {judge.HIT_SHARE:.0%} of its whole chunks from L2, none from L1",
            subject.ctx.journal(subject.lmcache.unit),
        )

    def _identical_question(self) -> Question:
        return self.first.ctx.question(
            "tiers.identical",
            "greedy output of every step",
            "identical",
            f"repeat with --tiers always --seed {self.seed}x; with bfloat16 vLLM's own prefix hits can drift too",
        )

    def _routing_question(self) -> Question:
        ctx = self.routing or self.first.ctx
        unit = ctx.node.router.unit if ctx.node.router else "vllm-router.service"
        return ctx.question("tiers.router", "router after the restart", "serves a completion again", ctx.journal(unit))

    # -- the steps -------------------------------------------------------------------------------

    def _cold(self, data: dict[str, Json]) -> str:
        settings = self.first.ctx.cluster.verify
        model = self.first.ctx.cluster.model
        target = min(settings.prompt_tokens, model.max_model_len - OUTPUT_TOKENS - prompt.SLACK_TOKENS)
        self._prompt = prompt.build(self.first.engine, model.name, target, self.seed)
        chunk = self.first.lmcache.chunk_size
        if judge.whole_chunks(self._prompt.tokens, chunk) < 1:
            raise UnableError(f"a prompt of {self._prompt.tokens} tokens has no whole chunk of {chunk}")
        delta = self._send(COLD, self.first, data)
        return judge.cold(delta, self._tokens)

    def _stored(self, data: dict[str, Json]) -> str:
        before = self._before_store
        if before is None:
            raise UnableError("no reading from before the prompt")
        chunks = judge.whole_chunks(self._tokens, self.first.lmcache.chunk_size)
        started = time.monotonic()
        last: list[Counters] = []

        def settled() -> Counters | None:
            try:
                now = self.first.read() - before
            except UnansweredError:
                return None
            quiet = last == [now]
            last[:] = [now]
            whole = now.l2_completed_chunks >= max(chunks, now.l2_submitted_chunks)
            # Twice the same: a store may still be cut into more parts than were submitted so far.
            return now if whole and quiet else None

        stored = wait.until(settled, self.first.ctx.timeout_s, POLL_S)
        if stored is None:
            if not last:
                raise UnmetError(f"LMCache on {self.first.name} gave no metrics any more")
            raise UnmetError(
                f"{last[0].l2_completed_chunks:.0f} chunks of {last[0].l2_submitted_chunks:.0f} submitted were "
                f"stored after {self.first.ctx.timeout_s:g} s, the prompt has {chunks}"
            )
        took = time.monotonic() - started
        data |= {"chunks": stored.l2_completed_chunks, "seconds": round(took, 3)}
        return f"{stored.l2_completed_chunks:.0f} chunks stored, prompt has {chunks} whole ones ({took:.1f} s)"

    def _restart(self, data: dict[str, Json]) -> str:
        subject, ctx = self.first, self.first.ctx
        names = (subject.lmcache.unit, subject.engine_unit)
        before = units.states(ctx.shell, names)
        started = time.monotonic()
        done = ctx.shell.run(["systemctl", "restart", "--", *names], ctx.timeout_s)
        if done.exit_code != 0:
            raise UnmetError(f"systemctl restart exited {done.exit_code}: {done.stderr.strip()}")
        self.say(f"{subject.name}: waiting for {' and '.join(names)} to be healthy")
        if wait.until(lambda: _healthy(subject), ctx.timeout_s, POLL_S) is None:
            raise UnmetError(f"not healthy {ctx.timeout_s:g} s after the restart")
        took = time.monotonic() - started
        after = units.states(ctx.shell, names)
        same = [name for name in names if _invocation(before, name) == _invocation(after, name)]
        if same:
            raise UnmetError(f"{', '.join(same)} still the old process")
        held = subject.cache.metrics().total("lmcache_mp_l1_memory_usage_bytes")
        if held > 0:
            raise UnmetError(f"L1 holds {held:.0f} bytes right after the restart")
        data["seconds"] = round(took, 3)
        return f"healthy after {took:.1f} s, L1 empty"

    def _elsewhere(self, stored: Check) -> Check:
        other = self.other
        if other is None:
            question = self.first.ctx.question(
                "tiers.other_node",
                "same prompt on another node",
                "served from what the first node stored",
                "add a second node with an engine, or name two with --tier-nodes",
            )
            return question.skip("one node only. Not proven here: that nodes share the cache")
        return self._after([stored], self._hit_question(OTHER, other), partial(self._from_store, OTHER, other))

    def _identical(self, data: dict[str, Json]) -> str:
        if len(self._answers) < 2:
            raise NotCheckedError("fewer than two answers to compare")
        data["token_ids"] = {name: list(answer.token_ids) for name, answer in self._answers.items()}
        return judge.identical(self._answers, self.first.ctx.cluster.model.dtype)

    def _routed(self, data: dict[str, Json]) -> str:
        ctx = self.routing
        endpoint = None if ctx is None else ctx.node.router
        if ctx is None or endpoint is None:
            raise NotCheckedError("no router was reached; that it took the restarted engine back is not proven")
        last = ["no answer"]

        def served() -> str | None:
            try:
                return router.completion(ctx, endpoint, data)
            except UnmetError as unmet:
                last[0] = str(unmet)
                return None

        seen = wait.until(served, ctx.timeout_s, POLL_S)
        if seen is None:
            raise UnmetError(last[0])
        return seen

    def _from_store(self, step: str, subject: Subject, data: dict[str, Json]) -> str:
        before = counters.troubles(subject.cache.metrics())
        delta = self._send(step, subject, data)
        try:
            return judge.from_store(delta, self._tokens, subject.lmcache.chunk_size)
        except UnmetError as unmet:
            raise UnmetError(f"{unmet}; {counters.told(before, counters.troubles(subject.cache.metrics()))}") from unmet

    # -- one sending -----------------------------------------------------------------------------

    def _send(self, step: str, subject: Subject, data: dict[str, Json]) -> Counters:
        model, wait_s = subject.ctx.cluster.model.name, subject.ctx.timeout_s
        self.say(f"{subject.name}: warming the engine")
        start = subject.read()
        # What an engine does only for its first request must not count as prefill.
        stream.complete(subject.engine, model, prompt.warm_up(self.seed), 2, wait_s)
        before = self._counted(subject, start)
        if step == COLD:
            self._before_store = before
        self.say(f"{subject.name}: sending the prompt of {self._tokens} tokens ({step})")
        answer = stream.complete(subject.engine, model, self._text, OUTPUT_TOKENS, wait_s)
        delta = self._counted(subject, before) - before
        self._answers[step] = answer
        self.steps.append(
            Step(
                name=step,
                node=subject.name,
                ttft_s=round(answer.ttft_s, 4),
                prompt_tokens=self._tokens,
                hit_tokens=round(delta.external_hits),
                l1_tokens=round(delta.l1_hits),
                l2_tokens=round(delta.l2_hits),
            )
        )
        data |= {"ttft_s": round(answer.ttft_s, 4), "total_s": round(answer.total_s, 4)}
        data |= {"prompt_tokens": self._tokens, "hit_tokens": delta.external_hits, "l2_tokens": delta.l2_hits}
        self.say(f"{subject.name}: first token after {answer.ttft_s:.2f} s, {delta.external_hits:.0f} tokens hit")
        return delta

    def _counted(self, subject: Subject, since: Counters) -> Counters:
        """The counters once the request after `since` is in them, or as they are when it never is."""

        def caught_up() -> Counters | None:
            now = subject.read()
            delta = now - since
            complete = delta.requests >= 1 and delta.l1_hits + delta.l2_hits >= delta.external_hits
            return now if complete else None

        counted = wait.until(caught_up, min(SETTLE_S, subject.ctx.timeout_s), 0.1)
        return subject.read() if counted is None else counted

    @property
    def _tokens(self) -> int:
        return 0 if self._prompt is None else self._prompt.tokens

    @property
    def _text(self) -> str:
        return "" if self._prompt is None else self._prompt.text

    # -- asking ----------------------------------------------------------------------------------

    def _ask(self, question: Question, probe: Callable[[dict[str, Json]], str]) -> Check:
        data: dict[str, Json] = {}
        check = question.ask(lambda: probe(data), data)
        self.say(f"{check.status.value}: {check.what}: {check.seen}")
        return check

    def _after(self, needed: list[Check], question: Question, probe: Callable[[dict[str, Json]], str]) -> Check:
        missing = [check.id for check in needed if check.status is not Status.PASS]
        if missing:
            return question.skip(f"{', '.join(missing)} did not pass")
        return self._ask(question, probe)

    @staticmethod
    def _engine_url(subject: Subject) -> str:
        return subject.ctx.node.engines[0].url


def _healthy(subject: Subject) -> bool | None:
    try:
        cache = subject.cache.json("/healthcheck").get("status") == "healthy"
        return True if cache and subject.engine.ready() else None
    except UnansweredError:
        return None


def _invocation(states: dict[str, units.UnitState], name: str) -> str:
    return states[name].invocation if name in states else ""
