"""The memory of a frame stream, mapped: a head, and a ring of slots with one frame each.

The head has numbers of eight bytes (see ``_PUBLISHED`` and those after it). A slot has the mark of its frame, when it
was published, what form it has (shape and type), and the frame. The mark is odd while the frame is being written. A
reader takes a copy only if the mark was that of the frame it wants, before and after, so that a copy never mixes two
frames. What that needs of the processor is in ``ordering``.
"""

from __future__ import annotations

import math
import struct
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from catkit_devices.errors import ConfigurationError
from catkit_devices.multiprocessing.types.bell import Bell
from catkit_devices.multiprocessing.wire.ordering import fence

if TYPE_CHECKING:
    import mmap
    from collections.abc import Callable

    import numpy as np
    import numpy.typing as npt

__all__ = ["HEAD", "MOVED", "Form", "Notice", "Ring", "Stamps", "head_of", "slot_size", "token_of"]

HEAD = 4096
"""Bytes before the first slot."""
_SLOT_HEAD = 128
"""Bytes of a slot before its frame."""
_LINE = 64
"""Bytes of a cache line: no two slots share one."""
_PUBLISHED, _BELL, _TURN, _FIRST, _MOVED, _SLOTS, _SIZE, _TOKEN = range(8)
"""Words of the head: number of frames published so far; what rings for each of them; number of writers so far; number
of the first frame in this memory; 1 if later frames are in another memory; number of slots; bytes of each slot; a
number that no other memory has."""
_MARK, _STAMPS, _FORM = 0, 8, 24
"""Where, in a slot, are its mark, the two times of its frame, and the frame's form."""
_NOTICE = 1024
"""Where, in the head, is what the writer says of itself: the mark of the notice, the notice, its text."""
_NOTICE_LAYOUT = struct.Struct("=ddQ")
"""Since when, when the writer was last heard of, bytes of the text."""
_NOTICE_TEXT = _NOTICE + 8 + _NOTICE_LAYOUT.size
"""Where its text is."""
_NOTICE_ROOM = 2000
"""Bytes of text that a notice has room for."""
_FORM_LAYOUT = struct.Struct("=Q7Q16s")
"""A form: number of dimensions, shape, type as NumPy writes it."""
_MOST_DIMENSIONS = 7
"""That a form has room for."""


class Form(NamedTuple):
    """Shape and type of a frame."""

    shape: tuple[int, ...]
    dtype: str
    """As NumPy writes it with its byte order: ``"<u2"``."""

    @property
    def size(self) -> int:
        """Bytes of a frame."""
        import numpy as np

        return math.prod(self.shape) * int(np.dtype(self.dtype).itemsize)

    @classmethod
    def of(cls, stream: str, shape: tuple[int, ...], dtype: Any) -> Form:
        """Return the form for a shape and a type.

        Args:
            stream: its name, for messages.
            shape: of the frames.
            dtype: their type, as NumPy takes it.

        Raises:
            ConfigurationError: frames of it cannot be in a stream.
        """
        import numpy as np

        kind = np.dtype(dtype)
        if len(shape) > _MOST_DIMENSIONS or any(length < 0 for length in shape):
            raise ConfigurationError(
                f"stream {stream!r}: a shape has up to {_MOST_DIMENSIONS} lengths from 0, got {tuple(shape)}"
            )
        if kind.hasobject or kind.names is not None or kind.subdtype is not None or len(kind.str) > 16:
            raise ConfigurationError(f"stream {stream!r}: frames consist of plain numbers, got the type {kind}")
        return cls(tuple(int(length) for length in shape), kind.str)

    def packed(self) -> bytes:
        """Return it as a slot has it."""
        lengths = (*self.shape, *(0,) * (_MOST_DIMENSIONS - len(self.shape)))
        return _FORM_LAYOUT.pack(len(self.shape), *lengths, self.dtype.encode())

    @classmethod
    def unpacked(cls, data: bytes) -> Form:
        """Return the form that ``packed`` gave."""
        dimensions, *lengths, dtype = _FORM_LAYOUT.unpack(data)
        return cls(tuple(lengths[:dimensions]), dtype.rstrip(b"\0").decode())


class Stamps(NamedTuple):
    """When a frame was published."""

    time: float
    """Seconds since 1970 UTC."""
    clock: float
    """Seconds of the monotonic clock, which all processes of a computer share."""


class _Patch(NamedTuple):
    data: bytes
    offset: int


MOVED = _Patch(struct.pack("=Q", 1), 8 * _MOVED)
"""What is written into the head, and where, to tell the readers that later frames are in another memory."""


