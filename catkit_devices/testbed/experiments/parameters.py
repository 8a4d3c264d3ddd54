"""The typed parameters of an experiment: annotated class attributes, filled in when it is constructed."""

from __future__ import annotations

import contextlib
import copy
import enum
import functools
import inspect
import json
import operator
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from catkit_devices.errors import ConfigurationError, nearest
from catkit_devices.plain import too_large
from catkit_devices.testbed.experiments.recorded_types import UNIONS, is_named_tuple, refuse_alike

__all__ = ["REQUIRED", "Parameter", "collect", "fill", "refuse_ambiguous"]


class _Default(enum.Enum):
    REQUIRED = "required"


REQUIRED = _Default.REQUIRED
"""Stands for the default of a parameter that has none."""


@dataclass(frozen=True)
class Parameter:
    """One parameter of an experiment."""

    name: str
    annotation: Any
    default: Any = REQUIRED
    constrained: Any = None
    """The annotation with what ``Annotated`` adds, for example limits; ``annotation`` is without them."""

    @property
    def required(self) -> bool:
        """Whether it has no default."""
        return self.default is REQUIRED


def collect(cls: type, base: type) -> dict[str, Parameter]:
    """Return the parameters that a class and its ancestors below ``base`` declare, ancestors' first.

    A parameter is a public annotated attribute that is not a ClassVar; its default is the attribute's value.
    """
    found: dict[str, Parameter] = {}
    for ancestor in reversed(cls.__mro__):
        if ancestor in base.__mro__:
            continue
        own = inspect.get_annotations(ancestor)
        if not own:
            continue
        try:
            hints = typing.get_type_hints(ancestor)
            whole = typing.get_type_hints(ancestor, include_extras=True)
        except NameError as error:
            raise ConfigurationError(
                f"{ancestor.__qualname__}: the annotations of parameters must be importable at run time: {error}"
            ) from error
        for name in own:
            if name.startswith("_") or typing.get_origin(hints[name]) is typing.ClassVar or hasattr(base, name):
                continue
            found[name] = Parameter(name, hints[name], vars(ancestor).get(name, REQUIRED), whole[name])
    return found


