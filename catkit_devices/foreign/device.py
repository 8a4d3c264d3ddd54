"""Devices that host an object of another framework."""

from __future__ import annotations

import enum
import logging
import time
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self, cast

from catkit_devices._base.paths import words
from catkit_devices._device.members import hook, narrow
from catkit_devices._device.parts import component_at, forget_groups
from catkit_devices._wire.exchange import Transport
from catkit_devices._wire.wire_device import WireDevice
from catkit_devices.components import Component
from catkit_devices.device import Device
from catkit_devices.errors import (
    CatkitDevicesError,
    ConfigurationError,
    DeviceBusyError,
    DeviceClosedError,
    DeviceDisconnectedError,
    DeviceError,
    DeviceOpenError,
    DeviceProtocolError,
    DeviceValueError,
    nearest,
)
from catkit_devices.multiprocessing.protocol import running_server

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from catkit_devices.foreign.description import Description, DriverSource, Member
    from catkit_devices.foreign.visa_guard import GuardedVisaLibrary, Operation
    from catkit_devices.multiprocessing.protocol import Interface

__all__ = ["NOTHING", "ForeignComponent", "ForeignDevice", "ForeignVisaDevice"]

_log = logging.getLogger(__name__)

NOTHING = "nothing"
"""The value of ``safe`` for a device that needs nothing to be safe."""


