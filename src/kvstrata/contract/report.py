"""The tables of runs: on the terminal, and as Markdown for docs/routing.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from kvstrata.bench.errors import BenchError
from kvstrata.bench.sizes import GIB

HEADS = (
    "workers",
    "clock",
    "arm",
    "landed",
    "worker before",
    "max/mean requests",
    "max/mean computed",
    "hit rate",
    "shared: max/mean",
    "shared: hit rate",
)
_HEAD_LINES = 2
_COUNTED = ("requests", "own_cache", "other_tiers", "computed")
_OVERHEAD = (
    "reached_per_s",
    "routed_p50_ms",
    "direct_p50_ms",
    "routed_p99_ms",
    "direct_p99_ms",
    "added_p99_ms",
    "router_cores",
    "client_cores",
)
_BEGIN, _END = "<!-- kvstrata bench routing --report -->", "<!-- end -->"
_BEGIN_SITES = "<!-- kvstrata bench routing -i INVENTORY, --report -->"
SITE = "site"
UNIQUE, SHARED = "conversations", "shared prefix"


def rows(run: Mapping[str, Any]) -> list[list[str]]:
    """Return the cells of each arm that was under load; none where the run had other points alone."""
    slow_down = run["plan"].get("slow_down", 1.0)
    system = [str(run["target"]["workers"]), "1" if slow_down == 1 else f"1/{slow_down:g}"]
    measured = {one["arm"] for one in run["loads"]}
    return [[*system, arm["name"], *_cells(run, arm["name"])] for arm in run["arms"] if arm["name"] in measured]


def where(run: Mapping[str, Any]) -> str:
    """Return when, on what and how a run was made."""
    host, target, plan = run["host"], run["target"], run["plan"]
    versions = target["versions"]
    programs = ", ".join(f"{name} {versions[name]}" for name in ("vllm-router", "ai-dynamo") if name in versions)
    slow_down = plan.get("slow_down", 1.0)
    clock = (
        "" if slow_down == 1 else f"; the clock slowed {slow_down:g} times, so {slow_down * plan['seconds']:g} s each"
    )
    return (
        f"{run['created'][:10]}, {host['cpu']}, {host['cores']} cores, {host['memory_bytes'] / GIB:.0f} GiB, Linux "
        f"{host['kernel']}; {programs}; {target['workers']} workers ({_kind(target)}); {plan['rounds']} rounds of "
        f"{plan['seconds']:g} s at about {plan['per_s']:g} requests/s, seed {plan['seed']}{clock}"
    )


def _kind(target: Mapping[str, Any]) -> str:
    if target["kind"] != SITE:
        return str(target["kind"])
    return (
        f"site {target['site']}, profile {target['profile']}, {target['model']} on {target['accelerator']}, each with "
        f"{target['kv_blocks']} KV blocks of {target['block_size']} tokens, through the {target['through']}"
    )


def show(run: Mapping[str, Any], console: Console) -> None:
    """Print the table, the verdicts that are not met, and the notes."""
    table = Table(title=f"kvstrata bench routing: {where(run)}", title_justify="left")
    for head in HEADS:
        table.add_column(head, justify="left" if head == "arm" else "right", overflow="fold")
    for row in rows(run):
        table.add_row(*(escape(cell) for cell in row))
    if table.row_count:
        console.print(table)
    for one in run["verdicts"]:
        if one["claimed"] and one["ok"]:
            console.print(f"[green]met[/] {escape(one['arm'])}: {one['point']}: {escape(one['said'])}", highlight=False)
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
    lines = [f"- {'. '.join([where(run), *run['notes'], *_missing(run)]).rstrip('.')}." for run in runs]
    table = [f"| {' | '.join(HEADS)} |", "|" + "---|" * 3 + "---:|" * (len(HEADS) - 3)]
    every = sorted((row for run in runs for row in rows(run)), key=lambda row: int(row[0]))
    table += [f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in every]
    parts = [
        "\n".join(table) if len(table) > _HEAD_LINES else "",
        _sources(runs),
        _disruptions(runs),
        _overheads(runs),
        _saturations(runs),
        "\n".join(lines),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _missing(run: Mapping[str, Any]) -> list[str]:
    """Of a run on a site, what is claimed and could not be judged, and what went wrong."""
    if run["target"]["kind"] != SITE:
        return []
    unjudged = [
        one["said"].replace("NOT JUDGED", f"NOT JUDGED: {one['arm']}, {one['point']}", 1)
        for one in run["verdicts"]
        if one["claimed"] and one["said"].startswith("NOT JUDGED")
    ]
    return unjudged + [f"FAILED: {one['arm']}, {one['what']}: {one['error']}" for one in run["failures"]]


def into(page: str, text: str, *, sites: bool = False) -> str:
    """Return a page with the text between its two marks: those for deployed sites, or for mocked engines.

    Raises:
        BenchError: the page has no such marks.
    """
    mark = _BEGIN_SITES if sites else _BEGIN
    before, begin, rest = page.partition(mark)
    _, end, after = rest.partition(_END)
    if not begin or not end:
        raise BenchError(f"--into: the page has no lines {mark} and {_END}")
    return f"{before}{begin}\n\n{text}\n{end}{after}"


def of_sites(runs: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether runs are of deployed sites.

    Raises:
        BenchError: some are and some are not: each kind has its own place on a page.
    """
    kinds = {bool(run["target"]["kind"] == SITE) for run in runs}
    if len(kinds) != 1:
        raise BenchError("--report names runs of a deployed site and of mocked engines; allowed: one kind at a time")
    return kinds.pop()


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
    ]


