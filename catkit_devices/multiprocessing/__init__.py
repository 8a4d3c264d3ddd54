"""Mutexes, managers and processes that survive a crash."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

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

_HOME = {
    "Mutex": "mutex",
    "MutexedDict": "shared",
    "MutexedNamespace": "shared",
    "Process": "process",
    "SharedMemoryManager": "manager",
    "lock_all": "mutex",
    "runtime_directory": "endpoint",
}


def __getattr__(name: str) -> Any:
    # Lazily, because every child process pays for what it imports.
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
