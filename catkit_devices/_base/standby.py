"""Threads that are started before they are needed, so that devices can be made safe if no new thread can be started."""

from __future__ import annotations

import queue
import threading
import time
from typing import TYPE_CHECKING

from catkit_devices._base.ctrl_c import InterruptSafeEvent

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["Errand", "Standby", "all_at_once", "begin"]


class Errand:
    """A task that is carried out in another thread.

    Attributes:
        asked: when it was asked for, on the monotonic clock.
        begun: whether it has begun.
        failure: the error that it raised, or None.
    """

    def __init__(self, work: Callable[[], object]) -> None:
        self.asked = time.monotonic()
        self.begun = False
        self.failure: BaseException | None = None
        self._work = work
        self._ended = InterruptSafeEvent()

    def wait(self, timeout: float | None) -> bool:
        """Wait at most ``timeout`` seconds (None: without limit); return whether it has ended."""
        return self._ended.wait(timeout)

    def run(self) -> None:
        """Carry it out, in this thread."""
        self.begun = True
        try:
            self._work()
        except BaseException as error:  # noqa: BLE001 - the thread that asked for it handles the error
            self.failure = error
        self._ended.set()


class Standby:
    """A thread that is started in advance, and carries out its tasks one after the other.

    Args:
        name: of the thread.

    Raises:
        RuntimeError: no thread can be started.
    """

    def __init__(self, name: str) -> None:
        self._errands: queue.SimpleQueue[Errand | None] = queue.SimpleQueue()
        # The thread must have no reference to this object; otherwise the object would never be freed.
        self._thread = threading.Thread(target=_do_errands, args=(self._errands,), name=name, daemon=True)
        self._thread.start()

    def do(self, work: Callable[[], object]) -> Errand:
        """Add a task, which is carried out after the earlier ones."""
        errand = Errand(work)
        self._errands.put(errand)
        return errand

    @property
    def alive(self) -> bool:
        """Whether the thread is running; it is not in a forked child."""
        return self._thread.is_alive()

    @property
    def is_this_thread(self) -> bool:
        """Whether the calling thread is this thread."""
        return threading.current_thread() is self._thread

    def end(self) -> None:
        """End the thread after its present tasks."""
        self._errands.put(None)

    def __del__(self) -> None:
        if hasattr(self, "_thread"):  # it is missing if Ctrl-C came while the thread was started
            self.end()


def _do_errands(errands: queue.SimpleQueue[Errand | None]) -> None:
    while (errand := errands.get()) is not None:
        errand.run()
        del errand  # so that the objects of a finished task are not kept while the thread waits for the next one


def begin(work: Callable[[], object], name: str, standby: Standby) -> Errand:
    """Begin a task in its own thread; if no thread can be started, let ``standby`` carry it out.

    Args:
        work: the task.
        name: of the thread.
        standby: carries it out otherwise, after its earlier tasks.
    """
    errand = Errand(work)
    try:
        threading.Thread(target=errand.run, name=name, daemon=True).start()
    except RuntimeError:
        return standby.do(work)
    return errand


def all_at_once(actions: Mapping[str, Callable[[], object]], what: str) -> dict[str, Errand]:
    """Begin several tasks, each in its own thread; tasks for which no thread can be started are done here, at the end.

    Args:
        actions: the tasks, by name.
        what: the first part of the threads' names.
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
