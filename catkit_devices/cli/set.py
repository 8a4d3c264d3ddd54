"""``catkit-devices set``."""

from __future__ import annotations

from typing import Annotated

import typer

from catkit_devices._base.paths import get_at, set_at
from catkit_devices.cli.completion import devices_of_testbed
from catkit_devices.cli.options import ConfigFiles, Json, MutexTimeout, Overrides, Simulate, TestbedName
from catkit_devices.cli.output import console, print_json, reason_for_null

__all__ = ["EXAMPLES", "SETTINGS", "set_"]

EXAMPLES = (
    "catkit-devices set wheel.position 3",
    'catkit-devices set laser.current "50 mA"',
    "catkit-devices set laser.enabled off --testbed bench",
    "catkit-devices set supply.outputs.1.voltage 2.5",
)
# A negative number is a value, not an option.
SETTINGS = {"ignore_unknown_options": True}


def set_(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="DEVICE.PROPERTY VALUE",
            show_default=False,
            autocompletion=devices_of_testbed,
            help="What to set, and to what.",
        ),
    ],
    testbed: TestbedName = None,
    configs: ConfigFiles = [],
    overrides: Overrides = [],
    simulate: Simulate = None,
    timeout: MutexTimeout = 10.0,
    as_json: Json = False,
) -> None:
    """Set a property of a device.

    The device belongs to a running testbed, or to one that is started from --config for this alone; that one makes
    its devices safe and closes them when it is done.
    """
    from catkit_devices.cli.attaching import attach_or_start, without_exit
    from catkit_devices.cli.words import description_of, member_of, property_value, split, text_of
    from catkit_devices.errors import ConfigurationError

    target = split(words)
    if target.member is None or not target.rest:
        raise ConfigurationError(
            f"expected a property and a value, as in `set wheel.position 3`, got {' '.join(words)}"
        )
    with attach_or_start(testbed, configs, overrides, simulate=simulate) as client:
        device = client.devices[target.device]
        description = description_of(device, target.member)
        name, facts = member_of(description, "properties", target.member)
        if not facts["writable"]:
            raise ConfigurationError(f"device {description['name']!r}: {name!r} can only be read")
        with device.lock(timeout=timeout), without_exit(f"device {description['name']!r}: {name}"):
            if facts["type"] is None and facts["readable"]:
                # The setting declares no type; its present value shows it. `off` must not become a text, because every
                # non-empty text counts as true.
                facts = {**facts, "type": type(get_at(device, name)).__name__}
            value = property_value(" ".join(target.rest), facts)
            set_at(device, name, value)
            if facts["readable"]:
                value = get_at(device, name)
    if as_json:
        print_json({
            "device": description["name"], "property": name, "value": value, "unit": facts["unit"],
            **reason_for_null(value),
        })  # fmt: skip
        return
    unit = facts["unit"] if facts["readable"] else None
    console().print(f"{description['name']}.{name} = {text_of(value, unit)}", markup=False)
