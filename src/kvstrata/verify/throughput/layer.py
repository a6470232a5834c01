"""Measure the site through its router, and judge the figures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from importlib import metadata

from kvstrata.verify.check import Check, Json, NotCheckedError, Question, Status, UnableError
from kvstrata.verify.context import NodeContext, SiteContext
from kvstrata.verify.http import Service
from kvstrata.verify.synthetic import Writer
from kvstrata.verify.throughput import baseline, judge, load
from kvstrata.verify.throughput import figures as figure
from kvstrata.verify.throughput.baseline import Baseline, Conditions
from kvstrata.verify.throughput.figures import Figures

TABLE = "throughput"
SAVE = "keep a baseline: kvstrata verify -i <inventory> --only throughput --save-baseline"


def checks(site: SiteContext) -> Iterator[Check]:
    """Whether the load was answered, what was measured, and a row for each thing that it is compared with."""
    settings = site.cluster.verify.throughput
    routing = next((ctx for ctx in site.contexts.values() if ctx.node.router is not None), None)
    asking = _Asking(site, routing)
    if not settings.enabled:
        yield asking.requests().skip("kvstrata_verify_throughput.enabled is false: how fast the site is is not proven")
        return
    if routing is None:
        yield asking.requests().skip("no router was reached: how fast the site is is not proven")
        return
    yield from asking.all(routing)


@dataclass(frozen=True)
class _Asking:
    site: SiteContext
    routing: NodeContext | None

    def requests(self) -> Question:
        settings = self.site.cluster.verify.throughput
        asked = f"{settings.requests} requests, {settings.concurrency} at a time, all answered"
        return self.site.question("throughput.requests", "load through the router", asked, self._journal())

    def all(self, routing: NodeContext) -> Iterator[Check]:
        settings = self.site.cluster.verify.throughput
        known = baseline.load(self.site.cluster.verify.state_dir)
        bounds = judge.bounds(settings)
        judged = bool(bounds) or known is not None or self.site.save_baseline
        sent = load.Sent((), 0.0)
        data: dict[str, Json] = {}

        def measured() -> str:
            nonlocal sent
            sent = self._load(routing)
            data["sender_busy_share"] = sent.busy_share
            return judge.requests(sent.samples, settings.requests, settings.max_s, judged)

        answered = self.requests().ask(measured, data)
        yield answered
        figures, busy = figure.of(sent.samples), sent.busy_share
        yield self._measured(figures, answered, judged, busy)
        for bound in bounds:
            question = self._question(bound.figure, f"{bound.figure} under the load", str(bound))
            yield self._judge(question, answered, partial(judge.bound, figures, bound, busy))
        if self.site.save_baseline:
            yield self._saved(figures, answered, known)
        elif known is not None:
            expected = f"no figure worse than the baseline's by more than {settings.tolerance:.0%}"
            question = self._question("baseline", "load against the baseline", expected)
            yield self._judge(question, answered, lambda: self._against(figures, known, busy))

    def _load(self, routing: NodeContext) -> load.Sent:
        cluster, settings = self.site.cluster, self.site.cluster.verify.throughput
        router = routing.node.router
        if router is None or not cluster.engines:
            raise UnableError("the site has no router with an engine behind it")
        first = cluster.engines[0]
        length = baseline.prompt_tokens(settings, cluster.model.max_model_len)
        writer = Writer.of(routing.engine(first), cluster.model.name, self.site.seed)
        prompts = [writer.text(f"request {number}", length) for number in range(settings.requests)]
        self.site.say(f"{settings.requests} requests of {length} tokens, {settings.concurrency} at a time")
        service: Service = routing.service(router.host, router.port)
        wanted = load.Load(cluster.model.name, prompts, settings.output_tokens, settings.concurrency, settings.max_s)
        sent = load.run(service, wanted)
        self.site.tables[TABLE] = [sample.as_row() for sample in sent.samples]
        return sent

    def _measured(self, figures: Figures, answered: Check, judged: bool, busy_share: float) -> Check:
        question = self._question("measured", "speed under the load", "measured")
        unjudged = "" if judged else "nothing was judged: the inventory has no bounds and the site no baseline"
        seen = "; ".join(part for part in (str(figures), judge.sender(busy_share), unjudged) if part)
        return self._judge(question, answered, lambda: seen, figures.as_json())

    def _against(self, figures: Figures, known: Baseline, busy_share: float) -> str:
        other = Conditions.of(self.site.cluster).other_than(known.conditions)
        if other:
            raise NotCheckedError(f"the baseline of {known.saved_at} tells nothing about this load: {other}")
        tolerance = self.site.cluster.verify.throughput.tolerance
        seen = judge.against(figures, known.figures, tolerance, busy_share)
        return f"{seen} ({known.saved_at})"

    def _saved(self, figures: Figures, answered: Check, known: Baseline | None) -> Check:
        question = self._question("baseline", "load against the baseline", "kept as the site's baseline")
        folder = self.site.cluster.verify.state_dir

        def keep() -> str:
            now = datetime.now(UTC).isoformat(timespec="seconds")
            new = Baseline(now, Conditions.of(self.site.cluster), self._versions(), figures)
            try:
                baseline.save(folder, new)
            except OSError as error:
                raise UnableError(f"{folder}: {error.strerror}") from error
            return "kept as the site's baseline" + (f" instead of that of {known.saved_at}" if known else "")

        return self._judge(question, answered, keep)

    def _judge(
        self, question: Question, answered: Check, probe: Callable[[], str], data: dict[str, Json] | None = None
    ) -> Check:
        """Ask, unless the load was not answered: what failed requests leave is no measure of speed."""
        if answered.status is not Status.PASS:
            return question.skip(f"follows from {answered.id} on {answered.host} ({answered.what})")
        return question.ask(probe, data)

    def _question(self, name: str, what: str, expected: str) -> Question:
        return self.site.question(f"throughput.{name}", what, expected, self._journal())

    def _journal(self) -> str:
        """The hint for whoever looks further."""
        router = self.routing.node.router if self.routing else None
        return SAVE if self.routing is None or router is None else self.routing.journal(router.unit)

    def _versions(self) -> dict[str, str]:
        told = (check.data.get("version") for check in self.site.earlier if check.id == "engine.health")
        engines = {str(version) for version in told if version}
        return {"kvstrata": metadata.version("kvstrata"), "engines": ", ".join(sorted(engines)) or "unknown"}
