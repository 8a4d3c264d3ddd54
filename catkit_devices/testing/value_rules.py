"""Rules for values: what was set is read back, and a value that is not allowed is refused before it is sent."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from catkit_devices._base.paths import get_at, set_at
from catkit_devices.errors import DeviceError, DeviceValueError
from catkit_devices.properties import Quantity
from catkit_devices.testing.members import bounds, facts_of, owner_of, quantities, resolution_of, same, values_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from catkit_devices.testing.rig import Rig

__all__ = ["refused_values", "refuses", "refuses_outside", "round_trips"]

_NONSENSE = (None, "nonsense", [1.0, 2.0], object)
"""Values that every quantity must refuse."""
_NO_NUMBERS = (math.nan, math.inf, -math.inf, 9.9e37, 9.91e37, *_NONSENSE)
"""Values that every number must refuse; 9.9E37 and 9.91E37 mean infinity and NaN in SCPI."""


class _ViolationError(Exception):
    """Says how an example has broken the rule."""


def round_trips(rig: Rig, name: str, quantity: Quantity, resolution: float | None, examples: int) -> str | None:
    """Set a quantity to values from its whole range, and read each back; return what was wrong.

    Args:
        rig: with its device open.
        name: of the property.
        quantity: its declaration.
        resolution: by how much what is read may differ from what was set; None for a thousandth of the range.
        examples: how many values.
    """
    facts = facts_of(rig.device, name, quantity)
    strategy = _inside(facts)
    within = resolution_of(facts, resolution)
    given_values = rig.case.values.get(name)
    if given_values:
        strategy = st.sampled_from(list(given_values))
    if strategy is None:
        return f"{name}: say what it can be set to: values = {{{name!r}: [...]}}"

    def check(value: Any) -> None:
        set_at(rig.device, name, value)
        if not quantity.readable:
            return
        found = get_at(rig.device, name)
        if not same(found, value, within):
            raise _ViolationError(f"{name} was set to {value!r} and reads {found!r} (resolution {within:g})")
        try:
            set_at(rig.device, name, found)
        except DeviceValueError:  # the instrument has rounded it to a value just outside of the limits
            return
        again = get_at(rig.device, name)
        if not same(again, found):
            raise _ViolationError(f"{name} read {found!r}, was then set to this value, and now reads {again!r}")

    return _explore(check, strategy, [] if given_values else values_of(facts), examples)


def refuses_outside(rig: Rig, name: str, quantity: Quantity, examples: int) -> str | None:
    """Try to set a quantity to values that it must refuse; return those that were accepted, or sent before."""
    facts = facts_of(rig.device, name, quantity)
    for value in [*refused_values(facts), *rig.case.refused.get(name, ())]:
        if problem := refuses(rig, name, value):
            return problem
    outside = _outside(facts)
    if outside is None:
        return None

    def check(value: Any) -> None:
        if problem := refuses(rig, name, value):
            raise _ViolationError(problem)

    return _explore(check, outside, [], examples)


def refuses(rig: Rig, name: str, value: Any) -> str | None:
    """Try to set one value that must be refused; return what happened instead."""
    before = rig.written
    try:
        set_at(rig.device, name, value)
    except DeviceValueError:
        problem = None
    except DeviceError as error:
        problem = f"{name} = {value!r} must raise a DeviceValueError, raised {type(error).__name__}: {error}"
    except Exception as error:  # noqa: BLE001 - whatever a driver raises
        problem = f"{name} = {value!r} must raise a DeviceValueError, raised {error!r}"
    else:
        problem = f"{name} = {value!r} must be refused, and was accepted"
    sent = [] if rig.tap is None else [one.data for one in rig.tap.written[before:]]
    member = quantities(rig.device).get(name)
    always_wrong = any(value is one for one in _NO_NUMBERS)  # whatever the limits are, so nothing need be asked
    if sent and member is not None and not always_wrong:
        sent = [data for data in sent if data not in _queries_for_limits(rig, name, member)]
    if sent:
        problem = f"{name} = {value!r} must be refused before anything is sent; {sent[0]!r} was sent"
    return problem


def _queries_for_limits(rig: Rig, name: str, member: Quantity) -> set[bytes]:
    """Return what is sent to read the properties that the limits of a quantity depend on."""
    owner, before = owner_of(rig.device, name), rig.written
    for whose, other in member.limits_read(owner):
        getattr(whose, other)
    return set() if rig.tap is None else {one.data for one in rig.tap.written[before:]}


def refused_values(facts: Mapping[str, Any]) -> Iterator[Any]:
    """Return values that a quantity must refuse, by its type and limits."""
    if facts["choices"] is not None:
        yield from ("no such choice", None, object)
    elif facts["type"] == "bool":
        yield from (2, None, "perhaps", object)
    elif facts["type"] == "str":
        yield from ("two\nlines", "\0", 5, None)
    elif facts["type"] in ("int", "float"):
        low, high = facts["limits"] or (None, None)
        if facts["type"] == "int":
            yield 0.5 + math.floor(bounds(facts)[0])
        yield from _NO_NUMBERS
        yield from (True, False)
        if low is not None:
            yield from (math.nextafter(low, -math.inf), low - 1)
        if high is not None:
            yield from (math.nextafter(high, math.inf), high + 1)


def _inside(facts: Mapping[str, Any]) -> st.SearchStrategy[Any] | None:
    if facts["choices"] is not None:
        return st.sampled_from(list(facts["choices"]))
    if facts["type"] == "bool":
        return st.booleans()
    low, high = bounds(facts)
    if facts["type"] == "int":
        return st.integers(math.ceil(low), math.floor(high))
    if facts["type"] == "float":
        return st.floats(low, high, allow_nan=False, allow_subnormal=False)
    return None


def _outside(facts: Mapping[str, Any]) -> st.SearchStrategy[Any] | None:
    low, high = facts["limits"] or (None, None)
    sides: list[st.SearchStrategy[Any]] = []
    if facts["type"] == "int":
        sides += [st.integers(max_value=math.ceil(low) - 1)] if low is not None else []
        sides += [st.integers(min_value=math.floor(high) + 1)] if high is not None else []
    elif facts["type"] == "float":
        sides += [st.floats(max_value=low, exclude_max=True)] if low is not None else []
        sides += [st.floats(min_value=high, exclude_min=True)] if high is not None else []
    return st.one_of(sides) if sides else None


def _explore(check: Any, strategy: st.SearchStrategy[Any], first: list[Any], examples: int) -> str | None:
    """Check the values ``first``, then examples of a strategy; return the text of the simplest violation."""
    test = given(strategy)(check)
    for value in first:
        test = example(value)(test)
    settled = settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
    )
    try:
        settled(test)()
    except _ViolationError as violation:
        return str(violation)
    return None
