"""What pydantic found, as messages that a user can act on."""

from __future__ import annotations

import typing
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from catkit_devices.errors import ConfigurationError, nearest

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pydantic import ValidationError

    from catkit_devices.testbed.configuration.overlay import Overlay

__all__ = ["combined", "explain", "reworded"]

_MAX_SHOWN = 20
"""Problems that are listed; the rest is counted."""


def combined(problems: Sequence[ConfigurationError]) -> ConfigurationError:
    """Return one error that lists the problems, or the problem itself if it is the only one."""
    if len(problems) == 1:
        return problems[0]
    shown = [f"  {problem}" for problem in problems[:_MAX_SHOWN]]
    if len(problems) > _MAX_SHOWN:
        shown.append(f"  and {len(problems) - _MAX_SHOWN} more")
    return ConfigurationError("\n".join([f"{len(problems)} problems in the configuration", *shown]))


def explain(error: ValidationError, model: type[BaseModel], overlay: Overlay) -> list[ConfigurationError]:
    """Return the problems that pydantic found, each with its place in the file and the nearest right spelling."""
    found = [_explain_one(detail, model, overlay) for detail in error.errors(include_url=False)]
    return list({str(problem): problem for problem in found}.values())


def _explain_one(detail: Any, model: type[BaseModel], overlay: Overlay) -> ConfigurationError:
    path = tuple(part for part in detail["loc"] if part != "[key]")
    kind = detail["type"]
    if kind == "extra_forbidden":
        known = _fields_at(model, path[:-1])
        return overlay.problem(path, f"unknown key, expected one of {', '.join(known)}", nearest(str(path[-1]), known))
    if kind == "missing":
        return _missing(path, detail["input"], model, overlay)
    return overlay.problem(path, reworded(detail))


def reworded(detail: Any) -> str:
    """Return one problem that pydantic found in the words of this framework: what was expected, and what was found."""
    text = str(detail["msg"]).removeprefix("Value error, ")
    if detail["type"] == "value_error":
        return text
    text = text.replace("Input should be", "expected").replace("Input should have", "expected")
    return f"{text}, got {_shown(detail['input'])}"


def _missing(
    path: tuple[Any, ...], table: Mapping[str, Any], model: type[BaseModel], overlay: Overlay
) -> ConfigurationError:
    key = str(path[-1])
    misspelt = nearest(key, [name for name in table if name not in _fields_at(model, path[:-1])])
    text = "is missing"
    if misspelt is not None:
        text += f", found {misspelt!r} instead"
        return overlay.problem(path, text, key)
    # If the table has no other key, its name is most probably spelt wrongly.
    siblings = _table_at(overlay.data, path[:-2])
    others = [name for name, sibling in siblings.items() if isinstance(sibling, dict) and key in sibling]
    return overlay.problem(path, text, nearest(str(path[-2]), others) if len(path) > 1 else None)


def _table_at(data: Mapping[str, Any], path: Iterable[Any]) -> Mapping[str, Any]:
    for part in path:
        below = data.get(part)
        if not isinstance(below, dict):
            return {}
        data = below
    return data


def _fields_at(model: type[BaseModel], path: Iterable[Any]) -> list[str]:
    """Return the keys that the model declares for the table at a path."""
    annotation: Any = model
    for part in path:
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            declared = annotation.model_fields.get(str(part))
            annotation = declared.annotation if declared else None
        else:
            arguments = typing.get_args(annotation)
            annotation = arguments[1] if len(arguments) > 1 and typing.get_origin(annotation) is dict else None
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return list(annotation.model_fields)
    return []


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
