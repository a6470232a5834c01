"""A plan's predictions against what `kvstrata bench serve` measured: the same load, simulated on the same hardware.

| predicted | from |
|---|---|
| compute and HBM | the GPU's data sheet, MFU and MBU as a plan assumes them, or as measured |
| DRAM tier | the GPU's link, as a plan derives it |
| SSD tier | the rate that the run's loads had: no plan could know this drive |

So an error is the model's, but for that of MFU and MBU. Where the run timed prompts that were computed alone,
everything is predicted once more with the MFU that fits those: what is still off then, the simulation does wrong.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from math import ceil
from statistics import median
from typing import Any

from kvstrata.bench.serving.configurations import BLOCK_TOKENS, REFERENCE
from kvstrata.bench.serving.engine_options import ASK_OPTION, POLICIES_THAT_KEEP, RECHECK_OPTION
from kvstrata.bench.serving.hbm_room import keeps, policy_of
from kvstrata.bench.serving.record import Record
from kvstrata.plan.alone import answer_s, mfu_of
from kvstrata.plan.benched import (
    HIT_FROM,
    Case,
    Load,
    cases_of,
    gpu_of,
    hbm_tokens,
    load_of,
    replicas_of,
    shape_of,
)
from kvstrata.plan.compared import QUANTITIES, Block, Comparison, Line, Pair
from kvstrata.plan.engine import Engine
from kvstrata.plan.figures import Basis, Figure
from kvstrata.plan.gpus import Gpu
from kvstrata.plan.held import held
from kvstrata.plan.measured import Measured, measured_engine
from kvstrata.plan.reading import BadInputError
from kvstrata.plan.shape import KvLayout, Shape
from kvstrata.plan.simulate import Outcome, Setup
from kvstrata.plan.tiers import LINK_SHARE, LINKS, Tier, TierName


def compare(
    record: Record, shape: Shape | None = None, gpu: Gpu | None = None, measured: Measured | None = None
) -> Comparison:
    """Predict what a run measured.

    Args:
        record: the run.
        shape: of its model, where the file does not tell.
        gpu: of its hardware, where that is none of the GPUs that are known.
        measured: figures to plan with in place of assumed ones.

    Raises:
        BadInputError: the file does not tell model or hardware, or holds no load that can be simulated, or its router
            did not keep conversations where they were.
    """
    if not keeps(record.stack):
        # Each replica is simulated with its share of the conversations, and there is asked for all of them.
        raise BadInputError(
            "router policy of the benchmark",
            policy_of(record.stack),
            f"{' or '.join(POLICIES_THAT_KEEP)}, which keep conversations where they were; no other is simulated",
        )
    model, hardware = shape or shape_of(record), gpu or gpu_of(record)
    found = _Run(record, model, hardware, measured or Measured())
    own = found.block("as planned", found.engine(None))
    if not own.lines:
        raise BadInputError("workloads of the benchmark", sorted({case.workload for case in found.cases}), "poc")
    blocks = [own]
    fitted = found.fitted()
    if fitted is not None:
        blocks.append(found.block("with the MFU of prompts that were computed alone", fitted))
    else:
        found.notes.append("nothing tells the MFU of this run: it is as planned, and its error is in everything")
    return Comparison(model, hardware, tuple(blocks), found.room(), found.alone(), tuple(dict.fromkeys(found.notes)))


class _Run:
    """One run, with what is predicted of it."""

    def __init__(self, record: Record, shape: Shape, gpu: Gpu, measured: Measured) -> None:
        self._record, self._gpu, self._measured = record, gpu, measured
        stack = record.stack.get("model")
        settings = stack if isinstance(stack, dict) else {}
        width = settings.get("tensor_parallel", 1)
        self._kv = KvLayout(shape, width if isinstance(width, int) else 1, str(settings.get("kv_dtype", "auto")))
        self._replicas = replicas_of(record)
        self.cases = cases_of(record)
        self.notes: list[str] = []

    def engine(self, case: Case | None) -> Engine:
        """Return a replica, with the settings of a configuration or of none."""
        settings = case.settings if case else {}
        options = settings.get("engine") or {}
        engine = Engine(self._gpu, self._kv, kv_cache_gib=settings.get("hbm_gib"))
        if isinstance(tokens := options.get("max-num-batched-tokens"), int):
            engine = replace(engine, step_tokens=tokens)
        return measured_engine(engine, self._measured)

    def fitted(self) -> Engine | None:
        """Return a replica with the MFU that prompts computed alone had; None where none was timed."""
        mine = [answer for answer in self._record.answers if answer.configuration == REFERENCE and answer.seconds]
        cold = [answer for answer in mine if not answer.cached_tokens]
        if not cold:
            return None
        engine = self.engine(None)
        try:
            each = [mfu_of(engine, answer) for answer in cold]
        except BadInputError:
            self.notes.append(
                "prompts that were computed alone: without what decoding their answers is predicted to take, they took "
                "less than the GPU needs at its peak"
            )
            return None
        return replace(engine, mfu=replace(each[0], value=median(mfu.value for mfu in each)))

    def block(self, title: str, like: Engine) -> Block:
        """Predict every case with the MFU of a replica."""
        outcomes: dict[tuple[str, str, str], Outcome] = {}
        lines = []
        for case in self.cases:
            load = load_of(self._record, case.workload)
            if load is None:
                self.notes.append(f"{case.workload}: not simulated; a plan knows the conversations of poc alone")
                continue
            tiers = self._tiers(case)
            if tiers is None:
                continue
            engine = replace(self.engine(case), mfu=like.mfu)
            outcome = outcomes[case.workload, case.pass_, case.configuration] = self._outcome(case, load, engine, tiers)
            base = outcomes.get((case.workload, case.pass_, REFERENCE))
            lines.append(self._line(case, outcome, base))
        return Block(title, like.mfu, tuple(lines))

    def room(self) -> tuple[Pair, ...]:
        """Compare the room in HBM, where it was left to vLLM."""
        for case in self.cases:
            told = hbm_tokens(self._record.phases, case.configuration)
            if told and case.settings.get("hbm_gib") is None:
                return (Pair("tokens in HBM", self.engine(case).hbm_tokens, told),)
        return ()

    def alone(self) -> tuple[Pair, ...]:
        """Compare prompts that were asked alone, where one tier alone can have had them."""
        found = []
        for case in {case.configuration: case for case in self.cases}.values():
            answers = [a for a in self._record.answers if a.configuration == case.configuration and a.seconds]
            tiers = self._tiers(case)
            # Which of two tiers had a prompt is not told.
            if not answers or tiers is None or (len(tiers) > 1 and case.configuration != "ssd"):
                continue
            engine = self.engine(case)
            predicted = [answer_s(engine, tiers, answer, int(case.settings["chunk_tokens"])) for answer in answers]
            name = f"{case.configuration}, s alone" + ("" if tiers else ", computed")
            found.append(Pair(name, median(predicted), median(answer.seconds or 0.0 for answer in answers)))
        return tuple(found)

    def _outcome(self, case: Case, load: Load, engine: Engine, tiers: tuple[Tier, ...]) -> Outcome:
        settings, parts = case.settings, self._replicas
        # LMCache's own clients know no break-even.
        cut = float(settings.get("min_load_gbps") or 0.0) if settings.get("stores") == "kvstrata" else 0.0
        setup = self._as_told(
            case, Setup(engine, tiers, parts, parts, int(settings["chunk_tokens"]), cut, self._block(settings))
        )
        each = replace(
            load.workload,
            conversations=ceil(load.workload.conversations / parts),
            active=ceil(load.workload.active / parts),
        )
        try:
            return held(setup, each, case.passes, load.seed, load.think_s)
        except ValueError as error:
            raise BadInputError(f"{case.configuration}: hbm_gib", settings.get("hbm_gib"), str(error)) from error

    def _as_told(self, case: Case, setup: Setup) -> Setup:
        """Return the setup with what LMCache was told of loads from its stores, where the run says what that was."""
        options = next((each.options for each in self._record.starts if each.configuration == case.configuration), {})
        asking = _asking(options)
        setup = replace(
            setup,
            # Before these could be told, every prompt was asked about, and every chunk that HBM lacked.
            recheck_s=float(asking.get(RECHECK_OPTION, 0.0)),
            ask_chunks=int(asking.get(ASK_OPTION, 1)),
        )
        # On this machine it is named so; on a deployed node by its unit.
        told = options.get("lmcache", options.get("lmcache.service"))
        if not isinstance(told, Mapping):
            return setup
        flags: Any = told["flags"]
        # Without a flag it is LMCache's own default.
        retain = flags.get("--l2-prefetch-policy", "default") == "retain"
        return replace(setup, retain=retain, lookups=int(flags.get("--l2-prefetch-max-in-flight", 8)))

    def _block(self, settings: Mapping[str, Any]) -> int:
        """Return the tokens of a block of vLLM's."""
        given = (settings.get("engine") or {}).get("block-size")
        return given if isinstance(given, int) else BLOCK_TOKENS["cuda" if self._record.stack.get("gpus") else "cpu"]

    def _tiers(self, case: Case) -> tuple[Tier, ...] | None:
        """Return the tiers of a configuration, each at its rate; None where a plan cannot know them."""
        settings, name = case.settings, case.configuration
        if settings["cache"] == "none":
            return ()
        if settings["cache"] != "lmcache":
            self.notes.append(f"{name}: not predicted; a plan knows LMCache's daemon alone")
            return None
        width = self._replicas * self._kv.tensor_parallel
        link = self._measured.link_gbps or self._gpu.link_gbps
        share = 1.0 if link.basis is Basis.MEASURED else LINK_SHARE
        per_stored = self._kv.rank_bytes_per_token * self._kv.tensor_parallel / self._kv.stored_bytes_per_token
        dram = Tier(
            TierName.DRAM,
            ((LINKS, link.times(width * share / per_stored)),),
            None,
            float(settings["l1_gib"]),
            self._replicas,
        )
        if settings["stores"] == "none":
            return (dram,)
        # A pass that found nothing in the stores has no rate; the other pass's serves.
        rates = [
            each.seen.ssd_gbps for each in (case, *self.cases) if each.configuration == name and each.seen.ssd_gbps
        ]
        rate = self._measured.ssd_gbps or (rates[0] if rates else None)
        if rate is None:
            self.notes.append(f"{name}: not predicted; nothing told how fast its stores were")
            return None
        capacity = self._record.stack.get("store_gib"), self._record.stack.get("stores")
        gib = float(str(capacity[0] or 0)) * float(str(capacity[1] or 1))
        return (dram, Tier(TierName.SSD, (("as measured", rate),), dram, gib, self._replicas))

    def _line(self, case: Case, outcome: Outcome, base: Outcome | None) -> Line:
        seen = case.seen
        per_s = outcome.output_per_s * self._replicas
        ratio = outcome.output_per_s / base.output_per_s if base and base.output_per_s else None
        both = (
            (per_s, seen.output_per_s),
            (None if case.configuration == REFERENCE else ratio, seen.to_none),
            (outcome.hit_rate, seen.cached),
            (outcome.quantile(0.5), seen.ttft_p50),
            (outcome.quantile(0.95), seen.ttft_p95),
            (outcome.median_where(0.0, 0.0), seen.miss),
            (outcome.median_where(HIT_FROM, 1.0), seen.hit),
        )
        pairs = [
            Pair(name, predicted, measured)
            for name, (predicted, measured) in zip(QUANTITIES, both, strict=True)
            if predicted is not None and measured is not None
        ]
        helps = (ratio >= 1, seen.to_none >= 1) if ratio is not None and seen.to_none is not None else None
        return Line(
            case.workload,
            case.pass_,
            case.configuration,
            tuple(pairs),
            helps,
            self._tiers_rate(case),
        )

    def _tiers_rate(self, case: Case) -> Figure | None:
        tiers = self._tiers(case) or ()
        return next((tier.limits[0][1] for tier in tiers if tier.name is TierName.SSD), None)


def _asking(options: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what the engines' connector was told of asking LMCache."""
    for told in options.values():
        # On this machine beside the environment; of a deployed node the options alone.
        engine = told.get("options", told) if isinstance(told, Mapping) else {}
        if isinstance(transfer := engine.get("kv-transfer-config"), str):
            found: Mapping[str, Any] = json.loads(transfer).get("kv_connector_extra_config", {})
            return found
    return {}
