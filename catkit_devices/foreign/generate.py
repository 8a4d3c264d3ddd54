"""Makes the class of a device from the description of a foreign class."""

from __future__ import annotations

import functools
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NoReturn, cast

from catkit_devices._base.paths import words
from catkit_devices._device.members import DeviceType, members_at, unlocked
from catkit_devices.components import Component, Components
from catkit_devices.device import DeviceProperty
from catkit_devices.errors import ConfigurationError, DeviceOpenError
from catkit_devices.foreign.description import Description, DriverSource
from catkit_devices.foreign.device import NOTHING, ForeignComponent, ForeignDevice, ForeignVisaDevice
from catkit_devices.foreign.quantity import ForeignQuantity

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from catkit_devices.errors import DeviceError
    from catkit_devices.foreign.description import Children, Member

__all__ = ["configured", "device_class", "hosting"]

_CONFIGURED = ("safe", "units", "shared", "limits", "identity")
"""Options that are part of the class of a device."""

_MODULE = ForeignDevice.__module__
"""The module of the classes that are made here: they are the framework's own."""

_classes: dict[tuple[type, type], type[ForeignDevice]] = {}
"""The class for each class of a source: made once, because a class is expensive."""


def device_class(source: DriverSource, cls: type) -> type[ForeignDevice]:
    """Return the class of devices that host objects of a foreign class.

    Args:
        source: of the foreign class.
        cls: the foreign class.
    """
    key = type(source), cls
    if key not in _classes:
        _classes[key] = made_from(source, cls, source.describe(cls))
    return _classes[key]


def made_from(source: DriverSource, cls: type, description: Description, **more: Any) -> type[ForeignDevice]:
    """Return a new class of devices for a foreign class with this description, and with ``more`` members."""
    facts = {
        "_base_": source.base() or (ForeignVisaDevice if description.uses_visa else ForeignDevice),
        "_source_": source,
        "_configure_": staticmethod(configured),
        "_kind_": cls,
        "_known_when_open_": not description.complete,
        "_with_all_": staticmethod(with_all),
        **more,
    }
    return _made(cls.__name__, description, _Adjustments({}), facts)


def _made(name: str, description: Description, adjustments: _Adjustments, facts: dict[str, Any]) -> type[ForeignDevice]:
    base = facts["_base_"]
    names = _Names(base)
    body = _body(facts["_source_"], description, names, adjustments)
    body |= {"__module__": _MODULE, "__doc__": description.doc, "_description_": description}
    body |= {"_renamed_": names.renamed, "_knows_all_": description.complete, **facts}
    return cast("type[ForeignDevice]", DeviceType(name, (base,), body))


def with_all(cls: type[ForeignDevice], description: Description) -> type[ForeignDevice]:
    """Return the class of a device whose object, now that it is open, has this description.

    Raises:
        ConfigurationError: the options of the device do not fit it; its ``key`` says which.
    """
    options = json.loads(cls._made_from_ or "{}")
    adjustments = _Adjustments(options)
    kept = (
        "driver", "identity", "_base_", "_source_", "_kind_", "_known_when_open_", "_made_from_", "_safe_",
    )  # fmt: skip
    facts = {name: getattr(cls, name) for name in kept if hasattr(cls, name)}
    facts |= {"_configure_": staticmethod(configured), "_with_all_": staticmethod(with_all)}
    made = _made(cls.__name__, description, adjustments, facts)
    adjustments.require_used(made)
    _check_safe(made, options.get("safe"))
    return made


def hosting(source: DriverSource, instrument: Any) -> tuple[type[ForeignDevice], dict[str, Any]]:
    """Return the class of the one device that hosts a foreign object which exists already, and the options for it.

    If the object has one resource of pyvisa, that is used as the line of the device.
    """
    cls = type(instrument)
    described = source.describe(cls)
    if not described.complete:
        described = source.describe_opened(instrument)
    resource = source.resource(instrument)
    ready = _Ready(source, instrument)
    if resource is None:
        return made_from(ready, cls, replace(described, uses_visa=False, question=None)), {}

    def opened(device: str) -> Any:
        ready.require_instrument(cls, device)
        return resource

    made = made_from(ready, cls, replace(described, uses_visa=True), _opened_=staticmethod(opened))
    return made, {"address": resource.resource_name, "visa_library": resource.visalib}


