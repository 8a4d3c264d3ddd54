r"""Thorlabs MCLS1 four-channel laser source: driver ``thorlabs_mcls1``, one device for each channel.

The dialogue is that of :mod:`catkit_devices.plugins._thorlabs_prompt`. No page of a manual was found for the commands.
``id?`` (not ``*idn?``) and ``specs?`` are from github epics-containers/ibek-runtime-streamdevice
``thorlabsMcls1/thorlabsMcls1.proto`` and its simulator; ``channel``, ``enable``, ``system``, ``current`` (mA),
``power?`` (mW), ``target`` and ``temp?`` (°C) are there and in github spacetelescope/catkit
``catkit/hardware/thorlabs/ThorlabsMCLS1.py`` or github ChrisDelaX/HCIFS ``HCIFS/Device/Source/MCLS1.py`` too.

``channel=n`` selects the channel for the commands that follow. All devices at this address share the selection, so to
select and to send a command is one transaction on the wire. The devices of the other channels have the same address.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from catkit_devices.errors import ConfigurationError, DeviceProtocolError, DeviceTimeoutError
from catkit_devices.hookspecs import hookimpl
from catkit_devices.interfaces import LaserSource
from catkit_devices.properties import Control, Measurement

from ._thorlabs_prompt import PromptDevice

if TYPE_CHECKING:
    from catkit_devices.device import Device

__all__ = ["MCLS1"]

_OF_THE_BOX = frozenset({"id", "channel", "system", "statword", "step", "save"})
"""Commands that are the same whichever channel is chosen."""


class MCLS1(PromptDevice, LaserSource):
    """One channel of the source; it is safe when the channel is off.

    Args:
        name: the device's name.
        channel: 1 to 4.
        **options: of :class:`~catkit_devices.visa.VisaDevice`.
    """

    identity = r"THORLABS MCLS"

    current = Control(
        "current?",
        "current={:.2f}",
        unit="mA",
        limits=lambda self: (0.0, self._maximum_current),
        doc="Drive current of the channel, in steps of 0.01 mA, up to the operating current of its laser diode.",
    )
    power = Measurement("power?", unit="mW", doc="Optical power of the channel; settles about 2 s after a change.")
    temperature = Measurement("temp?", unit="degC", doc="Temperature of the channel's diode.", shared=True)
    target_temperature = Control(
        "target?",
        "target={:.2f}",
        unit="degC",
        limits=(20.0, 30.0),  # from the simulator of ibek-runtime-streamdevice, named above
        doc="Temperature to which the channel's diode is controlled.",
    )
    system = Control("system?", "system={}", type=bool, doc="Master switch of all four channels.")

    def __init__(self, name: str, *, channel: int = 1, **options: Any) -> None:
        super().__init__(name, **options)
        if isinstance(channel, bool) or channel not in (1, 2, 3, 4):
            raise ConfigurationError(f"channel must be 1 to 4, got {channel!r}", key=f"devices.{name}.channel")
        self._channel = channel
        self._maximum_current = 0.0

    @property
    def channel(self) -> int:
        """Number of the channel, 1 to 4."""
        return self._channel

    @property
    def enabled(self) -> bool:
        """Emission of the channel: on only if both the channel's own switch and the master switch are on.

        Setting it to True also switches the master on. Setting it to False leaves the master on, for other channels.
        """
        return self._query("enable?") == "1" and self._query("system?") == "1"

    @enabled.setter
    def enabled(self, value: bool) -> None:
        if type(self).system.check(self, value):
            self._switch("enable", 1)
            self._switch("system", 1)
        else:
            self._switch("enable", 0)

    def _identify(self) -> None:
        self._check_identity(self._query("id?"))
        # "IOp" is the operating current of the laser diode in this channel; it is used as the limit.
        specifications = self._query("specs?")
        found = re.search(r"^\W*IOp\W+(\d+(?:\.\d+)?)", specifications, re.MULTILINE)
        if found is None:
            raise DeviceProtocolError(f"the diode's IOp was expected, got {specifications!r}", **self._facts("specs?"))
        self._maximum_current = float(found[1])

    def _query(self, command: str, timeout: float | None = None) -> str:
        with self._transaction():
            self._select(command)
            return super()._query(command, timeout)

    def _write(self, command: str) -> None:
        with self._transaction():
            self._select(command)
            super()._write(command)

    def _select(self, command: str) -> None:
        if re.split("[=?]", command)[0] not in _OF_THE_BOX:
            self._confirm(f"channel={self._channel}")

    def _switch(self, what: str, state: int) -> None:
        with self._transaction():
            self._write(f"{what}={state}")
            found = self._query(f"{what}?")
        if found != str(state):
            raise DeviceProtocolError(
                f"{what} was set to {state}, but {found!r} was read back", **self._facts(f"{what}={state}")
            )

    def _make_safe(self) -> None:
        """Switch the channel off; the other channels, and the master switch, stay as they are."""
        try:
            self._switch("enable", 0)
        except (DeviceTimeoutError, DeviceProtocolError):
            # Once more: to switch off twice does no harm, and the laser must not stay on because one reply was lost.
            self._switch("enable", 0)


@hookimpl
def catkit_devices_drivers() -> dict[str, type[Device]]:
    """Register the driver."""
    return {"thorlabs_mcls1": MCLS1}
