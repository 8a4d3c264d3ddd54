"""The memory of a frame stream, on the server: it tells clients where the memory is, and never reads it."""

from __future__ import annotations

import os
import secrets
import threading

from catkit_devices.errors import ConfigurationError
from catkit_devices.multiprocessing.hosted import HostedObject
from catkit_devices.multiprocessing.locks.mutex import Mutex
from catkit_devices.multiprocessing.protocol import running_server
from catkit_devices.multiprocessing.types.memory import AnonymousMemory, NamedMemory, SharedMemory
from catkit_devices.multiprocessing.types.ring import HEAD, MOVED, Form, head_of, slot_size
from catkit_devices.multiprocessing.wire.system import has_anonymous_memory

__all__ = ["StreamMemory"]


class StreamMemory(HostedObject):
    """The memory of one stream, the form of its frames, and the mutex of its writer."""

    _direct_ = False
    _fixed_ = False

    def __init__(
        self, name: str, shape: tuple[int, ...] | None = None, dtype: str | None = None, slots: int = 16
    ) -> None:
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
        self._memory: SharedMemory | None = None
        self._token = 0
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
        whole = HEAD + self.slots * size
        token = secrets.randbits(64)
        memory: SharedMemory
        if has_anonymous_memory() and running_server and running_server[0].address_family == "AF_UNIX":
            memory = AnonymousMemory(f"catkit_devices-{self._name}", whole)
        else:
            memory = NamedMemory(whole)
        memory.write(head_of(self.slots, size, published, turn, token), 0)
        old, self._memory, self._token, self._slot_size = self._memory, memory, token, size
        if old is not None:
            old.write(MOVED.data, MOVED.offset)  # here, so that readers learn of it even if the writer dies now
            old.close()

    def named(self) -> tuple[str, int, int] | None:
        """Return name, size in bytes and token of the memory; None if it has no name, and its descriptor is sent."""
        with self._guard:
            memory = self._memory
            return (memory.name, memory.size, self._token) if isinstance(memory, NamedMemory) else None

    def _shared_memory_(self) -> tuple[int, int] | None:
        with self._guard:
            memory = self._memory
            return (os.dup(memory.descriptor), memory.size) if isinstance(memory, AnonymousMemory) else None

    def _server_stops_(self) -> None:
        with self._guard:
            if self._memory is not None:
                self._memory.close()
            self._memory = None
