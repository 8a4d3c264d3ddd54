"""Sessions, owners and calls: who asks a server for something.

An *owner* is the thread of a process, or the asyncio task, to which a mutex belongs. The client sends it with every
nested call, so that nested use of the same mutex does not block. A *session* is one process as a server knows it, or
one of those for whom the process acts; when it ends, the server releases what it held. A *call* is one operation that
is being carried out, possibly on several servers; it can be cancelled.

A thread or task acts for its process and is its own owner, unless it says otherwise: ``with session:`` makes it act for
another session, ``with acting_as(owner):`` for another owner.
"""

from __future__ import annotations

import itertools
import os
import socket
import sys
import threading
from contextvars import ContextVar
from multiprocessing import process as _process
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import ReferenceType, WeakKeyDictionary, ref

from catkit_devices._base.ctrl_c import InterruptSafeEvent
from catkit_devices.errors import OperationCancelled, SessionEndedError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "Call",
    "Owner",
    "OwnerKey",
    "Session",
    "acting_as",
    "announced_owner",
    "calling",
    "current_call",
    "current_owner",
    "emergency_call",
    "forwarded_call",
    "local_session",
    "own_session",
    "process_of",
    "running_loop",
    "thread_owner",
]

OwnerKey = tuple[str, int, int]
"""Id of the process or of its session (globally unique), number of the thread in the process, number of the asyncio
task (0 for the thread itself)."""


class Session:
    """One process as a server (or the process itself) knows it, or one of those for whom a process acts.

    ``ended`` is set, under the guard of the locks, before anything that it held is released.

    Args:
        identity: globally unique.
        process: name of the process, or of the session if a process has opened it to act for somebody else.
        pid, host: of the process.
        origin: of such a session: from where it comes and who opened it, as a text; empty for a process.
    """

    __slots__ = (
        "__weakref__",
        "carrier",
        "ended",
        "gives_way",
        "gone",
        "host",
        "id",
        "introduce",
        "long_wait",
        "origin",
        "pid",
        "process",
        "terminal",
        "user",
    )

    def __init__(self, identity: str, process: str, pid: int, host: str, origin: str = "") -> None:
        self.id = identity
        self.process = process
        self.pid = pid
        self.host = host
        self.origin = origin
        self.user = ""
        """The login name of the user, as the process has said; empty where it is not known."""
        self.terminal = ""
        """The terminal of the process; empty if it has none, or it is not known."""
        self.ended = False
        self.carrier: Session = self
        """The session of which it is a part; another one if a server makes a call on behalf of its own client."""
        self.gone: Callable[[], bool] | None = None
        """Returns whether the process has ended already, even if its end was not handled yet; takes microseconds."""
        self.long_wait: Callable[[Call, int], None] | None = None
        """Called when a call of the session waits long, so that a deadlock over several servers is looked for."""
        self.gives_way: Callable[[Call], None] | None = None
        """Called when a call waits, to tell the process to whose operation the call belongs."""
        self.introduce: Callable[[Any], None] | None = None
        """Called before a call is sent to a server, with the connection to it: the server may not know the session."""

    def require_open(self) -> None:
        """Raise the error of ``end_error`` if it has ended."""
        if self.ended:
            raise self.end_error()

    def end_error(self) -> OperationCancelled:
        """Return the error for a call of the session that comes after its end."""
        return SessionEndedError(self.process) if self.origin else OperationCancelled("the calling process has ended")


