"""The devices of this process that may be on, and how they are made safe when the process ends.

This happens when the program's last line is done, when the program raises or calls ``sys.exit``, and when it is told to
end by SIGTERM or by SIGHUP (the end of its terminal). After a signal the main thread goes on until everything is safe:
it may be in the middle of an exchange, which must end before the instrument can be told anything. Then the process dies
of that signal, as it would have at once. A signal that the program handles itself, or ignores, is left to it.

A thread of the framework reads the number of every signal from the descriptor to which the interpreter writes it. The
main thread alone would notice a signal too late while it is in a library, and perhaps never where two come at once:
another thread may receive them, and nothing wakes the main thread.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import signal
import threading
import time
from functools import partial
from multiprocessing import parent_process, util
from typing import TYPE_CHECKING, Any, Protocol

from catkit_devices._base.standby import Errand
from catkit_devices._device.access import refuse_everything
from catkit_devices.errors import DeviceFaultError
from catkit_devices.multiprocessing.protocol import running_server
from catkit_devices.multiprocessing.wire.forking import making, private

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from types import FrameType

__all__ = [
    "ENDING",
    "forget",
    "note",
    "open_devices",
    "told_to_end",
    "watch_signals",
    "watch_signals_again",
    "without_ctrl_c",
]

_SHUT = 5.0
"""Seconds that closing may take, once everything is safe: a vendor's library may hang."""
_DIE = 5.0
"""Seconds within which the main thread is to let the signal through; it may be in a library that does not."""
_SAY = 2.0
"""Seconds that logging may take, once everything is safe: nobody may be reading what the program writes."""
_LOOK = 0.01
"""Seconds between two looks whether the main thread has let the signal through."""
_BEFORE_GOODBYE = 10
"""Priority among the exit functions of multiprocessing: other servers that a device needs must still be reachable."""

ENDING = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))
"""The signals by which a program is told to end: by an operator, and by the end of its terminal."""
_NUMBERS = tuple(map(int, ENDING))
"""The same as plain numbers, which compare faster."""
_handler_of = getattr(signal, "_signal", signal).getsignal
"""As ``signal.getsignal``, without the time it takes to make a member of an enum: every change of a device asks."""
_DEFAULT = int(signal.SIG_DFL)
"""What it returns for a signal that nobody handles."""

_log = logging.getLogger(__name__)


class _Lifecycle(Protocol):
    """What is needed of each device that may be on; ``catkit_devices._device.connection`` says what each does."""

    device: Any
    safe_timeout: float

    @property
    def opening(self) -> bool: ...
    def leave_to_parent(self) -> None: ...
    def interrupt(self, reason: str) -> None: ...
    def begin_to_make_safe(self) -> Errand | None: ...
    def finish_to_make_safe(self, errand: Errand) -> None: ...
    def begin_to_shut(self) -> Errand | None: ...
    def fail(self, reason: str) -> None: ...


# At the end of a process all its open devices are made safe, also those to which nothing refers any more: an instrument
# does not switch itself off when its object is deleted.
_opened: dict[_Lifecycle, None] = {}
_of_parent: list[_Lifecycle] = []
"""In a forked child, what its parent had open: kept alive for ever, because a destructor would use the parent's
connection."""


class _End:
    """What is known of the end of this process; made anew in a forked child."""

    def __init__(self) -> None:
        self.guard = threading.RLock()
        self.reason: str | None = None
        """The reason why nothing may be opened or changed any more."""
        self.asked: set[int] = set()
        """Signals for which our handler was called, by the interpreter or by a handler of the program's own."""
        self.told: int | None = None
        """The signal that ends the process."""
        self.safe = False
        """Whether everything has been made safe, so that the signal may end the process."""
        self.of_child: util.Finalize | None = None
        """What multiprocessing calls at the end of a child."""
        self.wake: int | None = None
        """The descriptor to which signal numbers are written, for the thread that reads them."""


_end = _End()