class ForeignDevice(Device):
    """A device whose operations are those of an object of another framework.

    Its classes are made from the description of the foreign class, by
    :func:`~catkit_devices.foreign.generate.device_class`.

    Args:
        name: the device's name.
        options: keyword arguments of the foreign class.
        safe: how it is made safe: values by property (``{source_enabled = false}``), methods (``["shutdown()"]``), or
            ``"nothing"`` if it needs nothing. If this is not given and a client dies, or the safety checks trip, the
            device goes to FAULT, because nobody knows whether it is safe.
        units: units of properties, in addition to those that the framework declares.
        shared: properties that are read without the mutex, for safety checks and displays. They must only read.
        **others: of :class:`~catkit_devices.device.Device`.
    """

    _source_: ClassVar[DriverSource]
    _kind_: ClassVar[type]
    """The foreign class."""
    _base_: ClassVar[type[ForeignDevice]]
    """The class from which those that are made for it derive."""
    _description_: ClassVar[Description]
    _renamed_: ClassVar[Mapping[str, str]] = {}
    """The names of members of the foreign class that have another name here."""
    _safe_: ClassVar[Mapping[str, Any] | list[str] | str | None] = None
    _configure_: ClassVar[Callable[[type[ForeignDevice], Mapping[str, Any]], type[ForeignDevice]]]
    """Makes the class that has the options of one device in it."""
    _made_from_: ClassVar[str | None] = None
    """The options that have been made part of the class, as JSON."""
    _known_when_open_: ClassVar[bool] = False
    """Whether the foreign object says what operations there are, when it is made."""
    _with_all_: ClassVar[Callable[[type[ForeignDevice], Description], type[ForeignDevice]]]
    """Makes the class that a device gets when it is open, where some operations are known only then."""

    def __new__(cls, name: str, **options: Any) -> Self:  # noqa: ARG004 - for the constructor
        """Make a device of the class that the options describe."""
        return object.__new__(cls._for_(options))

    def __init__(
        self,
        name: str,
        *,
        options: dict[str, Any] | None = None,
        safe: dict[str, Any] | list[str] | str | None = None,
        units: dict[str, str] | None = None,
        shared: list[str] | None = None,
        **others: Any,
    ) -> None:
        del safe, units, shared  # parts of the class
        super().__init__(name, **others)
        self._options_ = options or {}
        self._given_limits_ = dict(others.get("limits") or {})
        self._foreign_: Any = None
        self._last_snapshot_: tuple[dict[str, Any] | None, float] = None, 0.0
        """What the framework knew of it when it was closed last, and when that was on the monotonic clock."""
        self._names_: Any = None
        """What its source has said of the names of its members, when it was asked which there are."""

    @classmethod
    def _for_(cls, options: Mapping[str, Any]) -> type[Self]:
        return cast("type[Self]", cls._configure_(cls, options))

    # --- the connection

    @property
    def _address_(self) -> str | None:
        of_wire = super()._address_
        return self.__dict__.get("_options_", {}).get("address") if of_wire is None else of_wire

    def _open(self) -> Any:
        self._construct_(None, None)
        return self._foreign_

    def _construct_(self, address: str | None, library: Any) -> None:
        """Make the foreign object; an error in this is a DeviceOpenError."""
        try:
            self._foreign_ = self._source_.construct(self._kind_, self._name_, address, library, self._options_)
        except ModuleNotFoundError:
            raise
        except DeviceError as error:
            raise DeviceOpenError(error.problem, **self._facts_(error.command)) from error
        except CatkitDevicesError:
            raise
        except Exception as error:
            problem = f"{self._kind_.__qualname__} cannot be made: {type(error).__name__}: {text_of(error)}"
            raise DeviceOpenError(problem, **self._facts_()) from error
        if self._known_when_open_:
            self._know_all_()

    def _know_all_(self) -> None:
        """Get the class that has everything which the foreign object has; a DeviceOpenError if that does not fit."""
        cls = type(self)
        self._names_ = self._source_.names(self._foreign_)
        description = self._source_.describe_opened(self._foreign_)
        if description == cls._description_:
            return
        try:
            made = cls._with_all_(cls, description)
            narrowed = narrow(made, self._name_, self._given_limits_)
        except ConfigurationError as error:
            raise DeviceOpenError(f"its configuration: {error}", **self._facts_()) from error
        forget_groups(self)
        object.__setattr__(self, "__class__", made)
        self._narrowed_ = narrowed

    def __getattr__(self, name: str) -> Any:
        """Open it, if it opens on use, where its class has no such member and there may be more when it is open."""
        if not name.startswith("_") and self._opens_to_know_(name):
            return getattr(self, name)
        cls = type(self)
        near = nearest(name, [known for known in dir(cls) if not known.startswith("_")])
        raise AttributeError(
            f"{cls.__name__} {self.__dict__.get('_name_', '')!r} has no {name!r}"
            + (f" (did you mean {near!r}?)" if near else "")
        )

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name.startswith("_") or hasattr(type(self), name)):
            self._opens_to_know_(name)
        super().__setattr__(name, value)

    def _opens_to_know_(self, name: str) -> bool:
        """Open it, to know whether it has a member; return whether it has."""
        if not self._known_when_open_ or self._life_.is_open:
            return False
        self._perform_(_nothing, name, (), {}, shared=True, changes=False)
        return hasattr(type(self), name)

    def _interface_(self, kind: str) -> Interface:
        shown = super()._interface_(kind)
        if not self._known_when_open_:
            return shown
        return shown._replace(methods=shown.methods | {"_when_open_": None}, grows=True)

    def _when_open_(self) -> Interface:
        """Return what clients may do with it when it is open; it is opened now, if it opens on use."""
        self._opens_to_know_("open")
        return self._interface_("device" if self._reference_ is None else self._reference_.kind)

    def _close(self) -> None:
        foreign, self._foreign_ = self._foreign_, None
        if foreign is None:
            return
        self._last_snapshot_ = None, 0.0
        try:
            self._last_snapshot_ = self._source_.snapshot(foreign), time.monotonic()
        except Exception as error:  # noqa: BLE001 - of a driver, which is to be closed all the same
            _log.warning("device %r: its driver gives no snapshot: %s", self._name_, error)
        try:
            self._source_.close(foreign)
        except CatkitDevicesError:
            raise
        except Exception as error:
            raise DeviceError(f"closing it failed: {type(error).__name__}: {error}", **self._facts_()) from error

    def _driver_snapshot_(self) -> tuple[Any, float | None] | None:
        foreign = self._foreign_
        if foreign is not None:
            taken = self._source_.snapshot(foreign)
            return None if taken is None else (taken, None)
        taken, closed_at = self._last_snapshot_
        return None if taken is None else (taken, time.monotonic() - closed_at)

    def _only_connects_(self) -> bool:
        return False  # the constructor of the foreign object may do anything

    def _is_connected_(self) -> bool:
        return self._foreign_ is not None or super()._is_connected_()

    # --- safety

    def _make_safe(self) -> None:
        if self._safe_ is None:
            raise DeviceError(
                f"its configuration does not say how it is made safe: say safe = {{property = value}}, "
                f'safe = ["method()"], or safe = "{NOTHING}"',
                **self._facts_(),
            )
        if isinstance(self._safe_, str):
            return
        for path in self._safe_:
            *before, name = words(path.removesuffix("()"))
            owner = component_at(self, before)
            if path.endswith("()"):
                getattr(owner, name)()
            else:
                setattr(owner, name, self._safe_[path])  # type: ignore[call-overload]  # values by property

    def _can_be_made_safe_(self) -> bool:
        return self._safe_ != NOTHING

    @classmethod
    def _says_how_safe_(cls) -> bool:
        return cls._safe_ is not None

    @classmethod
    def _why_not_made_safe_(cls) -> str | None:
        """Return the reason, if its configuration does not say what is safe."""
        if cls._safe_ is not None:
            return None
        return (
            'its table has no safe = { property = value }, safe = ["method()"] or safe = "nothing"; so it goes to '
            "FAULT when the safety checks trip, or a program that uses it dies"
        )

    # --- operations

    def _target_(self) -> Any:
        """Return the foreign object."""
        if self._foreign_ is None:
            raise DeviceClosedError("is not open", **self._facts_())
        return self._foreign_

    def _read_from_(self, owner: Any, name: str, member: Member) -> Any:
        """Read a property of a foreign object, as part of an operation."""

        def work() -> Any:
            target = owner._target_()
            return getattr(target, member.name) if member.read is None else member.read(target)

        return _sent(self._run_foreign_(work, f"{owner._prefix_}{name}", DeviceProtocolError, whole=True, fresh=True))

    def _write_to_(self, owner: Any, name: str, member: Member, value: Any) -> None:
        """Set a property of a foreign object, as part of an operation."""

        def work() -> None:
            target = owner._target_()
            if member.write is None:
                setattr(target, member.name, value)
            else:
                member.write(target, value)

        self._run_foreign_(work, f"{owner._prefix_}{name}", DeviceValueError, whole=True)
        self._look_again_()

    def _call_(self, owner: Any, name: str, attribute: str, args: Any, kwargs: Any) -> Any:
        """Call a method of a foreign object, as part of an operation."""

        def work() -> Any:
            return getattr(owner._target_(), attribute)(*args, **kwargs)

        result = _sent(self._run_foreign_(work, f"{owner._prefix_}{name}", DeviceValueError))
        self._look_again_()
        return result

    def _look_again_(self) -> None:
        """Get another class, if what the driver has just done has given its object other members."""
        if not self._known_when_open_ or self._foreign_ is None:
            return
        if self._source_.names(self._foreign_) != self._names_:
            self._know_all_()

    def _run_foreign_(
        self,
        work: Callable[[], Any],
        path: str,
        becomes: type[DeviceError],
        *,
        whole: bool = False,  # noqa: ARG002 - for devices with a wire
        fresh: bool = False,  # noqa: ARG002 - as above
    ) -> Any:
        """Run code of the foreign framework; its errors become errors of the device.

        Args:
            work: the code.
            path: of the operation.
            becomes: what a ValueError becomes.
            whole: whether nothing else may use the wire until the end.
            fresh: whether nothing from before may be waiting to be read.
        """
        try:
            return work()
        except CatkitDevicesError:
            raise
        except Exception as error:
            raise self._translated_(error, path, becomes) from error

    def _translated_(self, error: Exception, path: str, becomes: type[DeviceError]) -> DeviceError:
        """Return the error of the device for an error of foreign code."""
        if (known := self._source_.translate(error)) is not None:
            return known[0](f"{path}: {known[1]}", **self._facts_())
        kind = becomes if isinstance(error, ValueError) else DeviceError
        text = text_of(error) if kind is DeviceValueError else f"{type(error).__name__}: {text_of(error)}"
        return kind(f"{path}: {text}", **self._facts_())


