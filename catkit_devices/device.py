"""The base class of every instrument: each public operation runs, whole, under the device's mutex.

Three locks, each for one purpose. The *mutex* says which owner may use the device, over as many operations as it likes.
The *operation lock* lets one operation body run at a time; a read marked ``shared`` takes only this one, so it runs
between the operations of the holder of the mutex. The *wire lock* of a transport (see ``visa``) keeps one exchange of
bytes whole; emergencies take only that.
"""

from __future__ import annotations

import contextlib
import inspect
import logging
import math
import threading
import time
from typing import TYPE_CHECKING, Any, ClassVar, Self, final

from catkit_devices._base.ctrl_c import InterruptSafeEvent
from catkit_devices._base.deferred import Watched, done
from catkit_devices._base.paths import words
from catkit_devices._base.standby import all_at_once
from catkit_devices._base.timeouts import default_timeout, seconds
from catkit_devices._device.access import Access, DeviceProperty
from catkit_devices._device.bounds import KnownBounds
from catkit_devices._device.connection import Lifecycle, State
from catkit_devices._device.members import (
    FRAMEWORK,
    PLAIN,
    DeviceType,
    can_make_safe,
    check_assignment,
    describe,
    hook,
    interface_of,
    makes_safe,
    narrow,
    operation,
    properties_of,
    refuse_result,
    unlocked,
)
from catkit_devices._device.openings import Openings
from catkit_devices._device.parts import component_at, components_of, group_of, learn
from catkit_devices.errors import (
    CatkitDevicesError,
    DeviceDisconnectedError,
    DeviceError,
    DeviceFaultError,
    DeviceOpenError,
    OperationCancelled,
)
from catkit_devices.multiprocessing.hosted import HostedObject
from catkit_devices.multiprocessing.locks.lock import giving_way
from catkit_devices.multiprocessing.locks.mutex import DEFAULT_TIMEOUT, Mutex, lock_all
from catkit_devices.multiprocessing.locks.owner import calling, current_call, emergency_call, forwarded_call

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Mapping, Sequence

    from catkit_devices._base.clock import Clock
    from catkit_devices.multiprocessing.locks.entries import OpenEntry
    from catkit_devices.multiprocessing.locks.owner import Call, Session
    from catkit_devices.multiprocessing.protocol import Interface, Reference

__all__ = ["Device", "DeviceProperty", "operation", "unlocked"]

_log = logging.getLogger(__name__)

_SHORTEST_WAIT = 1e-6
"""Seconds; no wait for a condition is shorter, so that every wait advances a simulated clock in spite of rounding."""


