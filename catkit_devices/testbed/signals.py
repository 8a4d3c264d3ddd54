"""Ctrl-C: the testbed's process handles it, its children never see it."""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["deferred", "deliver_again", "kept_from_children"]


@contextmanager
def kept_from_children() -> Iterator[None]:
    """Start processes in this block: Ctrl-C does not reach them before they have said that they ignore it.

    Here it is raised after the block, so that no process is half started.
    """
    with deferred():
        if not hasattr(signal, "pthread_sigmask"):
            yield
            return
        from multiprocessing import resource_tracker

        # The first spawn of a process starts it, and unblocks Ctrl-C on the way whatever was asked for.
        resource_tracker.ensure_running()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def deliver_again(*signals: signal.Signals) -> None:
    """Let signals through in a process that was started under :func:`kept_from_children`."""
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, set(signals))


@contextmanager
def deferred() -> Iterator[None]:
    """Finish the block whatever is typed: Ctrl-C is raised after it. For clean-up whose every step is bounded."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    typed: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: typed.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.SIG_DFL if before is None else before)
    if typed:
        raise KeyboardInterrupt
