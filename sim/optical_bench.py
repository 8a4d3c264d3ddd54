"""The bundled bench: a laser, two filter wheels, a steering mirror, a pinhole with a power meter, and a camera.

The light of a four-channel laser goes through a wheel of neutral density filters and a wheel of colour filters. A
tip/tilt mirror on a piezo stage steers it. One part goes to a camera, which sees the spot; the other goes to a pinhole
in the same plane, behind which there is a power meter. The spot drifts slowly; the mirror can bring it back.
Temperature and humidity of the room drift too.

The numbers are plausible; they were not measured on a real bench.
"""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, NamedTuple

from catkit_devices.errors import ConfigurationError
from catkit_devices.hookspecs import hookimpl
from catkit_devices.sim.models import Diode, Drift, Laser, PiezoAxis, Wheel
from catkit_devices.simulation import Bench

if TYPE_CHECKING:
    from collections.abc import Sequence

    from catkit_devices.simulation import Clock

__all__ = ["OpticalBench", "Spot"]

_PLANCK_TIMES_LIGHT = 1.986446e-25  # J m

#: Wavelength, maximum and threshold current, maximum power. The wavelengths and maximum currents are those of one
#: MCLS1 as github ChrisDelaX/HCIFS ``HCIFS/Device/Source/MCLS1.py`` lists them; thresholds and powers are plausible.
DIODES = (
    Diode(635.0, 68.09, 30.0, 2.5, "SIM-635-01"),
    Diode(658.0, 63.89, 28.0, 9.5, "SIM-658-02"),
    Diode(670.0, 41.59, 18.0, 1.5, "SIM-670-03"),
    Diode(705.0, 67.39, 32.0, 8.0, "SIM-705-04"),
)

#: The parts of the light behind the filters that go to the pinhole, and (strongly attenuated) to the camera.
TO_PINHOLE = 0.8
TO_CAMERA = 5e-9

#: Responsivity of a silicon photodiode in A/W at wavelengths in nm, a rough curve.
_RESPONSIVITY = ((350.0, 0.05), (400.0, 0.10), (500.0, 0.24), (600.0, 0.35), (700.0, 0.45), (800.0, 0.53),
                 (950.0, 0.62), (1000.0, 0.55), (1100.0, 0.12))  # fmt: skip


class Spot(NamedTuple):
    """The spot on the camera: its photons per second; its position and width (Gaussian sigma), in µm."""

    photons: float
    x: float
    y: float
    sigma: float


