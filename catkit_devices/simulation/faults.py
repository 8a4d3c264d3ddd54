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

__all__ = ["FAULTS", "Fault", "FaultyLine", "Piece"]

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


class FaultyLine:
    """The line between one instrument and the programs that use it.

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
        self._instrument = instrument
        self._rng = random.Random(f"{seed}")  # noqa: S311 - noise, not a secret
        self._schedule = {Fault(kind): _probability(kind, value) for kind, value in (schedule or {}).items()}
        if sum(self._schedule.values()) > 1:
            raise ConfigurationError(f"the probabilities of faults add up to more than 1: {dict(schedule or {})!r}")
        self._injected: deque[Fault | None] = deque()
        self._writes = 0
        self._fault: Fault | None = None
        self._decided = False
        self._left = 0  # of a truncated reply
        self._outbox = Outbox(clock)
        self._ends: deque[bool] = deque()
        self._under_way = False

    def inject(self, fault: Fault, count: int = 1, *, after: int = 0) -> None:
        """Strike the next ``count`` replies, after ``after`` replies without a fault.

        Several calls are carried out one after the other, and before the faults of the schedule.
        """
        self._injected.extend([None] * after + [fault] * count)

    def clear(self) -> None:
        """Remove the faults that were injected and have not struck yet."""
        self._injected.clear()

    def exchange(self, data: bytes) -> list[Piece]:
        """Send ``data`` to the instrument (``b""`` only asks what it has sent since) and return what arrives.

        Raises:
            LineDroppedError: when the connection drops.
        """
        if data:
            self._writes += 1
            self._decided = False
        reply = self._instrument.feed(data)
        if reply:
            first = not self._decided
            if first:
                self._decide(reply)
            self._send(reply, first=first)
        pieces = [Piece(piece, self._ends.popleft()) for piece in self._outbox.take_pieces()]
        if pieces:
            self._under_way = not pieces[-1].end
        return pieces

    def abort(self) -> None:
        """Stop the message that is arriving, as a device clear does; a message that has not begun still comes."""
        while self._under_way and self._ends:
            self._outbox.drop_one()
            self._under_way = not self._ends.popleft()

    def lose(self) -> None:
        """Lose all that has been sent and has not arrived yet, as the end of a TCP connection does."""
        while self._ends:
            self._outbox.drop_one()
            self._ends.popleft()
        self._under_way = False

    def _decide(self, reply: bytes) -> None:
        self._decided = True
        self._fault = self._injected.popleft() if self._injected else self._draw()
        if self._fault is None:
            return
        self.history.append((self._writes, self._fault.kind))
        if self._fault.kind == "truncated":
            keep = self._fault.keep
            self._left = self._rng.randrange(len(reply)) if keep is None else keep

    def _draw(self) -> Fault | None:
        if not self._schedule:
            return None
        drawn = self._rng.random()
        for fault, probability in self._schedule.items():
            if drawn < probability:
                return fault
            drawn -= probability
        return None

    def _send(self, reply: bytes, *, first: bool) -> None:
        fault = self._fault
        match fault.kind if fault is not None else None, fault:
            case "no_reply", _:
                pass
            case "disconnect", _:
                self._fault = None  # the rest of what the instrument sends comes over the next connection
                raise LineDroppedError("the simulated connection dropped", passing=True)
            case "late", Fault(delay=delay):
                self._put(reply, delay=delay)
            case "truncated", _:
                kept, self._left = reply[: self._left], max(self._left - len(reply), 0)
                self._put(kept)
            case "slow", Fault(interval=interval):
                for number in range(len(reply)):
                    last = number == len(reply) - 1
                    self._put(reply[number : number + 1], delay=(number + 1) * interval, end=last)
            case "garbled", Fault() as garbled if first:
                self._put(self._garbled(reply, garbled))
            case "extra", Fault() as extra if first:
                self._put(self._with_extra(reply, extra))
            case _:
                self._put(reply)

    def _put(self, data: bytes, *, delay: float = 0.0, end: bool = True) -> None:
        if data:
            self._outbox.put(data, delay)
            self._ends.append(end)

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
