"""How many conversations, how long, and what they say. Pure functions."""

from __future__ import annotations

from dataclasses import dataclass, field

from kvstrata.verify.synthetic import Writer

TURNS = 4
FIRST_TOKENS = 272
MORE_TOKENS = 48
# With more replicas than this the number of conversations stays: chance would hit one in eight at most.
MANY = 7
# By how many tokens first turns are longer than the shortest: no two of these sums of two are alike, so that the
# tokens that an engine counted tell whose turns they were.
LONGER = (0, 16, 48, 112, 192, 320, 480, 704)

type Messages = list[dict[str, str]]


def how_many(replicas: int) -> int:
    """Conversations for a site: more of them than replicas while those are few.

    The number is no multiple of the number of replicas: with a multiple, a router that goes round could meet each
    conversation at the same replica again.
    """
    return replicas + 1 if replicas <= MANY else MANY


@dataclass(frozen=True)
class Sizes:
    """Tokens of the first turn, and by how many each other turn is longer."""

    first: int
    more: int

    @classmethod
    def of(cls, chunk_size: int, max_model_len: int) -> Sizes:
        """Longer than a block of any engine and a chunk of this site's cache, shorter than the model's context."""
        room = max_model_len // 2
        return cls(min(max(FIRST_TOKENS, chunk_size + 16), room), min(MORE_TOKENS, room // TURNS))


@dataclass
class Conversation:
    """One of them. `warm` is the replica that served its last turn, None where that is not known."""

    number: int
    messages: Messages = field(default_factory=list)
    turns: int = 0
    warm: str | None = None

    @property
    def name(self) -> str:
        """What it is called in texts and in the report."""
        return f"conversation {self.number}"

    def speak(self, writer: Writer, sizes: Sizes) -> Messages:
        """The messages of the next turn: all that was said, an answer and a new question.

        The answers are made up: those of a test model are not fit to be sent back.
        """
        self.turns += 1
        if not self.messages:
            length = sizes.first + LONGER[self.number % len(LONGER)]
            self.messages = [{"role": "user", "content": writer.text(self.name, length)}]
            return self.messages
        told = {
            role: writer.more(f"{self.name} {role} {self.turns}", sizes.more // 2) for role in ("assistant", "user")
        }
        self.messages = [*self.messages, *({"role": role, "content": text} for role, text in told.items())]
        return self.messages
