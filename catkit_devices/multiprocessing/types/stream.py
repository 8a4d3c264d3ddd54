"""Frames from one writer to many readers, through a ring of slots in shared memory.

The writer never waits for a reader. A reader takes the newest frame, or every frame in turn; a reader that is too slow
is told how many frames it has missed. A copy never mixes two frames (``ring``). The memory belongs to the server that
has the stream (``stream_memory``), so nothing is left behind when another process ends.

The writer may change shape and type of the frames. If larger frames do not fit, the server makes other memory, and the
readers map that one when they have read what is in the old one.
"""

from __future__ import annotations

import copy
import mmap
import os
import threading
import time
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from catkit_devices._base.timeouts import seconds
from catkit_devices.errors import MutexBrokenError, ServerError, WaitTimeoutError
from catkit_devices.multiprocessing.locks.owner import current_owner
from catkit_devices.multiprocessing.types.memory import map_named
from catkit_devices.multiprocessing.types.ring import Form, Notice, Ring, Stamps, token_of
from catkit_devices.readings import carried_unit, is_masked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy as np

    from catkit_devices.multiprocessing.client.session import ClientSession
    from catkit_devices.multiprocessing.locks.mutex import Mutex

__all__ = ["Frame", "FrameReader", "FrameStream", "FrameWriter", "stream_over"]

_ONE_WAIT = 0.5
"""Seconds of one wait for a new frame, so that Ctrl-C and the end of the server are noticed."""

_SAYING = 0.1
"""Seconds for a notice that is just being written, which takes microseconds."""


_RECENT = 16
"""How many of the last frames tell how many come per second, if the memory holds more."""


class Frame(NamedTuple):
    """One frame."""

    array: np.ndarray[Any, Any]
    number: int
    """Counted from 0 since the stream was made."""
    time: float
    """When it was published, in seconds since the epoch."""
    missed: int
    """How many frames before this one the reader has missed (it was too slow, or asked for the newest)."""
    changed: bool = False
    """Whether shape or type differ from those of the frame that the reader has got before."""
    clock: float = 0.0
    """When it was published, in seconds of ``time.monotonic()``, which all processes of a computer share."""

    @property
    def age(self) -> float:
        """Seconds since it was published."""
        return time.monotonic() - self.clock


class _Source:
    """The memory of a stream as this process has it mapped; another one when the stream has moved."""

    def __init__(self, memory: Any) -> None:
        self._memory = memory
        self._lock = threading.Lock()
        self._session: ClientSession | None = memory._remote_.connection().session
        self.ring = self._mapped()

    def _mapped(self) -> Ring:
        from catkit_devices.multiprocessing.wire.connecting import receive_descriptor

        remote = self._memory._remote_
        named = self._memory.named()
        while named is not None:
            memory = _found(*named)
            if memory is not None:
                return Ring(memory)
            before, named = named, self._memory.named()
            if before == named:  # else the stream has moved meanwhile
                raise ServerError(
                    f"server {remote.server.name!r} is on another computer: memory is shared on one computer only"
                )
        endpoint = remote.server if self._session is None else self._session.endpoint
        descriptor, size = receive_descriptor(endpoint, remote.reference.target)
        try:
            return Ring(mmap.mmap(descriptor, size))
        finally:
            os.close(descriptor)

    def after(self, ring: Ring) -> Ring:
        """Return the memory that has the frames which do not fit into that one any more."""
        with self._lock:
            if self.ring is ring:
                self.ring = self._mapped()
            return self.ring

    @property
    def newest(self) -> Ring:
        """The memory of the newest frame."""
        ring = self.ring
        while ring.moved:
            self.check()
            ring = self.after(ring)
        return ring

    def check(self) -> None:
        """Raise if the server has ended: then processes that get the stream by name get other memory."""
        lost = None if self._session is None else self._session.lost
        if lost is not None:
            raise copy.copy(lost)


def _found(name: str, size: int, token: int) -> mmap.mmap | None:
    """Map the memory of that name; None if it is not on this computer, or not any more."""
    try:
        memory = map_named(name, size)
    except (OSError, ValueError):  # there is none, or it is smaller
        return None
    return memory if token_of(memory) == token else None


