"""``catkit-devices set``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any

import typer

from catkit_devices._base.paths import get_at, set_at
from catkit_devices.cli.completion import devices_of_testbed
from catkit_devices.cli.options import ConfigFiles, Json, MutexTimeout, Overrides, Simulate, TestbedName
from catkit_devices.cli.output import console, print_json, reason_for_null
from catkit_devices.cli.words import description_of, member_of, split
from catkit_devices.errors import ConfigurationError
from catkit_devices.multiprocessing.protocol import CALL
from catkit_devices.plain import property_value, text_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from catkit_devices.testbed.client import TestbedClient

__all__ = ["EXAMPLES", "SETTINGS", "set_"]

EXAMPLES = (
    "catkit-devices set wheel.position 3",
    'catkit-devices set laser.current "50 mA"',
    "catkit-devices set laser.enabled off --testbed bench",
    "catkit-devices set wheel.position=3 laser.current=50 --dry-run",
    "catkit-devices set supply.outputs.1.voltage 2.5",
)
# A negative number is a value, not an option.
SETTINGS = {"ignore_unknown_options": True}


def set_(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="DEVICE.PROPERTY[=]VALUE...",
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
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check type, limits and permission; send nothing that sets anything.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Set a property of a device, or several of several devices, in this order.

    All devices are locked together, and every value is checked for its type before the first is set. If one is refused
    by its device, those before it stay set, and the error says which.

    The device belongs to a running testbed, or to one that is started from --config for this alone; that one makes
    its devices safe and closes them when it is done.
    """
    from catkit_devices.cli.attaching import attach_or_start, without_exit

    with attach_or_start(testbed, configs, overrides, simulate=simulate) as client:
        wanted = [_Wanted(client, one) for one in _each(words)]
        with client.lock(*dict.fromkeys(one.description["name"] for one in wanted), timeout=timeout):
            # Every value is checked before any is set, so that a spelling mistake in the last one changes nothing.
            for one in wanted:
                one.check(full=dry_run)
            for number, one in enumerate([] if dry_run else wanted):
                try:
                    with without_exit(f"device {one.description['name']!r}: {one.name}"):
                        one.set()
                except Exception as error:
                    if len(wanted) > 1:
                        done = ", ".join(before.called for before in wanted[:number]) or "none"
                        error.add_note(f"set before that: {done}; not set: {_names(wanted[number:])}")
                    raise
    if as_json:
        rows = [one.as_json(dry_run=dry_run) for one in wanted]
        print_json(rows[0] if len(rows) == 1 else rows)
        return
    for one in wanted:
        would = "would be set to " if dry_run else "= "
        console().print(f"{one.called} {would}{text_of(one.value, one.unit)}", markup=False)


def _each(words: Sequence[str]) -> list[Sequence[str]]:
    """Return the words of each setting: ``a.x=1 b.y=2`` are two, ``a.x 1`` is one."""
    several = [re.match(r"\w+\.[^=\s]+=", word) is not None for word in words]
    return [[word] for word in words] if all(several) else [words]


def _names(wanted: Sequence[_Wanted]) -> str:
    return ", ".join(one.called for one in wanted)


class _Wanted:
    """One property that is to be set.

    Args:
        client: of the testbed.
        words: that say it.

    Raises:
        ConfigurationError: there is no such property, or it can only be read.
    """

    def __init__(self, client: TestbedClient, words: Sequence[str]) -> None:
        target = split(words)
        if target.member is None or not target.rest:
            raise ConfigurationError(
                f"expected a property and a value, as in `set wheel.position 3`, got {' '.join(words)}"
            )
        self._text = " ".join(target.rest)
        self._device = client.devices[target.device]
        self.description = description_of(self._device, target.member)
        self.name, self._facts = member_of(self.description, "properties", target.member)
        self.value: Any = None
        if not self._facts["writable"]:
            raise ConfigurationError(f"device {self.description['name']!r}: {self.name!r} can only be read")

    @property
    def called(self) -> str:
        """Device and property."""
        return f"{self.description['name']}.{self.name}"

    @property
    def unit(self) -> str | None:
        """The unit of ``value``."""
        return self._facts["unit"] if self._facts["readable"] else None

    def check(self, *, full: bool) -> None:
        """Make the value of the text; if ``full``, have the device check it too, which sends nothing."""
        if self._facts["type"] is None and self._facts["readable"]:
            # The setting declares no type; its present value shows it. `off` must not become a text, because every
            # non-empty text counts as true.
            self._facts = {**self._facts, "type": type(get_at(self._device, self.name)).__name__}
        self.value = property_value(self._text, self._facts)
        if full:
            self.value = self._device._ask_(CALL, "_may_set_", (self.name, self.value), None)

    def set(self) -> None:
        """Set it, and read it back if it can be read."""
        set_at(self._device, self.name, self.value)
        if self._facts["readable"]:
            self.value = get_at(self._device, self.name)

    def as_json(self, *, dry_run: bool) -> dict[str, Any]:
        """Return what was set, or would be, as plain data."""
        told = {"device": self.description["name"], "property": self.name, "value": self.value,
                "unit": self._facts["unit"], **reason_for_null(self.value)}  # fmt: skip
        return told | ({"dry_run": True} if dry_run else {})