class ForeignVisaDevice(ForeignDevice, WireDevice):
    """A foreign object that reaches its instrument through the VISA library that it is given.

    Args:
        name: the device's name.
        identity: a regular expression that the instrument's answer to the question what it is must contain.
        **others: of :class:`ForeignDevice` and :class:`~catkit_devices.visa.VisaDevice`.
    """

    def __init__(self, name: str, *, identity: str | None = None, **others: Any) -> None:
        del identity  # a part of the class
        super().__init__(name, **others)
        self._guard_: GuardedVisaLibrary | None = None
        self._answered_: str | None = None
        """What the instrument called itself when it was opened."""

    def _open(self) -> Any:
        from catkit_devices.foreign.visa_guard import GuardedVisaLibrary, settings_of

        self._answered_ = None
        resource = self._opened_(self._name_)
        if resource is not None and isinstance(resource.visalib, GuardedVisaLibrary):
            raise DeviceBusyError("another device of this program has the object", **self._facts_())
        settings = {} if resource is None else settings_of(resource)
        transport = WireDevice._open(self)  # noqa: SLF001 - a base class
        guard = GuardedVisaLibrary(transport.line.resource.visalib, self._exchanges_, self._name_)
        self._guard_ = guard
        if resource is not None:
            guard.adopt(resource, settings)
        try:
            self._construct_(self._exchanges_.address, guard)
            self._require_identity_()
        except BaseException as error:
            if not guard.has_written:
                self._close()  # nothing was changed, so there is nothing to be made safe
            if isinstance(error, DeviceError) and not isinstance(error, DeviceOpenError):
                raise DeviceOpenError(error.problem, **self._facts_(error.command)) from error
            raise
        return transport

    def _close(self) -> None:
        try:
            super()._close()
        finally:
            self._guard_ = None
            WireDevice._close(self)  # noqa: SLF001 - a base class

    def _join_line_(self) -> Transport:
        resource = self._opened_(self._name_)
        return super()._join_line_() if resource is None else Transport.adopt(resource)

    @staticmethod
    def _opened_(device: str) -> Any:  # noqa: ARG004 - for an object that exists already
        """Return the resource of pyvisa that the foreign object has opened before there was a device of this name.

        None for an object that is made when the device is opened.
        """
        return None

    @hook
    def _identify(self) -> None:
        """Ask the instrument what it is, where the framework knows how: it must answer as it did when it was opened."""
        question = self._description_.question
        if question is None:
            return
        instrument = self._foreign_
        answer = str(self._run_foreign_(lambda: question(instrument), "the question what it is", DeviceProtocolError))
        self._check_identity_(answer)
        if self._answered_ not in (None, answer):
            raise DeviceOpenError(f"was {self._answered_!r} when it was opened, is {answer!r} now", **self._facts_())
        self._answered_ = answer

    def _require_identity_(self) -> None:
        if self._foreign_ is not None:  # what can ask the instrument is there
            super()._require_identity_()

    def _run_foreign_(
        self,
        work: Callable[[], Any],
        path: str,
        becomes: type[DeviceError],
        *,
        whole: bool = False,
        fresh: bool = False,
    ) -> Any:
        transport = self._exchanges_.opened()
        # A method may take long, and making the device safe must not wait for its end. What is read or set is
        # short, and several devices at one address must not read each other's replies.
        if not (whole or transport.is_shared):
            return self._guarded_(work, path, becomes, whole=False)
        with self._exchanges_.hold(transport, path):
            if fresh:
                self._exchanges_.require_silence(path)
            return self._guarded_(work, path, becomes, whole=True)

    def _guarded_(self, work: Callable[[], Any], path: str, becomes: type[DeviceError], *, whole: bool) -> Any:
        guard = self._guard_
        if guard is None:
            raise DeviceClosedError("is not open", **self._facts_())
        operation = guard.begin(whole=whole)
        failure: BaseException | None = None
        try:
            return work()
        except BaseException as error:
            failure = error
            if isinstance(error, CatkitDevicesError) or not isinstance(error, Exception):
                raise
            raise self._of_the_line_(error, operation, path) or self._translated_(error, path, becomes) from error
        finally:
            guard.end(operation, failure)

    def _of_the_line_(self, error: Exception, operation: Operation, path: str) -> DeviceError | None:
        """Return the error of the device where foreign code has passed an error of the VISA library on."""
        import pyvisa

        facts = self._facts_(operation.owed)
        if error is operation.error or isinstance(error, pyvisa.VisaIOError):
            translated = self._exchanges_.failed(error, operation.owed)
            return None if translated is None else type(translated)(f"{path}: {error}", **facts)
        if isinstance(error, OSError) and self._exchanges_.is_lost():
            return DeviceDisconnectedError(f"{path}: the connection is gone: {error}", **facts)
        return None


