"""An experiment's typed parameters as options of the command line."""

from __future__ import annotations

import ast
import inspect
import json
import textwrap
import typing
from typing import TYPE_CHECKING, Any

from catkit_devices.errors import ConfigurationError, nearest
from catkit_devices.plain import number_in
from catkit_devices.testbed.experiments.recorded_types import UNIONS, Form, form_of, forms

if TYPE_CHECKING:
    from collections.abc import Sequence

    from catkit_devices.testbed.experiments.experiment import Experiment
    from catkit_devices.testbed.experiments.parameters import Parameter

__all__ = ["parse_parameters", "print_parameters"]


def parse_parameters(experiment: type[Experiment], words: Sequence[str]) -> dict[str, Any]:
    """Return the parameters given as ``--name value`` or ``--name=value``; ``--flag`` and ``--no-flag`` for booleans.

    Dashes in names stand for underscores. A parameter that is a list may be given several times, or once as JSON;
    values that are not simple text (a dictionary, a dataclass, None) are given as JSON. The experiment checks the
    values when it is constructed.

    Raises:
        ConfigurationError: a word that is no parameter of the experiment, or one without its value.
    """
    parameters = experiment.parameters()
    options = {_option(name): name for name in parameters}
    flags = {option: name for option, name in options.items() if parameters[name].annotation is bool}
    negated = {f"--no-{option.removeprefix('--')}": name for option, name in flags.items()}
    found: dict[str, Any] = {}
    remaining = list(words)
    while remaining:
        option, equals, value = remaining.pop(0).partition("=")
        option = option.replace("_", "-")
        if option in negated and not equals:
            found[negated[option]] = False
            continue
        if option in flags and not equals:
            found[flags[option]] = True
            continue
        if option not in options:
            listed = ", ".join(options) or "it has none"
            raise ConfigurationError(
                f"{experiment.__name__} has no such parameter, expected one of {listed}",
                key=option, suggestion=nearest(option, options),
            )  # fmt: skip
        if not equals:
            if not remaining:
                raise ConfigurationError("expected a value after it", key=option)
            value = remaining.pop(0)
        name = options[option]
        _add(found, name, value, parameters[name].annotation)
    return found


def print_parameters(experiment: type[Experiment]) -> None:
    """Print what the experiment does and its parameters, as a part of a command's help."""
    from rich.text import Text

    from catkit_devices.cli.output import console, table

    out = console()
    summary = (inspect.getdoc(experiment) or "").partition("\n\n")[0].replace("\n", " ")
    if inspect.getdoc(experiment) == inspect.getdoc(experiment.__mro__[1]):
        summary = ""  # it has none of its own
    out.print(Text(f"{experiment.__name__}: {summary}" if summary else experiment.__name__))
    parameters = experiment.parameters()
    if not parameters:
        out.print(Text("It has no parameters."))
        return
    documented = _documented(experiment)
    made = table(f"parameters of {experiment.__name__}", "option", "type", "default", "what it is")
    for name, parameter in parameters.items():
        option = _option(name)
        if parameter.annotation is bool:
            option += f", --no-{option.removeprefix('--')}"
        default = "required" if parameter.required else repr(parameter.default)
        cells = (option, _type_name(parameter), default, documented.get(name, ""))
        made.add_row(*(Text(cell) for cell in cells))
    out.print(made)


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _add(found: dict[str, Any], name: str, value: str, annotation: Any) -> None:
    possible = forms(annotation)
    plain = _from_json(value)
    if possible - {Form.NOTHING} == {Form.LIST}:
        inner = {form for one in typing.get_args(_without_none(annotation))[:1] for form in forms(one)}
        item = plain if isinstance(plain, dict) and Form.OBJECT in inner else value
        found[name] = [*found.get(name, []), *(plain if isinstance(plain, list) else [item])]
    elif plain is not _NONE and Form.TEXT not in possible and form_of(plain) in possible:
        found[name] = plain
    else:
        found[name] = value


def _without_none(annotation: Any) -> Any:
    """Return ``list[int]`` of ``list[int] | None``."""
    if typing.get_origin(annotation) not in UNIONS:
        return annotation
    return next(one for one in typing.get_args(annotation) if one is not type(None))


_NONE = object()
"""Stands for the result of a text that is not JSON."""


def _from_json(text: str) -> Any:
    try:
        return json.loads(text, parse_float=number_in)
    except (ValueError, RecursionError):  # also a number that is too large
        return _NONE


def _type_name(parameter: Parameter) -> str:
    annotation = parameter.annotation
    if typing.get_origin(annotation) is typing.Literal:
        return ", ".join(str(choice) for choice in typing.get_args(annotation))
    return annotation.__name__ if type(annotation) is type else str(annotation).replace("typing.", "")


def _documented(experiment: type[Experiment]) -> dict[str, str]:
    """Return the docstrings below the parameters in the source, if the source can be read."""
    found: dict[str, str] = {}
    for ancestor in reversed(experiment.__mro__):
        try:
            (definition,) = ast.parse(textwrap.dedent(inspect.getsource(ancestor))).body
        except (OSError, TypeError, SyntaxError, ValueError):
            continue
        if not isinstance(definition, ast.ClassDef):
            continue
        for statement, below in zip(definition.body, definition.body[1:], strict=False):
            if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
                text = below.value if isinstance(below, ast.Expr) else None
                if isinstance(text, ast.Constant) and isinstance(text.value, str):
                    found[statement.target.id] = inspect.cleandoc(text.value).replace("\n", " ")
    return found
