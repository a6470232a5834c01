"""Where a prompt's KV is: in an engine's HBM, in a node's DRAM, on the site's stores. Known by digests of prefixes."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence

BLOCK = 16


class Prefixes:
    """The prefixes of whole blocks that one cache holds."""

    def __init__(self, block: int) -> None:
        self.block = block
        self._held: set[bytes] = set()

    def __len__(self) -> int:
        return len(self._held)

    def digests(self, tokens: Sequence[int]) -> list[bytes]:
        """One for each prefix of whole blocks; the last token is never in one, for it is always computed."""
        running, found = hashlib.blake2b(digest_size=12), []
        for at in range(0, (len(tokens) - 1) // self.block * self.block, self.block):
            running.update(repr(tokens[at : at + self.block]).encode())
            found.append(running.digest())
        return found

    def hit(self, tokens: Sequence[int]) -> int:
        """Tokens of the longest prefix that it holds."""
        length = 0
        for digest in self.digests(tokens):
            if digest not in self._held:
                break
            length += self.block
        return length

    def add(self, tokens: Sequence[int]) -> None:
        """Hold all prefixes of these."""
        self._held.update(self.digests(tokens))

    def has(self, digest: bytes) -> bool:
        """Whether it holds that prefix."""
        return digest in self._held

    def keep(self, digest: bytes) -> bool:
        """Hold one prefix; whether it is new."""
        new = digest not in self._held
        self._held.add(digest)
        return new

    def clear(self) -> None:
        """Hold nothing."""
        self._held.clear()


class Caches:
    """A node's LMCache: its own DRAM and the stores of the whole site, in chunks, with its counters in tokens."""

    def __init__(self, chunk: int, stored: Prefixes) -> None:
        self.l1, self.stored = Prefixes(chunk), stored
        self.count: Counter[str] = Counter()

    @staticmethod
    def engine() -> Prefixes:
        """What an engine keeps in HBM."""
        return Prefixes(BLOCK)

    def restart(self) -> None:
        """Begin anew: an empty DRAM tier, counters at zero."""
        self.l1.clear()
        self.count.clear()

    def load(self, tokens: Sequence[int], local: int) -> int:
        """The tokens beyond the first `local` that come from here."""
        chunk, found = self.l1.block, 0
        for index, digest in enumerate(self.l1.digests(tokens)):
            end = (index + 1) * chunk
            if self.l1.has(digest):
                tier = "l1"
            elif self.stored.has(digest):
                tier = "l2"
            else:
                break
            if end <= local:
                continue
            self.count[tier] += chunk
            if tier == "l2":
                self.count["loaded"] += 1
                self.l1.keep(digest)
            found = end - local
        return found

    def store(self, tokens: Sequence[int]) -> None:
        """Keep the whole chunks of a prompt in DRAM, and write to the stores what they lack."""
        for digest in self.l1.digests(tokens):
            self.l1.keep(digest)
            if self.stored.keep(digest):
                self.count["submitted"] += 1
                self.count["completed"] += 1
