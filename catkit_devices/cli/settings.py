"""Settings of devices as plain data: what can be read and set, to be kept in a file and set again."""

from __future__ import annotations

import enum
import math
from typing import TYPE_CHECKING, Any, NamedTuple

from catkit_devices._base.paths import get_at, set_at
from catkit_devices.cli.reading import read_properties
from catkit_devices.cli.words import description_of
from catkit_devices.multiprocessing.protocol import CALL
from catkit_devices.plain import kept

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Difference", "check", "differences", "restore", "settings_of"]

_SAME = 1e-9
"""Relative difference below which two numbers are the same setting: what is lost when one is sent as text."""


class Difference(NamedTuple):
    """One setting that is not as in the file: the value now (or why it is not known), and the one to be set."""

    name: str
    now: Any
    wanted: Any
    unit: str | None


def settings_of(device: Any, timeout: float) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """Return the settings of a device by name, each with value and unit; and why others are not known.

    A setting is a property that can be read and set, and whose value is a number, a text, a truth value or a choice.

    Args:
        device: its proxy; it is opened if it is closed.
        timeout: seconds to wait for other programs that hold it.
    """
    properties = description_of(device, None)["properties"]
    both = {name: facts for name, facts in properties.items() if facts["readable"] and facts["writable"]}
    known: dict[str, dict[str, Any]] = {}
    unknown: dict[str, str] = {}
    for name, read in read_properties(device, both, timeout).items():
        if isinstance(read, Exception):
            unknown[name] = str(read)
            continue
        try:
            known[name] = {"value": kept(read), "unit": both[name]["unit"]}
        except ValueError as error:
            unknown[name] = str(error)
    return known, unknown


def differences(device: Any, wanted: Mapping[str, Mapping[str, Any]], timeout: float) -> list[Difference]:
    """Return the settings of a device that are not as wanted, in the order in which they are to be set.

    What switches something off comes first, and what switches something on comes last.
    """
    now, unknown = settings_of(device, timeout)
    found = []
    for name, one in wanted.items():
        present = now[name]["value"] if name in now else unknown.get(name, "there is no such setting")
        if name not in now or not _same(present, one["value"]):
            found.append(Difference(name, present, one["value"], one.get("unit")))
    return sorted(found, key=lambda one: (one.wanted is True) - (one.wanted is False))


def check(device: Any, found: list[Difference]) -> dict[str, Exception]:
    """Return why settings would be refused now, by name; nothing is set."""
    return _each(found, lambda one: device._ask_(CALL, "_may_set_", (one.name, one.wanted), None))


def restore(device: Any, found: list[Difference]) -> tuple[list[str], dict[str, Exception]]:
    """Set what is different; return what was set, and why the rest was refused.

    What is refused is tried once more after the others, because its limits may depend on them. Nothing is switched on
    when something else was refused.
    """
    from catkit_devices.errors import SafetyError

    done: list[str] = []
    refused: dict[str, Exception] = {}
    plain = [one for one in found if one.wanted is not True]
    for _ in range(2):
        refused = _each([one for one in plain if one.name not in done], lambda one: _set(device, one, done))
        if not refused or any(isinstance(error, SafetyError) for error in refused.values()):
            break
    on = [one for one in found if one.wanted is True]
    if refused:
        error = RuntimeError("not switched on, because something else was refused")
        return done, {**refused, **{one.name: error for one in on}}
    return done, _each(on, lambda one: _set(device, one, done))


def _set(device: Any, one: Difference, done: list[str]) -> None:
    set_at(device, one.name, one.wanted)
    done.append(one.name)
    got = get_at(device, one.name)
    got = got.name if isinstance(got, enum.Enum) else got
    if not _same(got, one.wanted):
        raise ValueError(f"was set to {one.wanted!r}, and reads {got!r}")


def _each(found: list[Difference], do: Any) -> dict[str, Exception]:
    failed: dict[str, Exception] = {}
    for one in found:
        try:
            do(one)
        except Exception as error:  # noqa: BLE001 - a driver may raise anything, and the others are looked at all the same
            failed[one.name] = error
    return failed


def _same(one: Any, other: Any) -> bool:
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in (one, other))
    return math.isclose(one, other, rel_tol=_SAME) if numbers else type(one) is type(other) and bool(one == other)
