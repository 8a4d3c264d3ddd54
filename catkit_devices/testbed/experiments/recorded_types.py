"""Which types parameters may have: in the record of a run, which is JSON, no two types may look alike."""

from __future__ import annotations

import collections.abc
import dataclasses
import enum
import itertools
import pathlib
import types
import typing
from typing import Any

__all__ = ["UNIONS", "Form", "form_of", "forms", "is_named_tuple", "refuse_alike"]

UNIONS = (typing.Union, types.UnionType)
"""The origins of ``Union[a, b]`` and of ``a | b``."""


class Form(enum.Enum):
    """The kinds of values that JSON has."""

    NOTHING = "null"
    TRUTH = "a truth value"
    WHOLE = "a whole number"
    NUMBER = "a number"
    TEXT = "a text"
    LIST = "a list"
    OBJECT = "a dictionary"


_NUMBERS = frozenset({Form.TRUTH, Form.WHOLE, Form.NUMBER})
"""Kinds that Python takes for one another."""


@dataclasses.dataclass(frozen=True)
class _Alternative:
    """One of the types that a value may be of."""

    kind: Any
    """The class, without the types of its items."""
    forms: frozenset[Form]
    """The kinds of JSON values as which its values are written, or from which they are read."""
    annotation: Any
    listed: tuple[Any, ...] = ()
    """All values that there are: the members of an enumeration, the choice of a Literal."""


def form_of(value: Any) -> Form:
    """Return the kind of a value that was read from JSON."""
    if value is None:
        return Form.NOTHING
    for kind, form in _PLAIN:
        if isinstance(value, kind):
            return form
    return Form.LIST if isinstance(value, list) else Form.OBJECT


_PLAIN = ((bool, Form.TRUTH), (int, Form.WHOLE), (float, Form.NUMBER), (str, Form.TEXT))
"""The kind of plain values; bool is first because it is an int too."""


def forms(annotation: Any) -> set[Form]:
    """Return all kinds that values of a type have in JSON; none for a type that may be anything."""
    return {form for one in _alternatives(annotation) for form in one.forms}


def is_named_tuple(annotation: Any) -> bool:
    """Return whether a type is a NamedTuple's."""
    return isinstance(annotation, type) and issubclass(annotation, tuple) and hasattr(annotation, "_fields")


def refuse_alike(what: str, annotation: Any) -> None:
    """Raise TypeError if a record could not say which alternative of a type was meant, however deep in the type.

    Args:
        what: is of that type; for the message.
        annotation: the type.
    """
    _refuse(what, [annotation], set())


def _refuse(what: str, annotations: list[Any], seen: set[Any]) -> None:
    """Check types that the same place in a record may have."""
    alternatives = [one for annotation in annotations for one in _alternatives(annotation)]
    _refuse_words(what, alternatives)
    for one, other in itertools.combinations(alternatives, 2):
        if _same(one, other) or _listed_apart(one, other) or _tell_themselves(one, other):
            continue
        common = one.forms & other.forms
        if common:
            form = min(common, key=list(Form).index).value
            raise TypeError(
                f"{what}: {_name(one)} and {_name(other)} are both {form} in the record of a run, which could not tell "
                "which was meant: leave one of them out"
            )
        if _would_take(one, other):
            raise TypeError(
                f"{what}: {_name(one)} would be read where the record of a run has {_name(other)}: put {_name(other)} "
                "before it, or leave one of them out"
            )
    places: dict[tuple[Any, Any], list[Any]] = {}
    for one in alternatives:
        for place, inner in _inside(one):
            places.setdefault((one.kind, place), []).append(inner)
    for (kind, place), inner in places.items():
        if (kind, place) in seen and isinstance(place, str):  # a class that contains itself
            continue
        if place is Form.TEXT:
            _refuse_keys(what, inner)
        _refuse(what, inner, {*seen, (kind, place)})


