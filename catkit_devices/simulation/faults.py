"""What can go wrong between an instrument and the computer, on demand and reproducibly.

Every simulated instrument is reached over a :class:`FaultyLine`. A fault strikes one reply: everything that the
instrument sends from one write to the next. Which replies are struck is decided by a test, call by call
(:meth:`FaultyLine.inject`), or by a schedule: a probability for each kind of fault. The schedule uses random numbers
that depend on the seed and the address only, so the same seed and dialogue give the same faults.
"""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from catkit_devices.errors import ConfigurationError, nearest
from catkit_devices.simulation.contract import LineDroppedError, Outbox

if TYPE_CHECKING:
    from collections.abc import Mapping

    from catkit_devices._base.clock import Clock
    from catkit_devices.simulation.contract import Simulator

__all__ = ["FAULTS", "Fault", "FaultyLine", "Piece", "Talk"]

FAULTS: Mapping[str, str] = {
    "no_reply": "the reply is lost",
    "late": "the reply comes `delay` seconds late; the replies that follow it still come after it",
    "truncated": "only the first `keep` bytes of the reply come",
    "garbled": "the byte at `position` comes with the bits of `mask` flipped",
    "extra": "unexpected bytes, `data`, come before or (`after`) after the first part of the reply",
    "disconnect": "the connection drops where the reply would have begun; it can be opened again at once",
    "slow": "the reply comes one byte each `interval` seconds",
}
"""Every kind of fault and what it does to a reply."""


@dataclass(frozen=True)
class Fault:
    """One fault. What is None is chosen from the line's random numbers when the fault strikes.

    Args:
        kind: one of :data:`FAULTS`.
        delay: of "late", in seconds.
        keep: of "truncated", in bytes.
        position: of "garbled", an index into the first part of the reply.
        mask: of "garbled"; the top bit by default, so that garbled text is no longer text.
        data: of "extra"; by default bytes from 0x80 up, so that text with them is no longer text.
        after: of "extra".
        interval: of "slow", in seconds.
    """

    kind: str
    delay: float = 0.5
    keep: int | None = None
    position: int | None = None
    mask: int = 0x80
    data: bytes | None = None
    after: bool | None = None
    interval: float = 0.02

    def __post_init__(self) -> None:
        if self.kind not in FAULTS:
            raise ConfigurationError(
                f"there is no fault {self.kind!r}; there are {', '.join(FAULTS)}",
                suggestion=nearest(str(self.kind), FAULTS),
            )


class Piece(NamedTuple):
    """Some bytes of a message, and whether its last byte is among them."""

    data: bytes
    end: bool


class Talk:
    """What an instrument, or its end of one connection, sends: with the fault of the reply, and on its way.

    Args:
        end: what takes the bytes and answers.
        clock: the bench's.
    """

    def __init__(self, end: Simulator, clock: Clock) -> None:
        self.end = end
        self.fault: Fault | None = None
        self.decided = False
        self.left = 0  # of a truncated reply
        self.outbox = Outbox(clock)
        self.ends: deque[bool] = deque()
        self.under_way = False

    def put(self, data: bytes, *, delay: float = 0.0, end: bool = True) -> None:
        """Have ``data`` arrive after ``delay`` seconds; ``end`` says whether a message ends with it."""
        if data:
            self.outbox.put(data, delay)
            self.ends.append(end)


