"""Constructs the classes of plugins with the options of a configuration.

Drivers, simulators, benches and safety tests are classes; their options are the keyword arguments of their
constructors. Only this module decides which options a class has, and which of the given options are wrong.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from catkit_devices.errors import ConfigurationError, nearest

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

__all__ = ["OptionProblem", "bind_options", "option_problems", "options_of"]

_T = TypeVar("_T")
_P = inspect.Parameter
"""By a short name, for the kinds of parameters."""


class OptionProblem(NamedTuple):
    """The problem with one option, and the nearest right spelling, if there is one."""

    option: str
    problem: str
    suggestion: str | None


def options_of(cls: type, without: Collection[str] = ()) -> dict[str, inspect.Parameter]:
    """Return the keyword options that ``cls`` can be constructed with.

    A constructor with ``**options`` passes them on to the constructor of the next class. So the options of the next
    classes are included, up to the first one without ``**options``. ``self`` and the device's ``name`` are left out.

    Args:
        cls: the class.
        without: options that the framework passes by itself.
    """
    options: dict[str, inspect.Parameter] = {}
    for base in cls.__mro__:
        constructor = vars(base).get("__init__")
        if constructor is None or base is object:
            continue
        parameters = inspect.signature(constructor).parameters.values()
        for parameter in list(parameters)[1:]:
            if parameter.kind in {_P.POSITIONAL_OR_KEYWORD, _P.KEYWORD_ONLY} and parameter.name not in {
                "name",
                *without,
            }:
                options.setdefault(parameter.name, parameter)
        if not any(parameter.kind is _P.VAR_KEYWORD for parameter in parameters):
            break
    return options


def option_problems(
    owner: str, known: Mapping[str, inspect.Parameter], given: Collection[str], spellings: Iterable[str] = ()
) -> Iterator[OptionProblem]:
    """Yield a problem for each given option that does not exist, and for each required one that was not given.

    Args:
        owner: the name of the class in messages: ``driver 'newport_agilis'``.
        known: its options, as :func:`options_of` returns them.
        given: the names of the given options.
        spellings: further names that a misspelt option may mean.
    """
    for option in given:
        if option not in known:
            listed = ", ".join(sorted(known)) or "none"
            problem = f"{owner} has no such option, expected one of {listed}"
            yield OptionProblem(option, problem, nearest(option, [*known, *spellings]))
    for option, parameter in known.items():
        if parameter.default is _P.empty and option not in given:
            yield OptionProblem(option, f"is missing, {owner} needs it", None)


def bind_options(cls: type[_T], name: str, options: Mapping[str, Any]) -> _T:
    """Construct the device ``cls(name, **options)``.

    Raises:
        ConfigurationError: an option does not exist (with the nearest spelling) or is missing, or the constructor has
            raised a ValueError or TypeError.
    """
    owner = f"driver {getattr(cls, 'driver', None) or cls.__name__!r}"
    for option, problem, suggestion in option_problems(owner, options_of(cls), options):
        raise ConfigurationError(problem, key=f"devices.{name}.{option}", suggestion=suggestion)
    try:
        return cls(name, **options)  # type: ignore[call-arg]  # a device's constructor takes its name
    except ConfigurationError:
        raise
    except (TypeError, ValueError) as error:
        raise ConfigurationError(str(error), key=f"devices.{name}") from error