def _refuse_keys(what: str, annotations: list[Any]) -> None:
    """Check types that the keys of a dictionary may have: each key is written as a text."""
    alternatives = [one for annotation in annotations for one in _alternatives(annotation)]
    for one, other in itertools.combinations(alternatives, 2):
        numbers = (one.forms | other.forms) & _NUMBERS
        if not _same(one, other) and (numbers or not _listed_apart(one, other)):
            raise TypeError(
                f"{what}: keys are texts in the record of a run, which could not tell {_name(one)} from "
                f"{_name(other)}: leave one of them out"
            )
    for one in alternatives:
        if one.forms & {Form.NOTHING, Form.LIST, Form.OBJECT}:
            raise TypeError(f"{what}: {_name(one)} cannot be a key in the record of a run, where keys are texts")


def _refuse_words(what: str, alternatives: list[_Alternative]) -> None:
    """Refuse two types of which a member or a choice is written with the same text.

    A text that is ambiguous within one enumeration is refused only when it is given as a value.
    """
    known: dict[Any, Any] = {}
    for one in alternatives:
        for choice in one.listed:
            member = isinstance(choice, enum.Enum)
            if member and any(other.kind is str and not other.listed for other in alternatives):
                kind = type(choice).__qualname__
                raise TypeError(f"{what}: a text could be a member of {kind} or a text: leave one of them out")
            for word in _words(choice) if member else [(type(choice), choice)]:
                other = known.setdefault(word, choice)
                if other is not choice and type(other) is not type(choice):
                    raise TypeError(f"{what}: {word[1]!r} could be {other!r} or {choice!r}: leave one of them out")


def _words(member: enum.Enum) -> set[tuple[type, Any]]:
    """Return what is written for a member in a record or on a command line, each with its type."""
    words: set[tuple[type, Any]] = {(str, member.name)}
    if isinstance(member.value, str):
        words.add((str, member.value))
    elif isinstance(member, int | float):
        words |= {(kind, member.value) for kind in (bool, int, float)}  # pydantic accepts each of these for the member
    return words


def _alternatives(annotation: Any) -> list[_Alternative]:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in UNIONS:
        return [one for inner in arguments for one in _alternatives(inner)]
    if origin is typing.Annotated:
        return _alternatives(arguments[0])
    if origin is typing.Literal:
        return [_listed(choice) for choice in arguments]
    if annotation is None or annotation is type(None):
        return [_Alternative(type(None), frozenset({Form.NOTHING}), annotation)]
    if hasattr(annotation, "__supertype__"):  # of a NewType
        return _alternatives(annotation.__supertype__)
    kind = origin if isinstance(origin, type) else annotation
    if not isinstance(kind, type) or kind is object:  # anything
        return []
    if isinstance(kind, enum.EnumMeta):
        return [_Alternative(kind, _forms_of_members(kind), annotation, tuple(kind))]
    return [_Alternative(kind, frozenset({_form_of_class(kind)}), annotation)]


def _listed(choice: Any) -> _Alternative:
    kind = type(choice)
    form = _forms_of_members(kind) if isinstance(kind, enum.EnumMeta) else frozenset({_form_of_class(kind)})
    return _Alternative(kind, form if choice is not None else frozenset({Form.NOTHING}), choice, (choice,))


def _forms_of_members(kind: type) -> frozenset[Form]:
    if issubclass(kind, enum.Flag):  # also a number, as text too: that of several members together
        return frozenset({Form.TEXT, *_NUMBERS})
    return _NUMBERS if issubclass(kind, int | float) else frozenset({Form.TEXT})


def _form_of_class(kind: type) -> Form:
    for plain, form in _PLAIN:
        if issubclass(kind, plain):
            return form
    if issubclass(kind, bytes | bytearray):
        return Form.TEXT
    if issubclass(kind, collections.abc.Mapping) or _fields(kind) is not None:
        return Form.LIST if is_named_tuple(kind) else Form.OBJECT
    is_list = issubclass(kind, collections.abc.Collection) or hasattr(kind, "tolist")
    return Form.LIST if is_list else Form.TEXT


