"""The parts of an instrument that have properties of their own: channels, outputs, axes, plugged-in modules.

::

    class Output(Component):
        current = Control("CURR? (@{self.number})", "CURR {},(@{self.number})", unit="A", limits=(0, 3), doc="Current.")


    class Supply(VisaDevice):
        outputs = Components(Output, numbers=(1, 2, 3))

``supply.outputs[1].current = 2`` is then one operation of the supply, named ``supply.outputs[1].current`` in messages:
a component has no mutex of its own. A single component is declared by itself, ``heater = Heater()``. Components may
have components.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar, cast, final, overload

from catkit_devices._base.deferred import refuse_deferred
from catkit_devices._base.paths import reached, words
from catkit_devices._device.bounds import KnownBounds
from catkit_devices._device.members import (
    DeviceType,
    hook,
    interface_of_component,
    is_helper,
    narrowed_limits,
    unlocked,
)
from catkit_devices._device.parts import Group, Key, Part, groups_of
from catkit_devices.device import Device
from catkit_devices.errors import ComponentNotFoundError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from catkit_devices._device.values import Limits
    from catkit_devices.multiprocessing.protocol import Interface

__all__ = ["Component", "Components"]

_C = TypeVar("_C", bound="Component")
_missing = threading.local()


class Component(Part, metaclass=DeviceType):
    """One channel, output, axis or module of a device. A driver derives from it and gives it operations.

    The rules are those of a device: every public method and property is an operation, and its whole body runs under the
    mutex of the device; other values must be private. Its methods use the helpers for drivers of the device's class:
    ``self._query(...)``, ``self._connection``, ``self._transaction()``. It may override ``_query`` and ``_write`` to
    add its own address; all other helpers, such as ``self._ask(...)``, then use these.

    Args:
        number: its number, or any text, in commands. If its class has a constructor, that must pass the number on.
        fitted: for a single component that not every instrument has: a function of the device that returns whether the
            instrument has it. It is called whenever the device has been opened, and may send commands.
    """

    _single_ = True
    _owner_: Any = None
    """The device or component of which it is a part; None for a declaration in a class."""
    _group_: Group[Any]
    _device_: Any = None
    _path_ = ""
    _prefix_ = ""
    _key_: Key = ""
    _number_: Any = None
    _fitted_: Callable[[Any], bool] | None = None
    _made_with_: tuple[tuple[Any, ...], dict[str, Any]]
    _narrowed_: Mapping[str, Limits]
    _bounds_: KnownBounds
    """What is known of the limits of its properties that depend on others."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Store the arguments: for each device, a component of its own is made with them."""
        made = super().__new__(cls)
        made._made_with_ = args, kwargs
        return made

    def __init__(self, number: Any = None, *, fitted: Callable[[Any], bool] | None = None) -> None:
        refuse_deferred(fitted, "the function that says whether a component is fitted")
        self._number_ = number
        self._fitted_ = fitted

    # --- what it is

    @property
    @final
    def device(self) -> Any:
        """The device of which it is a part."""
        if self._owner_ is None:
            raise AttributeError(f"{self!r} is not part of a device: declare it in the class of a driver")
        return self._device_

    @property
    @final
    def key(self) -> Key:
        """Its key among the components of its kind; for a single component, its name."""
        return self._key_

    @property
    @final
    def number(self) -> Any:
        """Its number, or text, in commands."""
        return self._number_

    @hook
    def _make_safe(self) -> None:
        """Bring it to a state in which it can be left alone.

        Whenever its device is made safe this is called for every component, before the device's own ``_make_safe``.
        """

    @hook
    def _query(self, command: str, timeout: float | None = None) -> str:
        """Ask the instrument, as its device (or the component of which it is a part) does."""
        ask = self._owner_._query  # noqa: SLF001 - what drivers implement
        reply: str = ask(command) if timeout is None else ask(command, timeout)
        return reply

    @hook
    def _write(self, command: str) -> None:
        """Send a command, as its device does."""
        self._owner_._write(command)  # noqa: SLF001 - what drivers implement

    @final
    @unlocked
    def wait(self, until: float | Callable[[], bool], timeout: float | None = None, interval: float = 0.05) -> bool:
        """Wait inside a long operation; as :meth:`catkit_devices.device.Device.wait`."""
        waited: bool = self.device.wait(until, timeout, interval)
        return waited

    # --- as a declaration

    @property
    def _base_(self) -> type:  # type: ignore[override]  # of every declaration by itself
        return type(self)

    @property
    def _fixed_(self) -> Mapping[Key, Any] | None:  # type: ignore[override]  # as above
        return {self._name_: self} if self._fitted_ is None else None

    @property
    def _ask_(self) -> Callable[[Any], Mapping[Key, Any]] | None:  # type: ignore[override]  # as above
        return None if self._fitted_ is None else self._where_fitted_

    @property
    def _interface_(self) -> Interface:
        """What clients may do with it."""
        found: Interface | None = self.__dict__.get("_told_")
        if found is None:
            found = self.__dict__["_told_"] = interface_of_component(type(self))
        return found

    def _where_fitted_(self, owner: Any) -> Mapping[Key, Any]:
        return {self._name_: self} if self._fitted_ is not None and self._fitted_(owner) else {}

    @overload
    def __get__(self, owner: None, kind: type) -> Self: ...
    @overload
    def __get__(self, owner: object, kind: type | None = None) -> Self: ...
    def __get__(self, owner: object, kind: type | None = None) -> Self:
        if owner is None:
            return self
        component: Self = groups_of(owner)[self._name_]._only_()
        return component

    # --- as part of a device

    def _bound_(self, group: Group[Any], owner: Any, key: Key, path: str) -> Self:
        """Return the component of ``owner`` for this declaration, as a member of ``group``."""
        cls = type(self)
        component = cls.__new__(cls, *self._made_with_[0], **self._made_with_[1])
        component.__dict__.update(
            _owner_=owner, _device_=owner._device_, _group_=group, _key_=key, _path_=path, _prefix_=f"{path}."
        )
        component._bounds_ = KnownBounds(owner._bounds_.connection)
        component._narrowed_ = component._limits_of_configuration_()
        component.__init__(*self._made_with_[0], **self._made_with_[1])  # type: ignore[misc]  # as it was declared
        return component

    def _is_made_from_(self, declared: Component) -> bool:
        return type(self) is type(declared) and self._made_with_ == declared._made_with_

    def _limits_of_configuration_(self) -> dict[str, Limits]:
        mine = words(self._path_)
        limits = {}
        for path, wanted in self._device_._limits_.items():
            if path[:-1] == mine:
                limits[path[-1]] = self._narrow_(path[-1], wanted)
        return limits

    def _narrow_(self, name: str, wanted: Any) -> Limits:
        return narrowed_limits(type(self), name, wanted, f"devices.{self._device_._name_}.limits.{self._prefix_}{name}")

    def _perform_(self, body: Callable[..., Any], name: str, args: Any, kwargs: Any, **how: Any) -> Any:
        """Run the body of one operation as an operation of the device."""

        def run(_device: Any, *args: Any, **kwargs: Any) -> Any:
            self._require_there_()
            return body(self, *args, **kwargs)

        try:
            return self.device._perform_(run, f"{self._prefix_}{name}", args, kwargs, **how)
        except AttributeError as error:
            _missing.last = (name, error)  # where a property is read, Python asks __getattr__ next
            raise

    def _helpers_(self) -> Any:
        """Return an object with the helpers of the device, which ask and write as this component does."""
        cls = type(self)
        if cls._query is Component._query and cls._write is Component._write:
            return self._owner_
        found = self.__dict__.get("_view_")
        if found is None:
            found = self.__dict__["_view_"] = _view(self._device_, self)
        return found

    def _require_there_(self) -> None:
        """Raise if the instrument does not have this component, or not any more."""
        if self._owner_ is not self._device_:
            self._owner_._require_there_()
        if self._group_._known_.get(self._key_) is not self:
            raise ComponentNotFoundError(
                f"there is no {self._path_} any more: when the device was opened again, the instrument did not have it",
                **self._device_._facts_(),
            )

    def __getattr__(self, name: str) -> Any:
        asked, raised = vars(_missing).pop("last", (None, None))
        if asked == name:
            raise raised
        if self._owner_ is None:
            raise AttributeError(f"{self!r} is not part of a device: declare it in the class of a driver")
        # Only helpers of the framework's classes: a private value that a component does not have must not be read from
        # its device, where a value of the same name may mean something else.
        if is_helper(type(self._device_), name):
            return getattr(self._helpers_(), name)
        if name in type(self)._parts_:
            groups_of(self)[name]._only_()  # raises that the instrument does not have it
        hint = ": it has the mutex of its device" if name in ("acquire", "lock", "mutex", "release") else ""
        raise AttributeError(f"{self!r} has no attribute {name!r}{hint}")

    __setattr__ = Device.__setattr__  # the same values may be assigned as to a device

    def __repr__(self) -> str:
        if self._owner_ is None:
            return f"<{type(self).__name__}, a declaration>"
        return f"<{type(self).__name__} '{self._device_._name_}.{self._path_}'>"

    def __reduce__(self) -> Any:
        if self._owner_ is None:  # part of a driver's class that travels by value
            return _declared_again, (type(self), *self._made_with_)
        return reached, (self.device, words(self._path_))


