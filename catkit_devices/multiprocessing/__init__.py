"""Mutexes, managers and processes that survive a crash."""

from __future__ import annotations

from typing import TYPE_CHECKING

from catkit_devices.lazy import importing

if TYPE_CHECKING:
    from catkit_devices.multiprocessing.endpoint import runtime_directory
    from catkit_devices.multiprocessing.manager import SharedMemoryManager
    from catkit_devices.multiprocessing.mutex import Mutex, lock_all
    from catkit_devices.multiprocessing.process import Process
    from catkit_devices.multiprocessing.shared import MutexedDict, MutexedNamespace

__all__ = [
    "Mutex",
    "MutexedDict",
    "MutexedNamespace",
    "Process",
    "SharedMemoryManager",
    "lock_all",
    "runtime_directory",
]

__getattr__ = importing(
    __name__,
    {
        "endpoint": ("runtime_directory",),
        "manager": ("SharedMemoryManager",),
        "mutex": ("Mutex", "lock_all"),
        "process": ("Process",),
        "shared": ("MutexedDict", "MutexedNamespace"),
    },
)