class OpticalBench(Bench):
    """The bench model ``optical``.

    True values, for tests and for comparison: :meth:`true_power`, :meth:`true_offset`, :meth:`drift_offset`,
    :meth:`transmission`, :meth:`true_temperature`, :meth:`true_humidity`, :attr:`laser`, :meth:`wheel`, :meth:`axis`.
    Hold :attr:`lock` to read several of them together while instruments are in use.

    Args:
        clock: the bench's.
        seed: of the drifts and of all noise.
        densities: optical densities of the ND wheel's filters.
        centres: nm, of the colour wheel's band passes.
        bandwidth: nm, full width at half maximum of each band pass.
        drift: µm, roughly how far the spot drifts.
        drift_period: s, of the slowest part of the drift.
        spot_size: µm, Gaussian sigma of the spot.
        pinhole: µm, the offset of the spot (as a Gaussian sigma) at which the light through the pinhole has fallen to
            exp(-1/2).
        lever: µm of spot movement for each µrad of the mirror.
        temperature: °C, around which the room's temperature drifts.
        humidity: %RH, around which its humidity drifts.
        humidity_rise: %RH per minute by which the humidity rises, as if the supply of dry air had failed.
        noise: factor on all noise of the power meter, the sensors and the position readings; with 0 they are exact.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        seed: int = 0,
        densities: Sequence[float] = (0.0, 0.3, 0.6, 1.0, 2.0, 3.0),
        centres: Sequence[float] = (580.0, 600.0, 620.0, 635.0, 650.0, 680.0),
        bandwidth: float = 40.0,
        drift: float = 60.0,
        drift_period: float = 60.0,
        spot_size: float = 25.0,
        pinhole: float = 40.0,
        lever: float = 0.4,
        temperature: float = 21.0,
        humidity: float = 22.0,
        humidity_rise: float = 0.0,
        noise: float = 1.0,
    ) -> None:
        super().__init__(clock=clock, seed=seed)
        for name, value in {
            "bandwidth": bandwidth,
            "drift_period": drift_period,
            "spot_size": spot_size,
            "pinhole": pinhole,
        }.items():
            if not value > 0:
                raise ConfigurationError(f"{name} must be above 0, got {value!r}")
        if not noise >= 0:
            raise ConfigurationError(f"noise must not be negative, got {noise!r}")
        self.laser = Laser(clock, DIODES)
        self.noise = noise
        self._filters = {"nd": tuple(densities), "colour": tuple(centres)}
        self._wheels: dict[str, Wheel] = {}
        self._axes = {number: PiezoAxis(clock) for number in (1, 2)}
        self._bandwidth = bandwidth
        self._spot_size = spot_size
        self._pinhole = pinhole
        self._lever = lever
        self._room = (temperature, humidity, humidity_rise)
        self._drifts = [Drift(self.rng(f"drift {axis}"), drift, drift_period) for axis in "xy"]
        self._wanderings = [
            Drift(self.rng(f"{what} of the room"), size, 1800.0)
            for what, size in (("temperature", 0.4), ("humidity", 0.8))
        ]

    # --- what instruments use

    def wheel(self, role: str) -> Wheel:
        """Return the wheel ``"nd"`` or ``"colour"``, for the one instrument that drives it."""
        if role not in self._filters:
            raise ConfigurationError(f"role must be one of {', '.join(self._filters)} on this bench, got {role!r}")
        if role in self._wheels:
            raise ConfigurationError(f"two instruments have the role {role!r}")
        self._wheels[role] = Wheel(self.clock, len(self._filters[role]))
        return self._wheels[role]

    def axis(self, number: int) -> PiezoAxis:
        """Return axis 1 (moves the spot along x) or 2 (along y) of the mirror."""
        return self._axes[number]

    def meter_power(self, wavelength: float) -> float:
        """Return the reading of a power meter behind the pinhole, in W, if it is set to ``wavelength`` in nm."""
        weighted = sum(power * _responsivity(nm) for nm, power in self._through_pinhole(None))
        reading = weighted / _responsivity(wavelength)
        relative, absolute = (float(draw) for draw in self.rng("power meter").standard_normal(2))
        return reading * (1 + 1e-3 * self.noise * relative) + 5e-10 * self.noise * absolute

    def spot(self, time: float | None = None) -> Spot:
        """Return the spot on the camera, now or at ``time``."""
        x, y = self.true_offset(time)
        photons = sum(TO_CAMERA * power * nm * 1e-9 / _PLANCK_TIMES_LIGHT for nm, power in self._filtered(time))
        return Spot(photons, x, y, self._spot_size)

    def temperature(self) -> float:
        """Return the reading of a temperature sensor, in °C."""
        return self.true_temperature() + 0.02 * self.noise * float(self.rng("temperature").standard_normal())

    def humidity(self) -> float:
        """Return the reading of a humidity sensor, in %RH."""
        return self.true_humidity() + 0.05 * self.noise * float(self.rng("humidity").standard_normal())

    # --- true values

    def true_power(self, time: float | None = None) -> float:
        """Return the power behind the pinhole, in W."""
        return sum(power for _nm, power in self._through_pinhole(time))

    def true_offset(self, time: float | None = None) -> tuple[float, float]:
        """Return where the spot is, (x, y) in µm from the pinhole, now or at ``time``."""
        at = self.clock.time() if time is None else time
        x, y = self.drift_offset(at)
        return x + self._lever * self._axes[1].position(at), y + self._lever * self._axes[2].position(at)

    def drift_offset(self, time: float | None = None) -> tuple[float, float]:
        """Return where the spot would be if the mirror had stayed in the middle of its range, (x, y) in µm."""
        at = self.clock.time() if time is None else time
        return self._drifts[0].value(at), self._drifts[1].value(at)

    def coupling(self, time: float | None = None) -> float:
        """Return the share of the light at the pinhole that gets through it: 1 when the spot is centred."""
        x, y = self.true_offset(time)
        return math.exp(-(x * x + y * y) / (2 * self._pinhole**2))

    def transmission(self, wavelength: float, time: float | None = None) -> float:
        """Return the transmission of both wheels at ``wavelength`` in nm; 0 while one moves, 1 without a wheel."""
        through = 1.0
        for role, wheel in self._wheels.items():
            position = wheel.in_beam(time)
            through *= 0.0 if position is None else self._filter(role, position, wavelength)
        return through

    def true_temperature(self) -> float:
        """Return the room's temperature in °C."""
        return self._room[0] + self._wanderings[0].value(self.clock.time())

    def true_humidity(self) -> float:
        """Return the room's relative humidity in %."""
        now = self.clock.time()
        return self._room[1] + self._wanderings[1].value(now) + self._room[2] * now / 60

    def _filter(self, role: str, position: int, wavelength: float) -> float:
        if position > len(self._filters[role]):
            return 0.0  # a wheel that was set to twelve positions: the others have no opening
        value = self._filters[role][position - 1]
        if role == "nd":
            return float(10.0**-value)
        return 1e-4 + 0.9 * math.exp(-4 * math.log(2) * ((wavelength - value) / self._bandwidth) ** 2)

    def _filtered(self, time: float | None) -> list[tuple[float, float]]:
        """Return (wavelength in nm, power in W) behind the filters for each channel of the laser."""
        return [
            (diode.wavelength, 1e-3 * self.laser.power(channel, time) * self.transmission(diode.wavelength, time))
            for channel, diode in enumerate(self.laser.diodes)
        ]

    def _through_pinhole(self, time: float | None) -> list[tuple[float, float]]:
        share = TO_PINHOLE * self.coupling(time)
        return [(wavelength, share * power) for wavelength, power in self._filtered(time)]


def _responsivity(wavelength: float) -> float:
    points = _RESPONSIVITY
    if wavelength <= points[0][0]:
        return points[0][1]
    for (low, at_low), (high, at_high) in itertools.pairwise(points):
        if wavelength <= high:
            return at_low + (at_high - at_low) * (wavelength - low) / (high - low)
    return points[-1][1]


@hookimpl
def catkit_devices_benches() -> dict[str, type]:
    """Register the bench."""
    return {"optical": OpticalBench}
