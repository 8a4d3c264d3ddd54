"""The memory of a frame stream, on the server: it sends the descriptor to clients, and never reads the memory."""

from __future__ import annotations

import os
import platform

from catkit_devices.errors import ConfigurationError
from catkit_devices.multiprocessing.hosted import HostedObject
from catkit_devices.multiprocessing.locks.mutex import Mutex

__all__ = ["HEAD", "ORDERED", "SLOT_HEAD", "StreamMemory"]

ORDERED = ("x86_64",)
"""Processors on which other cores see stores in the order in which they were made (Intel 64 manual, volume 3, 9.2.2).
Without that order, a copy could mix two frames; Python has no memory fence for other processors."""
HEAD = 4096
"""Bytes before the first slot."""
SLOT_HEAD = 64
"""Bytes of a slot before its frame: the frame's number and its time."""


class StreamMemory(HostedObject):
    """The memory of one stream, its shape, and the mutex of its writer."""

    _direct_ = False
    _fixed_ = False

    def __init__(
        self, name: str, shape: tuple[int, ...] | None = None, dtype: str | None = None, slots: int = 16
    ) -> None:
        import numpy as np

        if not hasattr(os, "memfd_create") or platform.machine() not in ORDERED:
            raise ConfigurationError(
                f"stream {name!r}: frame streams need Linux on {' or '.join(ORDERED)}, this is {platform.platform()}; "
                "send arrays through a device instead"
            )
        if shape is None or dtype is None:
            raise ConfigurationError(
                f"stream {name!r} does not exist yet: the first process that asks for it must give shape and dtype"
            )
        if slots < 2:
            raise ConfigurationError(f"stream {name!r} needs at least 2 slots, got {slots}")
        self.shape = tuple(int(length) for length in shape)
        self.dtype = np.dtype(dtype).str
        self.slots = int(slots)
        self._mutex_ = Mutex(f"{name} (writer)")
        frame = int(np.dtype(dtype).itemsize * np.prod(self.shape, dtype=np.int64))
        self.slot_size = -(-(frame + SLOT_HEAD) // 64) * 64
        self._size = HEAD + self.slots * self.slot_size
        self._descriptor = os.memfd_create(f"catkit_devices-{name}", os.MFD_CLOEXEC)
        os.posix_fallocate(self._descriptor, 0, self._size)

    def _shared_memory_(self) -> tuple[int, int]:
        return self._descriptor, self._size