class Device(HostedObject, metaclass=DeviceType):
    """An instrument. A driver derives from it and implements ``_open``, ``_close``, ``_make_safe`` and its operations.

    Making one opens nothing. ``with device:`` opens and closes it; ``with device.lock():`` keeps others from using it
    over several operations; both mean the same on the device and on its proxy. Every public method and property of a
    driver is an operation: its whole body runs under the device's mutex. Values that are not operations are private.

    Args:
        name: of the device, unique on its testbed.
        timeout: seconds that an operation waits for the mutex unless told otherwise.
        safe_timeout: seconds that making safe may take.
        open_on_use: open at the first operation and stay open, even if others open and close it, until
            ``close(force=True)`` (devices of a testbed); otherwise an operation on a closed device raises
            ``DeviceClosedError``.
        limits: limits narrowed for this device, by property; they may be quantities or text with units.
    """

    driver: ClassVar[str] = ""
    """The name under which the driver is registered."""
    has_instrument: ClassVar[bool] = True
    """Whether the driver opens an instrument. False for one that only computes, or uses other devices: under simulation
    it runs unchanged, and nothing has to replace it."""

    _name_: str
    _access_: Access
    """Its locks, and the permission to change it."""
    _life_: Lifecycle
    """Its connection, and what makes it safe."""
    _bounds_: KnownBounds
    """What is known of the limits of its properties that depend on others."""
    _limits_: dict[tuple[str, ...], Any]
    """The narrower limits, as they were given: those of the components too."""
    _limit_reads_: list[tuple[Any, str]] | None = None
    """While a function tells the limits of a property: what it has read so far."""
    _connection: Any
    _listener_: tuple[str, Callable[[Any], None]] | None = None
    """Who is told what an operation has returned: its name, and what is called; see ``_listen_``."""
    _knows_all_: ClassVar[bool] = True
    """Whether it has no other operations than its class tells."""
    _shared_when_open_: ClassVar[tuple[str, ...]] = ()
    """Paths of properties that its class may not know yet, and that are read without the mutex when there are such."""
    _prefix_: ClassVar[str] = ""
    """What the names of its operations begin with in messages; of a component it is ``outputs[1].``."""

    def __init__(
        self,
        name: str,
        *,
        timeout: float = DEFAULT_TIMEOUT,
        safe_timeout: float = 10.0,
        open_on_use: bool = False,
        limits: Mapping[str, Sequence[Any]] | None = None,
    ) -> None:
        if not name or not isinstance(name, str):
            raise ValueError(f"a device's name must be a word, got {name!r}")
        self._name_ = name
        self._narrowed_ = narrow(type(self), name, limits or {})
        self._limits_ = {words(path): wanted for path, wanted in (limits or {}).items()}
        self._connection = None
        self._access_ = Access(name, timeout)
        self._mutex_ = self._access_.mutex
        safe_timeout = default_timeout(safe_timeout, f"device {name!r}, making it safe", above_zero=True)
        self._life_ = Lifecycle(self, self._access_, safe_timeout, open_on_use=open_on_use)
        self._openings_ = Openings(self._life_, self._access_, kept=open_on_use)
        self._clock_: Clock | None = None
        """The clock of the simulation that the device is part of."""
        self._bounds_ = KnownBounds(lambda: self._connection)
        self._stand_in_: Callable[[], Any] | None = None
        """Under simulation, the function that makes the connection instead of ``_open``."""
        self._has_stand_in_ = False
        """Whether its configuration declares a stand-in, so that it could be simulated."""
        self._reference_: Reference | None = None
        # Last: if this constructor fails, the end of a session must not find the device.
        self._access_.mutex_lock.session_ended = self._session_ended_

    def _configured_(self, *, has_stand_in: bool) -> None:
        """Note what its configuration says; called on a testbed when the device has been made."""
        self._has_stand_in_ = has_stand_in

    def _simulated_(self, clock: Clock, stand_in: Callable[[], Any] | None = None) -> None:
        """Make it part of a simulation; called when the device has been made.

        Args:
            clock: of the simulation.
            stand_in: makes the connection in the place of ``_open``; None if ``_open`` opens a simulated instrument.
        """
        self._clock_ = clock
        self._stand_in_ = stand_in

    @classmethod
    def _for_(cls, options: Mapping[str, Any]) -> type[Device]:  # noqa: ARG003 - for a driver that is made from them
        """Return the class of a device with these options; a driver that consists of them makes one."""
        return cls

    @classmethod
    def _why_not_made_safe_(cls) -> str | None:
        """Return why making devices of this class safe does nothing; None if it does something, or need not."""
        return None if can_make_safe(cls) else "the driver has nothing to make safe"

    # --- what a driver implements -----------------------------------------------------------------------------------

    @hook
    def _open(self) -> Any:
        """Open the instrument and return the connection, which becomes ``self._connection``."""
        raise NotImplementedError(f"driver {type(self).__qualname__} must implement _open()")

    @hook
    def _close(self) -> None:
        """Close the connection; called once after each ``_open`` that returned."""

    @hook
    def _make_safe(self) -> None:
        """Bring the instrument to a state in which it can be left alone: laser off, heater off."""

    @hook
    def _continuous_frames(self) -> Generator[Any]:
        """Have a camera take frames by itself, one after the other, and yield each until the generator is closed.

        It is called on a testbed whose configuration says ``frames = { continuous = true }``, and runs like one long
        operation, under the mutex. After each frame shared reads have their turn. When somebody else wants to use the
        camera, the generator is closed: what ends the camera's own running belongs into a ``finally`` around the
        ``yield``. If the operation is cancelled, nothing more can be sent there; so ``_make_safe`` and the next
        exposure must be able to end it, too.
        """
        yield from ()  # makes this a generator, as it is in drivers
        raise NotImplementedError(f"driver {type(self).__qualname__} does not implement _continuous_frames()")

    # --- open and close ---------------------------------------------------------------------------------------------

    @final
    @unlocked
    def open(self) -> None:
        """Open it, and keep it open for this session (process) until ``close()`` was called as often as ``open()``.

        These calls are counted separately from ``with`` blocks. When the session ends, in whatever way, its calls no
        longer count. A device in your own process is made safe and closed when the program ends normally. A call of
        ``open()`` that raises an error does not count.

        Raises:
            DeviceOpenError: nothing answers at its address, or not the instrument that was expected.
            DeviceBusyError: another program has it.
            DeviceFaultError: it is in FAULT.
            SafetyError: on a testbed whose safety checks have tripped.
        """
        self._openings_.enter_here(block=False)

    @final
    @unlocked
    def close(self, force: bool = False) -> None:
        """End one ``open()`` of this session, in whatever thread; the last one of all makes it safe and closes it.

        One too many is harmless: it ends no ``with`` block, and nothing of another session. If somebody else has the
        mutex when the device is to be closed, and keeps it for longer than the mutex's timeout, or the wait is
        interrupted, an error says so, and the device is closed as soon as it is free.

        Args:
            force: close it for everybody, ``with`` blocks included; leaving these does nothing then.
        """
        self._openings_.leave_here(block=False, force=force)

    def __enter__(self) -> Self:
        self._openings_.enter_here(block=True)
        return self

    def __exit__(self, *_: object) -> None:
        self._openings_.leave_here(block=True)

    # --- state ------------------------------------------------------------------------------------------------------

    @property
    @final
    def name(self) -> str:
        """The device's name."""
        return self._name_

    @property
    @final
    def is_open(self) -> bool:
        """Whether it is open; raises DeviceClosedError in a forked child if its parent had it open."""
        self._life_.require_own()
        return self._life_.is_open

    @property
    @final
    def state(self) -> str:
        """``"closed"``, ``"open"``, ``"lost"`` (open, and the next operation has to connect anew) or ``"fault"``.

        Raises DeviceClosedError in a forked child if its parent had it open.
        """
        self._life_.require_own()
        state = self._life_.state
        return State.LOST.value if state is State.OPEN and self._line_is_lost_() else state.value

    @property
    @final
    def mutex(self) -> Mutex:
        """The device's mutex."""
        return self._access_.mutex

    @final
    @unlocked
    def lock(self, timeout: float | None = None) -> lock_all:
        """Keep others from using the device during a block: ``with device.lock():``."""
        return lock_all(self._access_.mutex, timeout=timeout)

    @final
    @unlocked
    def acquire(self, timeout: float | None = None, raise_on_fail: bool = True) -> bool:
        """Keep others from using the device until ``release``; as ``Mutex.acquire``."""
        return self._access_.mutex.acquire(timeout, raise_on_fail)

    @final
    @unlocked
    def release(self) -> None:
        """End what ``acquire`` began; as ``Mutex.release``."""
        self._access_.mutex.release()

    @final
    @unlocked
    def reset(self) -> None:
        """Take the device out of FAULT, after a person has looked at it: make it safe, and close it.

        Raises:
            DeviceFaultError: it could not be made safe; it stays in FAULT.
            MutexTimeoutError: an operation is still running.
        """
        with calling(current_call()) as call:
            self._access_.operation_lock.enter(call, self._access_.mutex.timeout, f"{self._name_}.reset")
            try:
                with self._access_.told("reset"):
                    self._life_.reset()
            finally:
                self._access_.leave(call, shared=True)

    # --- components -------------------------------------------------------------------------------------------------

    @property
    def _device_(self) -> Device:
        """The device, as its components have it too."""
        return self

    def _learn_(self) -> None:
        """Ask the instrument which components it has, of those that depend on it; called with each new connection.

        It also reads the limits that depend on other properties, so that ``describe()`` can tell them.
        """
        if type(self)._parts_:
            learn(self)
        for owner in (self, *components_of(self)):
            for member in properties_of(type(owner)):
                member.learn(owner)

    def _only_connects_(self) -> bool:
        """Return whether opening it runs no code of the driver that may have changed the instrument."""
        return self._stand_in_ is None and type(self)._open.__module__ in FRAMEWORK  # noqa: SLF001 - its own hook

    @contextlib.contextmanager
    def _limit_reads_noted_(self) -> Iterator[list[tuple[Any, str]]]:
        """While a function tells the limits of a property, collect what it reads in the list that this returns."""
        outer, reads = self._limit_reads_, list[tuple[Any, str]]()
        self._limit_reads_ = reads
        try:
            yield reads
        finally:
            self._limit_reads_ = outer

    # --- connection -------------------------------------------------------------------------------------------------

    def _connect_(self) -> None:
        """Have the driver open the connection; under simulation, make the stand-in or the simulated instrument."""
        if self._stand_in_ is None:
            what = f"{type(self).__qualname__}._open"
            try:
                with Watched(what):
                    opened = done(self._open(), what)
                    if opened is not None:  # so that it is closed if the block raises an error now
                        self._connection = opened
            except ModuleNotFoundError as error:
                simulated = "; --simulate uses the stand-in, which does not need it" if self._has_stand_in_ else ""
                problem = f"the driver needs the Python module {error.name!r}, which is not installed here{simulated}"
                raise DeviceOpenError(problem, **self._facts_()) from error
        else:
            opened = self._stand_in_()
        if opened is not None:  # or the driver keeps it by itself
            self._connection = opened

    def _disconnect_(self) -> None:
        """Have the driver close the connection."""
        try:
            what = f"{type(self).__qualname__}._close"
            with Watched(what):
                done(self._close(), what)
        finally:
            self._connection = None

    def _is_connected_(self) -> bool:
        """Return whether there is a connection that ``_open`` has returned, or noted before it failed."""
        return self._connection is not None

    def _line_is_lost_(self) -> bool:
        """Return whether the connection is known to be lost, by another device that shares it too."""
        return False

    # --- safety -----------------------------------------------------------------------------------------------------

    @final
    @unlocked
    def make_safe(self) -> None:
        """Make it safe now, even if somebody else holds the mutex: an emergency.

        Does nothing on a closed device, unless it was closed without being made safe.

        Raises:
            DeviceFaultError: it could not be made safe within ``safe_timeout``; it refuses use until ``reset()``.
        """
        with self._access_.told("make_safe"):
            self._life_.make_safe()

    def _can_be_made_safe_(self) -> bool:
        """Return whether its driver has a way to make it safe, or a component of it."""
        return any(makes_safe(owner) for owner in (self, *components_of(self)))

    @classmethod
    def _says_how_safe_(cls) -> bool:
        """Return whether it is said how devices of this class are made safe, if only that they need nothing for it."""
        return True

    def _in_the_way_(self) -> str:
        """Return what may prevent that it is made safe, as the end of a sentence; an empty text if nothing does."""
        return ""

    def _make_safe_in_doubt_(self) -> None:
        """Make it safe although the state of the line may be unknown; kinds of devices with a line override this."""
        failures: list[Exception] = []
        for owner in (*components_of(self), self):
            if not makes_safe(owner):
                continue
            what = f"{type(owner).__qualname__}._make_safe"
            try:
                with Watched(what):
                    done(owner._make_safe(), what)  # noqa: SLF001 - what drivers implement
            except Exception as error:  # noqa: BLE001 - of the driver: the others are made safe all the same
                if owner is not self:
                    error.add_note(f"in making {self._name_}.{owner._path_} safe")
                failures.append(error)
        if failures:
            # Errors of the line come first, because after these everything is tried once more over a new connection.
            failures.sort(key=lambda error: not isinstance(error, DeviceError))
            for other in failures[1:]:
                failures[0].add_note(f"and {type(other).__name__}: {other}")
            raise failures[0]

    # --- operations -------------------------------------------------------------------------------------------------

    def _perform_(
        self,
        body: Callable[..., Any],
        name: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *,
        shared: bool,
        changes: bool,
        repeatable: bool = False,
        what: str = "called",
    ) -> Any:
        """Run the body of one operation under the device's locks; raises what the locks or the body raise.

        A read that is ``repeatable`` is done once more, over a new connection, where its first try found the connection
        lost and the caller was in no section. ``what`` is the participle for it in the audit trail.
        """
        call = forwarded_call()
        if call is None:
            with calling(current_call()):
                return self._perform_(
                    body, name, args, kwargs, shared=shared, changes=changes, repeatable=repeatable, what=what
                )
        access, life = self._access_, self._life_
        if call.emergency or access.operation_lock.held_by(call):
            # This is part of an operation of this device, and runs under the locks of that operation.
            call.check()
            if call.emergency:
                return self._perform_in_emergency_(body, args, kwargs)
            access.begin_nested(call, name, changes)
            result = body(self, *args, **kwargs)
            if self._listener_ is not None:
                self._tell_(name, result)
            return result
        before, call.changes = call.changes, changes
        try:
            if changes:
                access.require_permission(name, changes)  # refuse before waiting for the holder
            access.enter(call, name, shared=shared)
            try:
                life.ready(name, changes)
                if changes:
                    access.note_change(call)
                try:
                    result = body(self, *args, **kwargs)
                except DeviceDisconnectedError as error:
                    if not life.loses_by(error) or not repeatable or access.mutex_lock.sections(call):
                        raise
                    life.ready(name, changes)
                    result = body(self, *args, **kwargs)
                if self._listener_ is not None:
                    self._tell_(name, result)
            finally:
                try:
                    access.leave(call, shared=shared)
                except BaseException:  # Ctrl-C may have come before it was done
                    access.end(call)
                    raise
        except BaseException as error:
            if changes:
                access.tell(call, what, name, args, kwargs, error)
            raise
        finally:
            call.changes = before
        if changes:
            access.tell(call, what, name, args, kwargs, None)
        if type(result) not in PLAIN:
            refuse_result(result, self, f"{self._name_}.{name}")
        return result

    def _listen_(self, operation: str, listener: Callable[[Any], None]) -> None:
        """Have what an operation returns told to a listener, whoever has called it, before the next operation begins.

        Args:
            operation: its name.
            listener: gets what it has returned; must not raise.
        """
        self._listener_ = operation, listener

    def _tell_(self, operation: str, result: Any) -> None:
        if self._listener_ is not None and self._listener_[0] == operation:
            self._listener_[1](result)

    def _perform_in_emergency_(self, body: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Run an operation that is part of making this device safe, or another device that uses this one."""
        life = self._life_
        if life.is_open and not life.connected and life.restore() and not life.makes_safe_here:
            life.make_safe_if_changes_are_refused("make_safe")
        with contextlib.nullcontext() if life.is_open else life.reached():
            try:
                return body(self, *args, **kwargs)
            except DeviceDisconnectedError as error:
                life.loses_by(error)
                raise

    # --- helpers for drivers ----------------------------------------------------------------------------------------

    @property
    def _address_(self) -> str | None:
        return None

    def _facts(self, command: str | bytes | None = None) -> dict[str, Any]:
        """Return what every error of this device tells: device, driver, address, command."""
        driver = type(self).driver or type(self).__name__
        return {"device": self._name_, "driver": driver, "address": self._address_, "command": command}

    _facts_ = _facts

    def _event_record_(self, kind: str, **facts: Any) -> dict[str, Any]:
        """Return the fields that mark a log record as an event, for programs that follow the log."""
        about = self._facts_()
        del about["command"]
        return {"event": kind, "facts": {**about, **facts}}

    def _checkpoint(self) -> None:
        """Raise if the running operation was cancelled or its mutex broken: to be called before every exchange."""
        call = forwarded_call()
        if call is not None and call.reason is not None:
            raise call.reason

    _checkpoint_ = _checkpoint

    @final
    @unlocked
    def wait(self, until: float | Callable[[], bool], timeout: float | None = None, interval: float = 0.05) -> bool:
        """Wait inside a long operation; ends at once when the operation is cancelled.

        While it waits, and not while it asks the condition, shared reads of the device may run, and nothing else; it
        goes on when they have left. The same holds for every device in whose operation this one is used. No shared
        read is let in while the device is being opened or closed, or inside of ``_exchange`` and ``_transaction``.

        On a simulated bench, seconds are those of its clock, those of ``timeout`` too.

        Args:
            until: seconds, or a condition that is asked every ``interval`` seconds until it holds.
            timeout: seconds that a condition may take; None for the device's own timeout.
            interval: seconds.

        Returns:
            Whether the condition came to hold (True for plain seconds).

        Raises:
            OperationCancelled: the caller pressed Ctrl-C or died, or a stop came.
            MutexBrokenError: the mutex was taken away.
            MutexTimeoutError: a shared read, which it names, has not left within the device's own timeout.
        """
        call = current_call()
        if not callable(until):
            self._pause_(call, seconds(until, f"device {self.name!r}, a wait"))
            return True
        if timeout is not None:
            seconds(timeout, f"device {self.name!r}, a wait")
        seconds(interval, f"device {self.name!r}, the interval of a wait")
        now = time.monotonic if self._clock_ is None else self._clock_.time
        deadline = now() + (self._access_.mutex.timeout if timeout is None else timeout)
        while not done(until(), "the condition that is waited for"):
            left = deadline - now()
            if left <= 0:
                return False
            self._pause_(call, max(min(interval, left), _SHORTEST_WAIT))
        return True

    def _pause_(self, call: Call, seconds: float) -> None:
        if call.session.gives_way is not None:
            call.session.gives_way(call)
        with giving_way(call):
            self._sleep_(call, seconds)

    def _sleep_(self, call: Call, seconds: float) -> None:
        if self._clock_ is None:
            call.wait(seconds)
            return
        try:
            self._clock_.wait(seconds, call.wait)
        except OperationCancelled:
            call.check()  # raises the reason; a clock in another process does not know it
            raise

    def _may_give_way_(self, chain: object) -> bool:  # noqa: ARG002 - some kinds of devices want to know
        """Whether shared reads may run while an operation waits; asked under the guard of the locks."""
        return self._life_.is_settled

    # --- telling ----------------------------------------------------------------------------------------------------

    @final
    @unlocked
    def describe(self) -> dict[str, Any]:
        """Return what the device can do: properties with type, unit, limits, choices and doc; commands with doc."""
        facts = {"name": self._name_, "driver": type(self).driver, "address": self._address_}
        return facts | describe(self)

    def __repr__(self) -> str:
        state = self.state if self._life_.of_parent is None else "of the process that forked this one"
        return f"<{type(self).__name__} {self._name_!r}: {state}>"

    # --- rules for drivers, checked when the class is made -----------------------------------------------------------

    def __setattr__(self, name: str, value: Any) -> None:
        member = getattr(type(self), name, None)  # None for most private values; what has __set__ checks by itself
        if not hasattr(type(member), "__set__") and (member is not None or not name.startswith("_")):
            check_assignment(self, name, value)
        object.__setattr__(self, name, value)

    # --- called by the server
    # -------------------------------------------------------------------------------------------

    def _hosted_as_(self, reference: Reference) -> None:
        self._reference_ = reference

    def _enter_entry_(self, entry: OpenEntry) -> None:
        """Called for a proxy: keep it open for ``entry``, which the client counts."""
        self._openings_.enter(entry)

    def _leave_entry_(self, entry: OpenEntry | None, force: bool) -> None:
        self._openings_.leave(entry, force)

    def _withdraw_entry_(self, entry: OpenEntry) -> None:
        self._openings_.withdraw(entry)

    def _interface_(self, kind: str) -> Interface:
        return interface_of(type(self), kind, self)

    def _part_(self, path: tuple[str, ...]) -> tuple[Any, Interface]:
        component = component_at(self, path)
        return component, component._interface_

    def _there_(self, path: str) -> dict[int | str, Interface]:
        *before, name = words(path)
        return group_of(component_at(self, before), name)._there_()

    def _may_set_(self, path: str, value: Any) -> Any:
        """Return a value as it would be set now; raises as setting it would, as far as that is known without asking."""
        *before, name = words(path)
        refusal = self._access_.refusal(path, True) or self._life_.refusal()
        if refusal is not None:
            raise refusal
        *further, several = before or [""]
        member = inspect.getattr_static(type(component_at(self, further)), several, None) if before else None
        each = member.each if isinstance(member, DeviceProperty) else {}
        if each:
            owner, member = component_at(self, further), next((one for key, one in each.items() if str(key) == name))
        else:
            owner = component_at(self, before)
            member = inspect.getattr_static(type(owner), name, None)
        return member.check(owner, value, ask=False) if isinstance(member, DeviceProperty) else value

    def _driver_snapshot_(self) -> tuple[Any, float | None] | None:
        """Return what the framework of its driver keeps of it in the record of a run; None if there is no such thing.

        The second value is how many seconds ago it was closed; None if it is open.
        """
        return None

    def _status_(self) -> dict[str, Any]:
        return {"state": self.state, "driver": type(self).driver, "address": self._address_, "fault": self._life_.fault}

    def _session_ended_(self, session: Session, goodbye: bool) -> None:
        """Make it safe, before anybody else can use it, if the ended session leaves it in an unknown state."""
        guardian = emergency_call()
        in_use = self._access_.mutex_lock.in_use_by(session)
        died = not goodbye or in_use
        due = died and (in_use or (self._life_.is_open and self._access_.changed_by is session))
        last = self._openings_.end_session(session)
        if not (due or last):
            self._access_.mutex_lock.end_session(session)
            return
        queued = InterruptSafeEvent()
        clean_up = threading.Thread(
            target=self._clean_up_,
            args=(session, guardian, in_use, died, queued),
            name=f"clean-up-{self._name_}",
            daemon=True,
        )
        try:
            # Before the guardian enters the queue of the mutex: only this thread can take it out again.
            clean_up.start()
        except RuntimeError as error:
            _log.error("device %r: %s, to clean up after %r; making safe", self._name_, error, session.process)
            self._secure_()
            self._access_.mutex_lock.end_session(session)
            return
        self._access_.mutex_lock.end_session(session, guardian)
        queued.set()

    def _clean_up_(
        self, session: Session, guardian: Call, in_use: bool, died: bool, queued: InterruptSafeEvent
    ) -> None:
        queued.wait()
        if not self._access_.mutex_lock.claim(guardian, session, self._life_.safe_timeout):
            self._life_.fail(
                f"an operation of {session.process!r} (pid {session.pid}) is still running although that process"
                f" has ended ({self._access_.mutex_lock.holder()})"
            )
            self._secure_()
            self._access_.mutex_lock.claim(guardian, session, math.inf)
        try:
            with calling(guardian):
                unchanged_since = died and self._access_.changed_by is session
                if self._life_.is_open and (in_use or unchanged_since):
                    _log.warning(
                        "device %r: %r (pid %d) died; making safe", self._name_, session.process, session.pid,
                        extra=self._event_record_("owner_died", process=session.process, pid=session.pid),
                    )  # fmt: skip
                    with contextlib.suppress(DeviceFaultError):  # logged, and every later use is refused
                        self._life_.make_safe()
                    self._access_.forget_changes()
                with contextlib.suppress(CatkitDevicesError):
                    self._openings_.close_if_unused()
        finally:
            self._access_.mutex_lock.leave(guardian)

    def _secure_(self) -> None:
        """Make it safe even if it is in use; when an operation that is running ends, it is made safe again."""
        errand = self._life_.secure()
        if errand is not None:
            with contextlib.suppress(DeviceFaultError):  # logged, and every later use is refused
                self._life_.finish_to_make_safe(errand)

    def _server_stops_(self) -> None:
        """Make safe and close within a limited time, even if the device is held: the server is ending."""
        seconds = self._life_.safe_timeout + 5.0
        if not all_at_once({self._name_: self._close_quietly_}, "close")[self._name_].wait(seconds):
            _log.error("device %r: not closed in %g s", self._name_, seconds)

    def _close_quietly_(self) -> None:
        try:
            self._life_.close()
        except CatkitDevicesError as error:
            _log.error("device %r: %s", self._name_, error)

    def __reduce__(self) -> Any:
        from catkit_devices.multiprocessing.client.proxy_factory import hosted_reference

        if self._reference_ is None:
            raise TypeError(
                f"device {self._name_!r} is in this process only and cannot be sent to another; "
                "have a SharedMemoryManager make it: manager.get_object(name, factory)"
            )
        return hosted_reference(self._reference_)
