"""How devices, members and values are written on the command line, and how values are shown."""

from __future__ import annotations

import contextlib
import functools
import importlib
from typing import TYPE_CHECKING, Any, NamedTuple

from catkit_devices._base.paths import item, same_path
from catkit_devices._base.paths import words as words_of
from catkit_devices.errors import ComponentNotFoundError, ConfigurationError, nearest
from catkit_devices.plain import converted, literal, property_value, safe_text, text_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = [
    "Target",
    "arguments",
    "description_of",
    "literal",
    "member_of",
    "property_value",
    "safe_text",
    "split",
    "text_of",
]


class Target(NamedTuple):
    """A device, a member of it (None for all), and the words that follow."""

    device: str
    member: str | None
    rest: tuple[str, ...]


def split(words: Sequence[str]) -> Target:
    """Take ``wheel.position 3`` apart; ``wheel position 3`` and ``wheel.position=3`` mean the same."""
    first, *rest = words
    before, equals, value = first.partition("=")
    if equals:
        first, rest = before, [value, *rest]
    device, dot, member = first.partition(".")
    if not dot and rest and not equals:
        member, *rest = rest
        before, equals, value = member.partition("=")
        if equals:
            member, rest = before, [value, *rest]
    return Target(device, member.removesuffix("()") or None, tuple(rest))


def description_of(device: Any, member: str | None) -> dict[str, Any]:
    """Return what ``describe()`` of a device tells, with the components that are known while it is open only.

    Args:
        device: the proxy of one; it is opened if that is needed.
        member: what is asked for; None for everything.
    """
    description: dict[str, Any] = device.describe()
    if description.get("grows"):
        with device:  # opened, it can tell what it has
            description = device.describe()
    unknown = [name for name, about in description["components"].items() if about["keys"] is None]
    wanted = [name for name in unknown if member is None or words_of(member)[0] == name]
    if not wanted:
        return description
    for name in wanted:
        with contextlib.suppress(ComponentNotFoundError):  # one that is not fitted
            found = getattr(device, name)
            if not description["components"][name]["single"]:
                len(found)
    return device.describe()  # type: ignore[no-any-return]  # plain data, by whatever proxy


def member_of(description: Mapping[str, Any], kind: str, name: str | None) -> tuple[str, dict[str, Any]]:
    """Return the name of a device's property or command, as the device spells it, and its description.

    Args:
        description: of the device, as its ``describe()`` returns it.
        kind: ``properties`` or ``commands``.
        name: of the member.

    Raises:
        ConfigurationError: there is none of that name; says what there is.
    """
    members = description[kind]
    found = None if name is None else same_path(name, members)
    if found is not None:
        return found, members[found]
    singular, other = ("property", "commands") if kind == "properties" else ("command", "properties")
    if name is not None and same_path(name, description[other]) is not None:
        verbs = "`call` runs" if other == "commands" else "`get` and `set` are for"
        problem = f"{name!r} is no {singular}: {verbs} {other}"
    elif name is not None and (absent := _absent(description, name)) is not None:
        raise ConfigurationError(f"device {description['name']!r}: {absent}")
    else:
        of_one = [known for known in members if name and words_of(known)[:-1] == words_of(name)[:-1] != ()]
        listed = ", ".join(of_one or members) or "none"
        problem = f"expected a {singular} ({listed}), got {name!r}" if name else f"say which {singular}: {listed}"
    raise ConfigurationError(
        f"device {description['name']!r}: {problem}", suggestion=nearest(name, members) if name else None
    )


def _absent(description: Mapping[str, Any], path: str) -> str | None:
    """Return which components or arguments exist, if the path names one that does not; None for other paths."""
    several = {name: about["keys"] for name, about in description.get("components", {}).items() if not about["single"]}
    several |= {name: facts["arguments"] for name, facts in description["properties"].items() if "arguments" in facts}
    wanted = words_of(path)
    for name, keys in several.items():
        known = words_of(name)
        if wanted[: len(known)] != known or len(wanted) == len(known) or keys is None:
            continue
        word = wanted[len(known)]
        if word not in map(str, keys):
            there = ", ".join(map(repr, keys)) or "none"
            return f"there is no {item(name, int(word) if word.isdecimal() else word)}, there are {there}"
    return None


def arguments(words: Sequence[str], command: str, facts: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any]]:
    """Return the arguments of a command, positional and by name (``name=value``), of the types it declares.

    Args:
        words: what is written behind the command.
        command: its name.
        facts: its description, as :func:`catkit_devices._device.members.describe_command` returns it.
    """
    parameters: Mapping[str, Mapping[str, Any]] = facts["parameters"]
    named = {name for name, one in parameters.items() if one["kind"] in ("POSITIONAL_OR_KEYWORD", "KEYWORD_ONLY")}
    placed = [one for one in parameters.values() if one["kind"] in ("POSITIONAL_ONLY", "POSITIONAL_OR_KEYWORD")]
    rest = next((one for one in parameters.values() if one["kind"] == "VAR_POSITIONAL"), None)
    of_any_name = next((one for one in parameters.values() if one["kind"] == "VAR_KEYWORD"), None)
    positional: list[Any] = []
    by_name: dict[str, Any] = {}
    for word in words:
        name, equals, value = word.partition("=")
        one = parameters[name] if name in named else of_any_name if name.isidentifier() else None
        if equals and one is not None:
            by_name[name] = _argument(value, name, one)
            continue
        place = placed[len(positional)] if len(positional) < len(placed) else rest
        if place is None:
            raise ConfigurationError(f"{command}{facts['signature']} takes no more arguments, got {word!r}")
        positional.append(_argument(word, command, place))
    return positional, by_name


def _argument(text: str, of: str, parameter: Mapping[str, Any]) -> Any:
    """Return what a text says for a parameter of a command; for an enumeration its member, by name or value."""
    if not parameter["enum"]:
        return converted(text, parameter["type"])
    from catkit_devices._device.values import Rule

    module, _, path = parameter["type"].partition(":")
    try:
        kind = functools.reduce(getattr, path.split("."), importlib.import_module(module))
    except (ImportError, AttributeError) as error:
        raise ConfigurationError(f"{of}: {path}, of which it takes a member, cannot be imported: {error}") from error
    try:
        return Rule(str, None, kind).convert(text)
    except ValueError as error:
        raise ConfigurationError(f"{of} {error}") from error