class Owner:
    """One thread (or asyncio task), acting for its process or a session. Owners with the same key are the same owner.

    Args:
        key: identifies it.
        process: name of the process, or of the session.
        pid, host: of the process.
        thread: name of the thread, or of thread and task.
        origin: of the session; see ``Session``.
    """

    __slots__ = ("_in_sessions", "ended", "host", "key", "lender", "origin", "pid", "process", "thread")

    def __init__(self, key: OwnerKey, process: str, pid: int, host: str, thread: str, origin: str = "") -> None:
        self.key = key
        self.process = process
        self.pid = pid
        self.host = host
        self.thread = thread
        self.origin = origin
        self.ended = False
        self.lender: tuple[_Identity, ReferenceType[Session]] | None = None
        """The process and the session in which ``acting_as`` may be used with it; None for one that was sent here."""
        self._in_sessions: WeakKeyDictionary[Session, Owner] | None = None

    def in_session(self, session: Session) -> Owner:
        """Return the owner that this thread or task is while it acts for a session of its process."""
        if self._in_sessions is None:
            self._in_sessions = WeakKeyDictionary()
        owner = self._in_sessions.get(session)
        if owner is None:
            key = (session.id, *self.key[1:])
            owner = Owner(key, session.process, self.pid, self.host, self.thread, session.origin)
            owner.lender = (_identity, ref(session))
            self._in_sessions[session] = owner
        return owner

    def end(self) -> None:
        """Record that its thread has ended."""
        self.ended = True
        for owner in list((self._in_sessions or {}).values()):
            owner.ended = True

    def __reduce__(self) -> tuple[type[Owner], tuple[OwnerKey, str, int, str, str, str]]:
        return Owner, (self.key, self.process, self.pid, self.host, self.thread, self.origin)

    def __str__(self) -> str:
        origin = f"{self.origin}, " if self.origin else ""
        where = "" if self.host == _HOST else f" on {self.host}"
        ended = ", thread ended" if self.ended else ""
        return f"{self.process!r} ({origin}pid {self.pid}{where}, {self.thread}{ended})"


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
"""Asked once: it may take long where names are looked up over a network."""
_call: ContextVar[Call | None] = ContextVar("catkit_devices_call", default=None)
_acting: ContextVar[_Acting | None] = ContextVar("catkit_devices_acting", default=None)
_numbers = itertools.count(1)
_threads = threading.local()
_task_owners: WeakKeyDictionary[Any, Owner] = WeakKeyDictionary()
_NOTEBOOKS = ("IPython", "ipykernel")
"""Packages whose tasks run the cells of a notebook. All cells are one owner: they share what they acquire."""


class _Acting(NamedTuple):
    """For whom a thread or task acts, if not for its process and as its own owner."""

    session: Session
    owner: Owner | None
    """None: it is an owner of its own in that session."""
    call: Call | None
    """The call that the code around is part of."""
    outer: _Acting | None
    """For whom the code around acts."""


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
    _acting.set(None)


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


def process_of(identity: str) -> str:
    """Return the id of the process to which an id, of the process itself or of a session that it opened, belongs."""
    return identity.partition(_PART)[0]


def user_name() -> str:
    """Return the login name of the user of this process; the number if it has no name, as in some containers."""
    try:
        import pwd
    except ImportError:  # not a POSIX system
        return os.environ.get("USERNAME", "")
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def terminal_name() -> str:
    """Return the terminal of this process, such as ``/dev/pts/3``; empty if it has none."""
    for descriptor in range(3):
        try:
            return os.ttyname(descriptor)
        except (AttributeError, OSError):  # this system does not tell, or it is no terminal
            continue
    return ""


_PART = "#"
"""Separates the id of a process from the number of a session that the process has opened."""


def new_session_id() -> str:
    """Return the id of a further session of this process."""
    return f"{_identity.id}{_PART}{next(_numbers)}"


def local_session() -> Session:
    """Return the session for which this code acts: the one of ``with session:``, else the process itself."""
    acting = _acting.get()
    return own_session() if acting is None else acting.session


def own_session() -> Session:
    """Return the session of this process itself."""
    session = _identity.session
    if not session.process:
        session.user, session.terminal = user_name(), terminal_name()
        session.process = process_name()
    return session


def thread_owner() -> Owner:
    """Return the owner that this thread is itself, whatever task it runs and for whom it acts."""
    owner: Owner | None = getattr(_threads, "owner", None)
    if owner is None:
        key = (_identity.id, next(_numbers), 0)
        thread = threading.current_thread().name
        owner = _threads.owner = Owner(key, process_name(), os.getpid(), _HOST, thread)
        owner.lender = (_identity, ref(own_session()))
        _threads.mark = _ThreadEnd(owner)
    return owner


class _ThreadEnd:
    """Marks its owner as ended when the local variables of the thread are freed."""

    def __init__(self, owner: Owner) -> None:
        self._owner = owner

    def __del__(self) -> None:
        self._owner.end()


def current_owner() -> Owner:
    """Return the owner for whom this code runs; another thread or task of the process can act for it: ``acting_as``.

    It is the one of ``acting_as`` or of a forwarded call, else the asyncio task, else the thread. Inside of
    ``with session:`` a thread or task is another owner than outside. The cells of a notebook belong to the thread that
    runs them, whatever tasks the notebook makes for them.
    """
    call = _call.get()
    if call is not None:
        owner = call.owner
        if owner.lender is None:
            owner.lender = (_identity, ref(call.session))
        return owner
    acting = _acting.get()
    if acting is None:
        return _own_owner()
    return acting.owner or _own_owner().in_session(acting.session)


