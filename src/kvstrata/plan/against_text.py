"""A plan's predictions beside what was measured, for a terminal, for a page, and as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from kvstrata.plan.compared import QUANTITIES, TOLERANCE, Block, Comparison, Line, Pair

SCHEMA = "kvstrata.plan.against/1"
HEADS = ("configuration", *QUANTITIES, "helps")
_FORMS = {"output tokens/s": ",.1f", "cached": ".0%", "to none": ".2f"}
_KEYS = ("output_per_s", "to_none", "cached", "ttft_p50_s", "ttft_p95_s", "miss_s", "hit_s")


def show(found: Comparison, console: Console) -> None:
    """Print a table for each workload and pass, and last what is off."""
    console.print(escape(summary(found)), highlight=False, soft_wrap=True)
    for block in found.blocks:
        for group, lines in _groups(block).items():
            table = Table(title=escape(f"{group}; {title(block)}"), title_justify="left")
            for index, head in enumerate(HEADS):
                table.add_column(head, justify="left" if index == 0 else "right", overflow="fold")
            for line in lines:
                table.add_row(*map(escape, cells(line)))
            console.print(table)
    for text in sentences(found):
        console.print(escape(text), highlight=False, soft_wrap=True)


def markdown(found: Comparison) -> Iterator[str]:
    """Yield the lines of the same as Markdown."""
    yield summary(found)
    for block in found.blocks:
        for group, lines in _groups(block).items():
            yield ""
            yield f"{group}; {title(block)}:"
            yield ""
            yield "| " + " | ".join(HEADS) + " |"
            yield "|---|" + "---:|" * (len(HEADS) - 1)
            for line in lines:
                yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells(line)) + " |"
    yield ""
    yield from (f"- {text}" for text in sentences(found))


def as_document(found: Comparison) -> dict[str, Any]:
    """Return everything as JSON."""
    return {
        "schema": SCHEMA,
        "exit_code": int(found.off),
        "model": found.shape.name,
        "gpu": found.gpu.name,
        "tolerance": TOLERANCE,
        "blocks": [
            {
                "title": block.title,
                "mfu": block.mfu.value,
                "lines": [
                    {
                        "workload": line.workload,
                        "pass": line.pass_,
                        "configuration": line.configuration,
                        "ssd_gbps": line.ssd_gbps.value if line.ssd_gbps else None,
                        "helps": list(line.helps) if line.helps else None,
                        "quantities": {_KEYS[QUANTITIES.index(pair.quantity)]: _pair(pair) for pair in line.pairs},
                    }
                    for line in block.lines
                ],
            }
            for block in found.blocks
        ],
        "room": [_pair(pair) for pair in found.room],
        "alone": [{"what": pair.quantity} | _pair(pair) for pair in found.alone],
        "notes": list(found.notes),
    }


def summary(found: Comparison) -> str:
    """Return what was predicted, and how a cell reads."""
    return (
        f"{found.shape.name} on {found.gpu.name}: predicted / measured (error); ! is off by more than {TOLERANCE:.0%}."
    )


def title(block: Block) -> str:
    """Return what a block's MFU is and rests on."""
    return f"{block.title}, {block.mfu.value:.2f} ({block.mfu.basis})"


def cells(line: Line) -> list[str]:
    """Return the texts of a line, under HEADS."""
    by = {pair.quantity: pair for pair in line.pairs}
    told = "" if line.helps is None else " / ".join("yes" if helps else "no" for helps in line.helps)
    rate = f" (SSD {line.ssd_gbps.value:.2f} GB/s)" if line.ssd_gbps else ""
    return [
        line.configuration + rate,
        *(text(by[name]) if name in by else "-" for name in QUANTITIES),
        told + (" !" if line.wrong else ""),
    ]


def text(pair: Pair) -> str:
    """Return predicted, measured and error."""
    form = _FORMS.get(pair.quantity, ".3f")
    both = f"{pair.predicted:{form}} / {pair.measured:{form}}"
    return f"{both} ({pair.error:+.0%}{' !' if pair.off else ''})"


def sentences(found: Comparison) -> Iterator[str]:
    """Yield what is off, quantity by quantity, the rest of what was compared, and the notes."""
    for block in found.blocks:
        for name in QUANTITIES:
            pairs = [(line, pair) for line in block.lines for pair in line.pairs if pair.quantity == name]
            off = [(line, pair) for line, pair in pairs if pair.off]
            if off:
                line, worst = max(off, key=lambda each: abs(each[1].error))
                where = f"{line.configuration}, {line.workload}, {line.pass_}"
                yield (
                    f"OFF {name}, {block.title}: {len(off)} of {len(pairs)} by more than {TOLERANCE:.0%}, "
                    f"the most {worst.error:+.0%} ({where})"
                )
        wrong = [f"{line.configuration}, {line.workload}, {line.pass_}" for line in block.lines if line.wrong]
        if wrong:
            yield f"WRONG about what helps, {block.title}: {'; '.join(wrong)}"
        if not block.off and not wrong:
            yield f"all within {TOLERANCE:.0%}, {block.title}"
    for pair in (*found.room, *found.alone):
        yield f"{'OFF ' if pair.off else ''}{pair.quantity}: {text(pair)}"
    yield from (f"NOTE {note}" for note in found.notes)


def _groups(block: Block) -> Mapping[str, Sequence[Line]]:
    groups: dict[str, list[Line]] = {}
    for line in block.lines:
        groups.setdefault(f"{line.workload}, {line.pass_}", []).append(line)
    return groups


def _pair(pair: Pair) -> dict[str, float | bool]:
    return {"predicted": pair.predicted, "measured": pair.measured, "error": pair.error, "off": pair.off}
