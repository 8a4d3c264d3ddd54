"""The messages of HiSLIP, and cutting a stream of bytes into them.

Everything here is from IVI-6.1, *High-Speed LAN Instrument Protocol*, revision 1.0: the header from table 2, the types
from table 4, the codes of errors from tables 10 and 12.
"""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["HEADER", "ErrorCode", "FatalCode", "FatalProblem", "Message", "MessageParser", "MessageType", "Oversized"]

HEADER = struct.Struct("!2sBBIQ")
"""Of every message: ``HS``, type, control code, parameter, length of the payload in bytes."""


class MessageType(enum.IntEnum):
    """The kinds of messages. Which side sends which, and on which connection, is explained in :mod:`~.hislip`."""

    INITIALIZE = 0
    INITIALIZE_RESPONSE = 1
    FATAL_ERROR = 2
    ERROR = 3
    ASYNC_LOCK = 4
    ASYNC_LOCK_RESPONSE = 5
    DATA = 6
    DATA_END = 7
    DEVICE_CLEAR_COMPLETE = 8
    DEVICE_CLEAR_ACKNOWLEDGE = 9
    ASYNC_REMOTE_LOCAL_CONTROL = 10
    ASYNC_REMOTE_LOCAL_RESPONSE = 11
    TRIGGER = 12
    INTERRUPTED = 13
    ASYNC_INTERRUPTED = 14
    ASYNC_MAXIMUM_MESSAGE_SIZE = 15
    ASYNC_MAXIMUM_MESSAGE_SIZE_RESPONSE = 16
    ASYNC_INITIALIZE = 17
    ASYNC_INITIALIZE_RESPONSE = 18
    ASYNC_DEVICE_CLEAR = 19
    ASYNC_SERVICE_REQUEST = 20
    ASYNC_STATUS_QUERY = 21
    ASYNC_STATUS_RESPONSE = 22
    ASYNC_DEVICE_CLEAR_ACKNOWLEDGE = 23
    ASYNC_LOCK_INFO = 24
    ASYNC_LOCK_INFO_RESPONSE = 25


class FatalCode(enum.IntEnum):
    """Why a connection ends."""

    UNIDENTIFIED = 0
    POORLY_FORMED_HEADER = 1
    NOT_BOTH_CHANNELS = 2
    INVALID_INITIALIZATION = 3
    TOO_MANY_CLIENTS = 4


class ErrorCode(enum.IntEnum):
    """Why one message was not carried out; the connection continues."""

    UNIDENTIFIED = 0
    UNRECOGNIZED_TYPE = 1
    UNRECOGNIZED_CONTROL_CODE = 2
    UNRECOGNIZED_VENDOR_MESSAGE = 3
    TOO_LARGE = 4
    REFUSED = 128
    """The first of the codes that a device defines for itself. Here: the text says why the instrument did not do it."""


class FatalProblem(Exception):  # noqa: N818 - it becomes an error of the protocol, and is never shown as one of Python
    """What the other side sent cannot be understood, so the connection must end.

    Args:
        code: for the other side.
        text: what was expected and what was found.
    """

    def __init__(self, code: FatalCode, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


@dataclass(frozen=True, slots=True)
class Message:
    """One message of the protocol.

    Attributes:
        kind: its type; an unknown one is a plain number.
        control: the control code, 0 to 255.
        parameter: the message parameter, 0 to 2**32 - 1.
        payload: the bytes that follow the header.
    """

    kind: MessageType | int
    control: int = 0
    parameter: int = 0
    payload: bytes = b""

    def encode(self) -> bytes:
        """Return the message as it is sent."""
        return HEADER.pack(b"HS", self.kind, self.control, self.parameter, len(self.payload)) + self.payload


@dataclass(frozen=True, slots=True)
class Oversized:
    """Stands for a message whose payload was longer than allowed, and was not kept.

    Attributes:
        kind: its type.
        length: of the payload, in bytes.
    """

    kind: MessageType | int
    length: int


class MessageParser:
    """Cuts what comes over one connection into messages. Never keeps more than one payload of the longest length.

    Args:
        longest: bytes that a payload may have. Of a longer one nothing is kept.
    """

    _KINDS: ClassVar[dict[int, MessageType]] = {kind.value: kind for kind in MessageType}

    def __init__(self, longest: int) -> None:
        self.longest = longest
        self._begun = bytearray()
        self._to_discard = 0

    @property
    def kept(self) -> int:
        """How many bytes of an incomplete message are kept."""
        return len(self._begun)

    def feed(self, data: bytes) -> Iterator[Message | Oversized]:
        """Take bytes from the connection, and yield the messages that are complete now.

        Raises:
            FatalProblem: they are no header of a message. Nothing that follows can be understood.
        """
        if self._to_discard:
            discarded = min(self._to_discard, len(data))
            self._to_discard -= discarded
            data = data[discarded:]
        self._begun += data
        while len(self._begun) >= HEADER.size:
            prologue, number, control, parameter, length = HEADER.unpack_from(self._begun)
            if prologue != b"HS":
                raise FatalProblem(
                    FatalCode.POORLY_FORMED_HEADER,
                    f"a message must begin with b'HS', found {bytes(self._begun[: HEADER.size])!r}",
                )
            kind = self._KINDS.get(number, number)
            end = HEADER.size + length
            if length > self.longest:
                self._to_discard = max(0, end - len(self._begun))
                del self._begun[:end]
                yield Oversized(kind, length)
                continue
            if len(self._begun) < end:
                return
            payload = bytes(memoryview(self._begun)[HEADER.size : end])
            del self._begun[:end]
            yield Message(kind, control, parameter, payload)
