"""LMCache's connector for vLLM, which does not ask LMCache about prompts that HBM has.

Configured as vLLM's kv-transfer-config: {"kv_connector": "LMCacheMPConnector", "kv_connector_module_path":
"kvstrata.node.hbm_first", "kv_connector_extra_config": {"kvstrata.recheck_s": 30, "kvstrata.ask_chunks": 2,
"kvstrata.answer_ms": 0, ...}}. Needs LMCache 0.5.6.

LMCacheMPConnector asks LMCache about every prompt, whole. The scheduler looks for the answer once a step, so that each
request waits for two or three; and LMCache loads from its stores what HBM has already. On two H200 that held all
conversations in HBM, this and the rest of the connector cost 7 to 9 % of the output (docs/gpu.md, gpu-8b2-asking).

Here a request goes on at once where LMCache could add less than `kvstrata.ask_chunks` chunks to what HBM has, and where
LMCache is known to have the prefix: it was asked about it within the last `kvstrata.recheck_s` seconds, and what
followed was stored. So a conversation is still asked about every so often, by which LMCache's LRU sees it used, and
what LMCache has lost meanwhile is stored again. 0 seconds asks about every prompt, as LMCache does by itself.

What HBM lacks of a turn is mostly what the user just wrote, which nobody has: its chunk is computed in less time than
the answer takes. Where LMCache is known to have it, for HBM had it before, it is asked about a single chunk too.

Where LMCache is asked, a step of the scheduler can wait for what it says, `kvstrata.answer_ms` in all. It confirms a
question and says how far it is in two messages, each of a fraction of a millisecond, and each would be looked for a
step later. What it has not found out by then is waited for in the next step once more, for as long as a message takes,
and looked for once a step from then on, as LMCache does: what comes from a drive would use up the time of those that
follow it.

What is skipped here changes which chunks are stored and when, never what a request computes with.

Unless `kvstrata.recheck_s` is 0 LMCache is also told nothing of the blocks that vLLM gives to requests. That was a
message in nearly every step, sent by a thread which takes Python's lock from the engine's own; LMCache makes of it how
long blocks live in HBM (lmcache_mp_l0_block_*), which nothing here reads.
"""

import time
from collections.abc import Callable
from typing import Any

from lmcache.integration.vllm.lmcache_mp_connector import LMCacheMPConnector as _AskingConnector
from lmcache.integration.vllm.lmcache_mp_metadata import LMCacheMPRequestState
from vllm.distributed.kv_transfer.kv_connector.v1.base import KVConnectorRole
from vllm.v1.request import RequestStatus

from kvstrata.node.asked_prefixes import AskedPrefixes

RECHECK = "kvstrata.recheck_s"
ASK = "kvstrata.ask_chunks"
ANSWER = "kvstrata.answer_ms"
# In which a request is waited for: LMCache mostly needs longer for an answer than for a message, but not a whole step.
_STEPS = 2


