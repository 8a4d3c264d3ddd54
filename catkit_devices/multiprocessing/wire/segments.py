"""Large arrays between two processes on one host: copied once into shared memory, where the receiver uses them.

The memory is anonymous (``memfd_create``) and its descriptors are sent over the Unix socket, so nothing is left behind,
however either process ends. Segments are used again, because the first access to new memory is slower than a copy into
memory that was used before.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import finalize

from catkit_devices.multiprocessing.wire.ordering import fence

if TYPE_CHECKING:
    from pickle import PickleBuffer

__all__ = ["Incoming", "Outgoing", "Parcel", "Segment"]

_DATA = 64
"""Offset of the data in a segment, in bytes; the first byte of the segment is 1 while the receiver uses it."""
_MOST = 8
"""How many segments are kept for the next arrays."""


class Segment:
    """One piece of shared memory; it is freed when both processes have closed it."""

    __slots__ = ("__weakref__", "capacity", "descriptor", "map", "number", "told")

    def __init__(self, number: int, size: int) -> None:
        self.number = number
        self.capacity = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
        self.descriptor = os.memfd_create("catkit_devices", os.MFD_CLOEXEC)
        try:
            # Allocated now, so that a lack of memory is an error here and not a bus error later.
            os.posix_fallocate(self.descriptor, 0, self.capacity + mmap.PAGESIZE)
            self.map = mmap.mmap(self.descriptor, self.capacity + mmap.PAGESIZE)
        except BaseException:
            os.close(self.descriptor)
            raise
        self.told = False
        finalize(self, os.close, self.descriptor)

    @property
    def free(self) -> bool:
        """Whether the receiver does not use it any more."""
        return self.map[0] == 0


class Parcel(NamedTuple):
    """One buffer of a message."""

    segment: int
    size: int
    capacity: int
    fresh: bool
    """Whether its descriptor comes with this message."""
    retired: int
    """A segment that the sender will not use again after this message (0: none)."""


class Outgoing:
    """The segments of the sender on one connection."""

    __slots__ = ("_count", "_retired", "_segments")

    def __init__(self) -> None:
        self._segments: list[Segment] = []
        self._count = 0
        self._retired: list[int] = []
        """Numbers of segments that are not used any more, and of which the receiver was not told yet."""

    def put(self, buffer: PickleBuffer) -> tuple[Parcel, Segment]:
        """Copy a buffer into a free segment; return the parcel for the receiver, and the segment.

        Raises:
            OSError: there is no memory for it.
        """
        source = buffer.raw()
        size = source.nbytes
        segment = next(
            (one for one in self._segments if one.free and size <= one.capacity <= 4 * size + mmap.PAGESIZE), None
        )
        if segment is None:
            self._count += 1
            segment = Segment(self._count, size)
            if len(self._segments) < _MOST:
                self._segments.append(segment)
            else:
                unused = next((place for place, one in enumerate(self._segments) if one.free), None)
                self._retired.append(segment.number if unused is None else self._segments[unused].number)
                if unused is not None:
                    self._segments[unused] = segment
        segment.map[0] = 1
        segment.map[_DATA : _DATA + size] = source
        fresh, segment.told = not segment.told, True
        retired = self._retired.pop() if self._retired else 0
        return Parcel(segment.number, size, segment.capacity + mmap.PAGESIZE, fresh, retired), segment

    def forget(self, parcels: list[tuple[Parcel, Segment]]) -> None:
        """Do not use these segments again: their message was not sent, or the receiver could not map them."""
        numbers = {parcel.segment for parcel, _ in parcels}
        self._segments = [one for one in self._segments if one.number not in numbers]
        self._retired += [*numbers, *(parcel.retired for parcel, _ in parcels if parcel.retired)]


class Incoming:
    """The segments of the other end, as the receiver maps them."""

    __slots__ = ("_maps",)

    def __init__(self) -> None:
        self._maps: dict[int, mmap.mmap] = {}

    def take(self, parcel: Parcel, descriptor: int | None) -> Any:
        """Return a buffer over the data; the segment is free again when the buffer is not used any more."""
        if descriptor is not None:
            try:
                self._maps[parcel.segment] = mmap.mmap(descriptor, parcel.capacity)
            finally:
                os.close(descriptor)
        memory = self._maps[parcel.segment]
        if parcel.retired:
            self._maps.pop(parcel.retired, None)
        view = (ctypes.c_char * parcel.size).from_buffer(memory, _DATA)
        finalize(view, _set_free, memory)
        return view


def _set_free(memory: mmap.mmap) -> None:
    fence()  # what was read from it is read before the sender may change it
    memory[0] = 0
