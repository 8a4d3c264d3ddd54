"""What may live on a server, what clients may do with it, and what the server calls when.

Whatever a server hosts is a `HostedObject`: devices, mutexes, events, barriers, conditions, queues, dicts, namespaces,
frame streams, simulations, and what a testbed keeps on its servers. An object of any other class is hosted inside of a
`HostedValue`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from catkit_devices.multiprocessing.locks.mutex import Mutex
from catkit_devices.multiprocessing.protocol import RESERVED, SPECIAL, Interface

if TYPE_CHECKING:
    from catkit_devices.multiprocessing.locks.entries import Entry
    from catkit_devices.multiprocessing.locks.owner import Session
    from catkit_devices.multiprocessing.protocol import Reference

__all__ = ["HostedMutex", "HostedObject", "HostedValue"]


class HostedObject:
    """An object that a server can host.

    The server uses these members only. Their names begin and end with an underscore, because the other names belong to
    the class itself. Where a class overrides none of them, clients may call its public methods, several at the same
    time, and the class looks after its own consistency.
    """

    __slots__ = ()

    _mutex_: Mutex | None = None
    """The object's mutex: what clients know as ``proxy.mutex``. None where it has none."""
    _server_locks_: ClassVar[bool] = False
    """Whether the server acquires the mutex around each operation of a client. Else the object acquires what it needs
    itself."""
    _section_: ClassVar[bool] = False
    """Whether ``with proxy:`` holds the mutex during the block."""
    _fixed_: ClassVar[bool] = True
    """Whether clients are refused every attribute that the interface does not name."""
    _stores_values_: ClassVar[bool] = False
    """Whether attributes are values that clients have put there, functions included: a namespace."""
    _direct_: ClassVar[bool] = True
    """Whether another object of the same server that asks for this one gets it itself. Else it gets a proxy."""
    _handed_over_: ClassVar[frozenset[str]] = frozenset()
    """The methods whose result leaves the object for good, as an item leaves a queue: see ``_returned_``."""

    def _interface_(self, kind: str) -> Interface | None:
        """Return what clients may do with it; None for what they know as a mutex only. Called once, when it is made.

        As it is here: the public methods and properties of its class, and the special methods in ``SPECIAL``.
        """
        return _interface_of(kind, type(self), self._section_, self._fixed_)

    def _operand_(self) -> Any:
        """Return what the operations of clients are done on: the object itself, or what it contains."""
        return self

    def _part_(self, path: tuple[str, ...]) -> tuple[Any, Interface]:
        """Return a component, and what clients may do with it. Only where ``Interface.parts``.

        Args:
            path: the words that lead to it.
        """
        raise AttributeError(f"there is no component {'.'.join(path)}")

    def _there_(self, path: str) -> dict[int | str, Interface]:
        """Return which components there are of those that depend on an instrument, and what clients may do with each.

        Args:
            path: the words that lead to them, with dots between.
        """
        raise AttributeError(f"there are no components {path}")

    def _hosted_as_(self, reference: Reference) -> None:
        """Learn where clients find it. Called once, before anybody can use it."""

    def _returned_(self, value: Any) -> None:
        """Take back the result of a method in ``_handed_over_``: the client has died or has given the call up."""

    def _session_ended_(self, session: Session, goodbye: bool) -> None:
        """Forget what a client had of it. Called when the client's process has ended, whether it used this or not.

        All objects are told before the server releases any mutex that the client held.

        Args:
            session: of the client.
            goodbye: whether the client has ended in good order; else it died, or its connection was lost.
        """

    def _server_stops_(self) -> None:
        """Close what it has, within a bounded time: the server ends, or was told to forget it."""

    def _status_(self) -> dict[str, Any]:
        """Return what ``manager.status()`` shows of it, beside its mutex."""
        return {}

    def _waiting_(self) -> list[str]:
        """Return who waits at it, in words. The server does not forget it meanwhile."""
        return []

    def _shared_memory_(self) -> tuple[int, int] | None:
        """Return descriptor and size, in bytes, of the memory that its clients map; None where there is none."""
        return None

    def _enter_entry_(self, entry: Entry) -> None:
        """Open it, and keep it open for ``entry``, which the client counts. Only where ``Interface.entered``."""

    def _leave_entry_(self, entry: Entry | None, force: bool) -> None:
        """End an entry of ``_enter_entry_``; ``force`` ends them all. The last one closes it."""

    def _withdraw_entry_(self, session: Session, entry: Entry) -> None:
        """End an entry whose call the client has interrupted: it may have been counted or not."""


class HostedMutex(HostedObject):
    """A mutex, and nothing else."""

    def __init__(self, name: str, timeout: float | None = None) -> None:
        self._mutex_ = Mutex(name) if timeout is None else Mutex(name, timeout)

    def _interface_(self, kind: str) -> None:  # noqa: ARG002 - no client has more of it than its mutex
        return None


class HostedValue(HostedObject):
    """An object of a class that knows nothing of servers: each use of a public member runs under its mutex.

    Args:
        value: the object. If it has a mutex as ``.mutex``, that one is used.
    """

    _server_locks_ = True
    _direct_ = False

    def __init__(self, value: Any) -> None:
        self._value = value
        mutex = getattr(value, "mutex", None)
        self._mutex_ = mutex if isinstance(mutex, Mutex) else None

    def _operand_(self) -> Any:
        return self._value

    def _interface_(self, kind: str) -> Interface:
        cls = type(self._value)
        for name in sorted(RESERVED):
            if hasattr(cls, name) and not isinstance(getattr(self._value, name), Mutex):
                raise TypeError(
                    f"{cls.__qualname__}.{name} cannot be shared: proxies use the names {', '.join(sorted(RESERVED))} "
                    "for the object's mutex; name it otherwise"
                )
        return _interface_of(kind, cls, not _defined(cls, "__enter__"), fixed=False)


def _interface_of(kind: str, cls: type, section: bool, fixed: bool) -> Interface:
    import inspect

    methods: dict[str, str | None] = {}
    properties: dict[str, str | None] = {}
    for name in dir(cls):
        if name in RESERVED or (name.startswith("_") and not (name in SPECIAL and _defined(cls, name))):
            continue
        if section and name in {"__enter__", "__exit__"}:
            continue
        member = inspect.getattr_static(cls, name)
        if callable(getattr(cls, name, None)) and not inspect.isclass(member):
            methods[name] = inspect.getdoc(member)
        else:
            properties[name] = inspect.getdoc(member)
    return Interface(kind, cls.__qualname__, methods, properties, fixed, section, ())


def _defined(cls: type, name: str) -> bool:
    """Whether a class has a special method of its own, not only that of ``object``."""
    return getattr(cls, name, None) is not getattr(object, name, None)