class _Ready(DriverSource):
    """A source for one object that the program has made itself.

    Args:
        source: of its class.
        instrument: the object.
    """

    def __init__(self, source: DriverSource, instrument: Any) -> None:
        self._source = source
        self._instrument: Any = instrument

    def find(self, text: str) -> type:
        """Refuse: there is only the object."""
        raise ConfigurationError(f"there is no driver {text!r}")

    def describe(self, cls: type) -> Description:
        """Return the answer of the other source."""
        return self._source.describe(cls)

    def describe_child(self, child: Any) -> Description:
        """Return the answer of the other source."""
        return self._source.describe_child(child)

    def require_instrument(self, cls: type, device: str) -> None:
        """Raise DeviceOpenError if the object was given before: it is closed since."""
        if self._instrument is None:
            raise DeviceOpenError(
                f"the object that was given has been closed: give the class, share({cls.__qualname__}, address), "
                "for a device that can be opened again",
                device=device,
            )

    def construct(self, cls: type, name: str, address: str | None, library: Any, options: Mapping[str, Any], /) -> Any:  # noqa: ARG002 - the object exists already
        """Give the object, once."""
        self.require_instrument(cls, name)
        instrument, self._instrument = self._instrument, None
        return instrument

    def snapshot(self, instrument: Any) -> dict[str, Any] | None:
        """Return the answer of the other source."""
        return self._source.snapshot(instrument)

    def close(self, instrument: Any) -> None:
        """Close the object."""
        self._source.close(instrument)

    def translate(self, error: Exception) -> tuple[type[DeviceError], str] | None:
        """Return the answer of the other source."""
        return self._source.translate(error)


def configured(cls: type[ForeignDevice], options: Mapping[str, Any]) -> type[ForeignDevice]:
    """Return the class of a device with these options.

    Raises:
        ConfigurationError: they do not fit the foreign class; its ``key`` says which.
    """
    if cls._made_from_ is not None:
        return cls
    given = {key: options[key] for key in _CONFIGURED if options.get(key)}
    return _configured(cls, json.dumps(given, default=str)) if given else cls


@functools.lru_cache(maxsize=256)
def _configured(cls: type[ForeignDevice], given: str) -> type[ForeignDevice]:
    options = json.loads(given)
    adjustments = _Adjustments(options)
    names = _Names(cls.__mro__[1])
    body = _body(cls._source_, cls._description_, names, adjustments)
    body |= {"__module__": cls.__module__, "__doc__": cls.__doc__, "_made_from_": given}
    body["_safe_"] = options.get("safe")
    if cls._known_when_open_:
        body["_shared_when_open_"] = tuple(options.get("shared", ()))
    if "identity" in options:
        if cls._description_.question is None:
            _refuse("identity", "there is no question for it: nobody has said how this instrument is asked what it is")
        body["identity"] = options["identity"]
    made = cast("type[ForeignDevice]", DeviceType(cls.__name__, (cls,), body))
    adjustments.require_used(made)
    _check_safe(made, options.get("safe"))
    return made


class _Adjustments:
    """What a configuration says of properties: units, and which are shared or have limits."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        for key, kind, example in (("units", dict, "{voltage = 'V'}"), ("shared", list, "['voltage']")):
            if not isinstance(options.get(key, kind()), kind):
                _refuse(key, f"expected {key} = {example}, got {options[key]!r}")
        self._units: Mapping[str, str] = options.get("units", {})
        self._shared: list[str] = options.get("shared", [])
        self._limits = list(options.get("limits", {}))

    def quantity(self, member: Member, path: tuple[str, ...]) -> ForeignQuantity:
        """Return the property for a member; in its path, ``*`` stands for every key of several components."""
        unit = next((unit for known, unit in self._units.items() if _applies(known, path)), None)
        numeric = any(_applies(known, path) for known in self._limits)
        shared = any(_applies(known, path) for known in self._shared)
        try:
            return ForeignQuantity(member, unit=unit, numeric=numeric and member.choices is None, shared=shared)
        except (TypeError, ValueError) as error:
            if unit is None:
                raise
            _refuse(f"units.{'.'.join(path)}", str(error))

    def require_used(self, cls: type[ForeignDevice]) -> None:
        """Raise ConfigurationError for properties that do not exist, as far as the class tells which there are."""
        for path in self._units:
            _require_property(cls, f"units.{path}", path)
        for path in self._shared:
            _require_property(cls, "shared", path)


def _applies(path: str, to: tuple[str, ...]) -> bool:
    there = words(path)
    return len(there) == len(to) and all(wanted in ("*", word) for word, wanted in zip(there, to, strict=True))


def _require_property(cls: type[ForeignDevice], key: str, path: str) -> None:
    try:
        found = [member for _, member in members_at(cls, path)]
    except ConfigurationError as error:
        if not cls._description_.complete:
            return
        raise ConfigurationError(error.problem, key=key, suggestion=error.suggestion) from None
    if not all(isinstance(member, DeviceProperty) for member in found):
        _refuse(key, f"{path} is no property")


class _Names:
    """Gives the members of a foreign class their names: with an underscore at the end if a device has that name."""

    def __init__(self, base: type) -> None:
        self._taken = {name for name in dir(base) if not name.startswith("_")} | {"mro"}
        self.renamed: dict[str, str] = {}

    def of(self, name: str) -> str:
        """Return the name of a foreign member in the device."""
        if name not in self._taken:
            return name
        self.renamed[name] = f"{name}_"
        return self.renamed[name]


def _body(
    source: DriverSource, description: Description, names: _Names, adjust: _Adjustments, at: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Return the members of a class of devices or components."""
    body: dict[str, Any] = {}
    for member in description.members:
        name = names.of(member.name)
        if member.function is None:
            body[name] = adjust.quantity(member, (*at, name))
        else:
            body[name] = _method(name, member)
    for children in description.children:
        name = names.of(children.name)
        below = (*at, name) if children.keys == () else (*at, name, "*")
        body[name] = _component(source, children, adjust, below)
    for name, places in description.collections.items():
        if name not in body:
            body[name] = property(unlocked(_collection(places)), None, None, f"The same components by number: {places}")
    return body


