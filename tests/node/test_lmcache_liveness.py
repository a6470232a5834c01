"""A worker that LMCache does not know is asked to register, once for each time that it is lost."""

from typing import Any

import pytest

from kvstrata.node.lmcache_liveness import install


class Transfers:
    """Keeps registrations as LMCache's transfer modules do."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.ids: list[int] = []

    def report_status(self) -> dict[str, Any]:
        return {self.name: list(self.ids)}


def management(name: str = "registered_gpu_ids") -> tuple[Any, Transfers]:
    transfers = Transfers(name)

    class Management:
        _liveness_targets = (object(), transfers)

        def ping(self, instance_id: int | None) -> bool:
            return True

    # As LMCache's decorator marks its handlers.
    Management.ping.handler_type = "blocking"  # type: ignore[attr-defined]
    install(Management)
    return Management(), transfers


class Worker:
    """LMCache's heartbeat: registers when a ping succeeds after one that did not."""

    def __init__(self, server: Any, transfers: Transfers) -> None:
        self.server, self.transfers, self.healthy = server, transfers, True

    def beat(self) -> None:
        healthy = self.server.ping(7)
        if healthy and not self.healthy:
            self.transfers.ids.append(7)
        self.healthy = healthy


@pytest.mark.parametrize("name", ["registered_gpu_ids", "registered_non_cuda_instance_ids"])
def test_a_worker_that_missed_the_restart_is_registered_at_its_second_beat(name: str) -> None:
    server, transfers = management(name)
    worker = Worker(server, transfers)
    worker.beat()
    assert not worker.healthy
    worker.beat()
    assert (worker.healthy, transfers.ids) == (True, [7])
    worker.beat()
    assert worker.healthy


def test_a_worker_that_is_lost_again_is_asked_again() -> None:
    server, transfers = management()
    worker = Worker(server, transfers)
    for _ in range(2):
        worker.beat()
        worker.beat()
        assert transfers.ids == [7]
        transfers.ids.clear()


def test_registering_that_fails_is_tried_at_every_second_beat() -> None:
    server, _ = management()
    assert [server.ping(7) for _ in range(4)] == [False, True, False, True]


def test_a_known_worker_and_the_scheduler_hear_yes() -> None:
    server, transfers = management()
    transfers.ids.append(7)
    assert server.ping(7)
    assert server.ping(None)


def test_what_marks_the_handler_stays() -> None:
    server, _ = management()
    assert type(server).ping.handler_type == "blocking"
