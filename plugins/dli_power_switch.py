"""Digital Loggers web power switches with the REST-style API: driver ``dli_power_switch``.

HTTP with digest authentication. Paths, header and body: Digital Loggers, "DLI REST-style API Reference", and
https://www.digital-loggers.com/rest.html, which also tells the two states of an outlet: ``state`` is what was ordered,
and ``physical_state`` is that of the relay, which may follow later. The API numbers outlets from 0; here, and on the
switch, they begin with 1. On the switch, "Allow REST-style API" must be on, and the user must be allowed to use it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from catkit_devices.components import Component, Components
from catkit_devices.errors import DeviceOpenError, DeviceProtocolError
from catkit_devices.hookspecs import hookimpl
from catkit_devices.properties import Control, Measurement

from ._http import HttpDevice

if TYPE_CHECKING:
    from collections.abc import Sequence

    from catkit_devices.device import Device

__all__ = ["DliPowerSwitch"]

_OUTLETS = "relay/outlets/"
"""Path of the outlets in the API."""
_SWITCHED_WITHIN = 3.0
"""Seconds within which a relay must follow: the switch can be set to delay outlets after each other."""


class Outlet(Component):
    """One outlet of the switch."""

    enabled = Control(
        lambda self: self._is_on(),
        lambda self, on: self._order(on),
        type=bool,
        shared=True,
        settles_within=_SWITCHED_WITHIN,
        until=lambda self, on: self._is_on() is on,
        doc="Power: on or off. Setting it returns when the relay has switched.",
    )
    label = Measurement(
        lambda self: self._read("name", str), type=str, shared=True, doc="Name of the outlet, as given on the switch."
    )

    def _read(self, what: str, kind: type) -> Any:
        return self.device._read_json(f"{_OUTLETS}{self.number - 1}/{what}/", kind)  # noqa: SLF001 - of its driver

    def _is_on(self) -> bool:
        return bool(self._read("physical_state", bool))

    def _order(self, on: bool) -> None:
        self.device._put(f"{_OUTLETS}{self.number - 1}/state/", "true" if on else "false")  # noqa: SLF001 - of its driver

    def _make_safe(self) -> None:
        if self.number in self.device._stay_on:  # noqa: SLF001 - of its driver
            return
        self._order(False)
        if not self.wait(lambda: not self._is_on(), _SWITCHED_WITHIN):
            raise DeviceProtocolError(f"outlet {self.number} is still on", **self._facts())


class DliPowerSwitch(HttpDevice):
    """A switch with outlets; it is safe when all are off, except for those in ``stay_on``.

    Args:
        address: of the switch, such as ``http://192.168.0.100``.
        user: the user on the switch. The password is in the configuration, so choose a user who may only switch.
        password: of that user.
        stay_on: numbers of outlets that making safe leaves as they are, because what they supply must not lose its
            power suddenly: a computer, a cooler, a vacuum pump.
    """

    root = "restapi"
    headers = {"X-CSRF": "x"}  # noqa: RUF012 - nothing changes it

    outlets = Components(Outlet, numbers=lambda self: self._numbers())

    def __init__(self, name: str, *, stay_on: Sequence[int] = (), **options: Any) -> None:
        super().__init__(name, **options)
        self._stay_on = tuple(stay_on)

    def _make_safe(self) -> None:
        """Switch the outlets off, except for those in ``stay_on``."""

    def _numbers(self) -> range:
        """Ask how many outlets there are; the first request, so it also finds out whether the switch answers."""
        count = len(self._read_json(_OUTLETS, list))
        if unknown := sorted(set(self._stay_on) - set(range(1, count + 1))):
            raise DeviceOpenError(f"stay_on names outlets {unknown}, but there are {count}", **self._facts())
        return range(1, count + 1)


@hookimpl
def catkit_devices_drivers() -> dict[str, type[Device]]:
    """Register the driver."""
    return {"dli_power_switch": DliPowerSwitch}
