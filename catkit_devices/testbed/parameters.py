"""The typed parameters of an experiment: annotated class attributes, filled in when it is constructed."""

from __future__ import annotations

import contextlib
import copy
import enum
import inspect
import types
import typing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from catkit_devices.errors import ConfigurationError, nearest

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["REQUIRED", "Parameter", "collect", "fill"]


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
        except NameError as error:
            raise ConfigurationError(
                f"{ancestor.__qualname__}: the annotations of parameters must be importable at run time: {error}"
            ) from error
        for name in own:
            if name.startswith("_") or typing.get_origin(hints[name]) is typing.ClassVar or hasattr(base, name):
                continue
            found[name] = Parameter(name, hints[name], vars(ancestor).get(name, REQUIRED))
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


def _converted(owner: str, parameter: Parameter, value: Any) -> Any:
    import pydantic

    settings = pydantic.ConfigDict(arbitrary_types_allowed=True)
    try:
        adapter = pydantic.TypeAdapter(parameter.annotation, config=settings)
    except pydantic.PydanticUserError:  # a model or dataclass brings its own settings
        adapter = pydantic.TypeAdapter(parameter.annotation)
    try:
        return adapter.validate_python(value)
    except pydantic.ValidationError as error:
        with contextlib.suppress(pydantic.ValidationError, TypeError):
            return adapter.validate_python(_meant(parameter.annotation, value))
        text = error.errors(include_url=False)[0]["msg"].replace("Input should be", "expected")
        raise ConfigurationError(f"{owner}: {parameter.name}: {text}, got {value!r}") from error


def _meant(annotation: Any, value: Any) -> Any:
    """Return what the words of a command line or of ``run.json`` mean where the type is a choice.

    ``"1"`` is 1 of ``Literal[1, 2]``, ``"FAST"`` the member of that name of an enumeration; also in a list of such.
    """
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (list, set, frozenset, tuple) and arguments and isinstance(value, list | tuple):
        return [_meant(arguments[0], item) for item in value]
    if origin in (typing.Union, types.UnionType):
        meant = [_meant(inner, value) for inner in arguments]
        return next((one for one in meant if one is not value), value)
    if isinstance(value, str):
        if origin is typing.Literal:
            return next((choice for choice in arguments if str(choice) == value), value)
        if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
            return annotation.__members__.get(value, value)
    return value