def _fields(kind: Any) -> dict[str, bool] | None:
    """Return the fields of a class that is made of fields, and which of them are required; None for any other class."""
    if dataclasses.is_dataclass(kind):
        missing = dataclasses.MISSING
        return {one.name: one.default is missing and one.default_factory is missing for one in dataclasses.fields(kind)}
    if is_named_tuple(kind):
        return {name: name not in kind._field_defaults for name in kind._fields}
    if hasattr(kind, "model_fields"):  # of pydantic
        return {name: field.is_required() for name, field in kind.model_fields.items()}
    if hasattr(kind, "__required_keys__"):  # a TypedDict
        return {name: name in kind.__required_keys__ for name in kind.__annotations__}
    return None


def _same(one: _Alternative, other: _Alternative) -> bool:
    """Return whether a value that is read again is of one class, whichever of two alternatives was meant."""
    return one.kind is other.kind


def _listed_apart(one: _Alternative, other: _Alternative) -> bool:
    """Return whether all values of two alternatives are known, so that their words tell them apart.

    Those of a Flag are not: there are also those in which several are set.
    """
    return all(each.listed and not issubclass(each.kind, enum.Flag) for each in (one, other))


def _would_take(one: _Alternative, other: _Alternative) -> bool:
    """Return whether the first, which pydantic tries first, accepts what was written for the second.

    Then the value would have the wrong type.
    """
    if one.listed:
        return False
    if one.kind in (int, float, bool):  # it takes "5" and "true"
        return other.forms == {Form.TEXT} and not other.listed and _made_of_digits(other.kind)
    if one.forms == {Form.TEXT} and not issubclass(one.kind, str | bytes | bytearray | pathlib.PurePath):
        return bool(other.listed and other.forms & _NUMBERS and isinstance(other.listed[0], enum.Enum))
    return False


def _made_of_digits(kind: Any) -> bool:
    """Return whether a text of digits may be a value of the class, as for a path or a decimal."""
    if issubclass(kind, str | bytes | bytearray):  # looked for first, before any number
        return False
    try:
        kind("5")
    except Exception:  # noqa: BLE001 - a user's class may raise any error
        return False
    return True


def _tell_themselves(one: _Alternative, other: _Alternative) -> bool:
    """Return whether two classes are told apart by fields: each requires one that the other does not have."""
    of_one, of_other = _fields(one.kind), _fields(other.kind)
    if of_one is None or of_other is None or Form.OBJECT not in one.forms & other.forms:
        return False
    return all(
        any(required and name not in those for name, required in these.items())
        for these, those in ((of_one, of_other), (of_other, of_one))
    )


def _inside(alternative: _Alternative) -> list[tuple[Any, Any]]:
    """Return the types of a container's items, each with its place; keys of a dictionary are at ``Form.TEXT``."""
    kind, arguments = alternative.kind, typing.get_args(alternative.annotation)
    if alternative.listed:
        return []
    if _fields(kind) is not None:
        return list(typing.get_type_hints(kind).items())
    if alternative.forms == {Form.OBJECT} and arguments:  # a Counter has keys only
        return [(Form.TEXT, arguments[0]), *((Form.OBJECT, inner) for inner in arguments[1:])]
    if issubclass(kind, tuple) and arguments and arguments[-1] is not ...:
        return list(enumerate(arguments))
    return [(Form.LIST, inner) for inner in arguments if inner is not ...]


def _name(alternative: _Alternative) -> str:
    annotation = alternative.annotation
    if alternative.listed:
        return repr(annotation) if len(alternative.listed) == 1 else alternative.kind.__qualname__
    if annotation is None or annotation is type(None):
        return "None"
    plain = type(annotation) is type or not hasattr(annotation, "__args__")
    return str(getattr(annotation, "__qualname__", annotation)) if plain else str(annotation).replace("typing.", "")
