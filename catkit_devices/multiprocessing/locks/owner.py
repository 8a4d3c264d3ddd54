"""Sessions, owners and calls: who asks a server for something.

An *owner* is the thread of a process, or the asyncio task, to which a mutex belongs. The client sends it with every
nested call, so that nested use of the same mutex does not block. A *session* is one process as a server knows it; when
it ends, the server releases what the process held. A *call* is one operation that is being carried out, possibly on
several servers; it can be cancelled.
"""

from __future__ import annotations

import itertools
import os
import socket
import sys
import threading
from contextvars import ContextVar
from multiprocessing import process as _process
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from catkit_devices._base.ctrl_c import InterruptSafeEvent

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "Call",
    "Owner",
    "OwnerKey",
    "Session",
    "calling",
    "current_call",
    "current_owner",
    "emergency_call",
    "forwarded_call",
    "local_session",
    "running_loop",
]

OwnerKey = tuple[str, int, int]
"""Process id (globally unique), number of the thread in it, number of the asyncio task (0 for the thread itself)."""


class Session:
    """One process as a server (or the process itself) knows it.

    ``ended`` is set, under the guard of the locks, before anything that it held is released.
    """

    __slots__ = ("__weakref__", "carrier", "ended", "gives_way", "gone", "host", "id", "long_wait", "pid", "process")

    def __init__(self, identity: str, process: str, pid: int, host: str) -> None:
        self.id = identity
        self.process = process
        self.pid = pid
        self.host = host
        self.ended = False
        self.carrier: Session = self
        """The session of which it is a part; another one if a server makes a call on behalf of its own client."""
        self.gone: Callable[[], bool] | None = None
        """Returns whether the process has ended already, even if its end was not handled yet; takes microseconds."""
        self.long_wait: Callable[[Call, int], None] | None = None
        """Called when a call of the session waits long, so that a deadlock over several servers is looked for."""
        self.gives_way: Callable[[Call], None] | None = None
        """Called when a call waits, to tell the process to whose operation the call belongs."""


class Owner:
    """One thread (or asyncio task) of one process. Two owners with the same key are the same owner."""

    __slots__ = ("ended", "host", "key", "pid", "process", "thread")

    def __init__(self, key: OwnerKey, process: str, pid: int, host: str, thread: str) -> None:
        self.key = key
        self.process = process
        self.pid = pid
        self.host = host
        self.thread = thread
        self.ended = False

    def __reduce__(self) -> tuple[type[Owner], tuple[OwnerKey, str, int, str, str]]:
        return Owner, (self.key, self.process, self.pid, self.host, self.thread)

    def __str__(self) -> str:
        where = "" if self.host == _HOST else f" on {self.host}"
        ended = ", thread ended" if self.ended else ""
        return f"{self.process!r} (pid {self.pid}{where}, {self.thread}{ended})"


class Call:
    """One operation that is being carried out: for whom (owner), as part of what (chain), in which session.

    Nested operations have the owner and the chain of the outermost one, on whatever server they run.
    """

    __slots__ = (
        "_on_cancel",
        "_wake",
        "apart",
        "chain",
        "changes",
        "emergency",
        "hands_over",
        "nested",
        "number",
        "owner",
        "reason",
        "session",
        "waiter",
    )

    def __init__(self, owner: Owner, chain: object, session: Session, number: int = 0) -> None:
        self.owner = owner
        self.chain = chain
        self.session = session
        self.number = number
        self.reason: BaseException | None = None
        self.waiter: Any = None
        """Its wait for a lock (a ``Waiter``), until it has woken up; used under the guard of the locks."""
        self.nested = False
        """Whether it is part of an operation in the process that sent it."""
        self.apart = False
        """Whether the owner's own thread is free while the call waits (``async with``)."""
        self.changes = False
        """Whether its operation may change the state of a device."""
        self.emergency = False
        """Whether it makes a device safe: then it acquires no lock but the one of the wire."""
        self.hands_over = False
        """Whether its answer is a value that is removed from an object, and goes back if it does not arrive."""
        self._wake: InterruptSafeEvent | None = None
        self._on_cancel: Callable[[], None] | None = None

    def cancel(self, reason: BaseException) -> None:
        """Make the operation end: ``check`` and ``wait`` raise ``reason`` from now on; nested calls are cancelled."""
        if self.reason is None:
            self.reason = reason
        wake, on_cancel = self._wake, self._on_cancel
        if wake is not None:
            wake.set()
        if on_cancel is not None:
            on_cancel()

    def check(self) -> None:
        """Raise the reason if the call was cancelled."""
        if self.reason is not None:
            raise self.reason

    def wait(self, timeout: float | None) -> None:
        """Sleep for ``timeout`` seconds; end early, raising the reason, when the call is cancelled."""
        if self._wake is None:
            self._wake = InterruptSafeEvent()
        if self.reason is None:
            self._wake.wait(timeout)
        self.check()

    def on_cancel(self, tell: Callable[[], None] | None) -> None:
        """Call ``tell`` if this call is cancelled, from now until this is called with None: during a nested call."""
        self._on_cancel = tell
        if tell is not None and self.reason is not None:
            tell()


