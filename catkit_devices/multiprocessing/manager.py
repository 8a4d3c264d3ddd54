"""The shared memory manager: named mutexes, events, barriers and objects for every process of a user."""

from __future__ import annotations

import os
from multiprocessing import ProcessError, connection, current_process, managers, util
from multiprocessing.process import BaseProcess
from typing import TYPE_CHECKING, Any, Self, cast

from catkit_devices._base.deferred import refuse_deferred
from catkit_devices._base.timeouts import LONGEST_TIMEOUT, default_timeout, seconds
from catkit_devices.errors import ConfigurationError, ServerNotFoundError
from catkit_devices.multiprocessing.client.calls import connection_to
from catkit_devices.multiprocessing.client.named_session import NamedSession
from catkit_devices.multiprocessing.client.proxy import obtain, reach, remote_of
from catkit_devices.multiprocessing.client.proxy_factory import proxy_of
from catkit_devices.multiprocessing.client.session import silence
from catkit_devices.multiprocessing.process.process import spawning
from catkit_devices.multiprocessing.protocol import CALL, ROOT
from catkit_devices.multiprocessing.wire.endpoint import default_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from catkit_devices.multiprocessing.locks.mutex import Mutex
    from catkit_devices.multiprocessing.types.dicts import MutexedDict
    from catkit_devices.multiprocessing.types.events import Barrier, Event
    from catkit_devices.multiprocessing.types.queues import Queue
    from catkit_devices.multiprocessing.types.stream import FrameStream
    from catkit_devices.multiprocessing.wire.endpoint import Endpoint

__all__ = ["SharedMemoryManager"]

_State: Any = managers.State  # type: ignore[attr-defined]  # not in the library's stubs


