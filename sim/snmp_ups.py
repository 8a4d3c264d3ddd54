"""A stand-in for a UPS with the UPS-MIB (RFC 1628): ``stand_in = "catkit_devices.sim.snmp_ups:Ups"``.

It stands in for the SNMP agent, so under simulation no packet is sent and pysnmp is not needed. A battery that is full
lasts for half an hour and is charged in four hours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from catkit_devices.simulation import Clock

__all__ = ["Ups"]

_UPS_MIB = "1.3.6.1.2.1.33.1."
"""The UPS-MIB (RFC 1628)."""
_LASTS, _CHARGED_IN = 1800.0, 14400.0  # seconds
_LOW = 20.0
"""Percent of charge below which the battery is low."""


class Ups:
    """A UPS with one phase.

    Args:
        clock: of the simulation.
        charge: percent of charge at the beginning.
        fails_after: seconds after which the mains fail; None for never.
        fails_for: seconds after which they come back; None for never.
    """

    def __init__(
        self, clock: Clock, *, charge: float = 100.0, fails_after: float | None = None, fails_for: float | None = None
    ) -> None:
        self._clock = clock
        self._charge = charge
        self._start = clock.time()
        self._fails = float("inf") if fails_after is None else fails_after
        self._returns = float("inf") if fails_for is None else self._fails + fails_for

    def get(self, oid: str) -> str:
        """Return the value of an object, as text.

        Raises:
            ValueError: there is no such object.
        """
        if (value := self._objects().get(oid.removeprefix(_UPS_MIB))) is None:
            raise ValueError("it answers noSuchName")
        return str(value)

    def close(self) -> None:
        """Do nothing: there is no connection."""

    def _objects(self) -> dict[str, str | int]:
        now = self._clock.time() - self._start
        mains = not self._fails <= now < self._returns
        lasted = min(max(now, self._fails), self._returns) - self._fails if now > self._fails else 0.0
        since = now - self._returns if now > self._returns else 0.0
        charge = max(self._charge - 100 * lasted / _LASTS, 0.0)
        charge = min(charge + 100 * since / _CHARGED_IN, 100.0)
        supplied = mains or charge > 0
        return {
            "1.1.0": "catkit_devices",
            "1.2.0": "Simulated UPS",
            "2.1.0": 4 if charge == 0 else 3 if charge < _LOW else 2,
            "2.2.0": 0 if mains else int(lasted),
            "2.3.0": int(charge / 100 * _LASTS / 60),
            "2.4.0": int(charge),
            "2.5.0": int(480 + 0.6 * charge),  # 0.1 V
            "2.7.0": 25,
            "3.3.1.2.1": 500 if mains else 0,  # 0.1 Hz
            "3.3.1.3.1": 230 if mains else 0,
            "4.1.0": 3 if mains else 5 if supplied else 2,
            "4.4.1.2.1": 230 if supplied else 0,
            "4.4.1.5.1": 40 if supplied else 0,
            "6.1.0": 0 if mains else 1,
        }
