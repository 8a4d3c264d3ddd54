"""What a server of HiSLIP 1.0 does with the messages of one program (IVI-6.1), without any input or output.

A program has two connections: the *synchronous* one for data, and the *asynchronous* one for everything that must
arrive although data is under way. A :class:`Pair` is told what comes over both and says what is to be done.

In *synchronized* mode, which is usual, a program that sends a new message before it has read the reply to the last one
does not get that reply any more; it is told so (``Interrupted``, ``AsyncInterrupted``), and what it reads next is the
reply to the new message. In *overlapped* mode all replies come, in order. A program chooses the mode when it clears the
device.
"""

from __future__ import annotations

import enum
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from catkit_devices._wire.program_message import is_question
from catkit_devices.gateway.messages import (
    HEADER,
    ErrorCode,
    FatalCode,
    FatalProblem,
    Message,
    MessageType,
    Oversized,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from catkit_devices.gateway.doors import LockAnswer, LockState

__all__ = [
    "FIRST_ID",
    "LONGEST_MESSAGE",
    "LONGEST_PAYLOAD",
    "PROTOCOL_VERSION",
    "VENDOR",
    "Action",
    "AskLocks",
    "Clear",
    "Interrupt",
    "Lock",
    "Pair",
    "ReadStatus",
    "RemoteLocal",
    "Send",
    "Unlock",
    "Work",
]

PROTOCOL_VERSION = 0x0100
"""1.0: the major number in the upper byte, the minor one in the lower."""
VENDOR = int.from_bytes(b"CK", "big")
"""Two letters that are registered for nobody (VPP-9 lists those of makers)."""
FIRST_ID = 0xFFFF_FF00
"""Number of the first message of a program, and of the first after a device clear."""
_IDS = 1 << 32
"""Numbers of messages begin again at 0 after this many."""
_MESSAGE_AVAILABLE = 16
"""The bit of the status byte that says that a reply is there (IEEE 488.2, 11.2.1.2)."""

LONGEST_PAYLOAD = 1 << 20
"""Bytes of payload that this server takes in one message of the protocol: what programs assume without asking."""
LONGEST_MESSAGE = 1 << 25
"""Bytes (32 MiB) that one message to an instrument may have in all: more than the memory of any waveform generator."""
_LONGEST_PIECE = 1 << 17
"""Bytes of payload in a message to a program, so that a device clear during a long reply is not held up by much."""
_SHORTEST_PIECE = 256
"""Bytes of payload to a program that says it takes still less: it would cost the server time without end."""
_MOST_WAITING = 16
"""Messages of one program that wait to be carried out; with more, no more are read from its connection."""
_LONGEST_KEY = 256
"""Bytes of the name of a shared lock (VPP-4.3, 3.6)."""


@dataclass(frozen=True, slots=True)
class Send:
    """Send a message."""

    message: Message
    asynchronous: bool


@dataclass(frozen=True, slots=True)
class Interrupt:
    """Tell the instrument that the reply of the present exchange is no longer wanted."""


@dataclass(frozen=True, slots=True)
class Clear:
    """End the present exchange, clear the instrument, then call :meth:`Pair.cleared`."""


@dataclass(frozen=True, slots=True)
class ReadStatus:
    """Read the status byte, then call :meth:`Pair.status`."""


@dataclass(frozen=True, slots=True)
class Lock:
    """Wait for a lock, then call :meth:`Pair.lock_answered`."""

    key: bytes
    timeout: float


@dataclass(frozen=True, slots=True)
class Unlock:
    """Give a lock back when the message of this number has been carried out; then call :meth:`Pair.lock_answered`."""

    message_id: int


@dataclass(frozen=True, slots=True)
class AskLocks:
    """Find out who has locks, then call :meth:`Pair.locks`."""


@dataclass(frozen=True, slots=True)
class RemoteLocal:
    """Switch between remote and local control, then call :meth:`Pair.remote_local_done`."""

    request: int


Action = Send | Interrupt | Clear | ReadStatus | Lock | Unlock | AskLocks | RemoteLocal


@dataclass(slots=True, eq=False)
class Work:
    """One message for the instrument, or a trigger.

    Attributes:
        message_id: the number that its reply bears.
        data: the message; None for a trigger.
        interrupted_by: the number of the message that came before its reply was read, if one did.
        abandoned: whether its reply is not to be sent, or not to be continued.
    """

    message_id: int
    data: bytes | None
    interrupted_by: int | None = None
    abandoned: bool = False


class _Clearing(enum.Enum):
    """How far a device clear is."""

    NONE = enum.auto()
    INSTRUMENT = enum.auto()
    """The instrument is being cleared."""
    PROGRAM = enum.auto()
    """The program is reading what was still under way; what it sent before is discarded."""


class Pair:
    """The two connections of one program.

    Args:
        longest_message: bytes that a message to the instrument may have.
    """

    def __init__(self, longest_message: int = LONGEST_MESSAGE) -> None:
        self.overlapped = False
        self._longest_message = longest_message
        self._piece = _LONGEST_PIECE
        self._begun = bytearray()
        self._is_begun = False
        self._too_long = False
        self._last_id = (FIRST_ID - 2) % _IDS
        self._waiting: deque[Work] = deque()
        self._running: Work | None = None
        self._undelivered = False
        self._hung_up = False
        self._clearing = _Clearing.NONE

    # --- what the server asks

    @property
    def is_full(self) -> bool:
        """Whether nothing more should be read from the synchronous connection now."""
        if self._clearing is not _Clearing.NONE:
            return False
        size = sum(len(work.data or b"") for work in self._waiting)
        return len(self._waiting) >= _MOST_WAITING or size >= self._longest_message

    @property
    def kept(self) -> int:
        """How many bytes of messages are kept."""
        return len(self._begun) + sum(len(work.data or b"") for work in self._waiting)

    @property
    def has_work(self) -> bool:
        """Whether there is something for the instrument to do now."""
        return self._running is None and self._clearing is _Clearing.NONE and bool(self._waiting)

    @property
    def has_last_words(self) -> bool:
        """Whether anything is to be carried out that is more than a question."""
        return any(work.data is None or not is_question(work.data) for work in self._unfinished())

    def hang_up(self) -> None:
        """Learn that the program has closed its connections: it reads nothing any more."""
        self._hung_up = True

    def next_work(self) -> Work | None:
        """Return what the instrument is to do next; the server calls :meth:`done` when it is done."""
        if not self.has_work:
            return None
        self._running = self._waiting.popleft()
        if self._running.interrupted_by is None and self._waiting and not self.overlapped:
            self._running.interrupted_by = self._waiting[0].message_id
        return self._running

    def has_come(self, message_id: int) -> bool:
        """Whether the message of this number, or a later one, has come."""
        return not _is_later(message_id, self._last_id)

    def has_done(self, message_id: int) -> bool:
        """Whether everything up to the message of this number has been carried out, as far as it has come."""
        return all(_is_later(work.message_id, message_id) for work in self._unfinished())

    # --- what the server tells: what has come

    def receive(self, message: Message | Oversized, *, asynchronous: bool) -> list[Action]:
        """Take one message of the program.

        Raises:
            FatalProblem: the connections must end.
        """
        if message.kind in (MessageType.INITIALIZE, MessageType.ASYNC_INITIALIZE):
            raise FatalProblem(FatalCode.INVALID_INITIALIZATION, "this connection is initialized already")
        if isinstance(message, Oversized):
            return self._oversized(message, asynchronous)
        if message.kind in (MessageType.ERROR, MessageType.FATAL_ERROR):
            return []  # the program's opinion; there is nothing to repeat
        return self._asynchronous(message) if asynchronous else self._synchronous(message)

    def _oversized(self, message: Oversized, asynchronous: bool) -> list[Action]:
        if message.kind in (MessageType.DATA, MessageType.DATA_END) and not asynchronous:
            self._forget_begun(and_rest=message.kind is MessageType.DATA)
        text = f"a payload may have {LONGEST_PAYLOAD} bytes, got {message.length}"
        return [_error(ErrorCode.TOO_LARGE, text, asynchronous=asynchronous)]

    def _synchronous(self, message: Message) -> list[Action]:
        if message.kind is MessageType.DEVICE_CLEAR_COMPLETE:
            return self._clear_complete(message)
        if message.kind not in (MessageType.DATA, MessageType.DATA_END, MessageType.TRIGGER):
            return [_unrecognized(message, asynchronous=False)]
        if self._clearing is not _Clearing.NONE:
            return []  # sent before the program knew that the device was cleared
        if message.control & ~1:
            self._forget_begun(and_rest=message.kind is MessageType.DATA)
            return [_wrong_control(message, "0 or 1", asynchronous=False)]
        self._last_id = message.parameter
        if message.control & 1:
            self._undelivered = False
        actions = [] if self._is_begun else self._new_message(message.parameter)
        if message.kind is MessageType.TRIGGER:
            self._waiting.append(Work(message.parameter, None))
            return actions
        return actions + self._data(message)

    def _new_message(self, message_id: int) -> list[Action]:
        """Give up a reply that was not read, where the mode says so."""
        if self.overlapped:
            return []
        actions: list[Action] = []
        if self._running is not None and self._running.interrupted_by is None:
            self._running.interrupted_by = message_id
            actions.append(Interrupt())
        if self._undelivered:
            self._undelivered = False
            if self._running is not None:
                self._running.abandoned = True
            actions += _interrupted(message_id)
        return actions

    def _data(self, message: Message) -> list[Action]:
        ends = message.kind is MessageType.DATA_END
        if self._too_long:
            self._forget_begun(and_rest=not ends)
            return []
        if len(self._begun) + len(message.payload) > self._longest_message:
            self._forget_begun(and_rest=not ends)
            text = f"a message may have {self._longest_message} bytes in all"
            return [_error(ErrorCode.TOO_LARGE, text, asynchronous=False)]
        self._begun += message.payload
        self._is_begun = not ends
        if ends:
            self._waiting.append(Work(message.parameter, bytes(self._begun)))
            self._begun = bytearray()
        return []

    def _forget_begun(self, *, and_rest: bool) -> None:
        """Forget what has come of a message; and what is still to come, where its end has not come yet."""
        self._begun = bytearray()
        self._too_long = self._is_begun = and_rest

    def _clear_complete(self, message: Message) -> list[Action]:
        if self._clearing is not _Clearing.PROGRAM:
            return [_error(ErrorCode.UNIDENTIFIED, "no device clear was begun", asynchronous=False)]
        self._clearing = _Clearing.NONE
        self._forget_begun(and_rest=False)
        self._last_id = (FIRST_ID - 2) % _IDS
        self.overlapped = bool(message.control & 1)
        return [Send(Message(MessageType.DEVICE_CLEAR_ACKNOWLEDGE, int(self.overlapped)), asynchronous=False)]

    def _asynchronous(self, message: Message) -> list[Action]:
        match message.kind:
            case MessageType.ASYNC_DEVICE_CLEAR:
                self._clearing = _Clearing.INSTRUMENT
                self._forget_begun(and_rest=False)
                self._waiting.clear()
                self._undelivered = False
                if self._running is not None:
                    self._running.abandoned = True
                return [Clear()]
            case MessageType.ASYNC_STATUS_QUERY:
                if message.control & 1:
                    self._undelivered = False
                return [ReadStatus()]
            case MessageType.ASYNC_LOCK:
                return self._lock(message)
            case MessageType.ASYNC_LOCK_INFO:
                return [AskLocks()]
            case MessageType.ASYNC_REMOTE_LOCAL_CONTROL:
                if message.control > 6:
                    return [_wrong_control(message, "0 to 6", asynchronous=True)]
                return [RemoteLocal(message.control)]
            case MessageType.ASYNC_MAXIMUM_MESSAGE_SIZE:
                return self._maximum_size(message)
        return [_unrecognized(message, asynchronous=True)]

    def _lock(self, message: Message) -> list[Action]:
        if message.control == 0:
            return [Unlock(message.parameter)]
        if message.control != 1:
            return [_wrong_control(message, "0 or 1", asynchronous=True)]
        if len(message.payload) > _LONGEST_KEY:
            text = f"the name of a lock may have {_LONGEST_KEY} bytes, got {len(message.payload)}"
            return [_error(ErrorCode.TOO_LARGE, text, asynchronous=True)]
        return [Lock(message.payload, message.parameter / 1000)]

    def _maximum_size(self, message: Message) -> list[Action]:
        if len(message.payload) != 8:
            text = f"a size has 8 bytes, got {len(message.payload)}"
            return [_error(ErrorCode.UNIDENTIFIED, text, asynchronous=True)]
        # Some programs count the header and some do not: so it is left out of what is sent, and added to what is taken.
        size = int.from_bytes(message.payload, "big") - HEADER.size
        self._piece = max(_SHORTEST_PIECE, min(size, _LONGEST_PIECE))
        payload = LONGEST_PAYLOAD.to_bytes(8, "big")
        kind = MessageType.ASYNC_MAXIMUM_MESSAGE_SIZE_RESPONSE
        return [Send(Message(kind, payload=payload), asynchronous=True)]

    # --- what the server tells: what was done

    def replies(self, work: Work, replies: Sequence[bytes] | None) -> Iterator[Message]:
        """Yield what is to be sent over the synchronous connection; ends early when the reply is no longer wanted.

        What must go over the asynchronous one, too, is said by :meth:`interruption`, to be asked before.

        Args:
            work: what was done.
            replies: what the instrument replied; None where it was to reply, and was interrupted.
        """
        if work.interrupted_by is not None:
            return
        for reply in replies or ():
            view = memoryview(reply)
            while self._wanted(work):
                self._undelivered = True
                piece, view = bytes(view[: self._piece]), view[self._piece :]
                if not view:
                    yield Message(MessageType.DATA_END, 0, work.message_id, piece)
                    break
                yield Message(MessageType.DATA, 0, work.message_id, piece)

    def interruption(self, work: Work, replies: Sequence[bytes] | None) -> list[Action]:
        """Return how the program is told that a reply was thrown away, if one was."""
        if work.abandoned or work.interrupted_by is None or replies == [] or self._hung_up:
            return []
        return _interrupted(work.interrupted_by)

    def done(self, work: Work) -> None:
        """Learn that ``work`` is finished, its reply sent as far as it was wanted."""
        if self._running is work:
            self._running = None

    def refused(self, work: Work, text: str) -> list[Action]:
        """Learn that the instrument did not do ``work``."""
        return [] if work.abandoned or self._hung_up else [_error(ErrorCode.REFUSED, text, asynchronous=False)]

    def refused_asynchronously(self, text: str) -> list[Action]:
        """Learn that what the program asked for over the asynchronous connection was not done."""
        return [_error(ErrorCode.REFUSED, text, asynchronous=True)]

    def cleared(self) -> list[Action]:
        """Learn that nothing runs any more, and that the instrument was cleared."""
        self._clearing = _Clearing.PROGRAM
        kind = MessageType.ASYNC_DEVICE_CLEAR_ACKNOWLEDGE
        return [Send(Message(kind, int(self.overlapped)), asynchronous=True)]

    def status(self, byte: int) -> list[Action]:
        """Learn the status byte of the instrument.

        Whether a reply is there is known here: it was sent, and the program has not said that it was read. The number
        of a message in the question is not used, because programs disagree on whether it is the last or the next one.
        """
        byte &= 0xFF & ~_MESSAGE_AVAILABLE
        if self._undelivered:
            byte |= _MESSAGE_AVAILABLE
        return [Send(Message(MessageType.ASYNC_STATUS_RESPONSE, byte), asynchronous=True)]

    def service_requested(self, byte: int) -> list[Action]:
        """Learn that the instrument requests service, with this status byte."""
        return [Send(Message(MessageType.ASYNC_SERVICE_REQUEST, byte & 0xFF), asynchronous=True)]

    def lock_answered(self, answer: LockAnswer) -> list[Action]:
        """Learn what a request for a lock, or its return, came to."""
        return [Send(Message(MessageType.ASYNC_LOCK_RESPONSE, answer), asynchronous=True)]

    def locks(self, state: LockState) -> list[Action]:
        """Learn who has locks."""
        kind = MessageType.ASYNC_LOCK_INFO_RESPONSE
        return [Send(Message(kind, int(state.exclusive), state.holders), asynchronous=True)]

    def remote_local_done(self) -> list[Action]:
        """Learn that the control was switched."""
        return [Send(Message(MessageType.ASYNC_REMOTE_LOCAL_RESPONSE), asynchronous=True)]

    def _wanted(self, work: Work) -> bool:
        """Whether the program still wants the reply to ``work``; it may change between two pieces of the reply."""
        return not work.abandoned and not self._hung_up

    def _unfinished(self) -> Iterator[Work]:
        if self._running is not None:
            yield self._running
        yield from self._waiting


def _is_later(one: int, other: int) -> bool:
    """Whether the number ``one`` comes after ``other``; they begin again at 0."""
    return 0 < (one - other) % _IDS < _IDS // 2


def _error(code: ErrorCode, text: str, *, asynchronous: bool) -> Send:
    return Send(Message(MessageType.ERROR, code, payload=text.encode("utf-8")), asynchronous)


def _unrecognized(message: Message, *, asynchronous: bool) -> Send:
    vendor = message.kind >= 128
    code = ErrorCode.UNRECOGNIZED_VENDOR_MESSAGE if vendor else ErrorCode.UNRECOGNIZED_TYPE
    which = "asynchronous" if asynchronous else "synchronous"
    return _error(
        code, f"a message of type {int(message.kind)} is not known on the {which} connection", asynchronous=asynchronous
    )


def _wrong_control(message: Message, expected: str, *, asynchronous: bool) -> Send:
    text = f"the control code of {MessageType(message.kind).name} must be {expected}, got {message.control}"
    return _error(ErrorCode.UNRECOGNIZED_CONTROL_CODE, text, asynchronous=asynchronous)


def _interrupted(message_id: int) -> list[Action]:
    return [
        Send(Message(MessageType.INTERRUPTED, 0, message_id), asynchronous=False),
        Send(Message(MessageType.ASYNC_INTERRUPTED, 0, message_id), asynchronous=True),
    ]
