"""Progress while nodes are checked: on a terminal a live board, elsewhere lines that a log can keep."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table

from kvstrata.verify import phases
from kvstrata.verify.check import Group as Checked
from kvstrata.verify.check import Layer, Status

MARKS = {
    Status.PASS: "[green]ok[/]",
    Status.FAIL: "[bold red]FAIL[/]",
    Status.SKIP: "[yellow]SKIP[/]",
    Status.ERROR: "[bold magenta]ERROR[/]",
}
# With more nodes, a line for each layer of each that is well would bury those that are not.
FEW_NODES = 8
# As many nodes are named that are still waited for, those first that are silent for longest.
_NAMED = 4
_BAR_WIDTH = 30
_PER_SECOND = 4


class Board:
    """What is known of the run so far. Not safe for threads: the runner tells it from one."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Nothing has begun."""
        self._clock = clock
        self._owed: dict[str, list[Layer]] = {}
        self._since: dict[str, float] = {}
        self._layers: tuple[Layer, ...] = ()
        self._done: Counter[Layer] = Counter()
        self._bad: Counter[Layer] = Counter()
        self.doing = "starting"

    @property
    def nodes(self) -> int:
        """How many nodes are under verification."""
        return len(self._since)

    def begin(self, nodes: Sequence[str], layers: Sequence[Layer]) -> None:
        """See `Progress.begin`."""
        now = self._clock()
        self._owed = {name: list(layers) for name in nodes}
        self._since = dict.fromkeys(nodes, now)
        self._layers = tuple(layers)

    def group(self, group: Checked) -> None:
        """Take a finished layer of a node from what is owed."""
        owed = self._owed.get(group.host, [])
        if group.layer in owed:
            owed.remove(group.layer)
            self._since[group.host] = self._clock()
            self._done[group.layer] += 1
            self._bad[group.layer] += any(check.bad for check in group.checks)

    @property
    def waiting(self) -> list[tuple[str, Layer, float]]:
        """Nodes that owe something: name, the layer they are at, seconds since they were last heard of."""
        now = self._clock()
        owing = [(name, layers[0], now - self._since[name]) for name, layers in self._owed.items() if layers]
        return sorted(owing, key=lambda row: -row[2])

    def __rich__(self) -> RenderableType:
        """The board as it is now."""
        rows = Table.grid(padding=(0, 1))
        for layer in self._layers:
            done, bad = self._done[layer], self._bad[layer]
            told = f"{done}/{self.nodes} nodes" + (f", [bold red]{bad} not well[/]" if bad else "")
            rows.add_row(layer.value, ProgressBar(total=max(1, self.nodes), completed=done, width=_BAR_WIDTH), told)
        parts: list[RenderableType] = [Spinner("dots", escape(self.doing))]
        waiting = self.waiting
        if waiting:
            names = ", ".join(f"{escape(name)} ({layer}, {age:.0f} s)" for name, layer, age in waiting[:_NAMED])
            more = f" and {len(waiting) - _NAMED} more" if len(waiting) > _NAMED else ""
            parts += [rows, f"[dim]waiting for[/] {names}{more}"]
        return Group(*parts)


class ConsoleProgress:
    """Lines for what is finished, so that logs show it; below them the board, on a terminal.

    With more nodes than a few, layers that are well give no line of their own, but one for each tenth of all.
    """

    def __init__(self, console: Console) -> None:
        """Lines go to `console`."""
        self._console = console
        self._board = Board()
        self._live: Live | None = None
        self._finished = self._total = 0
        if console.is_terminal:
            self._live = Live(self._board, console=console, refresh_per_second=_PER_SECOND, transient=True)
            self._live.start()

    def begin(self, nodes: Sequence[str], layers: Sequence[Layer]) -> None:
        """See `Progress.begin`."""
        self._board.begin(nodes, layers)
        self._finished, self._total = 0, len(nodes) * len(layers)
        self.step(f"checking {len(nodes)} nodes: {', '.join(layers)}")

    def group(self, group: Checked) -> None:
        """See `Progress.group`."""
        self._board.group(group)
        many = self._board.nodes > FEW_NODES
        before, self._finished = self._finished, self._finished + 1
        status = phases.worst(group)
        if not many or status in (Status.FAIL, Status.ERROR):
            self._line(group, status)
        elif self._total and before * 10 // self._total != self._finished * 10 // self._total:
            self._print(f"[dim]..[/] {self._finished} of {self._total} layers of nodes checked")

    def step(self, text: str) -> None:
        """See `Progress.step`."""
        self._board.doing = text
        self._print(f"[dim]..[/] {escape(text)}")

    def close(self) -> None:
        """Take the board away."""
        if self._live is not None:
            self._live.stop()

    def _line(self, group: Checked, status: Status) -> None:
        passed = sum(check.status is Status.PASS for check in group.checks)
        self._print(
            f"{MARKS[status]} {group.layer.value} {escape(group.host)}: {passed} of {len(group.checks)} passed "
            f"in {group.duration_s:.1f} s"
        )

    def _print(self, text: str) -> None:
        self._console.print(text, highlight=False, soft_wrap=True)
