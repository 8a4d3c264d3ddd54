"""``catkit-devices get``."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from catkit_devices._base.paths import words
from catkit_devices._base.summary import summary
from catkit_devices.cli.completion import devices_of_testbed
from catkit_devices.cli.options import ConfigFiles, Json, MutexTimeout, Overrides, Simulate, TestbedName
from catkit_devices.cli.output import console, plain_json, print_json, print_table
from catkit_devices.cli.reading import read_properties
from catkit_devices.plain import text_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from catkit_devices.testbed.client import TestbedClient

__all__ = ["EXAMPLES", "get"]

EXAMPLES = (
    "catkit-devices get wheel.position",
    "catkit-devices get wheel",
    "catkit-devices get wheel.position laser.current --json",
    "catkit-devices get supply.outputs.1.voltage",
    "catkit-devices get meter.power --config bench.toml --json",
)


def get(
    what: Annotated[
        list[str],
        typer.Argument(
            metavar="DEVICE[.PROPERTY]...",
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
    """Read properties of devices: one, several, or all of a device.

    The device belongs to a running testbed, or to one that is started from --config for this alone. The exit code is
    0 only when everything was read; the properties that could not be read are named on stderr, each cause once.
    """
    from catkit_devices.cli.attaching import attach_or_start

    # `get wheel position` means the same as `get wheel.position`; more words are more things to read.
    targets = [what] if len(what) == 2 and not any("." in word for word in what) else [[word] for word in what]
    with attach_or_start(testbed, configs, overrides, simulate=simulate) as client:
        if len(targets) == 1:
            _get(client, targets[0], timeout, as_json=as_json)
            return
        _get_several(client, targets, timeout, as_json=as_json)


def _get_several(client: TestbedClient, targets: Sequence[Sequence[str]], timeout: float, *, as_json: bool) -> None:
    """Read several things, waiting for all together no longer than ``timeout``; each may fail for itself."""
    deadline = time.monotonic() + timeout
    rows: list[dict[str, Any]] = []
    failures: list[Exception] = []
    for target in targets:
        try:
            device, _, properties, values = _values(client, target, max(0.0, deadline - time.monotonic()))
        except Exception as error:  # noqa: BLE001 - a driver may raise anything
            failures.append(error)
            of, _, member = ".".join(target).partition(".")
            rows.append({"device": of, "property": member or None, "unit": None, "error": str(error)})
            continue
        for name, value in values.items():
            row = {"device": device, "property": name, "unit": properties[name]["unit"]}
            if isinstance(value, Exception):
                failures.append(value)
                row["error"] = str(value)
            elif as_json:
                row |= plain_json(value)
            else:
                row["text"] = text_of(value, row["unit"])
            rows.append(row)
    if as_json:
        print_json(rows)
    else:
        for row in rows:
            if "text" in row:
                console().print(f"{row['device']}.{row['property']} = {row['text']}", markup=False)
    if failures:
        raise failures[0] if len(failures) == 1 else ExceptionGroup(f"{len(failures)} were not read", failures)


def _values(
    client: TestbedClient, what: Sequence[str], timeout: float
) -> tuple[str, dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Return the name of a device, its description, the properties that are meant, and the value or error of each."""
    from catkit_devices.cli.words import description_of, member_of, split
    from catkit_devices.errors import ConfigurationError

    target = split(what)
    if target.rest:
        raise ConfigurationError(f"expected a property, as in `get wheel.position`, got also {target.rest[0]!r}")
    device = client.devices[target.device]
    description = description_of(device, target.member)
    properties = _several(description["properties"], target.member)
    if not properties and target.member is not None:
        single, facts = member_of(description, "properties", target.member)
        properties = {single: facts}
        description = {**description, "single": single}
    return description["name"], description, properties, read_properties(device, properties, timeout)


def _get(client: TestbedClient, what: Sequence[str], timeout: float, *, as_json: bool) -> None:
    _, description, properties, values = _values(client, what, timeout)
    single = description.get("single")
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
                    summary(properties[name]["doc"]),
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