def _own_owner() -> Owner:
    """Return the owner that this task or thread is itself."""
    if running_loop() is not None:
        import asyncio

        task = asyncio.current_task()
        if task is not None:
            return _task_owner(task)
    return thread_owner()


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
        owner = _task_owners[task] = thread_owner()
    if owner is None:
        thread = thread_owner()
        key = (thread.key[0], thread.key[1], next(_numbers))
        owner = Owner(key, thread.process, thread.pid, thread.host, f"{thread.thread}, task {task.get_name()}")
        owner.lender = thread.lender
        _task_owners[task] = owner
    return owner


def _runs_cells(task: Any) -> bool:
    """Whether a task runs a cell of a notebook: each cell runs in its own task, one after the other."""
    frame = getattr(task.get_coro(), "cr_frame", None)
    return frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] in _NOTEBOOKS


def emergency_call() -> Call:
    """Return a call with its own owner, to make something safe no matter who holds it."""
    key = (_identity.id, -next(_numbers), 0)
    call = Call(Owner(key, process_name(), os.getpid(), _HOST, "making safe"), key, own_session())
    call.emergency = True
    return call


def forwarded_call() -> Call | None:
    """Return the call that this code is part of, or None at the outermost level."""
    return _call.get()


def current_call() -> Call:
    """Return the call that this code is part of; at the outermost level a new one."""
    call = _call.get()
    if call is None:
        chain = (_identity.id, next(_numbers))
        if _acting.get() is None:  # nearly always: every use of a mutex comes here twice
            return Call(_own_owner(), chain, own_session())
        owner = current_owner()
        call = Call(owner, chain, local_session())
        call.apart = _acts_apart(owner)
    return call


def announced_owner() -> tuple[Owner, bool] | None:
    """Return what a server must be told of the owner of a call: the owner, and whether it is ``apart``; see ``Call``.

    None if the owner is this thread, which the server knows already.
    """
    if _acting.get() is None and running_loop() is None:
        return None
    owner = current_owner()
    return owner, _acts_apart(owner)


def _acts_apart(owner: Owner) -> bool:
    """Whether this thread acts for an owner that is in another thread, which is free while this one waits."""
    acting = _acting.get()
    return acting is not None and acting.owner is not None and owner.key[1] != thread_owner().key[1]


def set_call(call: Call) -> None:
    """Make ``call`` the current call of this thread from now on: a server's thread carries out one after another."""
    _call.set(call)


def begin_acting(session: Session, owner: Owner | None = None) -> None:
    """Make this thread or task act for a session, or for an owner in it, until ``end_acting``.

    Raises:
        SessionEndedError: the session has ended.
    """
    session.require_open()
    before, call = _acting.get(), _call.get()
    try:
        _acting.set(_Acting(session, owner, call, before))
        _call.set(None)
    except BaseException:  # Ctrl-C
        _acting.set(before)
        _call.set(call)
        raise


def end_acting() -> None:
    """Make this thread or task act again as before ``begin_acting``."""
    acting = _acting.get()
    if acting is not None:
        _call.set(acting.call)
        _acting.set(acting.outer)


class acting_as:  # noqa: N801 - reads as a statement: with acting_as(owner):
    """Act for an owner of this process during the block: what it holds is entered again, and not waited for.

    Two threads that act for one owner at the same time exclude each other's operations, but not each other's
    sections: the mutex belongs to the owner, and so to both. The tasks that are started and the functions that are
    passed to ``asyncio.to_thread`` in the block act for the owner too.

    Args:
        owner: as ``current_owner()`` has returned it, in another thread or task.

    Raises:
        SessionEndedError: the session of the owner has ended.
        ValueError: the owner is of another process.
    """

    __slots__ = ("_owner",)

    def __init__(self, owner: Owner) -> None:
        self._owner = owner

    def __enter__(self) -> Owner:
        lender = self._owner.lender
        if lender is None or lender[0] is not _identity:
            raise ValueError(f"{self._owner} is of another process: an owner can only be lent within its process")
        session = lender[1]()
        if session is None:
            raise SessionEndedError(self._owner.process)
        begin_acting(session, self._owner)
        return self._owner

    def __exit__(self, *_: object) -> None:
        end_acting()


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
