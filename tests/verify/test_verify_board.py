"""What is seen while nodes are checked."""

from __future__ import annotations

import io

from rich.console import Console

from kvstrata.verify.board import FEW_NODES, Board, ConsoleProgress
from kvstrata.verify.check import Check, Group, Layer, Status

LAYERS = (Layer.HOST, Layer.STORE)


def group(host: str, layer: Layer = Layer.HOST, status: Status = Status.PASS) -> Group:
    check = Check(f"{layer}.x", layer, host, "what", "right", "seen", status, "look")
    return Group(layer, host, (check,), 0.5)


def drawn(board: Board) -> str:
    console = Console(file=io.StringIO(), width=120)
    console.print(board)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def lines(nodes: int, groups: list[Group], terminal: bool = False) -> list[str]:
    console = Console(file=io.StringIO(), width=120, force_terminal=terminal)
    progress = ConsoleProgress(console)
    progress.begin([f"n{index}" for index in range(nodes)], LAYERS)
    for one in groups:
        progress.group(one)
    progress.close()
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def test_the_board_names_who_is_waited_for_the_longest_silent_first() -> None:
    now = [0.0]
    board = Board(lambda: now[0])
    board.begin(["n1", "n2", "n3"], LAYERS)
    now[0] = 5.0
    board.group(group("n1"))
    board.group(group("n2", status=Status.FAIL))
    board.group(group("n2", Layer.STORE))
    now[0] = 8.0
    assert board.waiting == [("n3", Layer.HOST, 8.0), ("n1", Layer.STORE, 3.0)]
    text = drawn(board)
    assert "waiting for n3 (host, 8 s), n1 (store, 3 s)" in text
    assert "2/3 nodes, 1 not well" in text
    assert "1/3 nodes" in text


def test_when_all_are_done_only_what_is_being_done_is_shown() -> None:
    board = Board()
    board.begin(["n1"], (Layer.HOST,))
    board.group(group("n1"))
    board.doing = "proving the tiers"
    assert drawn(board).strip().endswith("proving the tiers")


def test_of_a_few_nodes_every_layer_has_a_line() -> None:
    told = lines(2, [group("n0"), group("n1")])
    assert told[1:] == ["ok host n0: 1 of 1 passed in 0.5 s", "ok host n1: 1 of 1 passed in 0.5 s"]


def test_of_many_nodes_only_those_that_are_not_well_have_one_and_each_tenth_is_told() -> None:
    nodes = FEW_NODES * 10
    groups = [group(f"n{index}", layer) for layer in LAYERS for index in range(nodes)]
    groups[3] = group("n3", status=Status.FAIL)
    told = lines(nodes, groups)
    assert "FAIL host n3: 0 of 1 passed in 0.5 s" in told
    assert sum("layers of nodes checked" in line for line in told) == 10
    assert len(told) == 12


def test_on_a_terminal_the_board_is_there_and_then_gone() -> None:
    text = "\n".join(lines(2, [group("n0")], terminal=True))
    assert "ok" in text
    assert "host n0" in text