class FrameStream:
    """A stream of frames, found by name: ``manager.get_stream(name, shape, dtype)``."""

    def __init__(self, memory: Any, source: _Source) -> None:
        self.memory = memory
        self._source = source

    @property
    def form(self) -> Form:
        """Shape and type of the frames that are published now."""
        return Form(*self.memory.form)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the frames that are published now."""
        return self.form.shape

    @property
    def dtype(self) -> str:
        """Type of the frames that are published now, as NumPy writes it: ``"<u2"``."""
        return self.form.dtype

    @property
    def published(self) -> int:
        """How many frames were published so far; the number of the next one."""
        return self._source.newest.published

    @property
    def stamps(self) -> Stamps | None:
        """When the newest frame was published; None if none was yet, in this memory."""
        while True:
            ring = self._source.newest
            number = ring.published - 1
            if number < ring.first:
                return None
            if (found := ring.look(number)) is not None:
                return found[1]

    @property
    def rate(self) -> float | None:
        """How many frames per second were published, over those that are in the memory now; None if there are not two.

        It is that of the last frames, also if they are old; ``stamps`` says when the newest was published.
        """
        while True:
            ring = self._source.newest
            end = ring.published
            # The oldest slot is the next to be overwritten.
            begin = max(ring.first, end - ring.slots + 1, end - _RECENT)
            if end - begin < 2:
                return None
            first, last = ring.look(begin), ring.look(end - 1)
            if first is not None and last is not None:
                seconds = last[1].clock - first[1].clock
                return (end - 1 - begin) / seconds if seconds > 0 else None

    def check(self) -> None:
        """Raise if the server has ended.

        Raises:
            ServerUnresponsiveError: it has.
        """
        self._source.check()

    @property
    def notice(self) -> Notice:
        """What the writer has said of itself; see ``FrameWriter.note``."""
        deadline = time.monotonic() + _SAYING
        while (notice := self._source.newest.notice) is None:
            if (now := time.monotonic()) > deadline:
                return Notice("its writer has ended while it said why no frame comes", now, now)
        return notice

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
        return FrameWriter(self, self._source, timeout)

    def reader(self) -> FrameReader:
        """Return a reader that begins with the frame that is published next."""
        return FrameReader(self._source)

    def newest(self, timeout: float | None = None) -> Frame:
        """Return a copy of the newest frame, waiting for the first one at most ``timeout`` seconds.

        Raises:
            WaitTimeoutError: none was published in time.
        """
        return FrameReader(self._source, begin=0).newest(timeout)

    def view(self) -> tuple[Frame, Callable[[], bool]]:
        """Return the newest frame without a copy, and a function that says whether it is still valid.

        Raises:
            WaitTimeoutError: none was published yet.
        """
        while True:
            ring = self._source.newest
            number = ring.published - 1
            if number < ring.first:
                raise WaitTimeoutError("no frame was published yet")
            found = ring.look(number)
            if found is not None:
                array, stamps, valid = found
                seen = array.view()
                seen.flags.writeable = False
                return Frame(seen, number, stamps.time, 0, clock=stamps.clock), valid

    def __reduce__(self) -> Any:
        return stream_over, (self.memory,)


class FrameWriter:
    """The writer of a stream during a block."""

    def __init__(self, stream: FrameStream, source: _Source, timeout: float | None) -> None:
        self._stream = stream
        self._source = source
        self._ring = source.ring
        self._timeout = timeout
        self._turn = 0
        self._notice = Notice("", 0.0, 0.0)
        self._use(Form((0,), "|u1"))

    def __enter__(self) -> Self:
        mutex = self._stream.mutex
        holder = mutex.holder
        nested = holder is not None and holder.key == current_owner().key
        mutex.acquire(self._timeout)
        self._ring = self._source.newest
        self._turn = self._ring.turn + (not nested)
        self._ring.turn = self._turn
        self._use(self._stream.form)
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
        self._check()
        shape = self.form.shape
        if getattr(frame, "shape", None) != shape:
            found = getattr(frame, "shape", type(frame))
            raise ValueError(f"{self._name}: a frame of shape {shape} was expected, got {found}")
        if type(frame) is not self._plain or frame.dtype != self._dtype:
            frame = self._fitting(frame)
        ring = self._ring
        number = ring.published
        ring.write(number, frame, self._packed)
        return number

    def change(self, shape: tuple[int, ...], dtype: Any) -> None:
        """Publish frames of another shape or type from now on; the readers see ``changed`` with the next frame.

        Raises:
            ConfigurationError: there are no streams of such frames.
            OSError: there is not enough memory for them; nothing has changed.
            MutexBrokenError, ServerUnresponsiveError: as when a frame is published.
        """
        self._check()
        form = Form.of(self._stream.mutex.name.removesuffix(_WRITER), shape, dtype)
        old = self._ring
        if self._stream.memory.change(form.shape, form.dtype, old.published, self._turn):
            self._ring = self._source.after(old)
            self._ring.note(self._notice)
            old.bell.ring(old.bell.value + 1)  # wakes the readers that wait for a frame in the old memory
        self._use(form)

    def note(self, text: str) -> None:
        """Say why no frame comes, or with an empty text that nothing prevents one; readers see it as ``notice``.

        For one thread at a time. Said again, it tells the readers that the writer is still there.
        """
        now = time.monotonic()
        if text != self._notice.text or self._notice.heard == 0.0:
            self._notice = Notice(text, now, now)
        self._notice = self._notice._replace(heard=now)
        self._ring.note(self._notice)

    def _use(self, form: Form) -> None:
        import numpy as np

        self.form = form
        """Shape and type of the frames that it publishes."""
        self._packed = form.packed()
        self._dtype = np.dtype(form.dtype)
        self._plain = np.ndarray

    def _check(self) -> None:
        self._source.check()
        ring = self._ring
        if ring.turn != self._turn or ring.moved:
            raise MutexBrokenError(self._stream.mutex.name, "another writer has begun since")

    @property
    def _name(self) -> str:
        return f"stream {self._stream.mutex.name.removesuffix(_WRITER)!r}"

    def _fitting(self, frame: Any) -> np.ndarray[Any, Any]:
        """Return a frame of another type, converted to the type of the stream."""
        import numpy as np

        dtype = self._dtype
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


_WRITER = " (writer)"
"""What the name of the writer's mutex ends with, after the name of the stream."""


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

    def __init__(self, source: _Source, begin: int | None = None) -> None:
        self._source = source
        self._ring = source.newest if begin is None else source.ring
        self._next = self._ring.published if begin is None else begin
        self._form: tuple[Any, ...] | None = None

    def next(self, timeout: float | None = None) -> Frame:
        """Return a copy of the next frame; ``missed`` says how many were overwritten before they could be read.

        Raises:
            WaitTimeoutError: none was published within ``timeout`` seconds.
            ServerUnresponsiveError: the server of the stream has ended, so no frame will come.
        """
        deadline = self._deadline(timeout)
        missed = 0
        while True:
            self._wait(timeout, deadline)
            ring = self._ring
            # Of these, the oldest slot is being overwritten, or will be next; of other memory, there are none.
            skip = max(ring.published - self._next - ring.slots + 1, ring.first - self._next, 0)
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
        deadline = self._deadline(timeout)
        while True:
            self._wait(timeout, deadline)
            if self._ring.moved:
                later = self._source.newest
                if later.published > later.first:
                    self._ring = later
            number = self._ring.published - 1
            frame = self._copy(number, number - self._next)
            if frame is not None:
                self._next = number + 1
                return frame

    def __iter__(self) -> Iterator[Frame]:
        while True:
            yield self.next()

    def _copy(self, number: int, missed: int) -> Frame | None:
        found = self._ring.copy(number)
        if found is None:
            return None
        array, stamps = found
        form = (array.shape, array.dtype)
        changed, self._form = self._form not in (None, form), form
        return Frame(array, number, stamps.time, missed, changed, stamps.clock)

    def _deadline(self, timeout: float | None) -> float | None:
        return None if timeout is None else time.monotonic() + seconds(timeout, f"frame {self._next}")

    def _wait(self, timeout: float | None, deadline: float | None) -> None:
        """Wait until there is a frame with the next number, or a later one."""
        while True:
            ring = self._ring
            bell = ring.bell.value
            if ring.published > self._next:
                return
            if ring.moved:
                self._source.check()
                self._ring = self._source.after(ring)
                continue
            self._source.check()
            left = _ONE_WAIT if deadline is None else min(_ONE_WAIT, deadline - time.monotonic())
            if left <= 0:
                raise WaitTimeoutError(f"frame {self._next} was not published within {timeout:g} s")
            ring.bell.wait(bell, left)


def stream_over(memory: Any) -> FrameStream:
    """Return the stream whose memory is on a server; ``memory`` is its proxy."""
    return FrameStream(memory, _Source(memory))
