"""The tiers of one replica in a simulation: HBM by tokens, DRAM and drives by chunks. LRU each, from empty."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from kvstrata.bench.policy import L1, L2

BLOCK = 16
"""vLLM's block on GPUs, in tokens: what its prefix cache counts in."""


@dataclass(frozen=True)
class Found:
    """Where a prompt's tokens are: a contiguous prefix in HBM, what follows it in DRAM and on the drives."""

    hbm: int
    dram: int
    ssd: int
    reach: int = 0
    """Where the prefix ends that DRAM and drives hold together, HBM aside."""

    @property
    def cached(self) -> int:
        """Tokens that need not be computed."""
        return self.hbm + self.dram + self.ssd


NOTHING = Found(0, 0, 0)


class Hbm:
    """vLLM's KV cache: running sequences, and in what is left the ended ones, by last use, tails first to go."""

    def __init__(self, tokens: int, block: int = BLOCK) -> None:
        """Hold at most `tokens`, in blocks of so many."""
        self._block = block
        self._free = tokens
        self._kept: OrderedDict[int, int] = OrderedDict()
        self._idle = 0

    def held(self, conversation: int) -> int:
        """Return the tokens of its beginning that are here."""
        return self._kept.get(conversation, 0)

    def admit(self, conversation: int, tokens: int) -> int | None:
        """Make room for a sequence of `tokens`; return what is here of it, or None while running ones fill it."""
        tokens = self._blocks(tokens)
        if self._free + self._idle < tokens:
            return None
        mine = self._kept.pop(conversation, 0)
        self._free += mine
        self._idle -= mine
        self._make_room(tokens)
        self._free -= tokens
        return mine

    def end(self, conversation: int, tokens: int, held: int) -> None:
        """Keep an ended sequence of `tokens` as a prefix for later; `held` of them were taken when it began."""
        whole = tokens // self._block * self._block
        self._free += self._blocks(held)
        self._make_room(whole)
        whole = min(whole, self._free // self._block * self._block)
        self._free -= whole
        self._idle += whole
        self._kept[conversation] = whole

    def _blocks(self, tokens: int) -> int:
        """Return the tokens of as many whole blocks as so many need."""
        return -(-tokens // self._block) * self._block

    def _make_room(self, tokens: int) -> None:
        """Evict what was not used for the longest time until so many tokens are free, or nothing is left."""
        while self._free < tokens and self._kept:
            oldest, kept = next(iter(self._kept.items()))
            gone = min(kept, self._blocks(tokens - self._free))
            self._free += gone
            self._idle -= gone
            if gone == kept:
                del self._kept[oldest]
            else:
                self._kept[oldest] = kept - gone


class Offload:
    """LMCache with its L1 and the stores behind it, as kvstrata.bench.policy describes them; everything is written."""

    def __init__(self, chunk_tokens: int, dram_chunks: int, ssd_chunks: int) -> None:
        """Hold so many chunks in each tier; 0 is a tier that is not there."""
        self._tokens = chunk_tokens
        self._dram = L1(dram_chunks) if dram_chunks else None
        self._ssd = L2(ssd_chunks) if ssd_chunks else None
        self.written_chunks = 0

    def look_up(self, conversation: int, prompt: int, hbm: int) -> Found:
        """Return where the prompt's tokens are, and make its chunks the youngest. The last token is always computed."""
        chunks = [self._cid(conversation, index) for index in range((prompt - 1) // self._tokens)]
        dram = ssd = reach = 0
        for index, cid in enumerate(chunks):
            in_dram = self._dram is not None and cid in self._dram
            if not in_dram and not (self._ssd is not None and cid in self._ssd):
                break
            reach = (index + 1) * self._tokens
            new = max(0, reach - max(hbm, index * self._tokens))
            dram, ssd = (dram + new, ssd) if in_dram else (dram, ssd + new)
        backwards = chunks[::-1]
        if self._dram is not None:
            self._dram.touch(backwards)
        if self._ssd is not None:
            self._ssd.touch(backwards)
        return Found(hbm, dram, ssd, reach)

    def take(self, conversation: int, prompt: int, reach: int) -> None:
        """Take in a prompt's whole chunks behind `reach`: into DRAM, and what is new onto the drives.

        Answers are not offered until they are part of the next prompt.
        """
        for index in range(reach // self._tokens, prompt // self._tokens):
            cid = self._cid(conversation, index)
            if self._dram is not None and cid not in self._dram:
                self._dram.add(cid)
            if self._ssd is not None and cid not in self._ssd:
                self._ssd.add(cid)
                self.written_chunks += 1

    @staticmethod
    def _cid(conversation: int, index: int) -> bytes:
        return f"{conversation}:{index}".encode()
