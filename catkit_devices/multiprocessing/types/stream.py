"""Frames from one writer to many readers, through a ring of slots in shared memory.

The writer never waits for a reader. A reader takes the newest frame, or every frame in turn; a reader that is too slow
is told how many frames it has missed. A copy never mixes two frames: each slot has the number of its frame, which is
odd while the frame is being written, and a copy is valid only if that number was the same before and after. The memory
is anonymous and belongs to the server that has the stream (``stream_memory``), so nothing is left behind when a process
ends.

Linux on x86-64 only (``memfd_create``, futex, the order of stores): on other systems a stream is refused; send frames
as arrays through a device there.
"""

from __future__ import annotations

import copy
import functools
import mmap
import os
import time
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from catkit_devices._base.timeouts import seconds
from catkit_devices.errors import MutexBrokenError, WaitTimeoutError
from catkit_devices.multiprocessing.locks.owner import current_owner
from catkit_devices.multiprocessing.types.stream_memory import HEAD, SLOT_HEAD
from catkit_devices.readings import carried_unit, is_masked

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np

    from catkit_devices.multiprocessing.client.session import ClientSession
    from catkit_devices.multiprocessing.locks.mutex import Mutex

__all__ = ["Frame", "FrameReader", "FrameStream", "FrameWriter", "stream_over"]

_PUBLISHED, _BELL, _TURN = 0, 1, 2
"""Indices in the header, in 64-bit words: number of frames published so far, the word on which the futex waits, and
number of writers so far."""


class Frame(NamedTuple):
    """One frame."""

    array: np.ndarray[Any, Any]
    number: int
    """Counted from 0 since the stream was made."""
    time: float
    """When it was published, in seconds since the epoch."""
    missed: int
    """How many frames before this one the reader has missed (it was too slow, or asked for the newest)."""