class Components(Part, Generic[_C]):
    """Several components of one kind, by key: ``outputs = Components(Output, numbers=(1, 2, 3))``.

    On a device it is a mapping: ``supply.outputs[1]``, ``for number, output in supply.outputs.items()``.

    Which components there are may depend on the instrument. Then give a function instead of the numbers or keys. It is
    called with the device (or with the component, for its own components) whenever the device has been opened. It may
    send commands, and returns numbers or keys.

    Args:
        kind: the class of the components.
        numbers: the keys of the components, which are also their numbers in commands.
        keys: the keys of the components: words or numbers. Or a mapping, from each key to its number in commands
            (``{"A": 1, "B": 2}``), or to a component of a class that derives from ``kind``
            (``{"A": Voltmeter(1), "B": Switch(2)}``).
    """

    _single_ = False

    def __init__(
        self,
        kind: type[_C],
        *,
        numbers: Iterable[int] | Callable[[Any], Any] | None = None,
        keys: Iterable[Key] | Mapping[Any, Any] | Callable[[Any], Any] | None = None,
    ) -> None:
        if not (isinstance(kind, type) and issubclass(kind, Component)):
            raise TypeError(f"Components needs a class that derives from Component, got {kind!r}")
        source = numbers if keys is None else keys
        if source is None or (numbers is not None and keys is not None):
            raise TypeError("Components needs numbers, or keys: numbers=(1, 2, 3), keys=('A', 'B')")
        self._base_ = kind
        self._whole_numbers = keys is None
        self._fixed_: Mapping[Key, _C] | None = None
        self._ask_ = None
        if callable(source):
            refuse_deferred(source, "the function that tells which components there are")
            self._ask_ = lambda owner: self._declared(source(owner))
        else:
            self._fixed_ = self._declared(source)

    def _declared(self, source: Any) -> dict[Key, _C]:
        if isinstance(source, str) or not hasattr(source, "__iter__"):
            raise TypeError(f"expected the keys of components, such as (1, 2, 3) or ('A', 'B'), got {source!r}")
        pairs = list(source.items()) if isinstance(source, Mapping) else [(key, key) for key in source]
        declared: dict[Key, _C] = {}
        for key, number in pairs:
            _check_key(key, self._whole_numbers)
            if str(key) in map(str, declared):
                raise TypeError(f"expected different keys of components, got {key!r} twice")
            component: Any = number if isinstance(number, Component) else self._base_(number)
            if not isinstance(component, self._base_):
                raise TypeError(f"component {key!r} must be a {self._base_.__qualname__}, got {component!r}")
            declared[key] = cast("Any", component)
        return declared

    @overload
    def __get__(self, owner: None, kind: type) -> Self: ...
    @overload
    def __get__(self, owner: object, kind: type | None = None) -> Group[_C]: ...
    def __get__(self, owner: object, kind: type | None = None) -> Self | Group[_C]:
        return self if owner is None else groups_of(owner)[self._name_]