def _sources(runs: Sequence[Mapping[str, Any]]) -> str:
    """What engines of sites counted: a router can aim at the first share alone."""
    lines = []
    for run in runs:
        totals: dict[tuple[str, str], dict[str, int]] = {}
        for one in run.get("sources", ()):
            total = totals.setdefault((one["arm"], one["workload"]), dict.fromkeys(_COUNTED, 0))
            for engine in one["engines"].values():
                for name in _COUNTED:
                    total[name] += engine[name]
        for (arm, workload), total in totals.items():
            tokens = sum(total[name] for name in _COUNTED[1:])
            shares = " | ".join(_share(total[name], tokens) for name in _COUNTED[1:])
            lines.append(f"| {arm} | {workload} | {total['requests']} | {tokens} | {shares} |")
    head = "| arm | workload | requests | prompt tokens | own cache | LMCache and stores | computed |\n"
    return head + "|---|---|---:|---:|---:|---:|---:|\n" + "\n".join(lines) if lines else ""


def _disruptions(runs: Sequence[Mapping[str, Any]]) -> str:
    lines = []
    for run in runs:
        for arm, found in run["disruptions"].items():
            for what in dict.fromkeys(one["what"] for one in found):
                rounds = [one for one in found if one["what"] == what]
                counts = " | ".join(
                    str(sum(one[name] for one in rounds)) for name in ("requests", "failed", "cut", "retried")
                )
                about = f"{run['target']['workers']} | {run['plan']['routers']} | {arm} | {what} | {len(rounds)}"
                lines.append(f"| {about} | {counts} | {_back([one['back_s'] for one in rounds])} |")
    head = (
        "| workers | routers | arm | event | rounds | requests | failed | of them cut streams | retried | "
        "locality back |\n"
    )
    return head + "|---|---|---|---|---:|---:|---:|---:|---:|---:|\n" + "\n".join(lines) if lines else ""


def _back(seconds: Sequence[float | None]) -> str:
    """The median, and where there were several rounds the worst."""
    known = [one for one in seconds if one is not None]
    worst = "not" if len(known) < len(seconds) else f"{max(known):.0f} s"
    return worst if len(seconds) == 1 or not known else f"{median(known):.0f} s, worst {worst}"


def _overheads(runs: Sequence[Mapping[str, Any]]) -> str:
    lines = []
    for run in runs:
        for arm, found in run["overheads"].items():
            cells = [str(run["host"]["cores"]), f"{found[0]['wanted_per_s']:g}"]
            cells += [_median([one[name] for one in found]) for name in _OVERHEAD]
            lines.append(f"| {arm} | {len(found)} | {' | '.join(cells)} | {sum(one['failed'] for one in found)} |")
    head = (
        "| arm | rounds | cores in all | asked/s | reached/s | P50 routed, ms | direct | P99 routed, ms | direct | "
        "P99 adds, ms | router cores | client cores | failed |\n"
    )
    return head + "|---|" + "---:|" * 12 + "\n" + "\n".join(lines) if lines else ""


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