class _Ring:
    """The mapped memory."""

    def __init__(self, descriptor: int, size: int, memory: Any, session: ClientSession | None) -> None:
        import numpy as np

        self._session = session
        self.slots: int = memory.slots
        self.shape: tuple[int, ...] = memory.shape
        dtype = np.dtype(memory.dtype)
        slot_size: int = memory.slot_size
        self.map = mmap.mmap(descriptor, size)
        self.head = np.frombuffer(self.map, np.uint64, HEAD // 8)
        self.bell: int = self.head.ctypes.data + 8 * _BELL
        self.marks = []
        self.stamps = []
        self.frames = []
        for slot in range(self.slots):
            start = HEAD + slot * slot_size
            self.marks.append(np.frombuffer(self.map, np.uint64, 1, start))
            self.stamps.append(np.frombuffer(self.map, np.float64, 1, start + 8))
            count = int(np.prod(self.shape, dtype=np.int64))
            self.frames.append(np.frombuffer(self.map, dtype, count, start + SLOT_HEAD).reshape(self.shape))

    @property
    def published(self) -> int:
        return int(self.head[_PUBLISHED])

    def check(self) -> None:
        """Raise if the server has ended: then processes that get the stream by name get other memory."""
        lost = None if self._session is None else self._session.lost
        if lost is not None:
            raise copy.copy(lost)


class FrameStream:
    """A stream of frames of one shape and type, found by name: ``manager.get_stream(name, shape, dtype)``."""

    def __init__(self, memory: Any, ring: _Ring) -> None:
        self.memory = memory
        self._ring = ring
        self.shape: tuple[int, ...] = ring.shape
        self.dtype: str = ring.frames[0].dtype.str

    @property
    def mutex(self) -> Mutex:
        """The mutex of the writer."""
        mutex: Mutex = self.memory.mutex
        return mutex

    def writer(self, timeout: float | None = None) -> FrameWriter:
        """Become the writer during a block: ``with stream.writer() as publish: publish(frame)``.

        Raises:
            MutexTimeoutError: there is another writer; the message says who.
        """
        return FrameWriter(self, self._ring, timeout)

    def reader(self) -> FrameReader:
        """Return a reader that begins with the frame that is published next."""
        return FrameReader(self._ring)

    def newest(self, timeout: float | None = None) -> Frame:
        """Return a copy of the newest frame, waiting for the first one at most ``timeout`` seconds.

        Raises:
            WaitTimeoutError: none was published in time.
        """
        return FrameReader(self._ring, begin=0).newest(timeout)

    def view(self) -> tuple[Frame, Any]:
        """Return the newest frame without a copy, and a function that says whether it is still valid.

        Raises:
            WaitTimeoutError: none was published yet.
        """
        ring = self._ring
        number = ring.published - 1
        if number < 0:
            raise WaitTimeoutError("no frame was published yet")
        slot = number % ring.slots
        array = ring.frames[slot].view()
        array.flags.writeable = False
        mark = ring.marks[slot]

        def valid() -> bool:
            return int(mark[0]) == 2 * number + 2

        return Frame(array, number, float(ring.stamps[slot][0]), 0), valid

    def __reduce__(self) -> Any:
        return stream_over, (self.memory,)


class FrameWriter:
    """The writer of a stream during a block."""

    def __init__(self, stream: FrameStream, ring: _Ring, timeout: float | None) -> None:
        self._stream = stream
        self._ring = ring
        self._timeout = timeout
        self._turn = 0

    def __enter__(self) -> Self:
        mutex, head = self._stream.mutex, self._ring.head
        holder = mutex.holder
        nested = holder is not None and holder.key == current_owner().key
        mutex.acquire(self._timeout)
        self._turn = int(head[_TURN]) + (not nested)
        head[_TURN] = self._turn
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.mutex.release()

    def __call__(self, frame: Any) -> int:
        """Publish a frame; return its number.

        Raises:
            ValueError: its shape is not that of the stream, it has masked elements or a unit, or the stream's type
                cannot hold its values exactly. Frames of exactly that type are not checked, which saves time.
            MutexBrokenError: the mutex of the writer was broken, and there is another writer now.
            ServerUnresponsiveError: the server of the stream has ended.
        """
        ring = self._ring
        ring.check()
        if int(ring.head[_TURN]) != self._turn:
            raise MutexBrokenError(self._stream.mutex.name, "another writer has begun since")
        number = ring.published
        slot = number % ring.slots
        place = ring.frames[slot]
        if getattr(frame, "shape", None) != ring.shape:
            found = getattr(frame, "shape", type(frame))
            raise ValueError(f"{self._name}: a frame of shape {ring.shape} was expected, got {found}")
        if type(frame) is not type(place) or frame.dtype != place.dtype:
            frame = self._fitting(frame, place.dtype)
        mark = ring.marks[slot]
        mark[0] = 2 * number + 1
        place[...] = frame
        ring.stamps[slot][0] = time.time()
        mark[0] = 2 * number + 2
        ring.head[_PUBLISHED] = number + 1
        ring.head[_BELL] = (number + 1) & 0xFFFFFFFF
        _futex(ring, _WAKE, 1 << 30, None)
        return number

    @property
    def _name(self) -> str:
        return f"stream {self._stream.mutex.name.removesuffix(' (writer)')!r}"

    def _fitting(self, frame: Any, dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
        """Return a frame of another type, converted to the type of the stream."""
        import numpy as np

        if is_masked(frame):
            raise ValueError(
                f"{self._name}: the frame has masked elements, whose values mean nothing: publish frame.filled(...)"
            )
        if carried_unit(frame) is not None:
            raise ValueError(f"{self._name}: the frame has a unit, which a stream cannot hold: publish its numbers")
        array = np.asarray(frame)
        fitting = _exactly(array, dtype)
        if fitting is None:
            raise ValueError(
                f"{self._name}: a frame of type {dtype} was expected, got one of type {array.dtype} with values that "
                f"{dtype} cannot hold exactly; round or clip them, or make the stream of type {array.dtype}"
            )
        return fitting


def _exactly(array: np.ndarray[Any, Any], dtype: np.dtype[Any]) -> np.ndarray[Any, Any] | None:
    """Return the same values in another type, or None if it cannot hold all of them exactly."""
    import numpy as np

    if np.can_cast(array.dtype, dtype, "equiv"):
        return array
    if array.dtype.kind not in "biufc" or dtype.kind not in "biufc" or (array.dtype.kind == "c" and dtype.kind != "c"):
        return None
    with np.errstate(all="ignore"):
        cast = array.astype(dtype)
        # Two comparisons: converted there and back, -1 as uint64 would pass; and in a direct comparison, large integers
        # are compared as rounded floats.
        back = (cast if array.dtype.kind == "c" else cast.real).astype(array.dtype)
        same = np.array_equal(cast, array, equal_nan=True) and np.array_equal(back, array, equal_nan=True)
    return cast if same else None


class FrameReader:
    """Reads a stream at its own speed; for one thread at a time."""

    def __init__(self, ring: _Ring, begin: int | None = None) -> None:
        self._ring = ring
        self._next = ring.published if begin is None else begin

    def next(self, timeout: float | None = None) -> Frame:
        """Return a copy of the next frame; ``missed`` says how many were overwritten before they could be read.

        Raises:
            WaitTimeoutError: none was published within ``timeout`` seconds.
            ServerUnresponsiveError: the server of the stream has ended, so no frame will come.
        """
        self._wait_for(self._next, timeout)
        missed = 0
        while True:
            behind = self._ring.published - self._next
            if behind >= self._ring.slots:  # the oldest slot is being overwritten, or will be next
                skip = behind - self._ring.slots + 1
                missed += skip
                self._next += skip
            frame = self._copy(self._next, missed)
            if frame is not None:
                self._next += 1
                return frame

    def newest(self, timeout: float | None = None) -> Frame:
        """Return a copy of the newest frame that this reader has not read yet.

        Raises:
            WaitTimeoutError: none was published within ``timeout`` seconds.
            ServerUnresponsiveError: the server of the stream has ended, so no frame will come.
        """
        self._wait_for(self._next, timeout)
        while True:
            number = self._ring.published - 1
            frame = self._copy(number, number - self._next)
            if frame is not None:
                self._next = number + 1
                return frame

    def __iter__(self) -> Iterator[Frame]:
        while True:
            yield self.next()

    def _copy(self, number: int, missed: int) -> Frame | None:
        ring = self._ring
        slot = number % ring.slots
        mark, complete = ring.marks[slot], 2 * number + 2
        if int(mark[0]) != complete:
            return None
        array, stamp = ring.frames[slot].copy(), float(ring.stamps[slot][0])
        return Frame(array, number, stamp, missed) if int(mark[0]) == complete else None

    def _wait_for(self, number: int, timeout: float | None) -> None:
        ring = self._ring
        deadline = None if timeout is None else time.monotonic() + seconds(timeout, f"frame {number}")
        while ring.published <= number:
            ring.check()
            left = _ONE_WAIT if deadline is None else min(_ONE_WAIT, deadline - time.monotonic())
            if left <= 0:
                raise WaitTimeoutError(f"frame {number} was not published within {timeout:g} s")
            bell = int(ring.head[_BELL])
            if ring.published <= number:
                _futex(ring, _WAIT, bell & 0xFFFFFFFF, left)


_ONE_WAIT = 0.5
"""Seconds of one wait for a new frame, so that Ctrl-C and the end of the server are noticed."""
_WAIT, _WAKE = 0, 1
"""Operations of Linux' futex(2): FUTEX_WAIT and FUTEX_WAKE."""


def _futex(ring: _Ring, operation: int, value: int, timeout: float | None) -> None:
    """Wait for a change of the word ``_BELL`` of the header, or wake those that wait for it (Linux futex(2))."""
    import ctypes

    span = None if timeout is None else (ctypes.c_long * 2)(int(timeout), int((timeout % 1) * 1e9))
    _system()(_FUTEX, ring.bell, operation, value, span, None, 0)


_FUTEX = 202
"""Number of futex(2) on x86-64 (Linux arch/x86/entry/syscalls/syscall_64.tbl)."""


@functools.cache
def _system() -> Any:
    import ctypes

    syscall = ctypes.CDLL(None).syscall
    syscall.argtypes = [
        ctypes.c_long,
        ctypes.c_void_p,
        ctypes.c_int,
        ctypes.c_uint32,
        ctypes.c_void_p,
        ctypes.c_void_p,
        ctypes.c_int,
    ]
    return syscall


def stream_over(memory: Any) -> FrameStream:
    """Return the stream whose memory is on a server; ``memory`` is its proxy."""
    from catkit_devices.multiprocessing.wire.connecting import receive_descriptor

    remote = memory._remote_
    session: ClientSession | None = remote.connection().session
    endpoint = remote.server if session is None else session.endpoint
    descriptor, size = receive_descriptor(endpoint, remote.reference.target)
    try:
        return FrameStream(memory, _Ring(descriptor, size, memory, session))
    finally:
        os.close(descriptor)
