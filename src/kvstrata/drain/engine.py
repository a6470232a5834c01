"""What one replica is doing, asked at its own port and of systemd."""

from __future__ import annotations

from dataclasses import dataclass

from kvstrata.drain.replicas import Replica
from kvstrata.verify import units
from kvstrata.verify.check import UnableError
from kvstrata.verify.context import NodeContext
from kvstrata.verify.http import Service, UnansweredError

ASK_S = 10.0


@dataclass(frozen=True)
class Load:
    """Requests at one moment."""

    running: int
    waiting: int

    @property
    def total(self) -> int:
        """All of them."""
        return self.running + self.waiting

    def __str__(self) -> str:
        """As in messages."""
        return f"{self.running} running, {self.waiting} waiting"


class EngineHost:
    """A replica through its node's connection."""

    def __init__(self, ctx: NodeContext, replica: Replica) -> None:
        """Nothing is contacted yet."""
        self.replica = replica
        self._ctx = ctx
        self._service: Service | None = None

    def active(self) -> str:
        """The unit's ActiveState: `active`, `inactive`, `failed` and the like."""
        unit = self.replica.engine.unit
        states = units.states(self._ctx.shell, [unit])
        if unit not in states:
            raise UnableError(f"systemd on {self.replica.node.name} says nothing of {unit}")
        return states[unit].active

    def result(self) -> str:
        """How the unit ended last: `success`, `timeout` where systemd had to kill it."""
        unit = self.replica.engine.unit
        state = units.states(self._ctx.shell, [unit]).get(unit)
        return "unknown" if state is None else state.result

    def healthy(self) -> bool:
        """Whether /health answers 200; False too when nothing answers."""
        try:
            return self._ask().status("/health") == 200
        except UnansweredError:
            return False

    def load(self) -> Load:
        """Its requests now; UnansweredError when it gives no metrics, or none of requests."""
        samples = self._ask().metrics()
        if not samples.has("vllm:num_requests_running"):
            raise UnansweredError(f"{self.replica.url}/metrics has no vllm:num_requests_running")
        waiting = samples.total("vllm:num_requests_waiting")
        return Load(round(samples.total("vllm:num_requests_running")), round(waiting))

    def systemctl(self, verb: str, timeout_s: float) -> None:
        """Start or stop the unit and wait for it; UnableError when that fails."""
        self._ctx.shell.run(["systemctl", verb, "--", self.replica.engine.unit], timeout_s).text()

    def _ask(self) -> Service:
        if self._service is None:
            engine = self.replica.engine
            self._service = self._ctx.service(engine.host, engine.port, ASK_S)
        return self._service
