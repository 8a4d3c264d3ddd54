"""Objects that a server may host: what clients may do with them, and which of their methods the server calls, and when.

Whatever a server hosts is a `HostedObject`: devices, mutexes, events, barriers, conditions, queues, dicts, namespaces,
frame streams, simulations, and what a testbed keeps on its servers. An object of any other class is hosted inside of a
`HostedValue`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from catkit_devices.multiprocessing.locks.mutex import Mutex
from catkit_devices.multiprocessing.protocol import RESERVED, SPECIAL, Interface

if TYPE_CHECKING:
    from catkit_devices.multiprocessing.locks.entries import OpenEntry
    from catkit_devices.multiprocessing.locks.owner import Session
    from catkit_devices.multiprocessing.protocol import Reference

__all__ = ["HostedMutex", "HostedObject", "HostedValue"]


class HostedObject:
    """An object that a server can host.

    The server uses these members only. Their names begin and end with an underscore, because the other names belong to
    the class itself. If a class overrides none of them, clients may call its public methods, several at the same time;
    then the class must do its own locking.
    """

    __slots__ = ()

    _mutex_: Mutex | None = None
    """The object's mutex, which clients reach as ``proxy.mutex``; None if it has none."""
    _server_locks_: ClassVar[bool] = False
    """Whether the server acquires the mutex around each operation of a client. If not, the object does its own
    locking."""
    _section_: ClassVar[bool] = False
    """Whether ``with proxy:`` holds the mutex during the block."""
    _fixed_: ClassVar[bool] = True
    """Whether clients can use only the attributes that the interface names."""
    _stores_values_: ClassVar[bool] = False
    """Whether its attributes are values that clients have stored, functions included, as in a namespace."""
    _direct_: ClassVar[bool] = True
    """Whether another object of the same server that asks for this one gets the object itself. If not, it gets a
    proxy."""
    _handed_over_: ClassVar[frozenset[str]] = frozenset()
    """The methods whose result is removed from the object, as an item from a queue; see ``_returned_``."""

    def _interface_(self, kind: str) -> Interface | None:
        """Return what clients may do with it; None if they may use its mutex only. Called once, when it is made.

        By default: the public methods and properties of its class, and the special methods in ``SPECIAL``.
        """
        return _interface_of(kind, type(self), self._section_, self._fixed_)

    def _operand_(self) -> Any:
        """Return the object on which the operations of clients are carried out: this object, or one inside of it."""
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

    def _when_open_(self) -> Interface:
        """Return what clients may do with it when it is open. Only where ``Interface.grows``; it may be opened now."""
        raise AttributeError("it has no more when it is open")

    def _hosted_as_(self, reference: Reference) -> None:
        """Get the reference by which clients find it. Called once, before it can be used."""

    def _returned_(self, value: Any) -> None:
        """Take back the result of a method in ``_handed_over_``: the client has died, or has abandoned the call."""

    def _session_ended_(self, session: Session, goodbye: bool) -> None:
        """Undo what a client has left in it. Called when a client's process has ended, even if it never used this.

        All objects are told before the server releases any mutex that the client held.

        Args:
            session: of the client.
            goodbye: whether the client has ended in order; if not, it died, or its connection was lost.
        """

    def _server_stops_(self) -> None:
        """Close what it has open, within a bounded time: the server ends, or this object is to be forgotten."""

    def _status_(self) -> dict[str, Any]:
        """Return what ``manager.status()`` shows of it, in addition to its mutex."""
        return {}

    def _waiting_(self) -> list[str]:
        """Return who waits at it, as texts. As long as there is one, the server does not forget the object."""
        return []

    def _shared_memory_(self) -> tuple[int, int] | None:
        """Return descriptor and size, in bytes, of the memory that its clients map; None if there is none.

        The server closes the descriptor when it has sent it.
        """
        return None

    def _enter_entry_(self, entry: OpenEntry) -> None:
        """Open it, and keep it open for ``entry``, which the client has numbered. Used if ``Interface.entered``."""

    def _leave_entry_(self, entry: OpenEntry | None, force: bool) -> None:
        """End an entry of ``_enter_entry_``; ``force`` ends all entries. After the last one it is closed."""

    def _withdraw_entry_(self, entry: OpenEntry) -> None:
        """End an entry whose call the client has interrupted; it may not have been counted yet."""


class HostedMutex(HostedObject):
    """A mutex, and nothing else."""

    def __init__(self, name: str, timeout: float | None = None) -> None:
        self._mutex_ = Mutex(name) if timeout is None else Mutex(name, timeout)

    def _interface_(self, kind: str) -> None:  # noqa: ARG002 - clients use its mutex only
        return None


class HostedValue(HostedObject):
    """An object of a class that was not written for servers: each use of a public member runs under its mutex.

    Args:
        value: the object. If it has a mutex as ``.mutex``, this mutex is used.
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
                    "for the object's mutex; give it another name"
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