def slot_size(form: Form) -> int:
    """Return the bytes of a slot for frames of that form."""
    return -(-(form.size + _SLOT_HEAD) // _LINE) * _LINE


class Notice(NamedTuple):
    """What the writer of a stream says of itself. Times are in seconds of the monotonic clock."""

    text: str
    """Why no frame comes; empty if nothing prevents one."""
    since: float
    """Since when it says so."""
    heard: float
    """When it has said anything; 0 if it never has."""


def head_of(slots: int, size: int, first: int, turn: int, token: int) -> bytes:
    """Return the beginning of a new memory.

    Args:
        slots: how many it has.
        size: bytes of each.
        first: number of the first frame in it.
        turn: number of writers so far.
        token: a number that no other memory has.
    """
    words = {_PUBLISHED: first, _TURN: turn, _FIRST: first, _SLOTS: slots, _SIZE: size, _TOKEN: token}
    return struct.pack("=8Q", *(words.get(index, 0) for index in range(8)))


def token_of(memory: mmap.mmap) -> int:
    """Return the token with which a memory was made."""
    (token,) = struct.unpack_from("=Q", memory, 8 * _TOKEN)
    return int(token)


class _Slot:
    """One slot, as this process sees it: the array over its frame is made once for each form."""

    __slots__ = ("_memory", "_start", "array", "mark", "packed", "place", "stamps")

    def __init__(self, memory: mmap.mmap, start: int) -> None:
        import numpy as np

        self._memory = memory
        self._start = start
        self.mark: npt.NDArray[np.uint64] = np.frombuffer(memory, np.uint64, 1, start + _MARK)
        self.stamps: npt.NDArray[np.float64] = np.frombuffer(memory, np.float64, 2, start + _STAMPS)
        self.place = slice(start + _FORM, start + _FORM + _FORM_LAYOUT.size)
        self.packed = b""
        self.array: npt.NDArray[Any] = np.empty(0)

    def take(self, packed: bytes) -> npt.NDArray[Any]:
        """Return the array over the frame in the slot, which has that form."""
        if packed != self.packed:
            import numpy as np

            form = Form.unpacked(packed)
            count = math.prod(form.shape)
            flat: npt.NDArray[Any] = np.frombuffer(self._memory, form.dtype, count, self._start + _SLOT_HEAD)
            self.array, self.packed = flat.reshape(form.shape), packed
        return self.array


class Ring:
    """The mapped memory of a stream; see the module.

    Args:
        memory: the mapping.
    """

    def __init__(self, memory: mmap.mmap) -> None:
        import numpy as np

        self._bytes = memoryview(memory)
        self._words: npt.NDArray[np.uint64] = np.frombuffer(memory, np.uint64, HEAD // 8)
        self.slots = int(self._words[_SLOTS])
        size = int(self._words[_SIZE])
        self._slots = [_Slot(memory, HEAD + number * size) for number in range(self.slots)]
        self._notice_mark: npt.NDArray[np.uint64] = np.frombuffer(memory, np.uint64, 1, _NOTICE)
        self.bell = Bell(self._words, _BELL)

    @property
    def published(self) -> int:
        """How many frames were published so far, in this memory and those before."""
        return int(self._words[_PUBLISHED])

    @property
    def first(self) -> int:
        """The number of the first frame in this memory."""
        return int(self._words[_FIRST])

    @property
    def moved(self) -> bool:
        """Whether later frames are in another memory."""
        return bool(self._words[_MOVED])

    @property
    def turn(self) -> int:
        """How many writers there were so far."""
        return int(self._words[_TURN])

    @turn.setter
    def turn(self, turn: int) -> None:
        self._words[_TURN] = turn

    def write(self, number: int, frame: Any, packed: bytes) -> None:
        """Publish a frame, of the form that is packed; only one process may do so."""
        slot = self._slots[number % self.slots]
        mark = slot.mark
        mark[0] = 2 * number + 1
        fence()
        self._bytes[slot.place] = packed
        slot.take(packed)[...] = frame
        slot.stamps[:] = time.time(), time.monotonic()
        fence()
        mark[0] = 2 * number + 2
        fence()
        self._words[_PUBLISHED] = number + 1
        fence()
        self.bell.ring(number + 1)

    def note(self, notice: Notice) -> None:
        """Say why no frame comes; only one thread may do so."""
        text = notice.text.encode(errors="replace")
        if len(text) > _NOTICE_ROOM:
            text = text[: _NOTICE_ROOM - 3].decode(errors="ignore").encode() + b"..."
        mark = self._notice_mark
        begun = int(mark[0]) | 1  # a writer that was killed meanwhile has left it odd
        mark[0] = begun
        fence()
        _NOTICE_LAYOUT.pack_into(self._bytes, _NOTICE + 8, notice.since, notice.heard, len(text))
        self._bytes[_NOTICE_TEXT : _NOTICE_TEXT + len(text)] = text
        fence()
        mark[0] = begun + 1

    @property
    def notice(self) -> Notice | None:
        """What the writer has said last; None if it is just saying something."""
        mark = self._notice_mark
        before = int(mark[0])
        fence()
        since, heard, length = _NOTICE_LAYOUT.unpack_from(self._bytes, _NOTICE + 8)
        text = bytes(self._bytes[_NOTICE_TEXT : _NOTICE_TEXT + min(length, _NOTICE_ROOM)])
        fence()
        if before & 1 or int(mark[0]) != before:
            return None
        return Notice(text.decode(errors="replace"), since, heard)

    def copy(self, number: int) -> tuple[npt.NDArray[Any], Stamps] | None:
        """Return a copy of the frame of that number, and when it was published; None if it is not there any more."""
        found = self.look(number)
        if found is None:
            return None
        array, stamps, complete = found
        taken = array.copy()
        return (taken, stamps) if complete() else None

    def look(self, number: int) -> tuple[npt.NDArray[Any], Stamps, Callable[[], bool]] | None:
        """Return the frame of that number without a copy, and a function that says whether it is still that frame."""
        slot = self._slots[number % self.slots]
        mark, wanted = slot.mark, 2 * number + 2

        def complete() -> bool:
            fence()
            return int(mark[0]) == wanted

        if int(mark[0]) != wanted:
            return None
        fence()
        packed, (when, clock) = bytes(self._bytes[slot.place]), slot.stamps
        if not complete():  # then the form may be half of one and half of another
            return None
        return slot.take(packed), Stamps(float(when), float(clock)), complete
