"""Make one fault after another, and say of each how requests fared and whether the site came back by itself."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from kvstrata.verify import hints, units
from kvstrata.verify.check import Check, Json, Layer, Question, Status, UnableError, UnmetError
from kvstrata.verify.context import NodeContext, SiteContext
from kvstrata.verify.faults import hits, judge, plan, recovery, requests, stops
from kvstrata.verify.faults.judge import Window
from kvstrata.verify.faults.plan import Fault, Omitted
from kvstrata.verify.faults.requests import Sample, Stream
from kvstrata.verify.http import Service, UnansweredError
from kvstrata.verify.layers.edge import access
from kvstrata.verify.tiers import prompt

# How long a stopped unit stays away, at least, and how many requests must have ended meanwhile.
HOLD_S = 15.0
HOLD_REQUESTS = 8
# Requests that must have been answered before anything is stopped.
BEFORE_REQUESTS = 8
PROMPT_CHUNKS = 2
# What one request may take: beyond the time-outs of connector and router's retries.
REQUEST_S = 120.0
# The least that a hit may take, however long the services took before it.
HITS_S = 30.0
TABLE = "faults"
_HINT = "kvstrata verify -i INVENTORY --faults"


def checks(site: SiteContext) -> Iterator[Check]:
    """Every fault of the schedule. Nothing is stopped on a site that is not well, or that does not answer."""
    schedule = plan.schedule(site.cluster, site.contexts)
    why = _refusal(site)
    if why is not None:
        for entry in schedule:
            yield _question(site, entry).skip(why)
        return
    faults = [entry for entry in schedule if isinstance(entry, Fault)]
    for entry in schedule:
        if isinstance(entry, Omitted):
            yield _question(site, entry).skip(entry.why)
    if not faults:
        return
    _warn(site, faults)
    run = _Run(site)
    with stops.sigterm_raises(), Stream(run.send, pace_s=requests.PACE_S) as stream:
        before = run.before(stream, faults[0].via)
        yield before
        broken = None if before.status is Status.PASS else f"{before.id} did not pass, so nothing was stopped"
        for fault in faults:
            if broken is not None:
                yield _question(site, fault).skip(broken)
                continue
            done = run.make(stream, fault)
            yield from done
            if any(check.bad for check in done[1:]):
                broken = f"the site did not recover from {fault.id}"


@dataclass(frozen=True)
class _Made:
    """A fault that is over: when it was, how long the way back took, in seconds, and what was still missing then."""

    window: Window
    took_s: float
    missing: Mapping[str, str]


def _refusal(site: SiteContext) -> str | None:
    bad = sorted({check.id for check in site.earlier if check.bad})
    if not bad:
        return None
    some = ", ".join(bad[:5]) + (f" and {len(bad) - 5} more" if len(bad) > 5 else "")
    return f"{some} did not pass, and a site that is not well is left alone. Not proven: that requests survive faults"


def _warn(site: SiteContext, faults: list[Fault]) -> None:
    site.say("--faults STOPS SERVICES of this site, one after another, and starts them again. Nothing is deleted:")
    for fault in faults:
        site.say(f"  {fault.id}: {fault.title}{f' ({fault.note})' if fault.note else ''}")


def _question(site: SiteContext, entry: Fault | Omitted) -> Question:
    if isinstance(entry, Omitted):
        return Question(entry.id, Layer.FAULTS, site.cluster.site, entry.title, "requests keep being answered", _HINT)
    ssh = site.cluster.node(entry.node).ssh
    journal = hints.on_node(ssh, f"journalctl -u {entry.units[0]} -n 50 --no-pager")
    return Question(entry.id, Layer.FAULTS, entry.node, entry.title, entry.expected, journal)


class _Run:
    """One run over the schedule: where its requests go, and what they are made from."""

    def __init__(self, site: SiteContext) -> None:
        self._site = site
        self._limit_s = site.cluster.verify.limits.recover_s
        self._words = 1
        self._router: Service | None = None
        self._number = 0

    def send(self, prompt_number: int) -> int:
        """Send the prompt of that number through the router; how many tokens came."""
        if self._router is None:
            raise UnableError("no router yet")
        body = {
            "model": self._site.cluster.model.name,
            "prompt": requests.text_of(self._site.seed, prompt_number, self._words),
            "max_tokens": requests.OUTPUT_TOKENS,
            "temperature": 0,
            "ignore_eos": True,
        }
        try:
            answer = self._router.post("/v1/completions", body, REQUEST_S)
        except UnansweredError as error:
            # paramiko's words for an SSH server that was too busy to say whether the router is there.
            if "Timeout opening channel" in str(error):
                raise UnableError(str(error)) from error
            raise
        return int(answer.get("usage", {}).get("completion_tokens", 0))

    def before(self, stream: Stream, via: str) -> Check:
        """Whether requests are answered before anything is stopped."""
        data: dict[str, Json] = {}
        expected = "every request answered in full, none failed"
        question = Question(
            "faults.before", Layer.FAULTS, self._site.cluster.site, "requests before any fault", expected, _HINT
        )

        def probe() -> str:
            self._use(via)
            self._measure_words()
            stream.resume()
            if not stream.hold(0, BEFORE_REQUESTS, REQUEST_S):
                raise UnmetError(f"fewer than {BEFORE_REQUESTS} requests ended within {REQUEST_S:g} s")
            samples = stream.samples()
            self._keep("before", samples)
            return judge.undisturbed(samples, data)

        return question.ask(probe, data)

    def make(self, stream: Stream, fault: Fault) -> list[Check]:
        """Make one fault: a check of the requests that met it, and one of the recovery."""
        question, recovered = _question(self._site, fault), self._recovered_question(fault)
        self._site.say(f"{fault.id}: {fault.title}")
        self._use(fault.via, fault.through_edge)
        ctx = self._site.contexts[fault.node]
        try:
            made = self._force(stream, ctx, fault)
        except stops.NotArmedError as error:
            return [question.error(str(error)), recovered.skip("nothing was stopped")]
        except UnableError as error:
            return [question.error(str(error)), recovered.error(str(error))]
        # Counters tell where tokens came from only when nobody else asks.
        stream.pause(2 * REQUEST_S)
        try:
            data: dict[str, Json] = {}
            back = recovered.ask(lambda: self._recovered(fault, made, data), data)
        finally:
            stream.resume()
        samples = stream.samples()
        self._keep(fault.id, [sample for sample in samples if made.window.meets(sample)])
        numbers: dict[str, Json] = {}
        fared = question.ask(lambda: judge.verdict(fault, samples, made.window, numbers), numbers)
        self._site.say(f"{fared.status.value}: {fault.id}: {fared.seen}")
        self._site.say(f"{back.status.value}: {back.id}: {back.seen}")
        return [fared, back]

    def _force(self, stream: Stream, ctx: NodeContext, fault: Fault) -> _Made:
        try:
            before = units.states(ctx.shell, fault.units)
        except UnableError as error:
            raise stops.NotArmedError(f"nothing was stopped: {error}") from error
        wanted = list(recovery.conditions(fault, self._site.contexts, before))
        began = stream.now_s
        restore_after_s = stops.STOP_S + 2 * REQUEST_S + self._limit_s
        with stops.in_force(ctx.shell, fault, restore_after_s, self._site.say):
            in_force = stream.now_s
            if fault.killed:
                # Here, where nothing of ours has started it yet: it has to come back by itself.
                missing = recovery.await_all(wanted, self._limit_s)
                well = stream.now_s
            stream.hold(0 if fault.killed else HOLD_S, HOLD_REQUESTS, 2 * REQUEST_S)
        if fault.killed:
            stops.forget_restarts(ctx.shell, fault.units)
            return _Made(Window(began, in_force, stream.now_s), well - in_force, missing)
        started = stream.now_s
        self._site.say(f"{fault.id}: started again, waiting until all is well")
        missing = recovery.await_all(wanted, self._limit_s)
        return _Made(Window(began, in_force, stream.now_s), stream.now_s - started, missing)

    def _recovered(self, fault: Fault, made: _Made, data: dict[str, Json]) -> str:
        data["seconds"] = round(made.took_s, 3)
        if made.missing:
            said = "; ".join(f"{name}: {text}" for name, text in made.missing.items())
            raise UnmetError(f"not after {self._limit_s:g} s: {said}")
        seen = f"services, router and breakers after {made.took_s:.1f} s"
        pair = hits.pair(self._site.contexts, fault.node)
        if pair is None or not any(node.stores for node in self._site.cluster.nodes):
            return f"{seen}; NOT PROVEN, for it takes stores and two nodes: that the stores give hits again"
        started = time.monotonic()
        self._number += 1
        left = max(HITS_S, self._limit_s - made.took_s)
        found = hits.again(*pair, f"{self._site.seed}-hit{self._number}", left, data)
        total = made.took_s + time.monotonic() - started
        data["seconds"] = round(total, 3)
        if total > self._limit_s:
            raise UnmetError(f"{seen}; {found}, but only after {total:.1f} s")
        return f"{seen}; {found}, all after {total:.1f} s"

    def _recovered_question(self, fault: Fault) -> Question:
        how = "by itself" if fault.killed else "once it was started again"
        return Question(
            "faults.recovered",
            Layer.FAULTS,
            fault.node,
            f"after {fault.id}: {fault.title}",
            f"within {self._limit_s:g} s, {how}: services healthy, engines in router and cache, breakers closed, hits "
            "from the stores",
            _question(self._site, fault).hint,
        )

    def _use(self, via: str, through_edge: bool = False) -> None:
        ctx, edge = self._site.contexts[via], self._site.cluster.edge
        if through_edge and edge is not None and ctx.node.edge is not None:
            self._router = access.service(ctx, edge, ctx.node.edge.host, key=True)
            return
        if ctx.node.router is None:
            raise UnableError(f"{via} has no router")
        self._router = ctx.service(ctx.node.router.host, ctx.node.router.port)

    def _measure_words(self) -> None:
        """How many words make a prompt of some chunks in the model's own tokens."""
        ctx = next(ctx for ctx in self._site.contexts.values() if ctx.node.engines)
        engine, model = ctx.node.engines[0], self._site.cluster.model
        chunks = [node.lmcache.chunk_size for node in self._site.cluster.nodes if node.lmcache]
        wanted = PROMPT_CHUNKS * max(chunks, default=256) + 1
        room = model.max_model_len - requests.OUTPUT_TOKENS - 2 * prompt.SLACK_TOKENS
        built = prompt.build(ctx.engine(engine), model.name, min(wanted, room), self._site.seed)
        self._words = len(built.text.split()) - 1

    def _keep(self, name: str, samples: Sequence[Sample]) -> None:
        self._site.tables.setdefault(TABLE, []).extend(row for sample in samples for row in sample.rows(name))
