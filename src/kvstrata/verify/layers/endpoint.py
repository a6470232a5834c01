"""What is asked in the same way of every endpoint over HTTP."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from kvstrata.verify.check import Check, Json, UnmetError
from kvstrata.verify.context import NodeContext
from kvstrata.verify.http import Service


@dataclass
class Endpoint:
    """One that is asked as the node of `ctx` sees it."""

    ctx: NodeContext

    def ask(
        self,
        check_id: str,
        what: str,
        expected: str,
        hint: str,
        probe: Callable[[], str],
        data: dict[str, Json] | None = None,
    ) -> Check:
        """Ask a question about the node at once; `data` may be filled by the probe."""
        return self.ctx.question(check_id, what, expected, hint).ask(probe, data)


def health(service: Service) -> str:
    """Return "200"; UnmetError where /health answers something else."""
    code = service.status("/health")
    if code != 200:
        raise UnmetError(f"/health answers {code}")
    return "200"
