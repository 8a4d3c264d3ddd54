"""Mutexes, managers and processes that keep working when one of the processes crashes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from catkit_devices.lazy import importing

if TYPE_CHECKING:
    from catkit_devices.multiprocessing.client.named_session import NamedSession
    from catkit_devices.multiprocessing.locks.mutex import Mutex, lock_all
    from catkit_devices.multiprocessing.locks.owner import acting_as, current_owner
    from catkit_devices.multiprocessing.manager import SharedMemoryManager
    from catkit_devices.multiprocessing.process.process import Process
    from catkit_devices.multiprocessing.types.dicts import MutexedDict, MutexedNamespace
    from catkit_devices.multiprocessing.wire.endpoint import runtime_directory

__all__ = [
    "Mutex",
    "MutexedDict",
    "MutexedNamespace",
    "NamedSession",
    "Process",
    "SharedMemoryManager",
    "acting_as",
    "current_owner",
    "lock_all",
    "runtime_directory",
]

__getattr__ = importing(
    __name__,
    {
        "wire.endpoint": ("runtime_directory",),
        "manager": ("SharedMemoryManager",),
        "client.named_session": ("NamedSession",),
        "locks.mutex": ("Mutex", "lock_all"),
        "locks.owner": ("acting_as", "current_owner"),
        "process.process": ("Process",),
        "types.dicts": ("MutexedDict", "MutexedNamespace"),
    },
)
