"""``catkit-devices get``."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from catkit_devices._base.paths import get_at, words
from catkit_devices._base.standby import all_at_once
from catkit_devices.cli.completion import devices_of_testbed
from catkit_devices.cli.options import ConfigFiles, Json, MutexTimeout, Overrides, Simulate, TestbedName
from catkit_devices.cli.output import console, plain_json, print_json, print_table

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["EXAMPLES", "get"]

EXAMPLES = (
    "catkit-devices get wheel.position",
    "catkit-devices get wheel",
    "catkit-devices get supply.outputs.1.voltage",
    "catkit-devices get meter.power --config bench.toml --json",
)

_LOOK = 0.1
"""Seconds between two looks whether somebody else has the device."""


def get(
    what: Annotated[
        list[str],
        typer.Argument(
            metavar="DEVICE[.PROPERTY]",
            show_default=False,
            autocompletion=devices_of_testbed,
            help="What to read; a device alone, or a component of it: all its properties.",
        ),
    ],
    testbed: TestbedName = None,
    configs: ConfigFiles = [],
    overrides: Overrides = [],
    simulate: Simulate = None,
    timeout: MutexTimeout = 10.0,
    as_json: Json = False,
) -> None:
    """Read a property of a device, or all of them.

    The device belongs to a running testbed, or to one that is started from --config for this alone. The exit code is
    0 only when everything was read; the properties that could not be read are named on stderr, each cause once.
    """
    from catkit_devices.cli.attaching import attach_or_start
    from catkit_devices.cli.words import description_of, member_of, split, text_of
    from catkit_devices.errors import ConfigurationError

    target = split(what)
    if target.rest:
        raise ConfigurationError(f"expected one property, as in `get wheel.position`, got also {target.rest[0]!r}")
    with attach_or_start(testbed, configs, overrides, simulate=simulate) as client:
        device = client.devices[target.device]
        description = description_of(device, target.member)
        properties = _several(description["properties"], target.member)
        single = None
        if not properties and target.member is not None:
            single, facts = member_of(description, "properties", target.member)
            properties = {single: facts}
        values = _read(device, properties, timeout)
    failed = {name: value for name, value in values.items() if isinstance(value, Exception)}
    if single is not None:
        if failed:
            raise failed[single]
        value, unit = values[single], properties[single]["unit"]
        if as_json:
            shown = plain_json(value)
            print_json({"device": description["name"], "property": single, "unit": unit, **shown})
        else:
            console().print(f"{description['name']}.{single} = {text_of(value, unit)}", markup=False)
        return
    show = _as_json if as_json else text_of
    shown = {}
    for name, value in values.items():
        if name in failed:
            continue
        try:
            shown[name] = show(value, properties[name]["unit"])
        except Exception as error:  # noqa: BLE001 - a driver's class may raise anything when it is looked at
            failed[name] = error
    if as_json:
        print_json({
            "device": description["name"],
            "driver": description["driver"],
            "properties": {
                name: {"error": str(failed[name])} if name in failed else shown[name] for name in values
            },
        })  # fmt: skip
    else:
        print_table(
            f"{description['name']} ({description['driver']})", ["property", "value", "what it is"],
            [
                (
                    name, "not read" if name in failed else shown[name],
                    (properties[name]["doc"] or "").partition("\n")[0],
                )
                for name in values
            ],
        )  # fmt: skip
    if failed:
        raise ExceptionGroup(f"{len(failed)} of {len(values)} properties were not read", _causes(failed))


def _several(properties: dict[str, Any], member: str | None) -> dict[str, Any]:
    """Return the properties of a device that can be read, or those of a component; none if one is meant."""
    before = () if member is None else words(member)
    return {
        name: facts
        for name, facts in properties.items()
        if facts["readable"] and len(path := words(name)) > len(before) and path[: len(before)] == before
    }


def _as_json(value: Any, unit: str | None) -> dict[str, Any]:
    return {"unit": unit} | plain_json(value)


def _causes(failed: dict[str, Exception]) -> list[Exception]:
    """Return each cause once, with a note of which properties it kept from being read."""
    names: dict[tuple[type, str], list[str]] = {}
    causes: dict[tuple[type, str], Exception] = {}
    for name, error in failed.items():
        key = (type(error), str(error))
        causes.setdefault(key, error)
        names.setdefault(key, []).append(name)
    for key, error in causes.items():
        error.add_note(f"not read: {', '.join(names[key])}")
    return list(causes.values())


def _read(device: Any, properties: dict[str, Any], timeout: float) -> dict[str, Any]:
    """Return the value of each property, or the error if it could not be read.

    It waits at most ``timeout`` seconds in total for other programs that hold the device, however many properties there
    are; for the instrument itself as long as that takes.
    """
    from catkit_devices.errors import MutexTimeoutError

    values: dict[str, Any] = {}
    deadline = time.monotonic() + timeout
    shared = [name for name, facts in properties.items() if facts["shared"]]
    # They run between the operations of the holder, while this thread waits until the device is free.
    aside = all_at_once({"reads": partial(_read_each, device, shared, values)}, "shared")["reads"]
    exclusive = [name for name in properties if name not in shared]
    if exclusive:
        try:
            with device.lock(timeout=timeout):
                _read_each(device, exclusive, values)
        except Exception as error:  # noqa: BLE001 - somebody else has it, or it was taken away
            values |= {name: error for name in exclusive if name not in values}
    aside.wait(max(0.0, deadline - time.monotonic()))
    while not aside.wait(_LOOK):  # the instrument itself is slow
        holder = device.mutex.holder
        if holder is not None:
            late = MutexTimeoutError(device.name, timeout, str(holder))
            values = dict.fromkeys(shared, late) | values
            break
    return {name: values[name] for name in properties}


def _read_each(device: Any, names: Sequence[str], values: dict[str, Any]) -> None:
    """Put the value of each property into ``values``, or the error if it cannot be read; then read the others, too."""
    from catkit_devices.cli.attaching import without_exit
    from catkit_devices.errors import (
        DeviceClosedError,
        DeviceDisconnectedError,
        DeviceFaultError,
        DeviceOpenError,
        MutexError,
        SafetyError,
        ServerError,
    )

    of_all = (
        DeviceClosedError, DeviceDisconnectedError, DeviceFaultError, DeviceOpenError, MutexError, SafetyError,
        ServerError,
    )  # fmt: skip
    for number, name in enumerate(names):
        try:
            with without_exit(f"device {device.name!r}: {name}"):
                values[name] = get_at(device, name)
        except of_all as error:  # no property can be read: each try may take long
            values |= dict.fromkeys(names[number:], error)
            return
        except Exception as error:  # noqa: BLE001 - a driver's mistake may raise anything
            values[name] = error
