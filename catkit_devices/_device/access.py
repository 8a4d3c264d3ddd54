"""Who may use a device, and when: its mutex, the lock of its operations, and the permission that changes need.

A property that is declared in one line asks for that access by itself; the public methods of a driver are wrapped so
that they do, too (``members``).
"""

from __future__ import annotations

import contextlib
import inspect
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from catkit_devices._base.timeouts import default_timeout
from catkit_devices.errors import CatkitDevicesError, DeviceValueError, nearest
from catkit_devices.multiprocessing.locks.lock import OwnedLock
from catkit_devices.multiprocessing.locks.mutex import Mutex
from catkit_devices.multiprocessing.locks.owner import current_call
from catkit_devices.multiprocessing.protocol import audit_trail, running_server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from catkit_devices._device.values import Limits
    from catkit_devices.multiprocessing.locks.owner import Call, Session
    from catkit_devices.multiprocessing.protocol import Register

    Gate = Callable[[str, str, bool], BaseException | None]
    """Asked with device, operation, and whether that changes its state (else it would have to open the device);
    returns why it may not be done now."""

__all__ = ["Access", "DeviceProperty", "Several", "refuse_everything"]

_PLAIN = frozenset({bool, float, int, str, type(None)})
"""Types of values that the audit trail notes as they are."""

_process_ends: str | None = None
"""Why no device of this process may be opened or changed any more: the process ends."""


def refuse_everything(reason: str | None) -> None:
    """Have every device of this process refuse to be opened or changed, because of ``reason``; None ends that."""
    global _process_ends  # noqa: PLW0603 - one value for the whole process
    _process_ends = reason


