"""The plan for people."""

from __future__ import annotations

import re
from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from kvstrata.plan.assess import Plan, TierPlan
from kvstrata.plan.document import figures
from kvstrata.plan.figures import Figure
from kvstrata.plan.suggest import as_yaml
from kvstrata.plan.tiers import Verdict

GIB = 1 << 30
_DRIVE = re.compile(r"drive_(\w+)_(read_gbps|write_gbps|tbw)")


def show(plan: Plan, console: Console, notes: Sequence[str] = ()) -> None:
    """Print everything, the verdict last."""
    for note in notes:
        console.print(f"[bold yellow]note[/]: {escape(note)}", highlight=False)
    console.print(_summary(plan), highlight=False)
    console.print(_figures(plan))
    console.print(_tiers(plan))
    if plan.points:
        console.print(_curve(plan))
    if plan.wear_point:
        console.print(_wear_title(plan), highlight=False)
        console.print(_wear(plan))
    console.print("\nsuggested variables:\n")
    console.print(as_yaml(plan), markup=False, highlight=False, soft_wrap=True)
    for tier in plan.tiers:
        console.print(_sentence(tier), highlight=False, soft_wrap=True)


def _table(title: str, columns: Sequence[str]) -> Table:
    table = Table(title=title or None, title_justify="left")
    for index, name in enumerate(columns):
        table.add_column(name, justify="left" if index == 0 else "right", no_wrap=index == 0)
    return table


def _summary(plan: Plan) -> str:
    shape, kv, deployment = plan.deployment.shape, plan.engine.kv, plan.deployment
    size = f"{shape.parameters / 1e9:.1f}B parameters"
    if shape.experts:
        size += f", {shape.active_parameters / 1e9:.1f}B active"
    return (
        f"[bold]kvstrata plan[/]: {escape(shape.name)} ({size}, {shape.weight_bytes / GIB:.1f} GiB of weights), "
        f"{deployment.nodes} nodes of {plan.node.gpus} {escape(plan.node.gpu.name)}, {plan.replicas} replicas of "
        f"{deployment.tensor_parallel} GPUs on each\n"
        f"KV: {kv.stored_bytes_per_token / 1024:.1f} KiB a token in the tiers, "
        f"{kv.rank_bytes_per_token / 1024:.1f} KiB on each GPU; a replica's HBM holds {plan.hbm_tokens:,} tokens\n"
        f"break-even: {plan.min_load_gbps:g} GB/s for each replica at prompts of "
        f"{plan.question.workload.mean_prompt} tokens"
    )


def _figures(plan: Plan) -> Table:
    table = _table("what it rests on", ("figure", "value", "basis", "source"))
    table.columns[3].justify = "left"
    # Drives that are alike share a row.
    shown: dict[tuple[str, Figure], list[str]] = {}
    for name, figure in figures(plan).items():
        of_drive = _DRIVE.fullmatch(name)
        drive, what = of_drive.groups() if of_drive else ("", name)
        shown.setdefault((f"drives' {what}" if drive else what, figure), []).append(drive)
    for (name, figure), drives in shown.items():
        label = f"{name} ({', '.join(drives)})" if drives[0] else name
        table.add_row(escape(label), f"{figure.value:g}", str(figure.basis), escape(figure.source))
    return table


def _tiers(plan: Plan) -> Table:
    loads = plan.question.loads
    title = f"tiers: {loads} loads at once on a node; seconds until the last first token"
    table = _table(title, ("tier", "prompt", "loads", "miss s", "hit s", "margin", "break-even GB/s", "GB/s", ""))
    for planned in plan.tiers:
        rows = [planned.alone, planned.verdict, *planned.others]
        for index, verdict in enumerate(rows):
            table.add_row(
                str(planned.tier.name) if index == 0 else "",
                str(verdict.tokens),
                str(verdict.sharing),
                f"{verdict.miss_s:.3f}",
                f"{verdict.hit_s:.3f}",
                f"{verdict.margin:.2f}",
                _rate(verdict),
                f"{verdict.gbps:.3g}",
                "[green]pays[/]" if verdict.pays else "[red]hurts[/]",
                end_section=index == len(rows) - 1,
            )
    return table


def _rate(verdict: Verdict) -> str:
    return "never" if verdict.break_even_gbps == float("inf") else f"{verdict.break_even_gbps:.3g}"


def _curve(plan: Plan) -> Table:
    title = f"working set, workload {plan.question.workload.name}, seed {plan.question.seed}; simulated"
    names = ("users", "think s", "tiers", "hit rate", "HBM", "DRAM", "SSD", "tok/s a replica", "speed-up")
    table = _table(title, (*names, "TTFT P50 s", "P95 s", "TTFT ratio"))
    table.columns[2].justify = "left"
    for point in plan.points:
        for index, (name, outcome) in enumerate(point.outcomes.items()):
            total = max(1, outcome.prompt_tokens)
            table.add_row(
                f"{point.users:,}" if index == 0 else "",
                f"{point.think_s:g}" if index == 0 else "",
                name,
                f"{outcome.hit_rate:.0%}",
                *(f"{part / total:.0%}" for part in (outcome.hbm_tokens, outcome.dram_tokens, outcome.ssd_tokens)),
                f"{outcome.output_per_s:.0f}",
                f"{point.speedup(name):.2f}",
                f"{outcome.quantile(0.5):.2f}",
                f"{outcome.quantile(0.95):.2f}",
                f"{point.ttft_ratio(name):.2f}",
                end_section=index == len(point.outcomes) - 1,
            )
    return table


def _wear_title(plan: Plan) -> str:
    point = plan.wear_point
    users = f"{point.users:,} users who think {point.think_s:g} s" if point else "nobody"
    return (
        f"wear if {users} went on day and night and everything were written: {plan.offered_gbps:.2f} GB/s of new KV on "
        "each node"
    )


def _wear(plan: Plan) -> Table:
    table = _table("", ("drives", "TB/day each", "DWPD", "years to the rated TBW"))
    alike: dict[tuple[str, str, str], list[str]] = {}
    for wear in plan.wear:
        years = "no rating given" if wear.years is None else f"{wear.years:.1f}"
        alike.setdefault((f"{wear.tb_per_day:.2f}", f"{wear.dwpd:.2f}", years), []).append(wear.drive)
    for row, drives in alike.items():
        table.add_row(escape(", ".join(drives)), *row)
    return table


def _sentence(planned: TierPlan) -> str:
    tier, verdict = planned.tier, planned.verdict
    what = f"{planned.tokens:,} tokens, {verdict.gbps:.3g} GB/s by {tier.slowest[0]} ({tier.slowest[1].basis})"
    if verdict.pays:
        return f"[bold green]PAYS[/]  {tier.name}: a hit is {verdict.margin:.1f} times as quick; {what}"
    slower = 1 / verdict.margin
    most = f"pays up to {planned.most_loads} loads at once" if planned.most_loads else "a single load hurts too"
    return f"[bold red]HURTS[/] {tier.name}: a hit takes {slower:.1f} times as long as computing; {most}; {what}"
