"""The report for people: a table, the failures, the times and a verdict."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table

from kvstrata.verify.board import FEW_NODES, MARKS
from kvstrata.verify.check import Check, Layer, Status
from kvstrata.verify.result import Result, Verdict


def show(result: Result, console: Console) -> None:
    """Print the whole report."""
    console.print(_table(result))
    for check in result.checks:
        if check.bad:
            console.print(_details(check))
    if result.tiers.steps:
        console.print(_times(result))
    console.print(verdict(result), highlight=False, soft_wrap=True)


def verdict(result: Result) -> str:
    """The last line, with markup."""
    passed, failed = result.count(Status.PASS), result.count(Status.FAIL)
    errors, skipped = result.count(Status.ERROR), result.count(Status.SKIP)
    where = f"on {len(result.nodes)} node{'s' if len(result.nodes) != 1 else ''} in {result.duration_s:.1f} s"
    notes = f", {skipped} NOT checked" if skipped else ""
    match result.verdict:
        case Verdict.OK:
            return f"[bold green]OK[/]: {passed} checks passed {where}{notes}"
        case Verdict.FAILED:
            unsure = f", {errors} could not be made" if errors else ""
            return f"[bold red]FAILED[/]: {failed} of {len(result.checks)} checks failed {where}{unsure}{notes}"
        case Verdict.COULD_NOT_CHECK:
            return f"[bold magenta]COULD NOT CHECK[/]: {errors} checks could not be made {where}{notes}"


def _table(result: Result) -> Table:
    table = Table(title=f"kvstrata verify: {escape(result.cluster.site)}", title_justify="left", expand=False)
    for name, options in (("", {"no_wrap": True}), ("layer", {"no_wrap": True}), ("host", {"no_wrap": True})):
        table.add_column(name, **options)  # type: ignore[arg-type]
    table.add_column("check", overflow="fold")
    table.add_column("seen", overflow="fold")
    rows = list(_rows(result))
    for index, (layer, status, cells) in enumerate(rows):
        last = index + 1 == len(rows) or rows[index + 1][0] is not layer
        table.add_row(MARKS[status], layer.value, *(escape(cell) for cell in cells), end_section=last)
    return table


def _rows(result: Result) -> Iterator[tuple[Layer, Status, tuple[str, str, str]]]:
    """Every check; of many nodes those that are well together, each kind of check in one row."""
    if len(result.nodes) <= FEW_NODES:
        for check in result.checks:
            yield check.layer, check.status, (check.host, check.what, check.seen)
        return
    for layer in Layer:
        well: dict[str, list[Check]] = {}
        for check in result.checks:
            if check.layer is layer and check.status is Status.PASS:
                well.setdefault(check.id, []).append(check)
        for check_id, checks in well.items():
            hosts = len({check.host for check in checks})
            many = f"{hosts} node{'s' if hosts != 1 else ''}"
            yield layer, Status.PASS, (many, check_id, f"{len(checks)} passed, as {checks[0].seen}")
        for check in result.checks:
            if check.layer is layer and check.status is not Status.PASS:
                yield layer, check.status, (check.host, check.what, check.seen)


def _details(check: Check) -> Panel:
    rows = Table.grid(padding=(0, 2))
    for name in ("expected", "seen", "hint"):
        # Folded and not cut: a command must survive whole.
        rows.add_row(f"[bold]{name}[/]", escape(getattr(check, name)))
    title = f"{MARKS[check.status]} {escape(check.host)}: {escape(check.what)} [dim]({check.id})[/]"
    return Panel(rows, title=title, title_align="left")


def _times(result: Result) -> Table:
    steps = result.tiers.steps
    when = "this run" if result.tiers.ran else f"proven {result.tiers.proven_at}"
    table = Table(title=f"time to first token ({when}, seed {result.tiers.seed})", title_justify="left")
    for name in ("prompt", "node"):
        table.add_column(name)
    for name in ("TTFT", "against cold", "prompt tokens", "from cache", "of it L1", "of it L2"):
        table.add_column(name, justify="right")
    cold = steps[0].ttft_s
    for step in steps:
        ratio = f"{cold / step.ttft_s:.1f}x faster" if step is not steps[0] and step.ttft_s > 0 else ""
        numbers = (step.prompt_tokens, step.hit_tokens, step.l1_tokens, step.l2_tokens)
        table.add_row(escape(step.name), escape(step.node), f"{step.ttft_s:.2f} s", ratio, *(f"{n}" for n in numbers))
    return table