class Access:
    """The locks of one device, and the permission to change it.

    Args:
        name: of the device.
        timeout: seconds that an operation waits for the mutex.

    Attributes:
        mutex: says which owner may use the device, over as many operations as it likes.
        mutex_lock: the lock of the mutex.
        operation_lock: held by each operation; a read marked ``shared`` takes only this one.
        changed_by: the session that has changed the device last; None if none has since it was opened or made safe.
    """

    def __init__(self, name: str, timeout: float) -> None:
        self._name = name
        self.mutex_lock = OwnedLock(name)
        self.mutex = Mutex.over(self.mutex_lock, default_timeout(timeout, f"mutex {name!r}"))
        self.operation_lock = OwnedLock(f"{name} (operation)", by_chain=True, timeout=self.mutex.timeout)
        self.changed_by: Session | None = None
        self._epoch = 0
        """How often the device was made safe or closed: what was set before that is not its state any more."""
        self._watcher: Call | None = None
        self._closing: set[Call] = set()
        """Calls that close the device; they may have it in FAULT too, to make it safe."""
        self._unsettled: set[Call] = set()
        """Operations that ran when the device was made safe in an emergency, or that put it into FAULT."""
        self._settle: Callable[[Call], None] = _nothing

    def ask(
        self,
        *,
        refusal: Callable[[], BaseException | None],
        may_give_way: Callable[[object], bool],
        settle: Callable[[Call], None],
    ) -> None:
        """Have the locks ask the device.

        Args:
            refusal: called before anybody gets the mutex; returns why nobody may have it, or None.
            may_give_way: called with the chain that waits; returns whether shared reads may run meanwhile.
            settle: called for each operation that was noted by ``unsettle``, before it gives its locks back.
        """
        self.mutex_lock.refusal = refusal
        self.operation_lock.may_give_way = may_give_way
        self._settle = settle

    # --- locks

    def enter(self, call: Call, operation: str, *, shared: bool = False, timeout: float | None = None) -> None:
        """Begin an operation: under both locks, or under the operation lock only if it is shared.

        Args:
            call: on whose behalf.
            operation: its name.
            shared: whether it skips the mutex.
            timeout: seconds to wait; None for those of the mutex.
        """
        site = f"{self._name}.{operation}"
        wait = self.mutex.timeout if timeout is None else timeout
        if shared:
            self.operation_lock.enter(call, wait, site, shared=True)
        else:
            self.mutex_lock.enter_both(self.operation_lock, call, wait, site)

    def leave(self, call: Call, *, shared: bool = False) -> None:
        """Give the locks back; before that, have the device made safe if the operation is unsettled."""
        try:
            if self._unsettled:
                self._end_unsettled(call)
        finally:
            if shared:
                self.operation_lock.leave(call)
            else:
                self.mutex_lock.leave_both(self.operation_lock, call)

    @contextlib.contextmanager
    def to_close(self, call: Call, timeout: float | None = None) -> Iterator[None]:
        """Have both locks to close the device, which may be in FAULT.

        Args:
            call: on whose behalf.
            timeout: seconds to wait; None for those of the mutex.
        """
        self._closing.add(call)
        try:
            self.enter(call, "close", timeout=timeout)
            try:
                yield
            finally:
                self.leave(call)
        finally:
            self._closing.discard(call)

    def end(self, call: Call) -> None:
        """Release all locks that a call still holds, if Ctrl-C has interrupted ``leave``."""
        self.operation_lock.end(call)
        self.mutex_lock.end(call)

    def begin_nested(self, call: Call, operation: str, changes: bool) -> None:
        """Begin an operation that is part of another operation of this device, under the locks of that one."""
        # While a device that this operation uses was waiting, a shared read may have been let in: wait for its end.
        self.operation_lock.take_back(call)
        if not changes:
            return
        if not self.mutex_lock.held_by(call):
            raise TypeError(
                f"{self._name}.{operation} changes the device, and is used by an operation marked shared, which runs "
                "without the mutex: remove shared=True there"
            )
        self.require_permission(operation, True)
        self.note_change(call)

    def running(self) -> list[Call]:
        """Return the operations that run now."""
        return [*self.mutex_lock.running(), *self.operation_lock.running()]

    def is_closing(self, call: Call | None) -> bool:
        """Return whether a call is there to close the device."""
        return call in self._closing

    # --- who has changed the device, and what has to be made safe once more

    def note_change(self, call: Call) -> None:
        """Note that an operation is about to change the device."""
        if call is not self._watcher:  # else a client that has changed it, and dies, would be forgotten
            self.changed_by = call.session

    def watched_by(self, call: Call) -> None:
        """Have what is done in a call not count as a change, nor be in the audit trail: it takes frames to be seen."""
        self._watcher = call

    def forget_changes(self) -> None:
        """Note that the device is in a known state: it was made safe."""
        self.changed_by = None
        self._epoch += 1

    def tell(self, call: Call, what: str, name: str, args: Any, kwargs: Any, error: BaseException | None) -> None:
        """Have an operation that changes the device noted in the audit trail, if this process has one."""
        if call is self._watcher:
            return  # frames for those who watch would fill the trail
        for trail in audit_trail:
            if error is None and not kwargs and (not args or (len(args) == 1 and type(args[0]) in _PLAIN)):
                trail.noted.append((time.time(), call, what, self._name, name, args, kwargs, None, self._epoch))
            else:
                trail(call, what, self._name, name, args, kwargs, error, self._epoch)

    @contextlib.contextmanager
    def told(self, name: str) -> Iterator[None]:
        """Have the block, an operation without arguments, noted in the audit trail."""
        try:
            yield
        except BaseException as error:
            self.tell(current_call(), "called", name, (), {}, error)
            raise
        self._epoch += 1
        self.tell(current_call(), "called", name, (), {}, None)

    def unsettle(self, calls: Iterable[Call]) -> None:
        """Have ``settle`` called as each of these operations ends."""
        noted = list(self._unsettled)
        running = self.running()
        self._unsettled.difference_update(call for call in noted if call not in running)  # Ctrl-C has ended these
        self._unsettled.update(calls)

    def unsettled(self) -> list[Call]:
        """Return the operations that were noted by ``unsettle`` and have not ended."""
        return [call for call in self.running() if call in self._unsettled]

    def _end_unsettled(self, call: Call) -> None:
        if call not in self._unsettled:
            return
        try:
            self._settle(call)
        finally:
            self._unsettled.discard(call)

    # --- permission

    def refusal(self, operation: str, changes: bool) -> BaseException | None:
        """Return why an operation may not be done now: on a testbed whose safety checks have tripped, for example."""
        if _process_ends is not None:
            return CatkitDevicesError(f"{operation!r} of device {self._name!r} is refused: {_process_ends}")
        if not running_server:
            return None
        host = running_server[0].host
        if host.gate is None or time.monotonic() < host.changes_until:
            return None
        refusal: BaseException | None = host.gate(self._name, operation, changes)
        return refusal

    def require_permission(self, operation: str, changes: bool) -> None:
        """Raise why an operation may not be done now, if it may not."""
        refusal = self.refusal(operation, changes)
        if refusal is not None:
            raise refusal

    @property
    def register(self) -> Register | None:
        """What is to be told, on a server of a testbed, before the device is opened and when it is closed."""
        register: Register | None = running_server[0].host.register if running_server else None
        return register


def _nothing(_: object) -> None:
    """Do nothing."""


class _Device(Protocol):
    """A device or a component."""

    @property
    def _perform_(self) -> Callable[..., Any]:
        """What runs the body of one operation under the device's locks."""


