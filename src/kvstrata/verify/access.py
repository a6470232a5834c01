"""The connections of a verification: opened in parallel, each node asked who it is."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from kvstrata.cluster import Node
from kvstrata.verify import hints
from kvstrata.verify.check import Check, Json, Layer, Question, Status
from kvstrata.verify.shell import Shell

# One command for all: os-release is a shell fragment, and the release link may not exist.
_WHO = '. /etc/os-release; echo "$PRETTY_NAME"; uname -r; readlink /opt/kvstrata/current || true'


def parallel[K, V](work: Mapping[K, Callable[[], V]], timeout_s: float) -> Iterator[tuple[K, V]]:
    """Results as they come, of work done at the same time; what isn't done in `timeout_s` seconds is left out.

    Unlike a thread pool, nothing waits for the ones left behind, not even the end of the program.
    """
    done: queue.Queue[tuple[K, V]] = queue.Queue()
    for key, job in work.items():
        # The defaults bind this round's values.
        def carry(key: K = key, job: Callable[[], V] = job) -> None:
            done.put((key, job()))

        threading.Thread(target=carry, daemon=True, name=f"verify {key}").start()
    deadline = time.monotonic() + timeout_s
    for _ in work:
        try:
            yield done.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            return


@dataclass(frozen=True)
class Greeting:
    """How a node answered, as the check `host.ssh`."""

    check: Check

    @property
    def reached(self) -> bool:
        """Whether checks can go on with this node."""
        return self.check.status is Status.PASS


def greet(nodes: tuple[Node, ...], shells: Mapping[str, Shell], timeout_s: float) -> dict[str, Greeting]:
    """Connect to every node; a node silent for `timeout_s` seconds is an error, and delays no other."""
    questions = {node.name: _question(node) for node in nodes}
    work = {name: _asker(question, shells[name]) for name, question in questions.items()}
    found = dict(parallel(work, timeout_s))
    for name, question in questions.items():
        if name not in found:
            found[name] = question.error(f"no answer within {timeout_s:g} s", timeout_s)
    return {node.name: Greeting(found[node.name]) for node in nodes}


def _question(node: Node) -> Question:
    return Question(
        "host.ssh",
        Layer.HOST,
        node.name,
        f"SSH to {node.ssh.user}@{node.ssh.host}",
        "connects with a known host key and runs commands as root",
        hints.on_node(node.ssh, "true"),
    )


def _asker(question: Question, shell: Shell) -> Callable[[], Check]:
    data: dict[str, Json] = {}

    def who() -> str:
        lines = [*shell.run(["sh", "-c", _WHO]).text().splitlines(), "", "", ""]
        system, kernel, release = lines[0], lines[1], lines[2].rpartition("/")[2]
        data.update({"os": system, "kernel": kernel, "release": release or None})
        return f"{system}, kernel {kernel}, release {release or 'none'}"

    return lambda: question.ask(who, data)
