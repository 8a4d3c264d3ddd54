"""Frames from one writer to many readers, through a ring of slots in shared memory.

The writer never waits for a reader. A reader takes the newest frame or every one in turn; one that was lapped is told
how many it missed. A copy is never torn: each slot carries the number of its frame, odd while it is being written, and
a copy counts only when that number was the same before and after. The memory is anonymous and comes from the server
that knows the stream by name (``stream_memory``), so nothing is left behind by any exit.

Linux on x86-64 only (``memfd_create``, futex, the order of stores): elsewhere a stream is refused, and frames travel as
arrays do, through a device.
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
"""Places of the header, as 64-bit words: frames published so far, the word that the futex is on, and how many have
become the writer so far."""


class Frame(NamedTuple):
    """One frame."""

    array: np.ndarray[Any, Any]
    number: int
    """Counted from 0 since the stream was made."""
    time: float
    """When it was published, in seconds since the epoch."""
    missed: int
    """How many frames this reader missed just before it (it was lapped, or asked for the newest)."""


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
        """Raise where the server is gone: nobody who asks for the stream by name gets this memory any more."""
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
        """Become the one writer during a block: ``with stream.writer() as publish: publish(frame)``.

        Raises:
            MutexTimeoutError: somebody else is; says who.
        """
        return FrameWriter(self, self._ring, timeout)

    def reader(self) -> FrameReader:
        """Return a reader that begins with the next frame to be published."""
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
            ValueError: it has not the stream's shape, some of it is masked, it has a unit, or the stream's type cannot
                say its values exactly. Frames of that very type are not looked at, so they cost nothing more.
            MutexBrokenError: the mutex of the writer was taken away, and somebody else has become it.
            ServerUnresponsiveError: the stream's server is gone, and with it that mutex.
        """
        ring = self._ring
        ring.check()
        if int(ring.head[_TURN]) != self._turn:
            raise MutexBrokenError(self._stream.mutex.name, "somebody else writes by now")
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
        """Return a frame of another type in that of the stream."""
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
                f"{dtype} cannot say exactly; round or clip them, or make the stream of type {array.dtype}"
            )
        return fitting


def _exactly(array: np.ndarray[Any, Any], dtype: np.dtype[Any]) -> np.ndarray[Any, Any] | None:
    """Return the same values in another type, or None where it cannot say them all."""
    import numpy as np

    if np.can_cast(array.dtype, dtype, "equiv"):
        return array
    if array.dtype.kind not in "biufc" or dtype.kind not in "biufc" or (array.dtype.kind == "c" and dtype.kind != "c"):
        return None
    with np.errstate(all="ignore"):
        cast = array.astype(dtype)
        # There and back alone is not enough: -1 as uint64 comes back as -1. Nor is the first comparison alone, for
        # which large integers become floats.
        back = (cast if array.dtype.kind == "c" else cast.real).astype(array.dtype)
        same = np.array_equal(cast, array, equal_nan=True) and np.array_equal(back, array, equal_nan=True)
    return cast if same else None


class FrameReader:
    """Reads a stream at its own pace; not for several threads at once."""

    def __init__(self, ring: _Ring, begin: int | None = None) -> None:
        self._ring = ring
        self._next = ring.published if begin is None else begin

    def next(self, timeout: float | None = None) -> Frame:
        """Return a copy of the next frame; ``missed`` says how many were overwritten before they could be read.

        Raises:
            WaitTimeoutError: none was published within ``timeout`` seconds.
            ServerUnresponsiveError: none comes any more, because the stream's server is gone.
        """
        self._wait_for(self._next, timeout)
        missed = 0
        while True:
            behind = self._ring.published - self._next
            if behind >= self._ring.slots:  # the oldest slot is being written over, or is about to be
                skip = behind - self._ring.slots + 1
                missed += skip
                self._next += skip
            frame = self._copy(self._next, missed)
            if frame is not None:
                self._next += 1
                return frame

    def newest(self, timeout: float | None = None) -> Frame:
        """Return a copy of the newest frame that this reader has not had yet.

        Raises:
            WaitTimeoutError: none was published within ``timeout`` seconds.
            ServerUnresponsiveError: none comes any more, because the stream's server is gone.
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
            left = _PATIENCE if deadline is None else min(_PATIENCE, deadline - time.monotonic())
            if left <= 0:
                raise WaitTimeoutError(f"frame {number} was not published within {timeout:g} s")
            bell = int(ring.head[_BELL])
            if ring.published <= number:
                _futex(ring, _WAIT, bell & 0xFFFFFFFF, left)


_PATIENCE = 0.5
"""Seconds of one wait for the bell, so that Ctrl-C is noticed, and the end of the server."""
_WAIT, _WAKE = 0, 1
"""Operations of Linux' futex(2): FUTEX_WAIT and FUTEX_WAKE."""


def _futex(ring: _Ring, operation: int, value: int, timeout: float | None) -> None:
    """Wait on, or wake, the bell of the ring (Linux futex(2))."""
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
    """Map the memory of a stream on a server, whose proxy is given."""
    from catkit_devices.multiprocessing.wire.connecting import receive_descriptor

    remote = memory._remote_
    session: ClientSession | None = remote.connection().session
    endpoint = remote.server if session is None else session.endpoint
    descriptor, size = receive_descriptor(endpoint, remote.reference.target)
    try:
        return FrameStream(memory, _Ring(descriptor, size, memory, session))
    finally:
        os.close(descriptor)