def fill(owner: str, parameters: Mapping[str, Parameter], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return a value for every parameter: the given one, converted to the declared type, else the default.

    Raises:
        ConfigurationError: for a value of another type, an unknown name or a parameter that is required and missing.
    """
    for name in given:
        if name not in parameters:
            raise ConfigurationError(
                f"{owner} has no parameter {name!r}, expected one of {', '.join(parameters) or 'none'}",
                suggestion=nearest(name, parameters),
            )
    missing = [name for name, parameter in parameters.items() if parameter.required and name not in given]
    if missing:
        raise ConfigurationError(f"{owner} needs a value for {', '.join(missing)}")
    return {
        name: _converted(owner, parameter, given[name] if name in given else copy.deepcopy(parameter.default))
        for name, parameter in parameters.items()
    }


def refuse_ambiguous(cls: type) -> None:
    """Raise TypeError if the record of a run could not say which alternative of a parameter's type was meant.

    An annotation whose names are not known yet cannot be checked.
    """
    with contextlib.suppress(NameError):
        hints = typing.get_type_hints(cls)
        for name in inspect.get_annotations(cls):
            if not name.startswith("_"):
                refuse_alike(f"{cls.__qualname__}.{name}", hints[name])


def _converted(owner: str, parameter: Parameter, value: Any) -> Any:
    import pydantic

    from catkit_devices.testbed.configuration.problems import reworded

    settings = pydantic.ConfigDict(arbitrary_types_allowed=True)
    try:
        adapter = pydantic.TypeAdapter(parameter.constrained, config=settings)
    except pydantic.PydanticUserError:  # a model or dataclass brings its own settings
        try:
            adapter = pydantic.TypeAdapter(parameter.constrained)
        except pydantic.PydanticUserError as error:  # a TypedDict of typing before Python 3.12, for example
            reason = str(error).partition("\n")[0]
            raise ConfigurationError(f"{owner}: {parameter.name}: its type cannot be checked: {reason}") from error
    try:
        return adapter.validate_python(_meant(parameter.annotation, value))
    except pydantic.ValidationError as error:
        text = reworded(error.errors(include_url=False)[0])
        raise ConfigurationError(f"{owner}: {parameter.name}: {text}") from error
    except ValueError as error:
        raise ConfigurationError(f"{owner}: {parameter.name}: {error}") from error


def _meant(annotation: Any, value: Any) -> Any:
    """Return the values that the texts of a command line or of ``run.json`` mean, also inside of other types.

    ``"1"`` is 1 of ``Literal[1, 2]``, ``"FAST"`` the member of that name of an enumeration. A value without such a text
    is returned unchanged.

    Raises:
        ValueError: a text is the name of one member of an enumeration and the value of another, or a number that is too
            large for a float.
    """
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in UNIONS:
        if isinstance(value, str) and str in arguments:
            return value
        return next((meant for inner in arguments if (meant := _meant(inner, value)) is not value), value)
    if isinstance(value, Mapping):
        return _meant_by_mapping(annotation, value)
    named = is_named_tuple(annotation)
    if isinstance(value, list | tuple | set | frozenset) and (named or (isinstance(origin, type) and arguments)):
        several = named or (origin is tuple and arguments[-1] is not ...)
        each = tuple(typing.get_type_hints(annotation).values()) if named else arguments
        kinds = each if several else (each[0],) * len(value)
        meant = [_meant(kind, item) for kind, item in zip(kinds, value, strict=False)]
        same = len(kinds) != len(value) or all(one is item for one, item in zip(meant, value, strict=True))
        return value if same else meant
    if isinstance(value, str) and not isinstance(value, enum.Enum):
        if isinstance(annotation, enum.EnumMeta):
            return _member(annotation, value)
        if annotation is float and too_large(value):
            raise ValueError(f"expected a number, got {value}, which is too large")
        if annotation in (bytes, bytearray):
            return annotation(value.encode(errors="surrogateescape"))
        if origin is typing.Literal and not any(type(one) is str and one == value for one in arguments):
            return next((choice for choice in arguments if _is_said(choice, value)), value)
    return value


def _meant_by_mapping(annotation: Any, value: Mapping[Any, Any]) -> Any:
    """Return a dictionary with keys and values converted by ``_meant``; likewise the fields of a class."""
    arguments = typing.get_args(annotation)
    if len(arguments) == 2:
        of_keys, of_values = arguments
        meant = {_meant(of_keys, key): _meant(of_values, item) for key, item in value.items()}
    elif isinstance(annotation, type) and hasattr(annotation, "__annotations__"):
        hints = typing.get_type_hints(annotation)
        meant = {key: _meant(hints.get(key, Any), item) for key, item in value.items()}
    else:
        return value
    pairs = zip(meant.items(), value.items(), strict=False)
    same = len(meant) != len(value) or all(key is old and one is item for (key, one), (old, item) in pairs)
    return value if same else meant


def _member(kind: enum.EnumMeta, text: str) -> Any:
    """Return the member of an enumeration with this name or value; the text itself if there is none."""
    members: Mapping[str, Any] = kind.__members__
    behind = text.removeprefix(f"{kind.__name__}.")
    if behind != text and behind in members:
        return members[behind]
    if issubclass(kind, enum.Flag) and "|" in text and all(part in members for part in text.split("|")):
        return functools.reduce(operator.or_, (members[part] for part in text.split("|")))
    if issubclass(kind, enum.Flag) and text.isdecimal():
        return kind(int(text))
    named = members.get(text)
    valued = next((one for one in members.values() if type(one.value) is str and one.value == text), None)
    if named is not None and valued is not None and named is not valued:
        raise ValueError(
            f"{text!r} is the name of one member of {kind.__name__} and the value of another: "
            f"say {kind.__name__}.{text} or {kind.__name__}.{valued.name}"
        )
    found = valued if named is None else named
    return text if found is None else found


def _is_said(choice: Any, text: str) -> bool:
    if isinstance(choice, enum.Enum):
        return _member(type(choice), text) is choice or (isinstance(choice, int) and text == str(int(choice)))
    if isinstance(choice, bytes):
        return choice.decode(errors="surrogateescape") == text
    return text in (str(choice), json.dumps(choice))
