"""The kinds of named objects that a server has, and how each is made.

When a process ends, its waits are withdrawn: a killed process takes no item from a queue, does not count at a barrier,
and uses up no notification.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from catkit_devices.multiprocessing.hosted import HostedMutex
from catkit_devices.multiprocessing.types.conditions import Condition
from catkit_devices.multiprocessing.types.dicts import MutexedDict, MutexedNamespace
from catkit_devices.multiprocessing.types.events import Barrier, Event
from catkit_devices.multiprocessing.types.queues import Queue
from catkit_devices.multiprocessing.types.stream_memory import StreamMemory

if TYPE_CHECKING:
    from collections.abc import Callable

    from catkit_devices.multiprocessing.hosted import HostedObject

__all__ = ["MAKERS"]

MAKERS: dict[str, Callable[..., HostedObject]] = {
    "mutex": HostedMutex,
    "event": Event,
    "barrier": Barrier,
    "condition": Condition,
    "queue": Queue,
    "dict": lambda name, **options: MutexedDict(name=name, **options),
    "namespace": MutexedNamespace,
    "stream": StreamMemory,
}
"""How each kind of named object is made."""
