"""Services of a stack over HTTP: read when they stand still, settled, and emptied with patience."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from kvstrata.bench.errors import BenchError
from kvstrata.bench.serving import services as module
from kvstrata.bench.serving.sampling import GpuSampler
from kvstrata.bench.serving.services import Services


class _Service(BaseHTTPRequestHandler):
    """Answers GETs with the next text of `server.texts` (the last one for ever), and POSTs with `server.posts`."""

    def do_GET(self) -> None:
        server: Any = self.server
        text = server.texts.pop(0) if len(server.texts) > 1 else server.texts[0]
        self._answer(200, text)

    def do_POST(self) -> None:
        server: Any = self.server
        server.asked.append(self.path)
        code, text = server.posts.pop(0) if len(server.posts) > 1 else server.posts[0]
        self._answer(code, text)

    def _answer(self, code: int, text: str) -> None:
        self.send_response(code)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def served() -> Iterator[Any]:
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), _Service)
    server.texts, server.posts, server.asked = [""], [(200, '{"success": true}')], []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    server.url = f"http://127.0.0.1:{server.server_address[1]}"
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_POLL_S", 0.01)


def of(server: Any, **changes: Any) -> Services:
    return Services([server.url], changes.pop("lmcache", None), gpus=GpuSampler(""), **changes)


def tokens(count: int) -> str:
    return f'vllm:prompt_tokens_total{{engine="0"}} {count}\n'


def test_counters_are_read_until_they_stand_still(served: Any) -> None:
    served.texts = [tokens(1), tokens(2), tokens(3), tokens(3)]
    assert of(served).begin()["vllm:0"]["vllm:prompt_tokens_total"] == 3


def test_processes_stores_and_peaks_are_among_what_is_read_at_the_end(served: Any) -> None:
    served.texts = [tokens(3) + 'vllm:kv_cache_usage_perc{engine="0"} 0.5\n']
    services = of(served, processes=lambda: {"process:x": {"cpu_s": 1.0}})
    services.begin()
    found = services.end(lambda: {"h:1": "used_memory:5"})
    assert found["process:x"] == {"cpu_s": 1.0}
    assert found["kvrocks:h:1"] == {"used_memory": 5.0}
    assert "peak" in found


def test_stores_that_take_their_time_are_awaited(served: Any) -> None:
    submitted = "lmcache_mp_l2_store_submitted_requests_total 3\n"
    completed = "lmcache_mp_l2_store_completed_requests_total"
    # Engine and cache are one server here, so each text is read twice.
    served.texts = [*[submitted + f"{completed} 1\n"] * 4, submitted + f"{completed} 3\n"]
    assert of(served, lmcache=served.url).settle(20) is None
    assert len(served.texts) == 1


def test_stores_that_never_acknowledge_are_told(served: Any) -> None:
    served.texts = ["lmcache_mp_l2_store_submitted_requests_total 3\n"]
    assert of(served, lmcache=served.url).settle(0.05) == (
        "3 batches were not acknowledged by the stores 0.05 s after the load"
    )


def test_without_lmcache_there_is_nothing_to_settle(served: Any) -> None:
    assert of(served).settle(20) is None


def test_an_engine_that_still_holds_blocks_is_asked_again(served: Any) -> None:
    served.posts = [(200, '{"success": false}'), (200, '{"success": true}')]
    of(served).clear_engines(external=False)
    assert served.asked == ["/reset_prefix_cache"] * 2


def test_an_engine_that_is_never_idle_is_told(served: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_RESET_S", 0.05)
    served.posts = [(200, '{"success": false}')]
    with pytest.raises(BenchError, match=r"did not succeed within 0.05 s: the engine is not idle"):
        of(served).clear_engines(external=False)


def test_an_engine_without_development_mode_is_told_apart(served: Any) -> None:
    served.posts = [(404, "Not Found")]
    with pytest.raises(BenchError, match="VLLM_SERVER_DEV_MODE=1"):
        of(served).clear_engines(external=False)


def test_clearing_empties_the_engine_then_the_daemon(served: Any) -> None:
    of(served, lmcache=served.url).clear()
    assert served.asked == ["/reset_prefix_cache", "/cache/clear"]


def test_what_an_engine_keeps_outside_the_gpu_is_emptied_by_the_engine(served: Any) -> None:
    services = of(served, external=True)
    services.clear()
    services.clear_engines(external=False)
    assert served.asked == ["/reset_prefix_cache?reset_external=true", "/reset_prefix_cache"]


def test_a_service_that_is_gone_is_named() -> None:
    services = Services(["http://127.0.0.1:9"], None, gpus=GpuSampler(""))
    assert not services.answers("http://127.0.0.1:9/health")
    with pytest.raises(BenchError, match=r"GET http://127.0.0.1:9/metrics"):
        services.begin()
