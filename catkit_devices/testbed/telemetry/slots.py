"""The shared memory of telemetry: one slot for each quantity, written by its device server, read by any process.

A slot has a mark that is odd while it is being written. A reader takes a copy only if the mark was even and is the same
afterwards, so a copy never mixes two readings. What that needs of the processor is in
``multiprocessing/wire/ordering.py``.
"""

from __future__ import annotations

import json
import mmap
import os
import struct
import time
from typing import Any, NamedTuple

from catkit_devices.multiprocessing.wire.ordering import fence

__all__ = ["SLOT", "Sample", "SlotWriter", "Slots"]

SLOT = 512
"""Bytes of a slot: a multiple of the 64 bytes of a cache line, so that two quantities share none."""
_MARK = struct.Struct("@Q")
"""The number of writings so far, begun or ended. In the byte order of this computer Python stores it at once, not byte
by byte."""
_BODY = struct.Struct("=dddII")
"""After the mark: time (s since 1970 UTC), time (s, monotonic clock), number, what kind, bytes of text."""
_TEXT = _MARK.size + _BODY.size
"""Where the text begins."""
_ROOM = SLOT - _TEXT
"""Bytes of text that a slot has room for."""
_NEVER, _NUMBER, _JSON, _PROBLEM = range(4)
"""Kinds: not read yet; a float; any other plain value, as JSON text; no value, and the text says why."""
_PATIENCE = 0.1
"""Seconds for a slot that is being written, which takes microseconds, until its writer counts as stopped."""


class Sample(NamedTuple):
    """What was read once: a value, or why there is none."""

    value: Any
    time: float
    """When, in seconds since 1970 UTC; 0 if it was never read."""
    clock: float
    """When, in seconds of the monotonic clock, which all processes of a computer share."""
    problem: str | None


class Slots:
    """The mapped memory of some quantities, for reading.

    Args:
        descriptor: of the memory.
        size: of the memory, in bytes.
    """

    def __init__(self, descriptor: int, size: int) -> None:
        self.map = mmap.mmap(descriptor, size, access=mmap.ACCESS_READ)

    def read(self, number: int) -> Sample:
        """Return what the slot of that number has now."""
        memory, start = self.map, number * SLOT
        deadline = 0.0
        while True:
            (mark,) = _MARK.unpack_from(memory, start)
            if not mark & 1:
                fence()
                taken, clock, value, kind, length = _BODY.unpack_from(memory, start + _MARK.size)
                text = memory[start + _TEXT : start + _TEXT + min(length, _ROOM)] if kind != _NUMBER else b""
                fence()
                if _MARK.unpack_from(memory, start)[0] == mark:
                    break
            now = time.monotonic()
            deadline = deadline or now + _PATIENCE
            if now > deadline:
                return Sample(None, 0.0, 0.0, "its server stopped while it published a reading")
        if kind == _NUMBER:
            return Sample(value, taken, clock, None)
        if kind == _JSON:
            return Sample(json.loads(text), taken, clock, None)
        return Sample(None, taken, clock, text.decode(errors="replace") if kind == _PROBLEM else "not read yet")


class SlotWriter:
    """The memory of some quantities, for their one writer; it is made here and lasts as long as somebody maps it.

    Args:
        count: how many quantities.

    Attributes:
        descriptor: of the memory, which readers map.
        size: in bytes.
    """

    def __init__(self, count: int) -> None:
        self.size = max(1, count) * SLOT
        self.descriptor = os.memfd_create("catkit_devices-telemetry", os.MFD_CLOEXEC)
        os.posix_fallocate(self.descriptor, 0, self.size)
        self._map = mmap.mmap(self.descriptor, self.size)

    def write(self, number: int, sample: Sample) -> None:
        """Publish a reading in the slot of that number; only one thread may write to a slot."""
        memory, start = self._map, number * SLOT
        kind, value, text = _encoded(sample)
        mark = _MARK.unpack_from(memory, start)[0] + 1
        _MARK.pack_into(memory, start, mark)
        fence()
        _BODY.pack_into(memory, start + _MARK.size, sample.time, sample.clock, value, kind, len(text))
        memory[start + _TEXT : start + _TEXT + len(text)] = text
        fence()
        _MARK.pack_into(memory, start, mark + 1)


def _encoded(sample: Sample) -> tuple[int, float, bytes]:
    if sample.problem is not None:
        return _PROBLEM, 0.0, _shortened(sample.problem)
    if type(sample.value) is float:
        return _NUMBER, sample.value, b""
    text = json.dumps(sample.value).encode()
    if len(text) > _ROOM:
        return _PROBLEM, 0.0, _shortened(f"its value is too long to be published: {sample.value!r}")
    return _JSON, 0.0, text


def _shortened(text: str) -> bytes:
    data = text.encode(errors="replace")
    return data if len(data) <= _ROOM else data[: _ROOM - 3].decode(errors="ignore").encode() + b"..."