_HOST = socket.gethostname()
_call: ContextVar[Call | None] = ContextVar("catkit_devices_call", default=None)
_numbers = itertools.count(1)
_threads = threading.local()
_task_owners: WeakKeyDictionary[Any, Owner] = WeakKeyDictionary()
_NOTEBOOKS = ("IPython", "ipykernel")
"""Packages whose tasks run the cells of a notebook. All cells are one owner: they share what they acquire."""


class _Identity:
    """The identity of this process; a forked child gets a new one."""

    def __init__(self) -> None:
        self.id = os.urandom(16).hex()
        self.session = Session(self.id, "", os.getpid(), _HOST)


_identity = _Identity()


def _forget_parent() -> None:
    global _identity, _threads  # noqa: PLW0603 - a forked child is another process, with its own identity and threads
    _identity = _Identity()
    _threads = threading.local()
    _call.set(None)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_parent)


def process_id() -> str:
    """Return the globally unique id of this process."""
    return _identity.id


def process_name() -> str:
    """Return the name of this process in messages: of its multiprocessing process, its script or its notebook."""
    name = _process.current_process().name
    if name != "MainProcess" or not sys.argv:
        return name
    script = os.path.basename(sys.argv[0])  # noqa: PTH119 - importing pathlib would slow down every child
    if script == "ipykernel_launcher.py":  # Jupyter tells its kernels the name of their notebook
        return os.path.basename(os.environ.get("JPY_SESSION_NAME", "")) or "notebook"  # noqa: PTH119 - as above
    return "python" if script in {"", "-", "-c"} else script


def local_session() -> Session:
    """Return the session under which this process uses its own objects."""
    session = _identity.session
    if not session.process:
        session.process = process_name()
    return session


def _thread_owner() -> Owner:
    owner: Owner | None = getattr(_threads, "owner", None)
    if owner is None:
        key = (_identity.id, next(_numbers), 0)
        thread = threading.current_thread().name
        owner = _threads.owner = Owner(key, process_name(), os.getpid(), _HOST, thread)
        _threads.mark = _ThreadEnd(owner)
    return owner


class _ThreadEnd:
    """Marks its owner as ended when the local variables of the thread are freed."""

    def __init__(self, owner: Owner) -> None:
        self._owner = owner

    def __del__(self) -> None:
        self._owner.ended = True


def current_owner() -> Owner:
    """Return the owner for whom this code runs: the one of a forwarded call, else the asyncio task, else the thread.

    The cells of a notebook belong to the thread that runs them, whatever tasks the notebook makes for them.
    """
    call = _call.get()
    if call is not None:
        return call.owner
    if running_loop() is not None:
        import asyncio

        task = asyncio.current_task()
        if task is not None:
            return _task_owner(task)
    return _thread_owner()


def running_loop() -> Any:
    """Return the event loop of asyncio that runs in this thread; None if there is none.

    asyncio is not imported for this. Another thread may be in the middle of importing it: then the function may be
    missing, and no loop runs yet.
    """
    get = getattr(sys.modules.get("asyncio"), "_get_running_loop", None)  # the public one raises where there is none
    return None if get is None else get()


def _task_owner(task: Any) -> Owner:
    owner = _task_owners.get(task)
    if owner is None and _runs_cells(task):
        owner = _task_owners[task] = _thread_owner()
    if owner is None:
        thread = _thread_owner()
        key = (thread.key[0], thread.key[1], next(_numbers))
        owner = Owner(key, thread.process, thread.pid, thread.host, f"{thread.thread}, task {task.get_name()}")
        _task_owners[task] = owner
    return owner


def _runs_cells(task: Any) -> bool:
    """Whether a task runs a cell of a notebook: each cell runs in its own task, one after the other."""
    frame = getattr(task.get_coro(), "cr_frame", None)
    return frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] in _NOTEBOOKS


def emergency_call() -> Call:
    """Return a call with its own owner, to make something safe no matter who holds it."""
    key = (_identity.id, -next(_numbers), 0)
    call = Call(Owner(key, process_name(), os.getpid(), _HOST, "making safe"), key, local_session())
    call.emergency = True
    return call


def forwarded_call() -> Call | None:
    """Return the call that this code is part of, or None at the outermost level."""
    return _call.get()


def current_call() -> Call:
    """Return the call that this code is part of; at the outermost level a new one."""
    call = _call.get()
    if call is None:
        call = Call(current_owner(), (_identity.id, next(_numbers)), local_session())
    return call


def set_call(call: Call) -> None:
    """Make ``call`` the current call of this thread from now on: a server's thread carries out one after another."""
    _call.set(call)


class calling:  # noqa: N801 - reads as a statement: with calling(call):
    """Run the block as part of ``call``."""

    __slots__ = ("_call", "_token")

    def __init__(self, call: Call) -> None:
        self._call = call

    def __enter__(self) -> Call:
        self._token = _call.set(self._call)
        return self._call

    def __exit__(self, *_: object) -> None:
        _call.reset(self._token)