class SharedMemoryManager(managers.SyncManager):
    """Starts a server, or connects to one, and returns the objects on it.

    It has everything that ``multiprocessing.managers.SyncManager`` has. In addition there are named objects, which
    every process can use: mutexes, events, barriers, conditions, queues, dicts, namespaces and objects of the user's
    own classes. A named object exists once. It is made for the first process that asks for it, and exists until it is
    forgotten (``forget``) or the server ends. When a process ends, however it ends, its mutexes are released and its
    waits are withdrawn.

    Args:
        name: of the server; None for ``CATKIT_DEVICES_SERVER``, else ``"default"``.
        address: ``(host, port)`` to serve or reach it over TCP; None for a private socket on this host.
        authkey: the secret of the server. None means, for a new server, the key of this process (random, inherited by
            its children), and for a running server on this host the key in its file, which only its user can read.
        group: name of a user group whose members may use the server too.
        serializer: ``"pickle"``; the standard library's other one, ``"xmlrpclib"``, is refused.
        stop_timeout: seconds in which the server must close its devices and end.
    """

    _state: Any
    _registry: Any
    _serializer: str

    def __init__(
        self,
        name: str | None = None,
        *,
        address: tuple[str, int] | None = None,
        authkey: bytes | None = None,
        serializer: str = "pickle",
        group: str | None = None,
        stop_timeout: float = 30.0,
    ) -> None:
        self.name = name if name is not None else default_name()
        self._asked = address
        self._group = group
        self._stop_timeout = stop_timeout
        if serializer != "pickle":
            raise ValueError(f"server {self.name!r}: serializer must be 'pickle', got {serializer!r}")
        self._given_key = None if authkey is None else bytes(authkey)
        self._server: Endpoint | None = None
        super().__init__(address, authkey, serializer, ctx=spawning)

    # --- starting, connecting, ending -------------------------------------------------------------------------------

    def start(self, initializer: Callable[..., object] | None = None, initargs: Iterable[Any] = ()) -> None:
        """Start the server in its own process.

        Raises:
            ServerRunningError: a server of that name runs already; the message names its process.
        """
        from catkit_devices.multiprocessing.server.server_process import serve, stop

        if self._state.value != _State.INITIAL:
            raise ProcessError("a manager is started or connected once")
        refuse_deferred(initializer, "the initializer of a server")
        # The key of this process and its children: with another one, proxies of the standard library that come back
        # from a child, or out of one of its containers, could not connect.
        key = bytes(self._authkey)
        reader, writer = connection.Pipe(duplex=False)
        self._process = spawning.Process(
            target=serve,
            args=(
                self._registry,
                self.name,
                self._asked,
                key,
                self._serializer,
                self._group,
                writer,
                initializer,
                tuple(initargs),
            ),
            name=f"server {self.name!r}",
        )
        self._process.grace = self._stop_timeout  # it makes its devices safe when this process dies
        self._process.start()
        writer.close()
        try:
            with reader:
                self._server = reader.recv()
        except EOFError:
            self._process.join()  # raises the error because of which it did not start
            raise
        self._adopt(self._server)
        self._state.value = _State.STARTED
        self.shutdown = util.Finalize(
            self, stop, args=(self._process, self._server, self._state, self._stop_timeout), exitpriority=4
        )

    def connect(self) -> None:
        """Use the running server of that name or address.

        Raises:
            ServerNotFoundError: there is no such server.
            AuthenticationError: the server has another key.
        """
        server = reach(self.name, self._asked, self._given_key)
        self._adopt(server)
        connection_to(server)
        self._state.value = _State.STARTED

    def __enter__(self) -> Self:
        if self._state.value == _State.INITIAL:
            self.start()
        return self

    def join(self, timeout: float | None = None) -> None:
        """Wait for the end of the server that this manager has started.

        Args:
            timeout: seconds; with None, or more than eleven days, it waits without limit.

        Raises:
            ProcessDiedError: the server ended although it had not been shut down.
            WaitTimeoutError: the server is still running.
        """
        if self._state.value == _State.SHUTDOWN:
            if timeout is not None and seconds(timeout, "the server") > LONGEST_TIMEOUT:
                timeout = None
            BaseProcess.join(self._process, timeout)
        else:
            self._process.join(timeout)

    def _adopt(self, server: Endpoint) -> None:
        self._server = server
        self._address = server.address
        self._authkey = type(current_process().authkey)(server.authkey)

    @property
    def server(self) -> Endpoint:
        """How the server is reached.

        Raises:
            ServerNotFoundError: the manager is neither started nor connected.
        """
        if self._server is None:
            raise ServerNotFoundError(
                f"the manager of server {self.name!r} is neither started nor connected", server=self.name
            )
        return self._server

    @property
    def pid(self) -> int:
        """Process id of the server."""
        return connection_to(self.server).session.pid

    @property
    def process(self) -> Any:
        """The process of the server, for the manager that has started it."""
        return self._process

    @property
    def silence(self) -> float:
        """Seconds since the last message of the server to this process; it sends one about every second."""
        return silence(self.server)

    def __reduce__(self) -> tuple[Callable[..., SharedMemoryManager], tuple[Any, ...]]:
        return _connected, (type(self), self.name, self._asked)

    @classmethod
    def register(
        cls,
        typeid: str,
        callable: Callable[..., Any] | None = None,  # noqa: A002 - the standard library's name
        proxytype: Any = None,
        exposed: Any = None,
        method_to_typeid: Any = None,
        create_method: bool = True,
    ) -> None:
        """Share a class of your own: ``manager.<typeid>(...)`` then makes a new object on the server.

        If only a class is given, it is shared as by ``get_object``: every public method, property and attribute, each
        under the object's mutex. The object has no name; when it is sent, its proxy is sent. It exists until it is
        forgotten (``forget``) or the server ends. With a proxy type or a list of exposed names, this is the standard
        library's ``BaseManager.register``.
        """
        if callable is None or proxytype is not None or exposed is not None or method_to_typeid is not None:
            super().register(typeid, callable, proxytype, exposed, method_to_typeid, create_method)
            return
        factory = callable

        def make(self: SharedMemoryManager, /, *args: Any, **kwargs: Any) -> Any:
            return self.get_object(f"{typeid}-{os.urandom(8).hex()}", factory, *args, **kwargs)

        make.__name__ = typeid
        make.__doc__ = f"Make a {typeid} on the server and return its proxy."
        setattr(cls, typeid, make)

    # --- named objects ----------------------------------------------------------------------------------------------

    def get_mutex(self, name: str, timeout: float | None = None) -> Mutex:
        """Return the mutex of that name; ``timeout`` is its default in seconds (60). ``get_lock`` is the same."""
        return cast("Mutex", self._named("mutex", name, timeout=timeout))

    get_lock = get_mutex

    def get_event(self, name: str) -> Event:
        """Return the event of that name: ``set``, ``clear``, ``is_set``, ``wait(timeout=None)``."""
        return cast("Event", self._named("event", name))

    def get_barrier(self, name: str, parties: int | None = None, timeout: float | None = None) -> Barrier:
        """Return the barrier of that name; this process takes part in it from now on.

        Args:
            name: of the barrier.
            parties: how many processes it waits for; required from the first process that asks for this barrier.
            timeout: default of ``wait``, in seconds (60).
        """
        barrier = cast("Barrier", self._named("barrier", name, parties=parties, timeout=timeout))
        barrier.join()
        return barrier

    def get_condition(self, name: str) -> Any:
        """Return the condition variable of that name."""
        return self._named("condition", name)

    def get_queue(self, name: str, maxsize: int | None = None) -> Queue:
        """Return the first-in-first-out queue of that name; ``maxsize`` bounds it (0: unbounded)."""
        return cast("Queue", self._named("queue", name, maxsize=maxsize))

    def get_dict(
        self, name: str, load: Callable[[Any], Any] | None = None, lock: Any = None, timeout: float | None = None
    ) -> MutexedDict[Any, Any]:
        """Return the mutexed dict of that name.

        Args:
            name: of the dict.
            load: called on the server with a missing key, to make its value; pickled like the target of a process.
            lock: a mutex of that server, or an object on it that has one as ``.mutex``; the dict then uses this mutex.
            timeout: seconds that an operation waits for the mutex (60, or the timeout of ``lock``).
        """
        refuse_deferred(load, f"the function that loads dict {name!r}")
        return cast("MutexedDict[Any, Any]", self._named("dict", name, load=load, lock=lock, timeout=timeout))

    def get_namespace(self, name: str, timeout: float | None = None) -> Any:
        """Return the mutexed namespace of that name: an object whose attributes are shared.

        Args:
            name: of the namespace.
            timeout: seconds that an operation waits for the mutex (60).
        """
        return self._named("namespace", name, timeout=timeout)

    def get_stream(
        self, name: str, shape: tuple[int, ...] | None = None, dtype: Any = None, slots: int | None = None
    ) -> FrameStream:
        """Return the frame stream of that name: one writer, many readers, through shared memory.

        Args:
            name: of the stream.
            shape: of its frames; required from the first process that asks for this stream.
            dtype: of its frames; required from the first process that asks for this stream.
            slots: how many frames the ring buffer holds (16).
        """
        from catkit_devices.multiprocessing.types.stream import stream_over

        kind = None if dtype is None else str(dtype.str if hasattr(dtype, "str") else dtype)
        return stream_over(self._named("stream", name, shape=shape and tuple(shape), dtype=kind, slots=slots))

    def get_object(self, name: str, factory: Callable[..., Any] | None = None, *args: Any, **kwargs: Any) -> Any:
        """Return a proxy of the object of that name; if there is none yet, the server makes it.

        It is made by ``factory(*args, **kwargs)``, on the server. Its public methods, properties and attributes can be
        used through the proxy, each under the object's mutex.

        Raises:
            ConfigurationError: there is no such object, and ``factory`` was left out.
        """
        refuse_deferred(factory, f"the factory of object {name!r}")
        return proxy_of(obtain(self.server, "object", name, {}, factory, args, kwargs))

    def forget(self, shared: Any) -> None:
        """Remove a named object from the server, if it is not needed any more; its name is free again.

        A device is closed first, as when the server ends. A process that still has a proxy of the object gets an error
        when it uses the proxy. If a process asks for the name again, a new object is made.

        Args:
            shared: a mutex, or a proxy of another named object; one that was forgotten already is ignored.

        Raises:
            ConfigurationError: it is not of this server, or it is in use: its mutex is held, or a process waits for it.
        """
        from catkit_devices.multiprocessing.types.stream import FrameStream

        remote = remote_of(shared.memory if isinstance(shared, FrameStream) else shared)
        if remote is None or remote.server.address != self.server.address:
            raise ConfigurationError(f"{shared!r} is not of server {self.name!r}, which forgets only its own objects")
        remote.connection().call(ROOT, CALL, "forget", (remote.kind, remote.name, remote.reference.target), None)

    def get_exception(self, pid: int) -> BaseException | None:
        """Return the error with which a process ended, by its pid, if it was a ``Process`` that used this server."""
        from catkit_devices.multiprocessing.wire.exceptions import decode

        data = self._ask("get_exception", pid)
        return None if data is None else decode(data)

    def session(self, name: str, host: str | None = None) -> NamedSession:
        """Open one more session of this process, to act for somebody else: ``with session:``. See ``NamedSession``.

        It ends by ``close()`` in good order, and by ``abandon()`` or the end of this process as a process that dies. It
        is a session with other servers too, if it uses them.

        Args:
            name: shown in messages and in ``status()``: for whom the process acts.
            host: from where that one comes, if it is another computer.

        Raises:
            ServerNotFoundError, ServerUnresponsiveError: the server cannot be reached.
        """
        session = NamedSession(name, host)
        with session:
            self._ask("hear_of_session")
        return session

    def status(self) -> dict[str, Any]:
        """Return every object of the server with its holder and waiters, and every session.

        A session's ``silent`` is the number of seconds since the last message of its process, which sends one about
        every second as long as it runs. Its ``origin`` is empty for a process; of one that a process has opened to act
        for somebody else, it says from where it comes and who has opened it.
        """
        status: dict[str, Any] = self._ask("status")
        return status

    def break_mutex(self, name: str, reason: str) -> str | None:
        """Take the mutex of that name from its holder, by force.

        If there is no mutex of that name, the mutex of a device or another object of that name is taken. Operations of
        the old owner raise ``MutexBrokenError`` until it has left its section. If one of its operations is running, the
        next owner gets the mutex when that has ended.

        Returns:
            Who held it; None if nobody did.

        Raises:
            LookupError: nothing of that name has a mutex; the message names the objects that have one.
        """
        whose: str | None = self._ask("break_mutex", name, reason)
        return whose

    def _named(self, kind: str, name: str, **parameters: Any) -> Any:
        if parameters.get("timeout") is not None:
            default_timeout(parameters["timeout"], f"{kind} {name!r}")
        return proxy_of(obtain(self.server, kind, name, parameters))

    def _ask(self, verb: str, *args: Any) -> Any:
        return connection_to(self.server).call(ROOT, CALL, verb, args, None)


def _connected(cls: type[SharedMemoryManager], name: str, address: tuple[str, int] | None) -> SharedMemoryManager:
    manager = cls(name, address=address)
    manager.connect()
    return manager
