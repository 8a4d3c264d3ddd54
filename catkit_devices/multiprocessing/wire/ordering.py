"""The order in which other processors see what this one has stored in shared memory.

What is shared here is guarded by a mark: the writer makes it odd, stores the data, and makes it even again; a reader
takes a copy between two looks at the mark. That needs three orders: *mark, then data* and *data, then mark* where it is
written, *mark, then data, then mark* where it is read. A processor of the kind x86-64 keeps them by itself: stores are
seen in the order in which they were made, and loads are made in theirs (Intel 64 manual, volume 3, 9.2.2). Others,
arm64 among them, may exchange any two of these, so ``fence()`` stands between them.

Python has no function for that, but its locks have what is needed. To release a lock is a *release*: everything before
it is done first. To acquire one is an *acquire*: everything after it is done later. ``fence()`` releases a lock and
acquires it again. What comes before is seen before the release; the acquire reads what the release has stored, so it
comes after it; what comes after is done after the acquire. For arm64 this is the rule that an acquire which reads the
store of an atomic operation of the same thread is ordered after it (Arm Architecture Reference Manual, B2.3,
"atomic-ordered-before"). The locks of Python are made of such operations: ``sem_post`` and ``sem_trywait`` of the C
library on Linux up to Python 3.13, a mutex of the C library on macOS, and sequentially consistent operations from
Python 3.14 on. Each use takes a new lock, so no thread waits for another, and Ctrl-C leaves none locked.

A mark, like every number beside it, has eight bytes at an address that is a multiple of eight, and is loaded and stored
by one instruction.
"""

from __future__ import annotations

import platform
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["fence"]

_ORDERED = ("x86_64", "AMD64")
"""Processors that keep the order by themselves, as ``platform.machine()`` calls them on Linux, macOS and Windows."""


def _fence() -> None:
    lock = threading.Lock()
    with lock:
        pass
    with lock:
        pass


def _no_fence() -> None:
    pass


fence: Callable[[], None] = _no_fence if platform.machine() in _ORDERED else _fence
"""Have everything that was loaded and stored before be done before anything that comes after."""
