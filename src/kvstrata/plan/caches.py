"""The tiers of one replica in a simulation: HBM by tokens, DRAM and drives by chunks. LRU each, from empty."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from kvstrata.bench.policy import L1, L2

BLOCK = 16
"""vLLM's block on GPUs, in tokens: what its prefix cache counts in."""


@dataclass(frozen=True)
class Found:
    """The tokens of a prompt that are not computed: a prefix in HBM, and what follows it in DRAM or on drives."""

    hbm: int
    dram: int
    ssd: int

    @property
    def cached(self) -> int:
        """Tokens that need not be computed."""
        return self.hbm + self.dram + self.ssd


@dataclass(frozen=True)
class Prefix:
    """The chunks of a prompt that DRAM and drives hold together: for each whether DRAM has it."""

    in_dram: tuple[bool, ...]
    tokens: int
    """Of a chunk."""

    @property
    def to_load(self) -> int:
        """Tokens that the drives are asked for: LMCache does not ask whether HBM has them."""
        return self.in_dram.count(False) * self.tokens

    @property
    def reach(self) -> int:
        """Where it ends, in tokens from the beginning of the prompt, whatever HBM has."""
        return len(self.in_dram) * self.tokens

    def without_drives(self) -> Prefix:
        """Return what is left of it where nothing is loaded."""
        first = self.in_dram.index(False) if False in self.in_dram else len(self.in_dram)
        return Prefix(self.in_dram[:first], self.tokens)

    def behind(self, hbm: int) -> Found:
        """Return where the prompt comes from if HBM has so many of its tokens."""
        dram = ssd = 0
        for index, here in enumerate(self.in_dram):
            new = max(0, (index + 1) * self.tokens - max(hbm, index * self.tokens))
            dram, ssd = (dram + new, ssd) if here else (dram, ssd + new)
        return Found(hbm, dram, ssd)


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

    def __init__(self, chunk_tokens: int, dram_chunks: int, ssd_chunks: int, retain: bool = True) -> None:
        """Hold so many chunks in each tier; 0 is a tier that is not there.

        Args:
            chunk_tokens: tokens of a chunk.
            dram_chunks: for how many DRAM has room.
            ssd_chunks: for how many the drives have.
            retain: whether DRAM keeps what it got from the drives (LMCache's --l2-prefetch-policy).
        """
        self._tokens = chunk_tokens
        self._dram = L1(dram_chunks) if dram_chunks else None
        self._ssd = L2(ssd_chunks) if ssd_chunks else None
        self._retain = retain
        self.written_chunks = 0

    def look_up(self, conversation: int, prompt: int) -> Prefix:
        """Return which of a prompt's chunks are here, and make them the youngest. The last token is always computed."""
        chunks = [self._cid(conversation, index) for index in range((prompt - 1) // self._tokens)]
        found: list[bool] = []
        for cid in chunks:
            in_dram = self._dram is not None and cid in self._dram
            if not in_dram and not (self._ssd is not None and cid in self._ssd):
                break
            found.append(in_dram)
        backwards = chunks[::-1]
        if self._dram is not None:
            self._dram.touch(backwards)
        if self._ssd is not None:
            self._ssd.touch(backwards)
        return Prefix(tuple(found), self._tokens)

    def loaded(self, conversation: int, prefix: Prefix) -> None:
        """Take what came from the drives into DRAM, the beginning of a prompt last, so that it stays longest."""
        if self._dram is not None and self._retain:
            for index in reversed(range(len(prefix.in_dram))):
                if not prefix.in_dram[index]:
                    self._dram.add(self._cid(conversation, index))

    def take(self, conversation: int, prompt: int, reach: int) -> None:
        """Take in a prompt's whole chunks behind `reach`: into DRAM, and what is new onto the drives.

        Answers are not offered until they are part of the next prompt.
        """
        chunks = [self._cid(conversation, index) for index in range(prompt // self._tokens)]
        new, backwards = chunks[reach // self._tokens :], chunks[::-1]
        if self._dram is not None:
            # The end of a prompt is of no use without its beginning, which therefore is the youngest.
            for cid in reversed(new):
                if cid not in self._dram:
                    self._dram.add(cid)
            self._dram.touch(backwards)
        if self._ssd is not None:
            for cid in new:
                if cid not in self._ssd:
                    self._ssd.add(cid)
                    self.written_chunks += 1
            self._ssd.touch(backwards)

    @staticmethod
    def _cid(conversation: int, index: int) -> bytes:
        return f"{conversation}:{index}".encode()
