"""Every kind of object that a server keeps by name: how each is made.

Their waiters are withdrawn when their process ends: a killed waiter swallows no item, satisfies no barrier and consumes
no notification.
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
