"""Simulated instruments that follow a given dialogue: a recording, or one that is written in a test.

What a program sends must be what the dialogue says, byte for byte; the instrument then answers as the dialogue says. A
difference is an error that shows what was expected and what was sent.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from catkit_devices.errors import SimulationError
from catkit_devices.simulation.contract import Outbox
from catkit_devices.simulation.wire_file import Entry, escape, read_entries

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from catkit_devices.simulation.bench import Bench

__all__ = ["Dialogue", "Replay"]

_SHOWN = 40
"""Bytes that an error shows before the first difference, and after it."""


class Dialogue:
    """An instrument that expects the bytes of a dialogue, in their order, and gives its answers.

    How the expected bytes are divided into writes does not matter. Each answer is given when everything before it in
    the dialogue was sent. Where the interface marks the ends of messages, each answer is one message. Status bytes are
    those that the dialogue has after the bytes that were sent last; the last of them is repeated, because a program may
    poll more often than when it was recorded.

    Args:
        bench: the simulated bench that it is part of.
        entries: the dialogue.
        title: its name in errors.
        timing: whether an answer takes as long, after the last bytes that were sent, as the times of the entries say;
            if not, it comes at once.
    """

    def __init__(
        self, bench: Bench, entries: Iterable[Entry], *, title: str = "dialogue", timing: bool = False
    ) -> None:
        self._title = title
        self._timing = timing
        self._clock = bench.clock
        # Entries without bytes are left out: nothing of them is seen on the wire, so the dialogue would never go on.
        self._entries = deque(entry for entry in entries if (_matters(entry) if entry.kind == "!" else entry.data))
        self._outbox = Outbox(bench.clock)
        self._answered: deque[Entry] = deque()
        self._statuses: deque[int] = deque()
        self._status = 0
        self._matched = 0
        self._difference: SimulationError | None = None
        self._recorded_at = 0.0
        self._now = bench.clock.time()
        self._answer()

    def feed(self, data: bytes) -> bytes:
        """Take what is sent, and return the next answer if its time has come.

        Raises:
            SimulationError: it is not what the dialogue says.
        """
        if self._difference is not None and data:
            raise self._difference
        sent = data
        while sent:
            expected = self._expect(sent)
            part = expected.data[self._matched :]
            same = _common(part, sent)
            if same < min(len(part), len(sent)):
                raise self._differs(expected, self._matched + same, sent, same)
            self._matched += same
            sent = sent[same:]
            if self._matched == len(expected.data):
                self._next()
        return self._take()

    def clear(self) -> None:
        """Accept a device clear, if it is next in the dialogue; unread answers are lost."""
        self._outbox.clear()
        self._answered.clear()
        self._event(b"clear", "a device clear")

    def trigger(self) -> bytes:
        """Accept a trigger, if it is next in the dialogue, and return the next answer if its time has come."""
        self._event(b"trigger", "a trigger")
        return self._take()

    def read_stb(self) -> int:
        """Return the next status byte at this place in the dialogue; without one, bit 4 says if it has an answer."""
        if self._statuses:
            self._status = self._statuses.popleft()
            return self._status
        return self._status & ~_MESSAGE | (_MESSAGE if self._outbox else 0)

    @property
    def difference(self) -> SimulationError | None:
        """The first difference between the dialogue and what was sent, if there was one."""
        return self._difference

    def finish(self) -> None:
        """Raise SimulationError if there was a difference, or if a part of the dialogue has not taken place."""
        if self._difference is not None:
            raise self._difference
        left = [entry for entry in [*self._answered, *self._entries] if entry.kind != "!"]
        if left:
            entry = left[0]
            what = "never sent" if entry.kind == ">" else "never read"
            if entry.kind == ">" and self._matched:
                what = f"only {escape(entry.data[: self._matched])} was sent of this"
            raise SimulationError(f"{self._place(entry)}: {what}: {entry} ({len(left)} such entries are left)")

    # --- below

    def _expect(self, sent: bytes) -> Entry:
        """Return the entry that ``sent`` should match."""
        if not self._entries:
            raise self._refuse(f"{self._title}: nothing more is expected, got  {escape(sent[:_SHOWN])}")
        if self._entries[0].kind != ">":
            entry = self._entries[0]
            raise self._refuse(
                f"{self._place(entry)}: a device {entry.data.decode()} is expected, got  {escape(sent[:_SHOWN])}"
            )
        return self._entries[0]

    def _event(self, name: bytes, title: str) -> None:
        if self._difference is not None:
            raise self._difference
        expected = self._entries[0] if self._entries else None
        if expected is None or expected.kind != "!" or expected.data != name or self._matched:
            where = f"{self._title}: nothing more" if expected is None else f"{self._place(expected)}: {expected}"
            raise self._refuse(f"{where} is expected, got {title}")
        self._next()

    def _next(self) -> None:
        done = self._entries.popleft()
        self._matched = 0
        self._statuses.clear()
        self._recorded_at, self._now = done.time, self._clock.time()
        self._answer()

    def _answer(self) -> None:
        while self._entries and (self._entries[0].kind == "<" or self._entries[0].status is not None):
            entry = self._entries.popleft()
            if entry.status is not None:
                self._statuses.append(entry.status)
                continue
            delay = max(entry.time - self._recorded_at, 0.0) if self._timing else 0.0
            self._outbox.put(entry.data, at=self._now + delay)
            self._answered.append(entry)

    def _take(self) -> bytes:
        # One at a time, because each answer is one message where the interface marks the ends of messages.
        answer = self._outbox.take_one()
        if answer:
            self._answered.popleft()
        return answer

    def _differs(self, expected: Entry, position: int, sent: bytes, same: int) -> SimulationError:
        begin = max(position - _SHOWN, 0)
        before = ("..." if begin else "") + escape(expected.data[begin:position], whole=False)
        rest = expected.data[position : position + _SHOWN]
        return self._refuse(
            f"{self._place(expected)}: what was sent is not what is expected, from byte {position} on\n"
            f"  expected  {before}{_after(before, rest)}\n"
            f"  sent      {before}{_after(before, sent[same : same + _SHOWN])}\n"
            f"            {' ' * len(before)}^"
        )

    def _refuse(self, text: str) -> SimulationError:
        self._difference = SimulationError(text)
        return self._difference

    def _place(self, entry: Entry) -> str:
        return f"{self._title}:{entry.line}" if entry.line else self._title


class Replay(Dialogue):
    """An instrument that repeats a recording; in a configuration, ``simulator = "recordings/wheel.wire"``.

    Args:
        bench: the simulated bench that it is part of.
        path: the recording.
        timing: whether answers take as long as when it was recorded; if not, they come at once.

    Raises:
        ConfigurationError: it cannot be read.
    """

    def __init__(self, bench: Bench, path: Path | str, *, timing: bool = False) -> None:
        super().__init__(bench, read_entries(path), title=str(path), timing=timing)


_TOLD = frozenset({b"clear", b"trigger"})
"""Events other than bytes that reach an instrument."""
_MESSAGE = 16
"""The bit of the status byte that says that an answer can be read (message available; IEEE 488.2, 11.2.1.2)."""


def _matters(entry: Entry) -> bool:
    return entry.data in _TOLD or entry.status is not None


def _after(before: str, data: bytes) -> str:
    """Return bytes as they are written after others: there a space at their beginning need not be escaped."""
    text = escape(data)
    return " " + text.removeprefix("\\x20") if before and data.startswith(b" ") and data != b" " else text


def _common(one: bytes, other: bytes) -> int:
    """Return how many bytes at the beginning of both are the same."""
    length = min(len(one), len(other))
    return next((index for index in range(length) if one[index] != other[index]), length)
