"""The report for people: progress while it runs, then a table, the failures, the times and a verdict."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.panel import Panel
from rich.status import Status as Spinner
from rich.table import Table

from kvstrata.verify.check import Check, Group, Status
from kvstrata.verify.result import Result, Verdict

_MARKS = {
    Status.PASS: "[green]ok[/]",
    Status.FAIL: "[bold red]FAIL[/]",
    Status.SKIP: "[yellow]SKIP[/]",
    Status.ERROR: "[bold magenta]ERROR[/]",
}


class ConsoleProgress:
    """A line for each finished group, so that logs show it; a spinner beside it on a terminal."""

    def __init__(self, console: Console) -> None:
        """Lines go to `console`."""
        self._console = console
        self._spinner: Spinner | None = None
        if console.is_terminal:
            self._spinner = console.status("verifying")
            self._spinner.start()

    def group(self, group: Group) -> None:
        """See `Progress.group`."""
        worst = max(group.checks, key=_gravity, default=None)
        mark = _MARKS[Status.PASS if worst is None else worst.status]
        passed = sum(check.status is Status.PASS for check in group.checks)
        self._console.print(
            f"{mark} {group.layer.value} {escape(group.host)}: {passed} of {len(group.checks)} passed "
            f"in {group.duration_s:.1f} s",
            highlight=False,
            soft_wrap=True,
        )

    def step(self, text: str) -> None:
        """See `Progress.step`."""
        self._console.print(f"[dim]..[/] {escape(text)}", highlight=False, soft_wrap=True)
        if self._spinner is not None:
            self._spinner.update(escape(text))

    def close(self) -> None:
        """Take the spinner away."""
        if self._spinner is not None:
            self._spinner.stop()


def _gravity(check: Check) -> int:
    return (Status.PASS, Status.SKIP, Status.ERROR, Status.FAIL).index(check.status)


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
    for index, check in enumerate(result.checks):
        last = index + 1 == len(result.checks) or result.checks[index + 1].layer is not check.layer
        cells = (check.layer.value, check.host, check.what, check.seen)
        table.add_row(_MARKS[check.status], *(escape(cell) for cell in cells), end_section=last)
    return table


def _details(check: Check) -> Panel:
    rows = Table.grid(padding=(0, 2))
    for name in ("expected", "seen", "hint"):
        # Folded and not cut: a command must survive whole.
        rows.add_row(f"[bold]{name}[/]", escape(getattr(check, name)))
    title = f"{_MARKS[check.status]} {escape(check.host)}: {escape(check.what)} [dim]({check.id})[/]"
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