class DeviceProperty:
    """Base of the properties that are declared in one line; access to one is one operation.

    A subclass implements ``read``, ``write`` and ``describe``, and ``narrowed`` where it has limits; it must not define
    ``__get__`` or ``__set__``.
    """

    readable = True
    writable = True

    def __init__(self, doc: str, *, shared: bool = False, repeatable: bool = False) -> None:
        self.__doc__ = self.doc = inspect.cleandoc(doc)
        self.shared = shared
        self.repeatable = repeatable
        self.name = "?"
        self.narrowed_as = "?"
        """Its name in a configuration that narrows its limits."""
        self.each: dict[Any, Any] = {}
        """Where there are several of it: the property for each argument, which has a name of its own."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name in ("__get__", "__set__", "__delete__"):
            if name in vars(cls):
                raise TypeError(f"{cls.__qualname__}.{name} would bypass the device's locks: implement read and write")

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = self.narrowed_as = name
        for argument, one in self.each.items():
            one.name, one.narrowed_as = f"{name}[{argument!r}]", name
            setattr(owner, one.name, one)

    def __get__(self, device: _Device | None, owner: type | None = None) -> Any:
        if device is None:
            return self
        if self.each:
            return Several(device, self.name, tuple(self.each))
        if not self.readable:
            raise AttributeError(f"{self.name!r} of {device!r} can be set, not read")
        return device._perform_(
            self.read, self.name, (), {}, shared=self.shared, changes=False, repeatable=self.repeatable
        )

    def __set__(self, device: _Device, value: Any) -> None:
        if self.each:
            raise AttributeError(f"of {self.name!r} there are several: set {self.name}[{next(iter(self.each))!r}]")
        if not self.writable:
            raise AttributeError(f"{self.name!r} of {device!r} can be read, not set")
        device._perform_(self.write, self.name, (value,), {}, shared=False, changes=True, what="set")

    def read(self, device: Any) -> Any:
        """Return the value."""
        raise NotImplementedError

    def write(self, device: Any, value: Any) -> None:
        """Set the value, checked before anything reaches the instrument."""
        raise NotImplementedError

    def check(self, device: Any, value: Any, *, ask: bool = True) -> Any:  # noqa: ARG002 - for those that know what may be set
        """Return ``value`` as it would be set; raises as ``write`` does where it may not. Nothing is sent.

        Args:
            device: the device.
            value: to be set.
            ask: whether the instrument may be asked.
        """
        return value

    def narrowed(self, limits: Sequence[Any]) -> Limits:  # noqa: ARG002 - for those that have limits
        """Return narrower limits, as a configuration has them, as numbers in the declared unit.

        Raises:
            ValueError: they make no sense, or would be wider than what the driver declares.
        """
        raise ValueError("has no limits that could be narrowed")

    def fills_in(self) -> list[str]:
        """Return the attributes of the device or component that its commands contain."""
        return []

    def depends_on(self) -> list[str]:
        """Return the properties of the device or component that its limits depend on."""
        return []

    def learn(self, device: Any) -> None:
        """Read what its limits depend on; called when the device has been opened."""

    def describe(self, device: Any = None) -> dict[str, Any]:  # noqa: ARG002 - for those that depend on it
        """Return kind, type, unit, limits, choices, doc; with ``device``, what is in force for it."""
        return {
            "kind": type(self).__name__,
            "doc": self.doc,
            "readable": self.readable,
            "writable": self.writable,
            "shared": self.shared,
        }


class Several(Mapping[Any, Any]):
    """What a property with arguments is on a device, or its proxy: ``device.temperature["A"]`` reads one of them.

    Args:
        device: or component, or the proxy of one.
        name: of the property.
        arguments: that there are.
    """

    def __init__(self, device: Any, name: str, arguments: tuple[Any, ...]) -> None:
        self._device = device
        self._name = name
        self._arguments = arguments

    def _of(self, argument: Any) -> str:
        if argument not in self._arguments or isinstance(argument, bool):
            near = nearest(argument, [one for one in self._arguments if isinstance(one, str)])
            there = f"did you mean {near!r}?" if near else f"there are {', '.join(map(repr, self._arguments))}"
            raise DeviceValueError(f"there is no {self._name}[{argument!r}] of {self._device!r}: {there}")
        return f"{self._name}[{argument!r}]"

    def __getitem__(self, argument: Any) -> Any:
        return getattr(self._device, self._of(argument))

    def __setitem__(self, argument: Any, value: Any) -> None:
        setattr(self._device, self._of(argument), value)

    def __contains__(self, argument: object) -> bool:
        return argument in self._arguments

    def _by_word_(self, word: str) -> Any:
        """Return the value for the argument that is written so: in a path, every argument is a text."""
        return self[self._said_by(word)]

    def _set_by_word_(self, word: str, value: Any) -> None:
        """Set the value for the argument that is written so."""
        self[self._said_by(word)] = value

    def _said_by(self, word: str) -> Any:
        return next((argument for argument in self._arguments if str(argument) == word), word)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._arguments)

    def __len__(self) -> int:
        return len(self._arguments)

    def __repr__(self) -> str:
        return f"<{self._name} of {self._device!r}: {', '.join(map(repr, self._arguments))}>"
