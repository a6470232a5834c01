"""The tables of runs: on the terminal, and as Markdown for docs/routing.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from kvstrata.bench.sizes import GIB

HEADS = (
    "workers",
    "arm",
    "landed",
    "worker before",
    "max/mean requests",
    "max/mean computed",
    "hit rate",
    "shared: max/mean",
    "shared: hit rate",
    "disrupted",
    "P99 adds",
)
UNIQUE, SHARED = "conversations", "shared prefix"


def rows(run: Mapping[str, Any]) -> list[list[str]]:
    """Return the cells of each arm."""
    workers = str(run["target"]["workers"])
    return [[workers, arm["name"], *_cells(run, arm["name"])] for arm in run["arms"]]


def where(run: Mapping[str, Any]) -> str:
    """Return when, on what and how a run was made."""
    host, target, plan = run["host"], run["target"], run["plan"]
    versions = target["versions"]
    programs = ", ".join(f"{name} {versions[name]}" for name in ("vllm-router", "ai-dynamo") if name in versions)
    return (
        f"{run['created'][:10]}, {host['cpu']}, {host['cores']} cores, {host['memory_bytes'] / GIB:.0f} GiB, Linux "
        f"{host['kernel']}; {programs}; {target['workers']} workers ({target['kind']}); {plan['rounds']} rounds of "
        f"{plan['seconds']:g} s at about {plan['per_s']:g} requests/s, seed {plan['seed']}"
    )


def show(run: Mapping[str, Any], console: Console) -> None:
    """Print the table, the verdicts that are not met, and the notes."""
    table = Table(title=f"kvstrata bench routing: {where(run)}", title_justify="left")
    for head in HEADS:
        table.add_column(head, justify="left" if head == "arm" else "right", overflow="fold")
    for row in rows(run):
        table.add_row(*(escape(cell) for cell in row))
    console.print(table)
    for one in run["verdicts"]:
        if one["claimed"] and one["ok"] is False:
            console.print(
                f"[bold red]NOT MET[/] {escape(one['arm'])}: {one['point']}: {escape(one['said'])}", highlight=False
            )
    for one in run["failures"]:
        console.print(
            f"[bold red]FAILED[/] {escape(one['arm'])}: {escape(one['error'].splitlines()[0])}", highlight=False
        )
    for note in run["notes"]:
        console.print(escape(note), highlight=False)


def markdown(runs: Sequence[Mapping[str, Any]]) -> str:
    """Return one table for all runs, and what is behind it."""
    lines = [f"- {where(run)}." for run in runs]
    table = [f"| {' | '.join(HEADS)} |", "|" + "---|" * 2 + "---:|" * (len(HEADS) - 2)]
    table += [f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for run in runs for row in rows(run)]
    parts = ["\n".join(table), _disruptions(runs), _overheads(runs), _saturations(runs), "\n".join(lines)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _cells(run: Mapping[str, Any], arm: str) -> list[str]:
    unique = [one for one in run["loads"] if one["arm"] == arm and one["workload"] == UNIQUE]
    shared = [one for one in run["loads"] if one["arm"] == arm and one["workload"] == SHARED]
    verdicts = {one["point"]: one for one in run["verdicts"] if one["arm"] == arm}

    def marked(point: str, text: str) -> str:
        one = verdicts.get(point)
        return (
            text
            if one is None or not one["claimed"] or one["ok"] is None
            else text + (" ok" if one["ok"] else " **no**")
        )

    locals_ = [one["locality"] for one in unique if one["locality"]]
    landed = _share(sum(one["landed"] for one in locals_), sum(one["resident"] for one in locals_))
    same = _share(sum(one["same_worker"] for one in locals_), sum(one["followups"] for one in locals_))
    return [
        marked("locality", landed),
        same,
        marked("spread", _median([one["spread"]["requests_ratio"] for one in unique])),
        _median([one["spread"]["computed_ratio"] for one in unique]),
        _share(sum(one["cached_tokens"] for one in unique), sum(one["prompt_tokens"] for one in unique)),
        marked("hot", _median([one["spread"]["requests_ratio"] for one in shared])),
        _share(sum(one["cached_tokens"] for one in shared), sum(one["prompt_tokens"] for one in shared)),
        marked("disruption", _disrupted(run["disruptions"].get(arm, []))),
        marked("overhead", _added(verdicts.get("overhead"))),
    ]


def _disrupted(found: Sequence[Mapping[str, Any]]) -> str:
    if not found:
        return ""
    failed = sum(one["failed"] for one in found)
    backs = [one["back_s"] for one in found]
    return f"{failed} failed, back in {max(backs):.0f} s" if None not in backs else f"{failed} failed, not back"


def _added(verdict: Mapping[str, Any] | None) -> str:
    return "" if verdict is None or verdict["value"] is None else f"{verdict['value']:.2f} ms"


def _disruptions(runs: Sequence[Mapping[str, Any]]) -> str:
    lines = []
    for run in runs:
        for arm, found in run["disruptions"].items():
            for one in found:
                back = "not" if one["back_s"] is None else f"{one['back_s']:.0f} s"
                counts = " | ".join(str(one[name]) for name in ("requests", "failed", "cut", "retried"))
                about = f"{run['target']['workers']} | {run['plan']['routers']} | {arm} | {one['what']}"
                lines.append(f"| {about} | {counts} | {back} |")
    head = "| workers | routers | arm | event | requests | failed | of them cut streams | retried | locality back |\n"
    return head + "|---|---|---|---|---:|---:|---:|---:|---:|\n" + "\n".join(lines) if lines else ""


def _overheads(runs: Sequence[Mapping[str, Any]]) -> str:
    lines = [
        f"| {arm} | {one['wanted_per_s']:g} | {one['reached_per_s']:.0f} | {one['routed_p50_ms']:.2f} | "
        f"{one['direct_p50_ms']:.2f} | {one['routed_p99_ms']:.2f} | {one['direct_p99_ms']:.2f} | "
        f"{one['added_p99_ms']:.2f} | {one['router_cores']:.2f} | {one['client_cores']:.2f} |"
        for run in runs
        for arm, found in run["overheads"].items()
        for one in found
    ]
    head = (
        "| arm | asked/s | reached/s | P50 routed | P50 direct | P99 routed | P99 direct | P99 adds, ms | "
        "router cores | client cores |\n"
    )
    return head + "|---|" + "---:|" * 9 + "\n" + "\n".join(lines) if lines else ""


def _saturations(runs: Sequence[Mapping[str, Any]]) -> str:
    lines = [
        f"| {one['arm']} | {one['workers']} | {one['clients']} | {one['per_s']:.1f} | "
        f"{_share(one['cached_tokens'], one['prompt_tokens'])} | {one['failed']} |"
        for run in runs
        for one in run["saturations"]
    ]
    head = "| arm | workers | clients | answers/s | hit rate | failed |\n|---|---:|---:|---:|---:|---:|\n"
    return head + "\n".join(lines) if lines else ""


def _share(part: float, whole: float) -> str:
    return f"{part / whole:.1%}" if whole else "-"


def _median(values: Sequence[float]) -> str:
    middle = sorted(values)
    if not middle:
        return ""
    half = len(middle) // 2
    return f"{middle[half] if len(middle) % 2 else (middle[half - 1] + middle[half]) / 2:.2f}"
