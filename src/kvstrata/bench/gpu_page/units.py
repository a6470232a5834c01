"""The section of a page for what `benchmarks/gpu/units.sh` saw: the roles' units on a GPU host, killed engine and all.

`python -m kvstrata.bench.gpu_page.units FOLDER FILE` makes the file that is kept of what came back: units.json,
units-status.json, verify.json and host.json, packed or not. Left out is what tells of that one host alone.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kvstrata.bench.serving import report_file
from kvstrata.bench.serving.report_markdown import table

SCHEMA = "kvstrata.gpu.units/1"
STATES = ("pass", "fail", "error", "skip")
HEADS = ("layer", "passed", "failed", "in error", "left out")
# Of a layer that was not asked for the verifier has one check of this name, and says so.
_WHOLE_LAYER = "all"
_ANSWER = ("s", "cached")
_TIMES = ("engine_healthy_s", "router_healthy_s", "back_s", "healthy_again_s", "router_back_s")


@dataclass(frozen=True)
class Units:
    """What is kept of a run of units.sh. Times are None where that was not come to."""

    created: str
    ok: bool
    host: Mapping[str, Any]
    restarts: Mapping[str, int]
    """By unit: how often the runner had started it again when the results were taken."""
    not_applied: Mapping[str, Sequence[str]]
    """Settings of the units that the host did not allow; the units that have each of them."""
    times: Mapping[str, float | None]
    answers: Mapping[str, Sequence[Mapping[str, float]]]
    """Seconds and cached tokens of the prompts: `first`, the first of them `again`, and `after_restart`."""
    same_text: bool | None
    gpu_mib: Mapping[str, Sequence[int] | None]
    checks: Mapping[str, Mapping[str, int]]
    """The verifier's, by layer and status."""
    left_out: Mapping[str, str]
    """Checks that were not made, with why."""


def from_json(form: Mapping[str, Any]) -> Units:
    """Return what a kept file holds; KeyError or TypeError where it is none."""
    values = {name: value for name, value in form.items() if name != "schema"}
    return Units(**values)


def kept(folder: Path) -> dict[str, Any]:
    """Return the form of a kept file, of the folder of what came back.

    Raises:
        BenchError: a file is missing or none.
    """
    seen, verified, host = (_read(folder, name) for name in ("units.json", "verify.json", "host.json"))
    status = json.loads((folder / "units-status.json").read_text())
    checks = verified["checks"]
    whole = {each["layer"] for each in checks if each["id"] == f"{each['layer']}.{_WHOLE_LAYER}"}
    asked = [each for each in checks if each["layer"] not in whole]
    missing: dict[str, list[str]] = {}
    for unit in status:
        for setting in unit["not_applied"]:
            missing.setdefault(setting, []).append(unit["unit"])
    answers: dict[str, list[Any]] = {"first": seen["first"]}
    answers |= {name: [seen[name]] for name in ("again", "after_restart") if name in seen}
    return {
        "schema": SCHEMA,
        "created": verified["started_at"],
        "ok": bool(seen["ok"] and verified["ok"]),
        "host": host,
        "restarts": {unit["unit"]: unit["restarts"] for unit in status},
        "not_applied": missing,
        "times": {name: seen.get(name) for name in _TIMES},
        "answers": {
            name: [{field: answer[field] for field in _ANSWER} for answer in found] for name, found in answers.items()
        },
        "same_text": seen.get("same_text"),
        "gpu_mib": seen.get("gpu_mib") or {},
        "checks": {
            layer: dict(Counter(each["status"] for each in asked if each["layer"] == layer))
            for layer in dict.fromkeys(each["layer"] for each in asked)
        },
        "left_out": {each["id"]: each["seen"] for each in asked if each["status"] == "skip"},
    }


def section(run: Units) -> Iterator[str]:
    """Return the lines below the heading of a run."""
    host, packages = run.host, run.host.get("packages") or {}
    yield "| | |"
    yield "|---|---|"
    yield _fact("run", f"{run.created}, {'all of it went well' if run.ok else 'NOT ALL OF IT WENT WELL'}")
    yield _fact(
        "host", f"{host.get('cpu', 'unknown')}, {host.get('cores', '?')} cores, Linux {host.get('kernel', '?')}"
    )
    yield _fact("GPUs", "; ".join(str(host.get("gpus") or "none").splitlines()))
    yield _fact("versions", ", ".join(f"{name} {packages[name]}" for name in ("vllm", "lmcache") if name in packages))
    yield _fact("units, restarts", ", ".join(f"{unit} {count}" for unit, count in run.restarts.items()))
    yield _fact("engine healthy", _seconds(run, "engine_healthy_s"))
    yield _fact("router healthy after that", _seconds(run, "router_healthy_s"))
    for name, what in (("first", "prompts"), ("again", "the first again"), ("after_restart", "and after the kill")):
        yield _fact(
            what, "; ".join(f"{each['s']:.3f} s, {each['cached']:,} cached" for each in run.answers.get(name, ()))
        )
    yield _fact("engine killed: its process back", _seconds(run, "back_s"))
    yield _fact("healthy after that", _seconds(run, "healthy_again_s"))
    yield _fact("an answer through the router after that", _seconds(run, "router_back_s"))
    yield _fact("texts of the first prompt", {True: "all the same", False: "THEY DIFFER", None: "-"}[run.same_text])
    mib = (
        f"{name.replace('_', ' ')} {', '.join(f'{used:,}' for used in found or ())}"
        for name, found in run.gpu_mib.items()
    )
    yield _fact("MiB in use of each GPU", "; ".join(mib))
    yield ""
    yield from table(
        HEADS, [[layer, *(str(found.get(state, 0)) for state in STATES)] for layer, found in run.checks.items()]
    )
    if run.left_out:
        yield ""
        yield from (f"- {name}: {why}" for name, why in run.left_out.items())
    if run.not_applied:
        yield ""
        units = set(run.restarts)
        named = (
            f"`{setting}`" + ("" if set(of) == units else f" ({', '.join(of)})")
            for setting, of in run.not_applied.items()
        )
        yield f"Not applied by the unit runner ([units.md](units.md)): {', '.join(named)}."


def _fact(name: str, value: str) -> str:
    return f"| {name} | {value or '-'} |"


def _seconds(run: Units, name: str) -> str:
    found = run.times.get(name)
    return "-" if found is None else f"{found:.1f} s"


def _read(folder: Path, name: str) -> dict[str, Any]:
    plain = folder / name
    return report_file.read_object(plain if plain.exists() else plain.with_name(f"{name}.gz"))


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the file that is kept."""
    parser = argparse.ArgumentParser(
        prog="python -m kvstrata.bench.gpu_page.units", description="Keep a run of units.sh."
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("file", type=Path)
    options = parser.parse_args(arguments)
    options.file.write_text(json.dumps(kept(options.folder), indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