def _hold_signals() -> None:
    """Hold signals back at a fork: one to the child before ``_forget_parent`` would be reported to the parent."""
    _held.before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)


def _release_signals() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, _held.before)


def _forget_parent() -> None:
    global _end  # noqa: PLW0603 - see its class
    if _end.wake is not None:
        _wake_by(-1, instead_of=_end.wake)
    _end = _End()
    for life in _opened:
        life.leave_to_parent()
    _of_parent.extend(_opened)
    _opened.clear()
    refuse_everything(None)
    _release_signals()


_held = threading.local()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_hold_signals, after_in_parent=_release_signals, after_in_child=_forget_parent)


def open_devices() -> list[Any]:
    """Return the devices of this process that are open or being opened, or were closed without being made safe."""
    return [life.device for life in list(_opened)]


def note(life: _Lifecycle) -> None:
    """Have a device made safe when the process ends; before what was registered with ``atexit`` so far is done.

    To be called before the device is opened, and again afterwards: opening may have registered what ends the
    connection.
    """
    _opened[life] = None
    atexit.unregister(_at_exit)
    for _ in range(2):  # Ctrl-C may come before the first one has begun
        atexit.register(_at_exit)
    if parent_process() is not None and _end.of_child is None:
        # Most children of multiprocessing end without atexit.
        _end.of_child = util.Finalize(None, _at_end_of_child, exitpriority=_BEFORE_GOODBYE)
    watch_signals()


def forget(life: _Lifecycle) -> None:
    """Take a device off the list: it is closed, and was made safe."""
    _opened.pop(life, None)


def watch_signals() -> None:
    """Have SIGTERM and SIGHUP make open devices safe before the process dies of them; if Python allows it.

    Python allows this in the main thread only. Handlers that the program has set itself stay, and a server handles
    these signals differently.
    """
    if os.name != "posix" or running_server or threading.current_thread() is not threading.main_thread():
        return
    if not _opened:
        return
    if _end.wake is None:
        _end.wake = _hear_signals()
    _wake_by(_end.wake, instead_of=-1)
    for number in ENDING:
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, told_to_end)


def _wake_by(descriptor: int, instead_of: int) -> None:
    """Have the numbers of signals written to a descriptor, unless another library (asyncio) has set its own."""
    before = signal.set_wakeup_fd(descriptor, warn_on_full_buffer=False)
    if before not in (instead_of, descriptor):
        signal.set_wakeup_fd(before)


def _hear_signals() -> int:
    with making:
        reading, writing = os.pipe()
        private(reading), private(writing)
    os.set_blocking(writing, False)
    try:
        threading.Thread(target=_hear, args=(reading,), name="catkit-signals", daemon=True).start()
    except RuntimeError:
        os.close(reading)
        os.close(writing)
        raise
    return writing


def _hear(reading: int) -> None:
    while numbers := os.read(reading, 64):
        for number in numbers:
            if number in _end.asked or (number in ENDING and signal.getsignal(number) is told_to_end):
                _make_safe_and_die(number)


def watch_signals_again() -> None:
    """Watch SIGTERM and SIGHUP again if asyncio has restored their default action, as it does at its end."""
    if _opened:
        for number in _NUMBERS:
            if _handler_of(number) == _DEFAULT:
                watch_signals()


# --- how the end comes


def _at_exit() -> None:
    while True:
        try:
            if _opened:
                with without_ctrl_c():
                    _make_everything_safe("the program has ended")
            break
        except KeyboardInterrupt:  # it came before Ctrl-C was ignored
            continue
    if _end.told is not None:
        _die(_end.told)  # the main thread has ended because the signal ended its operation with an error


