"""The options of a driver: what its constructors take by keyword, along the whole line of base classes."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, TypeVar

from catkit_devices.errors import ConfigurationError, nearest

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["bind_options", "options_of"]

_T = TypeVar("_T")
_P = inspect.Parameter


def options_of(cls: type) -> dict[str, inspect.Parameter]:
    """Return the keyword options that ``cls`` can be constructed with.

    A constructor that takes ``**options`` hands them on to the next class's, so theirs are included, up to the first
    that takes no more; ``self`` and the device's ``name`` are left out.
    """
    options: dict[str, inspect.Parameter] = {}
    for base in cls.__mro__:
        constructor = vars(base).get("__init__")
        if constructor is None or base is object:
            continue
        parameters = inspect.signature(constructor).parameters.values()
        for parameter in list(parameters)[1:]:
            if parameter.kind in {_P.POSITIONAL_OR_KEYWORD, _P.KEYWORD_ONLY} and parameter.name != "name":
                options.setdefault(parameter.name, parameter)
        if not any(parameter.kind is _P.VAR_KEYWORD for parameter in parameters):
            break
    return options


def bind_options(cls: type[_T], name: str, options: Mapping[str, Any]) -> _T:
    """Construct ``cls(name, **options)``.

    Raises:
        ConfigurationError: for an option that ``cls`` does not have (with the nearest spelling), one that it needs
            and was not given, and whatever it refuses with a ValueError or TypeError.
    """
    known = options_of(cls)
    driver = getattr(cls, "driver", None) or cls.__name__
    for option in options:
        if option not in known:
            raise ConfigurationError(
                f"driver {driver} has no such option; it has {', '.join(sorted(known))}",
                key=f"devices.{name}.{option}",
                suggestion=nearest(option, known),
            )
    for option, parameter in known.items():
        if parameter.default is _P.empty and option not in options:
            raise ConfigurationError(f"driver {driver} needs {option!r}", key=f"devices.{name}")
    try:
        return cls(name, **options)  # type: ignore[call-arg]
    except ConfigurationError:
        raise
    except (TypeError, ValueError) as error:
        raise ConfigurationError(str(error), key=f"devices.{name}") from error
