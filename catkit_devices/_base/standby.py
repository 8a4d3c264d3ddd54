"""Threads that exist before they are needed: what safety does must get done also where no thread can be started."""

from __future__ import annotations

import queue
import threading
import time
from typing import TYPE_CHECKING

from catkit_devices._base.ctrl_c import Event

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["Errand", "Standby", "all_at_once", "begin"]


class Errand:
    """Something that is to be done in another thread.

    Attributes:
        asked: when, on the monotonic clock.
        begun: whether it has been begun.
        failure: what it raised.
    """

    def __init__(self, work: Callable[[], object]) -> None:
        self.asked = time.monotonic()
        self.begun = False
        self.failure: BaseException | None = None
        self._work = work
        self._ended = Event()

    def wait(self, timeout: float | None) -> bool:
        """Return whether it has ended, after at most ``timeout`` seconds; None waits for as long as it takes."""
        return self._ended.wait(timeout)

    def run(self) -> None:
        """Do it, in this thread."""
        self.begun = True
        try:
            self._work()
        except BaseException as error:  # noqa: BLE001 - whoever asked for it looks at it
            self.failure = error
        self._ended.set()


class Standby:
    """A thread that was started beforehand and does what it is given, one after the other.

    Args:
        name: of the thread.

    Raises:
        RuntimeError: no thread can be started.
    """

    def __init__(self, name: str) -> None:
        self._errands: queue.SimpleQueue[Errand | None] = queue.SimpleQueue()
        # The thread must not know this object, or nobody could ever drop it.
        self._thread = threading.Thread(target=_do_errands, args=(self._errands,), name=name, daemon=True)
        self._thread.start()

    def do(self, work: Callable[[], object]) -> Errand:
        """Have something done, after what was given before."""
        errand = Errand(work)
        self._errands.put(errand)
        return errand

    @property
    def alive(self) -> bool:
        """Whether the thread is there: not in a forked child, for one."""
        return self._thread.is_alive()

    @property
    def is_this_thread(self) -> bool:
        """Whether it is the thread that asks."""
        return threading.current_thread() is self._thread

    def end(self) -> None:
        """End the thread, after what it was given."""
        self._errands.put(None)

    def __del__(self) -> None:
        if hasattr(self, "_thread"):  # or Ctrl-C came in the middle of starting it
            self.end()


def _do_errands(errands: queue.SimpleQueue[Errand | None]) -> None:
    while (errand := errands.get()) is not None:
        errand.run()
        del errand  # nor keep what it was about, while it waits for the next one


def begin(work: Callable[[], object], name: str, standby: Standby) -> Errand:
    """Begin something in a thread of its own; where none can be started, have ``standby`` do it.

    Args:
        work: what to do.
        name: of the thread.
        standby: does it otherwise, after what it was given before.
    """
    errand = Errand(work)
    try:
        threading.Thread(target=errand.run, name=name, daemon=True).start()
    except RuntimeError:
        return standby.do(work)
    return errand


def all_at_once(actions: Mapping[str, Callable[[], object]], what: str) -> dict[str, Errand]:
    """Begin several things, each in a thread of its own; where no thread can be started, do them here, at the end.

    Args:
        actions: what to do, by name.
        what: names the threads.
    """
    errands = {name: Errand(action) for name, action in actions.items()}
    left: list[Errand] = []
    for name, errand in errands.items():
        try:
            threading.Thread(target=errand.run, name=f"{what} {name}", daemon=True).start()
        except RuntimeError:
            left.append(errand)
    for errand in left:
        errand.run()
    return errands