@contextlib.contextmanager
def without_ctrl_c() -> Iterator[None]:
    """Ignore Ctrl-C in this block: it takes a limited time and must be completed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.SIG_DFL if before is None else before)


def _at_end_of_child() -> None:
    if not running_server:  # a server ends at once
        for thread in threading.enumerate():
            if not thread.daemon and thread is not threading.current_thread():
                thread.join()  # as Python does before atexit: until then it may need its devices
    _at_exit()


def told_to_end(number: int, frame: FrameType | None = None) -> None:  # noqa: ARG001 - a signal handler's signature
    """Have everything made safe, in another thread, and the process die of the signal."""
    if _end.safe or not _opened or _end.wake is None:
        _die(number)
        return
    _end.asked.add(number)
    with contextlib.suppress(BlockingIOError):  # the pipe is full of signals already
        os.write(_end.wake, bytes([number]))


def _make_safe_and_die(number: int) -> None:
    _end.told = number
    try:
        _make_everything_safe(f"the process was told to end ({signal.Signals(number).name})")
    finally:
        _end.safe = True
        main = threading.main_thread().ident
        if main is not None:
            signal.pthread_kill(main, number)  # only the main thread may restore the default action of a signal
        time.sleep(_DIE)
        os._exit(128 + number)


def _die(number: int) -> None:
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


# --- what is done


def _make_everything_safe(reason: str) -> None:
    """Let nothing be opened or changed any more, make safe what is open, all at once, and close it; in bounded time.

    Nothing of this is logged before it is done: what the program writes may be read by nobody, and then writing blocks
    for ever, or a thread that is interrupted has the lock of the log.
    """
    with _end.guard:
        _end.reason = reason
        refuse_everything(reason)
        lines: list[Callable[[], None]] = []
        silenced = _silence()
        for life in list(_opened):
            life.interrupt(reason)
        opening = [life for life in list(_opened) if life.opening]
        _make_safe([life for life in list(_opened) if life not in opening], lines)
        _wait_for(opening, lines)
        _make_safe(opening, lines)
        shutting = [life.begin_to_shut() for life in list(_opened)]
        deadline = time.monotonic() + _SHUT
        for errand in filter(None, shutting):
            errand.wait(max(0.0, deadline - time.monotonic()))
        _say(lines, silenced)


def _silence() -> list[logging.Logger]:
    """Have nothing logged by this package; return what logs again later."""
    package = __name__.partition(".")[0]
    found = [one for name, one in list(logging.root.manager.loggerDict.items()) if name.split(".")[0] == package]
    loggers = [one for one in found if isinstance(one, logging.Logger) and not one.disabled]
    for logger in loggers:
        logger.disabled = True
    return loggers


def _say(lines: list[Callable[[], None]], silenced: list[logging.Logger]) -> None:
    """Log what was done; for as long as it may take."""
    errand = Errand(lambda: [line() for line in lines])
    for logger in silenced:
        logger.disabled = False
    try:
        threading.Thread(target=errand.run, name="catkit-last-words", daemon=True).start()
    except RuntimeError:  # the interpreter is ending, or there are no threads left
        errand.run()
    errand.wait(_SAY)


def _make_safe(lives: Iterable[_Lifecycle], lines: list[Callable[[], None]]) -> None:
    errands = []
    for life in lives:
        try:
            errand = life.begin_to_make_safe()
        except RuntimeError as error:  # no thread can be started for it
            life.fail(f"could not be made safe ({error})")
            lines.append(partial(life.fail, f"could not be made safe ({error})"))
            continue
        if errand is not None:
            errands.append((life, errand))
    for life, errand in errands:
        try:
            life.finish_to_make_safe(errand)
        except DeviceFaultError as error:
            lines.append(partial(life.fail, error.problem))
            continue
        lines.append(partial(_log.info, "device %r: made safe: %s", life.device.name, _end.reason))


def _wait_for(opening: list[_Lifecycle], lines: list[Callable[[], None]]) -> None:
    """Wait until what is being opened is open, or has failed to open."""
    deadline = time.monotonic() + max((life.safe_timeout for life in opening), default=0.0)
    while late := [life.device.name for life in opening if life in _opened and life.opening]:
        if time.monotonic() > deadline:
            text = "still being opened, and not known to be safe: %s"
            lines.append(partial(_log.error, text, ", ".join(late)))
            return
        time.sleep(_LOOK)
