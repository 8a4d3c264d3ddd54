"""Measures the optical power behind every filter of both wheels."""

from __future__ import annotations

import time

from catkit_devices.demo.light import CLEAR, LIGHT, SPOT_HELD, switch_on, testbed_event
from catkit_devices.testbed import Experiment

__all__ = ["FilterScan"]


class FilterScan(Experiment):
    """Measures the optical power behind every filter of both wheels, several times each.

    Only one wheel is away from its clear position at a time. For each filter the scan holds the locks of the wheels and
    the power meter, until the wheel is back at its clear position. So other experiments always find a clear beam.

    Records each reading as the scalar ``power/<wheel>/<slot>`` (W). For each filter it also records the scalar
    ``turn``: for how many seconds it held the locks, at the time when it released them.

    Returns:
        The mean power in watts, by wheel and slot.
    """

    readings: int = 8
    """Number of readings behind each filter."""
    spot_timeout: float = 0.0
    """Seconds to wait until another experiment holds the spot; after that it measures without."""

    def pre_experiment(self) -> None:
        """Switch the light on, and wait until another experiment holds the spot, if that is asked for."""
        switch_on(self)
        if self.spot_timeout and not testbed_event(SPOT_HELD).wait(self.spot_timeout):
            self.logger.warning("no other experiment held the spot within %g s: measuring without", self.spot_timeout)

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
