"""Every store of a site, asked at the same time, each through the SSH connection of its own node."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import redis

from kvstrata.cluster import Cluster, Node, Store
from kvstrata.verify import resp
from kvstrata.verify.access import parallel
from kvstrata.verify.check import UnableError, UnmetError
from kvstrata.verify.shell import Shell
from kvstrata.verify.ssh import SshShell

# Each answer has its own, much shorter bound; this one is for a bug that would otherwise wait for ever.
_EVER_S = 86_400.0


@dataclass(frozen=True)
class Place:
    """A store and the node it is on."""

    node: str
    store: Store


@dataclass(frozen=True)
class Answer[T]:
    """What a store answered, or why it didn't."""

    place: Place
    value: T | None
    error: str | None


def places(cluster: Cluster) -> list[Place]:
    """Return the stores of a site in the order of its inventory."""
    return [Place(node.name, store) for node in cluster.nodes for store in node.stores]


@contextmanager
def shells(cluster: Cluster) -> Iterator[dict[str, Shell]]:
    """Connections to the nodes that have stores, made when first used, closed at the end."""
    found = {node.name: _shell(node) for node in cluster.nodes if node.stores}
    try:
        yield found
    finally:
        for shell in found.values():
            shell.close()


def ask[T](
    cluster: Cluster, through: Mapping[str, Shell], question: Callable[[redis.Redis], T], timeout_s: float
) -> list[Answer[T]]:
    """Put a question to all stores at the same time; return the answers in the order of `places`.

    Args:
        cluster: the site.
        through: connections to its nodes by name.
        question: gets a client that is logged in; what it raises becomes the answer's error.
        timeout_s: seconds that a single command may take.
    """
    work = {place: _asker(place, through[place.node], question, timeout_s) for place in places(cluster)}
    found = dict(parallel(work, _EVER_S))
    return [found.get(place) or Answer(place, None, "no answer") for place in work]


def _asker[T](
    place: Place, shell: Shell, question: Callable[[redis.Redis], T], timeout_s: float
) -> Callable[[], Answer[T]]:
    def answer() -> Answer[T]:
        try:
            with resp.authenticated(shell, place.store, timeout_s) as client:
                return Answer(place, question(client), None)
        except (UnmetError, UnableError) as error:
            # The address is beside every error here, so once is enough.
            return Answer(place, None, str(error).removeprefix(f"{place.store.address}: "))
        except Exception as bug:
            # One surprising answer must not cost those of the other stores.
            return Answer(place, None, f"unexpected {type(bug).__name__}: {bug}")

    return answer


def _shell(node: Node) -> Shell:
    return SshShell(node.ssh)
