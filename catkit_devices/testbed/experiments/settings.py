"""The settings of the devices of a testbed, for the record of a run: as they are at its start and at its end.

Reading them must not disturb anybody. So no device is opened, none is locked, and it takes a limited time: what has not
answered by then is named, and the run goes on.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import time
from typing import TYPE_CHECKING, Any

from catkit_devices._base.paths import get_at
from catkit_devices._base.standby import all_at_once
from catkit_devices.errors import ComponentNotFoundError, in_one_line
from catkit_devices.plain import kept

if TYPE_CHECKING:
    from collections.abc import Mapping

    from catkit_devices.testbed.devices.devices import Devices

__all__ = ["settings_of_all"]


def settings_of_all(devices: Devices, testbed: str, limit: float, left_out: Mapping[str, str]) -> dict[str, Any]:
    """Return the settings of every device that is open, in the form of ``catkit-devices snapshot``.

    A setting is a property that can be read and set. One that is shared is read in any case, another only while nobody
    has the device. Of each device, ``not_read`` says why settings were not read, and ``problem`` why it was given up;
    ``closed`` names the devices that are not open.

    Args:
        devices: of the testbed.
        testbed: its name.
        limit: seconds for all of them together.
        left_out: the devices that are not asked, and why.
    """
    looks = {name: _Look(devices, name) for name in devices}
    for name, why in left_out.items():
        looks[name].give_up(why)
    deadline = time.monotonic() + limit
    asked = {name: look.read for name, look in looks.items() if name not in left_out}
    for name, errand in all_at_once(asked, "settings of").items():
        if not errand.wait(max(0.0, deadline - time.monotonic())):
            looks[name].give_up(f"no answer in {limit:g} s")
        elif errand.failure is not None:
            looks[name].give_up(in_one_line(errand.failure))
    return {
        "testbed": testbed,
        "time": dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds"),
        "devices": {name: look.found() for name, look in looks.items() if look.is_open or look.problem is not None},
        "closed": [name for name, look in looks.items() if not look.is_open and look.problem is None],
    }


class _Look:
    """Reads the settings of one device, in a thread of its own."""

    def __init__(self, devices: Devices, name: str) -> None:
        self._devices = devices
        self._name = name
        self._settings: dict[str, dict[str, Any]] = {}
        self._not_read: dict[str, str] = {}
        self.is_open = False
        self.problem: str | None = None

    def found(self) -> dict[str, Any]:
        """Return what is known now."""
        return {"settings": dict(self._settings), "not_read": dict(self._not_read), "problem": self.problem}

    def give_up(self, problem: str) -> None:
        """Read no more, because of a problem; what is being read now ends by itself."""
        self.problem = problem

    def read(self) -> None:
        """Read every setting; one that cannot be read does not keep it from the others."""
        device = self._devices.made(self._name)
        if device is None or device.state != "open":
            return
        self.is_open = True
        for name, facts in _described(device)["properties"].items():
            if self.problem is not None:
                return
            if not (facts["readable"] and facts["writable"]):
                continue
            if not facts["shared"] and (holder := device.mutex.holder) is not None:
                self._not_read[name] = f"in use by {holder.process!r}, and not shared"
                continue
            try:
                self._settings[name] = {"value": kept(get_at(device, name)), "unit": facts["unit"]}
            except (ConnectionError, TimeoutError):
                raise  # nothing else could be read either, and each try would keep the device busy
            except Exception as error:  # noqa: BLE001 - a driver may raise anything
                self._not_read[name] = in_one_line(error)


def _described(device: Any) -> dict[str, Any]:
    """Return the description of an open device, with the components that are known while it is open only."""
    described: dict[str, Any] = device.describe()
    unknown = {name: about["single"] for name, about in described["components"].items() if about["keys"] is None}
    for name, single in unknown.items():
        with contextlib.suppress(ComponentNotFoundError):  # one that is not fitted
            found = getattr(device, name)
            if not single:
                len(found)
    return device.describe() if unknown else described