def _method(name: str, member: Member) -> Callable[..., Any]:
    function = getattr(member.function, "__func__", member.function)

    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        return self._device_._call_(self, name, member.name, args, kwargs)

    method.__name__, method.__qualname__ = name, name
    method.__doc__ = member.doc
    if not isinstance(member.function, staticmethod | classmethod):
        method.__wrapped__ = function  # type: ignore[attr-defined]  # for its signature
    return method


def _component(source: DriverSource, children: Children, adjust: _Adjustments, at: tuple[str, ...]) -> Any:
    if children.description is None:
        # A class of its own: whoever asks which classes these may have gets no others.
        base = cast("type[ForeignComponent]", DeviceType("Child", (ForeignComponent,), {"__module__": _MODULE}))
        return Components(base, keys=functools.partial(_found_when_open, source, children, base))
    if not isinstance(children.description, Description):
        base = cast("type[ForeignComponent]", DeviceType("Child", (ForeignComponent,), {"__module__": _MODULE}))
        each = {
            key: component_class(source, children, one, adjust, (*at[:-1], str(key)), base)(key)
            for key, one in children.description.items()
        }
        return Components(base, keys=each)
    kind = component_class(source, children, children.description, adjust, at)
    if children.keys == ():
        return kind()
    keys: Any = children.keys if children.keys is not None else functools.partial(_keys_when_open, children)
    return Components(kind, keys=keys)


def component_class(
    source: DriverSource,
    children: Children,
    description: Description,
    adjust: _Adjustments,
    at: tuple[str, ...] = (),
    base: type[ForeignComponent] = ForeignComponent,
) -> type[ForeignComponent]:
    """Return the class of components for the children of a foreign object."""
    names = _Names(ForeignComponent)
    body = _body(source, description, names, adjust, at)
    title = "".join(part.capitalize() for part in children.name.split("_")) or "Component"
    body |= {"__module__": _MODULE, "__doc__": description.doc, "_find_": staticmethod(children.find)}
    return cast("type[ForeignComponent]", DeviceType(title, (base,), body))


def _keys_when_open(children: Children, owner: Any) -> list[Any]:
    return list(children.find(owner._target_()))


def _found_when_open(source: DriverSource, children: Children, base: Any, owner: Any) -> dict[Any, ForeignComponent]:
    """Return the components that a foreign object has when it is open."""
    found = children.find(owner._target_())
    nothing = _Adjustments({})
    return {
        key: component_class(source, children, source.describe_child(child), nothing, base=base)(key)
        for key, child in found.items()
    }


def _collection(places: Mapping[Any, str]) -> Callable[[Any], dict[Any, Component]]:
    def components(self: Any) -> dict[Any, Component]:
        return {key: getattr(self, name) for key, name in places.items()}

    vars(components)["_of_components"] = True
    return components


# --- making safe


def _check_safe(cls: type[ForeignDevice], safe: Any) -> None:
    if safe is None or safe == NOTHING:
        return
    if isinstance(safe, dict):
        for path, value in safe.items():
            _check_setting(cls, path, value)
    elif isinstance(safe, list):
        for text in safe:
            _check_call(cls, text)
    else:
        _refuse("safe", f'expected {{property = value}}, ["method()"] or "{NOTHING}", got {safe!r}')


def _check_setting(cls: type[ForeignDevice], path: str, value: Any) -> None:
    *before, name = words(path)
    found = _at(cls, before, name, f"safe.{path}")
    for _, member in found:
        if not isinstance(member, ForeignQuantity) or not member.writable:
            problem = "can only be read" if isinstance(member, ForeignQuantity) else "is no property"
            _refuse(f"safe.{path}", f"expected a property that can be set: {path} {problem}")
        try:
            member.plain(value)
        except ValueError as error:
            _refuse(f"safe.{path}", f"{path} {error}")


def _check_call(cls: type[ForeignDevice], text: Any) -> None:
    if not isinstance(text, str) or not text.endswith("()"):
        _refuse("safe", f"expected a method with brackets, such as 'shutdown()', got {text!r}")
    *before, name = words(text.removesuffix("()"))
    for _, member in _at(cls, before, name, "safe"):
        if isinstance(member, DeviceProperty) or not callable(member):
            _refuse("safe", f"{text.removesuffix('()')} is no method")


def _at(cls: type[ForeignDevice], before: list[str], name: str, key: str) -> list[tuple[type, Any]]:
    try:
        return members_at(cls, ".".join([*before, name]))
    except ConfigurationError as error:
        if not cls._description_.complete:
            return []
        raise ConfigurationError(error.problem, key=key, suggestion=error.suggestion) from None


def _refuse(key: str, problem: str, suggestion: str | None = None) -> NoReturn:
    raise ConfigurationError(problem, key=key, suggestion=suggestion)