def _nothing(_device: Any) -> None:
    """Do nothing. As an operation, it opens a device that opens on first use."""


def text_of(error: Exception) -> str:
    """Return the text of an error; some frameworks add to its arguments, and Python then shows these as a tuple."""
    if len(error.args) > 1 and all(isinstance(one, str) for one in error.args) and str(error) == str(error.args):
        return "; ".join(error.args)
    return str(error)


class ForeignComponent(Component):
    """A channel, output or submodule of a foreign object."""

    _find_: ClassVar[Callable[[Any], Mapping[Any, Any]]]
    """Returns the foreign objects of its kind by key, from the one that has them."""

    def _target_(self) -> Any:
        """Return the foreign object."""
        found = type(self)._find_(self._owner_._target_())
        try:
            return found[self._key_]
        except (KeyError, IndexError):
            raise DeviceError(f"there is no {self._path_} in the driver's object", **self._facts_()) from None


def _sent(value: Any) -> Any:
    """Return a value as clients get it who have no framework installed; in this very process it is left as it is."""
    return _plain(value) if running_server else value


def _plain(value: Any) -> Any:
    kind = type(value)
    if kind.__module__ in _KNOWN or kind.__module__.partition(".")[0] in _KNOWN:
        if kind is dict:
            return {_plain(key): _plain(one) for key, one in value.items()}
        if kind in (list, tuple, set, frozenset):
            return kind(_plain(one) for one in value)
        return value
    if isinstance(value, enum.Enum):
        return _plain(value.value)
    if is_dataclass(value):
        return {one.name: _plain(getattr(value, one.name)) for one in fields(value)}
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return {name: _plain(one) for name, one in value._asdict().items()}
    kinds: tuple[Any, ...] = (bool, int, float, str, bytes, list, tuple, dict)
    for plain in kinds:
        if isinstance(value, plain):
            return _plain(plain(value))
    return value


_KNOWN = frozenset({"builtins", "numpy", "datetime", "decimal", "fractions", "pathlib", "uuid", "catkit_devices"})
"""Modules whose classes every client has."""
