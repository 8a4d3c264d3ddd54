"""``catkit-devices get``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from catkit_devices.cli.completion import devices_of_testbed
from catkit_devices.cli.options import ConfigFiles, Json, MutexTimeout, Overrides, Simulate, TestbedName
from catkit_devices.cli.output import console, print_json, print_table

__all__ = ["EXAMPLES", "get"]

EXAMPLES = (
    "catkit-devices get wheel.position",
    "catkit-devices get wheel",
    "catkit-devices get meter.power --config bench.toml --json",
)


def get(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="DEVICE[.PROPERTY]",
            show_default=False,
            autocompletion=devices_of_testbed,
            help="What to read; a device alone: all its properties.",
        ),
    ],
    testbed: TestbedName = None,
    configs: ConfigFiles = [],  # noqa: B006 - typer wants a list and copies it
    overrides: Overrides = [],  # noqa: B006
    simulate: Simulate = None,
    timeout: MutexTimeout = 10.0,
    as_json: Json = False,
) -> None:
    """Read a property of a device.

    The device belongs to a running testbed, or to one that is started from --config for this alone.
    """
    from catkit_devices.cli.attaching import attach_or_start
    from catkit_devices.cli.words import member_of, split, text_of
    from catkit_devices.errors import CatkitDevicesError, ConfigurationError

    target = split(words)
    if target.rest:
        raise ConfigurationError(f"expected one property, as in `get wheel.position`, got also {target.rest[0]!r}")
    with attach_or_start(testbed, configs, overrides, simulate=simulate) as client:
        device = client.devices[target.device]
        description = device.describe()
        if target.member is not None:
            facts = member_of(description, "properties", target.member)
            value = _read(device, target.member, facts, timeout)
            if as_json:
                print_json({
                    "device": description["name"], "property": target.member, "value": value, "unit": facts["unit"],
                })  # fmt: skip
            else:
                name = f"{description['name']}.{target.member}"
                console().print(f"{name} = {text_of(value, facts['unit'])}", markup=False)
            return
        values: dict[str, Any] = {}
        for name, facts in description["properties"].items():
            if facts["readable"]:
                try:
                    values[name] = _read(device, name, facts, timeout)
                except CatkitDevicesError as error:  # one that cannot be read now keeps none of the others from it
                    values[name] = error
    if as_json:
        print_json({
            "device": description["name"],
            "driver": description["driver"],
            "properties": {
                name: {"error": str(value)} if isinstance(value, Exception)
                else {"value": value, "unit": description["properties"][name]["unit"]}
                for name, value in values.items()
            },
        })  # fmt: skip
        return
    print_table(
        f"{description['name']} ({description['driver']})", ["property", "value", "what it is"],
        [
            (
                name, f"error: {value}" if isinstance(value, Exception)
                else text_of(value, description["properties"][name]["unit"]),
                (description["properties"][name]["doc"] or "").partition("\n")[0],
            )
            for name, value in values.items()
        ],
    )  # fmt: skip


def _read(device: Any, name: str, facts: dict[str, Any], timeout: float) -> Any:
    if facts["shared"]:
        return getattr(device, name)
    with device.lock(timeout=timeout):
        return getattr(device, name)
