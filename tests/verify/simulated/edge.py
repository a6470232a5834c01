"""The edge on a router host: keys are asked for, the API is passed on, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator

from kvstrata.verify.layers.edge.keys import PRIVATE
from tests.verify.simulated.router import FakeRouter
from tests.verify.simulated.state import FakeSite
from tests.verify.simulated.web import Answer, Request, Route, Status


class FakeEdge:
    """In front of the router of its own host."""

    def __init__(self, site: FakeSite, router: FakeRouter) -> None:
        self._site, self._routes = site, router.routes()

    def routes(self) -> dict[str, Route]:
        """What clients get."""
        api = {path: self._asked(route) for path, route in self._routes.items() if path.startswith("/v1/")}
        hidden: dict[str, Route] = dict.fromkeys(PRIVATE, lambda _: Status(404, "There is no such path here."))
        if self._site.edge_passes_all:
            hidden["/workers"] = self._routes["/workers"]
        return api | hidden | {"/health": self._routes["/health"]}

    def _asked(self, route: Route) -> Route:
        def answer(request: Request) -> Answer:
            edge = self._site.cluster().edge
            keys = {f"Bearer {key.value}" for key in (edge.keys if edge else ())}
            if self._site.edge_asks_for_keys and request.headers.get("authorization") not in keys:
                return Status(401, "No or a wrong API key")
            answered = route(request)
            if isinstance(answered, Iterator) and self._site.edge_holds_back:
                return _AtOnce(answered)
            return answered

        return answer


class _AtOnce:
    """Events that leave together, when the last one is there."""

    def __init__(self, events: Iterator[str]) -> None:
        self._events = events
        self._left: list[str] | None = None

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        if self._left is None:
            self._left = ["\n\ndata: ".join(self._events)]
        if not self._left:
            raise StopIteration
        return self._left.pop()