class FaultyLine:
    """The line between one instrument and the programs that use it.

    Where an instrument answers each connection by itself, every connection has a :class:`Talk` of its own. Faults
    strike the replies of all of them, in the order in which they come.

    Args:
        instrument: what is at its other end.
        clock: the bench's.
        seed: of its random numbers; a number or a text.
        schedule: the probability, from 0 to 1 for each reply, of each kind of fault.

    Attributes:
        history: each fault that struck, as (number of the write whose reply it was, kind).
    """

    def __init__(
        self,
        instrument: Simulator,
        clock: Clock,
        *,
        seed: int | str = 0,
        schedule: Mapping[str, float] | None = None,
    ) -> None:
        self.history: list[tuple[int, str]] = []
        self._rng = random.Random(f"{seed}")  # noqa: S311 - noise, not a secret
        self._schedule = {Fault(kind): _probability(kind, value) for kind, value in (schedule or {}).items()}
        if sum(self._schedule.values()) > 1:
            raise ConfigurationError(f"the probabilities of faults add up to more than 1: {dict(schedule or {})!r}")
        self._injected: deque[Fault | None] = deque()
        self._writes = 0
        self._clock = clock
        self._common = Talk(instrument, clock)

    def connection(self, end: Simulator) -> Talk:
        """Return what belongs to a connection that the instrument answers by itself, with its ``end`` of it."""
        return Talk(end, self._clock)

    def inject(self, fault: Fault, count: int = 1, *, after: int = 0) -> None:
        """Strike the next ``count`` replies, after ``after`` replies without a fault.

        Several calls are carried out one after the other, and before the faults of the schedule.
        """
        self._injected.extend([None] * after + [fault] * count)

    def clear(self) -> None:
        """Remove the faults that were injected and have not struck yet."""
        self._injected.clear()

    def exchange(self, data: bytes, talk: Talk | None = None) -> list[Piece]:
        """Send ``data`` to the instrument (``b""`` only asks what it has sent since) and return what arrives.

        Args:
            data: bytes.
            talk: of the connection, where the instrument answers each by itself.

        Raises:
            LineDroppedError: when the connection drops.
        """
        talk = talk or self._common
        if data:
            self._writes += 1
            talk.decided = False
        reply = talk.end.feed(data)
        if reply:
            first = not talk.decided
            if first:
                self._decide(talk, reply)
            self._send(talk, reply, first=first)
        pieces = [Piece(piece, talk.ends.popleft()) for piece in talk.outbox.take_pieces()]
        if pieces:
            talk.under_way = not pieces[-1].end
        return pieces

    def abort(self) -> None:
        """Stop the message that is arriving, as a device clear does; a message that has not begun still comes."""
        talk = self._common
        while talk.under_way and talk.ends:
            talk.outbox.drop_one()
            talk.under_way = not talk.ends.popleft()

    def lose(self) -> None:
        """Lose all that has been sent and has not arrived yet, as the end of a TCP connection does."""
        talk = self._common
        while talk.ends:
            talk.outbox.drop_one()
            talk.ends.popleft()
        talk.under_way = False

    def _decide(self, talk: Talk, reply: bytes) -> None:
        talk.decided = True
        talk.fault = fault = self._injected.popleft() if self._injected else self._draw()
        if fault is None:
            return
        self.history.append((self._writes, fault.kind))
        if fault.kind == "truncated":
            talk.left = self._rng.randrange(len(reply)) if fault.keep is None else fault.keep

    def _draw(self) -> Fault | None:
        if not self._schedule:
            return None
        drawn = self._rng.random()
        for fault, probability in self._schedule.items():
            if drawn < probability:
                return fault
            drawn -= probability
        return None

    def _send(self, talk: Talk, reply: bytes, *, first: bool) -> None:
        fault = talk.fault
        match fault.kind if fault is not None else None, fault:
            case "no_reply", _:
                pass
            case "disconnect", _:
                talk.fault = None  # the rest of what the instrument sends comes over the next connection
                raise LineDroppedError("the simulated connection dropped", passing=True)
            case "late", Fault(delay=delay):
                talk.put(reply, delay=delay)
            case "truncated", _:
                kept, talk.left = reply[: talk.left], max(talk.left - len(reply), 0)
                talk.put(kept)
            case "slow", Fault(interval=interval):
                for number in range(len(reply)):
                    last = number == len(reply) - 1
                    talk.put(reply[number : number + 1], delay=(number + 1) * interval, end=last)
            case "garbled", Fault() as garbled if first:
                talk.put(self._garbled(reply, garbled))
            case "extra", Fault() as extra if first:
                talk.put(self._with_extra(reply, extra))
            case _:
                talk.put(reply)

    def _garbled(self, reply: bytes, fault: Fault) -> bytes:
        position = self._rng.randrange(len(reply)) if fault.position is None else fault.position % len(reply)
        return reply[:position] + bytes([reply[position] ^ fault.mask]) + reply[position + 1 :]

    def _with_extra(self, reply: bytes, fault: Fault) -> bytes:
        data = fault.data
        if data is None:
            data = bytes(self._rng.choices(range(0x80, 0x100), k=self._rng.randint(1, 4)))
        after = self._rng.random() < 0.5 if fault.after is None else fault.after
        return reply + data if after else data + reply


def _probability(kind: str, value: float) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= 1:
        raise ConfigurationError(f"the probability of {kind!r} must be from 0 to 1, got {value!r}")
    return float(value)