def _check_key(key: Any, whole_number: bool) -> None:
    # A key must be usable without quotes in a path: in a shell, in TOML and in a message.
    if whole_number and (not isinstance(key, int) or isinstance(key, bool)):
        raise TypeError(f"expected a whole number among the numbers of components, got {key!r}; words are keys=...")
    is_word = isinstance(key, str) and words(f"x.{key}") == ("x", key)
    if not is_word and not (isinstance(key, int) and not isinstance(key, bool)):
        raise TypeError(f"expected a word of letters, digits, _ and -, or a whole number, as key, got {key!r}")


def _declared_again(kind: type[Component], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Component:
    return kind(*args, **kwargs)


def _view(device: Any, component: Component) -> Any:
    """Return an object that is ``device``, except that it asks and writes through ``component``."""

    def ask(_view: Any, command: str, timeout: float | None = None) -> str:
        return component._query(command, timeout)  # noqa: SLF001 - what drivers implement

    def write(_view: Any, command: str) -> None:
        component._write(command)  # noqa: SLF001 - what drivers implement

    kind = type(device)
    members = {"_query": ask, "_write": write, "_device_": property(lambda _view: device), "__module__": __name__}
    derived: Any = DeviceType(kind.__name__, (kind,), members)
    view: Any = object.__new__(derived)
    object.__setattr__(view, "__dict__", vars(device))  # both have the same state; nothing is copied
    return view
