"""The power behind every filter of both wheels."""

from __future__ import annotations

import time

from catkit_devices.demo.light import CLEAR, LIGHT, SPOT_HELD, switch_on, testbed_event
from catkit_devices.testbed import Experiment

__all__ = ["FilterScan"]


class FilterScan(Experiment):
    """Optical power behind every filter of both wheels, several readings each.

    Only one wheel is away from its clear position at a time. For each filter the scan has the light to itself, from
    the moment it turns the wheel until the wheel is back: whoever else uses the light in between finds it as it was.

    Records each reading as the scalar ``power/<wheel>/<slot>`` (W), and each of its turns as ``turn``: how long it had
    the light, in seconds, at the time when it gave it back.

    Returns:
        The mean power in watts, by wheel and slot.
    """

    readings: int = 8
    """How many readings behind each filter."""
    spot_timeout: float = 0.0
    """Seconds to wait for somebody to hold the spot, before measuring all the same."""

    def pre_experiment(self) -> None:
        """Have light, and have it in place where somebody sees to that."""
        switch_on(self)
        if self.spot_timeout and not testbed_event(SPOT_HELD).wait(self.spot_timeout):
            self.logger.warning("nobody held the spot within %g s", self.spot_timeout)

    def experiment(self) -> dict[str, dict[int, float]]:
        """Scan one wheel after the other."""
        steps = [(wheel, slot) for wheel in CLEAR for slot in range(1, self.devices[wheel].positions + 1)]
        means: dict[str, dict[int, float]] = {wheel: {} for wheel in CLEAR}
        for wheel, slot in self.track(steps, "filters"):
            with self.lock(*LIGHT):
                means[wheel][slot] = self._measure(wheel, slot)
        return means

    def _measure(self, wheel: str, slot: int) -> float:
        began = time.time()
        device, meter = self.devices[wheel], self.devices.meter
        total = 0.0
        try:
            device.position = slot
            for _ in range(self.readings):
                power = meter.power
                self.log_scalar(f"power/{wheel}/{slot}", power, "W")
                total += power
        finally:
            device.position = CLEAR[wheel]
        self.log_scalar("turn", time.time() - began, "s")
        return total / self.readings
