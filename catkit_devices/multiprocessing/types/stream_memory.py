"""The memory of a frame stream, on the server: it sends the descriptor to clients, and never reads the memory."""

from __future__ import annotations

import os
import platform
import threading

from catkit_devices.errors import ConfigurationError
from catkit_devices.multiprocessing.hosted import HostedObject
from catkit_devices.multiprocessing.locks.mutex import Mutex
from catkit_devices.multiprocessing.types.ring import HEAD, MOVED, Form, head_of, slot_size

__all__ = ["StreamMemory"]


class StreamMemory(HostedObject):
    """The memory of one stream, the form of its frames, and the mutex of its writer."""

    _direct_ = False
    _fixed_ = False

    def __init__(
        self, name: str, shape: tuple[int, ...] | None = None, dtype: str | None = None, slots: int = 16
    ) -> None:
        if not hasattr(os, "memfd_create"):
            raise ConfigurationError(
                f"stream {name!r}: frame streams need Linux, this is {platform.platform()}; send arrays through a "
                "device instead"
            )
        if shape is None or dtype is None:
            raise ConfigurationError(
                f"stream {name!r} does not exist yet: the first process that asks for it must give shape and dtype"
            )
        if slots < 2:
            raise ConfigurationError(f"stream {name!r} needs at least 2 slots, got {slots}")
        self._name = name
        self._form = Form.of(name, shape, dtype)
        self.slots = int(slots)
        self._mutex_ = Mutex(f"{name} (writer)")
        self._guard = threading.Lock()
        self._descriptor = -1
        self._slot_size = 0
        self._allocate(self._form, 0, 0)

    @property
    def form(self) -> tuple[tuple[int, ...], str]:
        """Shape and type of the frames that are published now."""
        return self._form.shape, self._form.dtype

    def change(self, shape: tuple[int, ...], dtype: str, published: int, turn: int) -> bool:
        """Have other frames from now on, on behalf of the writer.

        Args:
            shape: of the next frames.
            dtype: their type.
            published: how many frames were published so far.
            turn: how many writers there were so far.

        Returns:
            Whether they are in other memory from now on.

        Raises:
            OSError: there is not enough memory; nothing has changed.
        """
        form = Form.of(self._name, tuple(shape), dtype)
        with self._guard:
            larger = slot_size(form) > self._slot_size
            if larger:
                self._allocate(form, published, turn)
            self._form = form
        return larger

    def _allocate(self, form: Form, published: int, turn: int) -> None:
        size = slot_size(form)
        descriptor = os.memfd_create(f"catkit_devices-{self._name}", os.MFD_CLOEXEC)
        try:
            # Allocated now, so that a lack of memory is an error here and not a bus error later.
            os.posix_fallocate(descriptor, 0, HEAD + self.slots * size)
            os.pwrite(descriptor, head_of(self.slots, size, published, turn), 0)
        except BaseException:
            os.close(descriptor)
            raise
        old, self._descriptor, self._slot_size = self._descriptor, descriptor, size
        if old >= 0:
            os.pwrite(old, MOVED.data, MOVED.offset)  # here, so that readers learn of it even if the writer dies now
            os.close(old)  # who has mapped it keeps it

    def _shared_memory_(self) -> tuple[int, int]:
        with self._guard:
            return os.dup(self._descriptor), HEAD + self.slots * self._slot_size

    def _server_stops_(self) -> None:
        with self._guard:
            if self._descriptor >= 0:
                os.close(self._descriptor)
            self._descriptor = -1
