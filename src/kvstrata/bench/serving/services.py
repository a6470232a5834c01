"""The HTTP side of a stack, wherever it runs: read before and after a load, settled, and emptied."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

import httpx

from kvstrata.bench.ending import end_if_told
from kvstrata.bench.errors import BenchError
from kvstrata.bench.serving import counters
from kvstrata.bench.serving.model import Counters
from kvstrata.bench.serving.sampling import GpuSampler, PeakSampler

_HTTP_S = 30.0
_HEALTH_S = 5.0
_POLL_S = 0.25
# Services publish their counters a moment after the answer; two readings in a row must agree.
_STEADY_S = 10.0
# An engine refuses to forget while a transfer to its connector holds blocks.
_RESET_S = 60.0
_PEAKS = ("vllm:kv_cache_usage_perc", "vllm:num_requests_running", "vllm:num_requests_waiting")

Readings = dict[str, dict[str, float]]


class Services:
    """Engines and LMCache's daemon by their base URLs. Methods raise BenchError when one does not answer."""

    def __init__(
        self,
        engines: Sequence[str],
        lmcache: str | None,
        processes: Callable[[], Readings] = dict,
        *,
        external: bool = False,
        gpus: GpuSampler | None = None,
    ) -> None:
        """Take their addresses.

        Args:
            engines: base URL of each, in order.
            lmcache: base URL of its HTTP server, None without one.
            processes: returns what each process used until now, by `process:NAME`.
            external: whether engines keep KV outside the GPU themselves, which only they can empty.
            gpus: what samples the GPUs; default: nvidia-smi of this machine.
        """
        self._engines, self._lmcache, self._processes, self._external = list(engines), lmcache, processes, external
        # Nothing here goes through a proxy, whatever the environment says.
        self._http = httpx.Client(timeout=_HTTP_S, trust_env=False)
        self._gpus = gpus or GpuSampler()
        self._peaks = PeakSampler(self._gauges, 1.0)

    @property
    def has_lmcache(self) -> bool:
        """Whether LMCache's daemon is there."""
        return self._lmcache is not None

    def close(self) -> None:
        """Give the connections back."""
        self._http.close()

    def answers(self, url: str) -> bool:
        """Whether GET `url` answers 200 now."""
        try:
            return self._http.get(url, timeout=_HEALTH_S).status_code == httpx.codes.OK
        except httpx.HTTPError:
            return False

    def begin(self, stores: Callable[[], Mapping[str, str]] = dict) -> Counters:
        """Return all counters, steady; then begin to sample. `stores` returns INFO of each by its name."""
        found = self._steady() | store_readings(stores()) | self._processes()
        self._gpus.start()
        self._peaks.start()
        return found

    def end(self, stores: Callable[[], Mapping[str, str]] = dict) -> Counters:
        """Return all counters, steady, with what was sampled since `begin` (`gpu:N`, and `peak` for the engines)."""
        # First what goes on counting while the services settle.
        found: Readings = {**self._gpus.stop(), "peak": self._peaks.stop(), **self._processes()}
        return found | self._steady() | store_readings(stores())

    def settle(self, timeout_s: float) -> str | None:
        """Wait until LMCache's stores have what it handed to them; return a note if they do not in time."""
        if self._lmcache is None:
            return None
        until = time.monotonic() + timeout_s
        while left := counters.unsettled(self._read()["lmcache"]):
            end_if_told()
            if time.monotonic() > until:
                return f"{left} batches were not acknowledged by the stores {timeout_s:g} s after the load"
            time.sleep(_POLL_S)
        return None

    def clear_engines(self, *, external: bool) -> None:
        """Empty the engines' prefix caches; with `external` also what they keep outside the GPU themselves.

        Raises:
            BenchError: one does not, or has no /reset_prefix_cache.
        """
        for engine in self._engines:
            url = f"{engine}/reset_prefix_cache"
            until = time.monotonic() + _RESET_S
            while not self._reset(url, external=external):
                end_if_told()
                if time.monotonic() > until:
                    raise BenchError(f"POST {url} did not succeed within {_RESET_S:g} s: the engine is not idle")
                time.sleep(_POLL_S)

    def clear(self) -> None:
        """Empty the engines and LMCache's memory; stores are their owner's to empty."""
        self.clear_engines(external=self._external)
        if self._lmcache is not None:
            self._post(f"{self._lmcache}/cache/clear", {})

    def _reset(self, url: str, *, external: bool) -> bool:
        answer = self._post(url, {"reset_external": "true"} if external else {})
        return bool(answer.json().get("success"))

    def _post(self, url: str, parameters: Mapping[str, str]) -> httpx.Response:
        try:
            response = self._http.post(url, params=dict(parameters))
        except httpx.HTTPError as error:
            raise BenchError(f"POST {url}: {error or type(error).__name__}") from error
        if response.status_code == httpx.codes.NOT_FOUND:
            raise BenchError(f"POST {url} is not there: an engine has it with VLLM_SERVER_DEV_MODE=1 alone")
        if response.status_code != httpx.codes.OK:
            raise BenchError(f"POST {url} answered {response.status_code}: {response.text[:200]}")
        return response

    def _text(self, url: str) -> str:
        try:
            response = self._http.get(url)
            response.raise_for_status()
        except httpx.HTTPError as error:
            raise BenchError(f"GET {url}: {error or type(error).__name__}") from error
        return response.text

    def _read(self) -> Readings:
        found: Readings = {}
        for number, engine in enumerate(self._engines):
            found[f"vllm:{number}"] = counters.from_vllm(self._text(f"{engine}/metrics"))
        if self._lmcache is not None:
            text = self._text(f"{self._lmcache}/metrics")
            found["lmcache"] = counters.from_lmcache(text)
            if stages := counters.from_l2(text):
                found["l2"] = stages
        return found

    def _steady(self) -> Readings:
        until = time.monotonic() + _STEADY_S
        found = self._read()
        while time.monotonic() < until:
            time.sleep(_POLL_S)
            again = self._read()
            if _tokens(again) == _tokens(found):
                return again
            found = again
        return found

    def _gauges(self) -> Mapping[str, float]:
        found: dict[str, float] = {}
        for number, engine in enumerate(self._engines):
            values = counters.from_vllm(self._http.get(f"{engine}/metrics", timeout=_HEALTH_S).text)
            found |= {f"vllm:{number} {name}": values[name] for name in _PEAKS if name in values}
        return found


def _tokens(found: Readings) -> dict[str, float]:
    """Return what must stand still: the tokens and hits that are counted for each request."""
    told = ("vllm:prompt_tokens", "vllm:request_success", "lmcache_mp_lookup")
    return {
        f"{source} {name}": value
        for source, values in found.items()
        for name, value in values.items()
        if name.startswith(told)
    }


def store_readings(stores: Mapping[str, str]) -> Readings:
    """Return the numbers in INFO of each store, as `kvrocks:NAME`."""
    return {f"kvrocks:{name}": counters.from_info(text) for name, text in stores.items()}
