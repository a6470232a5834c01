"""Whether to run the proof of the tiers, on which nodes, and what to remember of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from kvstrata.cluster import Cluster, Node, TiersPolicy
from kvstrata.verify.check import Check, Layer, Question, Status, UnableError
from kvstrata.verify.context import NodeContext
from kvstrata.verify.document import TiersRow
from kvstrata.verify.shell import Shell
from kvstrata.verify.tiers import fingerprint, record
from kvstrata.verify.tiers.proof import Subject, TiersProof
from kvstrata.verify.tiers.record import Proof, Step

RERUN = "kvstrata verify -i <inventory> --tiers always"
# What the proof itself needs: an earlier failure here would only fail again, much more slowly.
_NEEDED = (Layer.HOST, Layer.STORE, Layer.CACHE, Layer.ENGINE)


@dataclass(frozen=True)
class TiersOptions:
    """What the user chose. `seed` makes the prompt; `nodes` of None means the first two that fit."""

    policy: TiersPolicy
    seed: str
    nodes: tuple[str, ...] | None = None


@dataclass(frozen=True)
class TiersOutcome:
    """The checks, and the steps to print: of this run, or of the recorded proof that still holds."""

    checks: tuple[Check, ...]
    steps: tuple[Step, ...] = ()
    proven_at: str | None = None
    seed: str | None = None
    fingerprint: str | None = None
    ran: bool = False

    def as_json(self) -> TiersRow:
        """The outcome without its checks, as a JSON object."""
        return {
            "ran": self.ran,
            "proven_at": self.proven_at,
            "seed": self.seed,
            "fingerprint": self.fingerprint,
            "steps": [
                {
                    "name": step.name,
                    "node": step.node,
                    "ttft_s": step.ttft_s,
                    "prompt_tokens": step.prompt_tokens,
                    "hit_tokens": step.hit_tokens,
                    "l1_tokens": step.l1_tokens,
                    "l2_tokens": step.l2_tokens,
                }
                for step in self.steps
            ],
        }


def run(
    cluster: Cluster,
    contexts: Mapping[str, NodeContext],
    shells: Mapping[str, Shell],
    earlier: Sequence[Check],
    options: TiersOptions,
    say: Callable[[str], None],
) -> TiersOutcome:
    """Prove the tiers, or say why not. `contexts` are the nodes under verification that answer."""
    if options.policy is TiersPolicy.NEVER:
        return _skipped(cluster, "--tiers never. Not proven here: that KV survives a restart and is shared by nodes")
    if not any(node.stores for node in cluster.nodes):
        return _skipped(cluster, "the inventory has no store. Not proven here: any tier below DRAM")
    names, why_not = choose(cluster, contexts, options.nodes)
    if not names:
        return _skipped(cluster, why_not)
    bad = sorted({check.host for check in earlier if check.bad and check.layer in _NEEDED} & set(names))
    if bad:
        return _skipped(cluster, f"checks failed on {', '.join(bad)}: the tiers are not proven")
    try:
        mark: str | None = fingerprint.fingerprint(cluster, shells, names)
        unmarked = ""
    except UnableError as error:
        mark, unmarked = None, str(error)
    known = record.load(cluster.verify.state_dir)
    if options.policy is TiersPolicy.IF_CHANGED and known is not None and known.fingerprint == mark:
        return _still_proven(cluster, names, known)
    return _prove(cluster, contexts, names, options.seed, mark, unmarked, say)


def choose(
    cluster: Cluster, contexts: Mapping[str, NodeContext], wanted: tuple[str, ...] | None
) -> tuple[tuple[str, ...], str]:
    """One or two node names for the proof, or none and why."""
    fit = [node.name for node in cluster.nodes if node.name in contexts and _fits(node)]
    if wanted is None:
        names, why = tuple(fit[:2]), "no node under verification that answers has an engine with LMCache"
        return names, "" if names else why
    unfit = [name for name in wanted if name not in fit]
    if unfit:
        return (), f"--tier-nodes: {', '.join(unfit)} is not a node under verification with engine and LMCache"
    return wanted, ""


def _fits(node: Node) -> bool:
    """Whether its first engine, the one that is asked, has KV and somewhere to put it."""
    return bool(node.engines) and node.engines[0].has_model and node.lmcache is not None


def _prove(
    cluster: Cluster,
    contexts: Mapping[str, NodeContext],
    names: tuple[str, ...],
    seed: str,
    mark: str | None,
    unmarked: str,
    say: Callable[[str], None],
) -> TiersOutcome:
    subjects = [Subject.of(contexts[name]) for name in names]
    routing = next((ctx for ctx in contexts.values() if ctx.node.router is not None), None)
    say(f"proving the tiers on {' and '.join(names)}; restarts engine and LMCache on {names[0]} (seed {seed})")
    started = time.monotonic()
    proof = TiersProof(subjects[0], subjects[1] if len(subjects) > 1 else None, routing, seed, say)
    checks = proof.run()
    now = datetime.now(UTC).isoformat(timespec="seconds")
    proven = not any(check.bad for check in checks) and _all_steps(checks, len(subjects))
    if proven and mark is not None:
        took = round(time.monotonic() - started, 3)
        done = Proof(mark, now, seed, took, tuple(proof.steps))
        checks += _record(cluster, done)
    elif proven:
        checks.append(
            _question(cluster, "tiers.record", "the proof is kept").skip(
                f"{unmarked}; the proof will run again next time"
            )
        )
    return TiersOutcome(tuple(checks), tuple(proof.steps), now if proven else None, seed, mark, ran=True)


def _all_steps(checks: Sequence[Check], subjects: int) -> bool:
    """Whether nothing was skipped that these nodes could have shown."""
    allowed = {"tiers.router"} | ({"tiers.other_node"} if subjects == 1 else set())
    return all(check.status is Status.PASS or check.id in allowed for check in checks)


def _record(cluster: Cluster, proof: Proof) -> list[Check]:
    try:
        record.save(cluster.verify.state_dir, proof)
    except OSError as error:
        question = _question(cluster, "tiers.record", "the proof is kept")
        return [question.skip(f"{cluster.verify.state_dir}: {error.strerror}; it will run again next time")]
    return []


def _still_proven(cluster: Cluster, names: tuple[str, ...], known: Proof) -> TiersOutcome:
    times = ", ".join(f"{step.name} {step.ttft_s:.2f} s" for step in known.steps)
    question = _question(cluster, "tiers.proof", "only the stores kept it; another node found it")
    seen = f"tiers proven {known.proven_at}, unchanged since (fingerprint {known.fingerprint[:12]}): TTFT {times}"
    checks = [question.ask(lambda: seen)]
    if len(names) == 1:
        checks.append(
            _question(cluster, "tiers.other_node", "served from what the first node stored").skip(
                "one node only. Not proven here: that nodes share the cache"
            )
        )
    return TiersOutcome(tuple(checks), known.steps, known.proven_at, known.seed, known.fingerprint)


def _skipped(cluster: Cluster, why: str) -> TiersOutcome:
    return TiersOutcome((_question(cluster, "tiers.proof", "KV survives restarts and is shared").skip(why),))


def _question(cluster: Cluster, check_id: str, expected: str) -> Question:
    return Question(check_id, Layer.TIERS, cluster.site, "proof of the tiers", expected, RERUN)
