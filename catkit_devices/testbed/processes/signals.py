"""The terminal's signals and requests to end: the testbed's process handles them, its children never see them."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from catkit_devices._device.process_end import ENDING, told_to_end, watch_signals
from catkit_devices.multiprocessing.server.server_process import TERMINAL

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

__all__ = ["deferred", "deliver_again", "ended_by_signals", "ignore_terminal", "kept_from_children"]


_AGAIN = 0.01
"""Seconds until a signal comes again: the finalizer has ended by then, as a rule."""
_LONG = 2.0
"""Seconds that clean-up is given even if Ctrl-C comes a second time; then its user does not want to wait longer."""
_ANOTHER = 0.2
"""Seconds after which a signal is another one: a program such as ``timeout`` sends the same one twice."""


@contextmanager
def kept_from_children() -> Iterator[None]:
    """Start processes in this block: the terminal's signals reach them only once they have said that they ignore them.

    Ctrl-C is raised here after the block, so that no process is half started.
    """
    with deferred():
        if not hasattr(signal, "pthread_sigmask"):
            yield
            return
        from multiprocessing import resource_tracker

        # The first process that is spawned starts the resource tracker, which unblocks Ctrl-C; so start it before.
        resource_tracker.ensure_running()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, TERMINAL)
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def ignore_terminal() -> None:
    """Ignore the terminal from now on, in a process that was started under :func:`kept_from_children`.

    A device server that a Ctrl-Z stopped could make nothing safe, nor could one that died with its terminal.
    """
    for number in TERMINAL:
        signal.signal(number, signal.SIG_IGN)
    deliver_again(*TERMINAL)


def deliver_again(*signals: signal.Signals) -> None:
    """Let signals through in a process that was started under :func:`kept_from_children`."""
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, set(signals))


def _leave(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the signature of a signal handler
    raise SystemExit(128 + number)


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """In this block a request to end (SIGTERM, the end of the terminal) raises ``SystemExit`` in the main thread.

    Handlers that the program has set for these signals stay. It does nothing in a thread other than the main thread.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    taken = {number: signal.getsignal(number) for number in ENDING}
    taken = {number: handler for number, handler in taken.items() if handler in (signal.SIG_DFL, told_to_end)}
    for number in taken:
        signal.signal(number, _leave)
    try:
        with _heard_of_in_the_end():
            yield
    finally:
        for number, handler in taken.items():
            signal.signal(number, handler)
        watch_signals()  # for devices of this process's own that were opened meanwhile


@contextmanager
def _heard_of_in_the_end() -> Iterator[None]:
    """Send a signal again that came in a finalizer or a weak-reference callback, where Python cannot raise anything."""
    before = sys.unraisablehook

    def hook(unraisable: sys.UnraisableHookArgs) -> None:
        before(unraisable)
        number = _signal_behind(unraisable.exc_value)
        if number is not None and threading.current_thread() is threading.main_thread():
            threading.Timer(_AGAIN, os.kill, (os.getpid(), number)).start()

    sys.unraisablehook = hook
    try:
        yield
    finally:
        if sys.unraisablehook is hook:
            sys.unraisablehook = before


def _signal_behind(error: BaseException | None) -> int | None:
    if isinstance(error, KeyboardInterrupt):
        return signal.SIGINT
    if isinstance(error, SystemExit):
        return next((number for number in ENDING if error.code == 128 + number), None)  # see _leave
    return None


@contextmanager
def deferred(hurry: Callable[[int], None] | None = None, *, asked: bool = False) -> Iterator[None]:
    """Finish the block even if Ctrl-C or SIGTERM comes; both are raised after it.

    For clean-up whose every step is bounded.

    Args:
        hurry: called with the signal if one comes when the block has already lasted long; or when it has, if by then
            the program has been told to end a second time. It may be called in another thread.
        asked: whether the block is there because the program was told to end.
    """
    begun = newest = time.monotonic()
    requests = int(asked)
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    before = {
        number: signal.getsignal(number)
        for number in (signal.SIGINT, *ENDING)
        if number == signal.SIGINT or signal.getsignal(number) is _leave
    }

    def note(number: int, _: FrameType | None) -> None:
        nonlocal newest, requests
        came.append(number)
        now = time.monotonic()
        if not requests or now - newest > _ANOTHER:
            requests += 1
        newest = now
        if hurry is not None and now - begun > _LONG:
            hurry(number)

    def act_on_the_second() -> None:
        if hurry is not None and requests > 1:
            hurry(came[-1])

    # Not started by the handler, which may interrupt the starting of another thread.
    timer = threading.Timer(_LONG, act_on_the_second)
    timer.daemon = True
    if hurry is not None:
        with suppress(RuntimeError):  # there may be no thread left
            timer.start()
    for number in before:
        signal.signal(number, note)
    try:
        yield
    finally:
        timer.cancel()
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        if came:  # also if the block has failed: the code that handles that error would not know of the signal
            signal.raise_signal(signal.Signals(came[0]))