# The name is what vLLM's own tables, Dynamo's and the verifier know it by.
class LMCacheMPConnector(_AskingConnector):  # type: ignore[misc]  # lmcache ships no types
    """See the module."""

    def __init__(self, vllm_config: Any, role: Any, kv_cache_config: Any = None) -> None:
        """Connect as LMCache's does."""
        super().__init__(vllm_config, role, kv_cache_config)
        recheck_s = float(vllm_config.kv_transfer_config.get_from_extra_config(RECHECK, 0.0))
        self._recheck_s = recheck_s if role == KVConnectorRole.SCHEDULER and self._can_tell(vllm_config) else 0.0
        self._ask_chunks = max(1, int(vllm_config.kv_transfer_config.get_from_extra_config(ASK, 1)))
        self._answer_s = float(vllm_config.kv_transfer_config.get_from_extra_config(ANSWER, 0.0)) / 1000
        # What is left of that in this step.
        self._patience_s = self._answer_s
        # A step that waited in vain; nothing waits then until LMCache has said something.
        self._silent = False
        # In how many steps each request that LMCache was asked about has waited.
        self._waited: dict[str, int] = {}
        self._known = AskedPrefixes(self._recheck_s)
        # Of requests that have not finished: since when all of its prefix was not asked about.
        self._asked_at: dict[str, float] = {}
        # Those that LMCache was asked about; it holds what it found for them until it is told.
        self._asking: set[str] = set()
        # Those about which it was not, and how much it has of each.
        self._left_out: dict[str, int] = {}
        if role == KVConnectorRole.SCHEDULER:
            end = self.scheduler_adapter.end_session
            self.scheduler_adapter.end_session = lambda request_id: self._end_session(end, request_id)

    def get_num_new_matched_tokens(self, request: Any, num_computed_tokens: int) -> tuple[int | None, bool]:
        """Answer 0 where LMCache need not be asked."""
        tracker = self._get_or_create_request_tracker(request)
        stored = self._stored_of(request, tracker, num_computed_tokens)
        if stored is not None:
            tracker.num_vllm_hit_tokens = num_computed_tokens // self._hit_alignment_tokens * self._hit_alignment_tokens
            tracker.num_stored_tokens = self._left_out[request.request_id] = stored
            return 0, False
        if request.request_id not in self._asking:
            self._asking.add(request.request_id)
            self._left_out.pop(request.request_id, None)
            self._asked_at[request.request_id] = self._known.now()
            # It may have been skipped before, and lost its blocks in HBM while it waited.
            tracker.num_stored_tokens = 0
        found: tuple[int | None, bool] = super().get_num_new_matched_tokens(request, num_computed_tokens)
        waited = self._waited.get(request.request_id, 0)
        if found[0] is None and waited < _STEPS and self._patience_s > 0 and not self._silent:
            self._waited[request.request_id] = waited + 1
            found = self._awaited(found, request, num_computed_tokens)
        if found[0] is not None:
            self._silent = False
        return found

    def _awaited(
        self, found: tuple[int | None, bool], request: Any, num_computed_tokens: int
    ) -> tuple[int | None, bool]:
        """Wait for what LMCache says of a request, while this step has time for it."""
        ends = time.monotonic() + self._patience_s
        while found[0] is None and (replies := self._replies(request.request_id)):
            if not all(reply.wait(max(0.0, ends - time.monotonic())) for reply in replies):
                # Only who had all of a step's time can tell that LMCache took too long.
                self._silent = self._patience_s == self._answer_s
                break
            found = super().get_num_new_matched_tokens(request, num_computed_tokens)
        self._patience_s = max(0.0, ends - time.monotonic())
        return found

    def _replies(self, request_id: str) -> list[Any]:
        """Return the futures of what LMCache was sent about a request: first that it is asked, then how far it is.

        None is there once it said that it has not found out yet, until it is asked again in the next step.
        """
        unacknowledged = self.scheduler_adapter._unacked_lookups.get(request_id)
        if unacknowledged is not None:
            return list(unacknowledged.futures.values())
        return [future for future, _ in self.scheduler_adapter._lookup_status.get(request_id, {}).values()]

    def build_connector_meta(self, scheduler_output: Any) -> Any:
        """End a step of the scheduler."""
        self._patience_s = self._answer_s
        return super().build_connector_meta(scheduler_output)

    def request_finished(self, request: Any, block_ids: list[int]) -> tuple[bool, dict[str, Any] | None]:
        """Keep what LMCache has now."""
        tracker = self.request_trackers.get(request.request_id)
        moment = self._asked_at.pop(request.request_id, None)
        self._asking.discard(request.request_id)
        self._waited.pop(request.request_id, None)
        if tracker is None or self._left_out.get(request.request_id) != tracker.num_stored_tokens:
            # LMCache knows it by what it was asked, or by what it was given.
            self._left_out.pop(request.request_id, None)
        if tracker is not None and moment is not None and self._recheck_s and self._is_there():
            prefix = self._prefix(request, tracker.num_stored_tokens)
            if prefix is not None:
                self._known.keep(prefix, moment)
        finished: tuple[bool, dict[str, Any] | None] = super().request_finished(request, block_ids)
        self._left_out.pop(request.request_id, None)
        return finished

    def _end_session(self, end: Callable[[str], None], request_id: str) -> None:
        """End what LMCache knows of a request; it warns of each end of which it never saw a beginning."""
        if request_id not in self._left_out:
            end(request_id)

    def _report_block_allocation_deltas(self, scheduler_output: Any) -> None:
        """Send nothing, unless everything is to be as LMCache has it."""
        if not self._recheck_s:
            super()._report_block_allocation_deltas(scheduler_output)

    def reset_cache(self) -> bool | None:
        """Forget what LMCache had."""
        self._forget()
        done: bool | None = super().reset_cache()
        return done

    def _stored_of(self, request: Any, tracker: Any, computed: int) -> int | None:
        """Return how many tokens of a prompt LMCache has, where it need not be asked; None where it must be."""
        if (
            not self._recheck_s
            or request.request_id in self._asking
            or tracker.state != LMCacheMPRequestState.PREFETCHING
            or tracker.request_configs
            or request.status == RequestStatus.PREEMPTED
            or not self._is_there()
        ):
            return None
        chunk: int = self.scheduler_adapter.lmcache_tokens_per_chunk
        whole_chunks = len(request.all_token_ids) // chunk * chunk
        if whole_chunks == 0:
            return 0
        if self._could_add(request, whole_chunks, whole_chunks - computed, chunk):
            return None
        for stored in range(computed // chunk * chunk, 0, -chunk):
            moment = self._known.asked_at(self._prefix(request, stored))
            if moment is not None:
                # A shorter one may be fresh, for it is that of others as well; but it tells nothing of this one.
                if not self._known.is_fresh(moment):
                    return None
                self._asked_at[request.request_id] = moment
                return stored
        return None

    def _could_add(self, request: Any, whole_chunks: int, lacks: int, chunk: int) -> bool:
        """Whether LMCache may have what HBM lacks of a prompt, and as much as is worth the wait for its answer."""
        if lacks < chunk:
            return False
        if lacks >= self._ask_chunks * chunk:
            return True
        longer = range(whole_chunks, whole_chunks - lacks + chunk - 1, -chunk)
        return any(self._known.asked_at(self._prefix(request, tokens)) is not None for tokens in longer)

    def _is_there(self) -> bool:
        """Whether LMCache answers; what it had may be lost where it does not."""
        if self.scheduler_adapter.is_healthy:
            return True
        self._forget()
        return False

    def _forget(self) -> None:
        self._known.forget()
        self._asked_at.clear()

    def _can_tell(self, vllm_config: Any) -> bool:
        """Whether what is stored can be told by its hash at the end of a chunk.

        Not where chunks wait until they are evicted from HBM, where LMCache is asked before HBM is, and where hashes
        and blocks are of different sizes (hybrid models).
        """
        unit = getattr(vllm_config.cache_config, "prefix_match_unit", None)
        sizes = {size for size in self._group_tokens_per_block if size}
        alike = sizes == {self._hit_alignment_tokens} and unit in (None, self._hit_alignment_tokens)
        return alike and not self.lazy_offload and not self._eager_prefetch

    def _prefix(self, request: Any, tokens: int) -> Any:
        """Return vLLM's hash of so many tokens from the beginning, with salt and adapters; None if it has none yet."""
        index = tokens // self._hit_alignment_tokens - 1
        hashes = request.block_hashes
        return hashes[index] if 0 <= index < len(hashes) else None
