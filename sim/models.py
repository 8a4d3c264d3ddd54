"""The physics of single parts, for any bench: lags, wheels, laser diodes, piezo axes, slow drifts.

Everything is a function of the clock's time, so no simulation step is needed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

    from catkit_devices.simulation import Clock

__all__ = ["Diode", "Drift", "Lag", "Laser", "MotorAxis", "PiezoAxis", "Wheel"]


class Lag:
    """A quantity that follows its target exponentially.

    Args:
        clock: the bench's.
        value: the target and the actual value at the start.
        time_constant: s; with 0 it follows at once.
    """

    def __init__(self, clock: Clock, value: float, time_constant: float) -> None:
        self._clock = clock
        self._from = self._target = value
        self._since = clock.time()
        self._time_constant = time_constant

    @property
    def target(self) -> float:
        """The value that it approaches."""
        return self._target

    def go(self, target: float, time_constant: float | None = None) -> None:
        """Follow a new target, from the present value; with another time constant if one is given."""
        self._from, self._since = self.value(), self._clock.time()
        self._target = target
        if time_constant is not None:
            self._time_constant = time_constant

    def value(self, time: float | None = None) -> float:
        """Return the value now, or at ``time``, which must be later than the last change of the target."""
        passed = max((self._clock.time() if time is None else time) - self._since, 0.0)
        if self._time_constant <= 0 or math.isinf(self._time_constant):
            return self._target if self._time_constant <= 0 else self._from
        return self._target + (self._from - self._target) * math.exp(-passed / self._time_constant)


class Wheel:
    """A wheel with numbered positions that turns the shorter way round.

    Args:
        clock: the bench's.
        positions: how many there are.
        position: at the start.
    """

    def __init__(self, clock: Clock, positions: int = 6, position: int = 1) -> None:
        self._clock = clock
        self.positions = positions
        self._target = position
        self._arrival = -math.inf
        self._start = -math.inf
        self._origin = position

    def move(self, target: int, *, start: float, seconds_per_step: float) -> float:
        """Begin to move at the time ``start``; return how long it takes, in seconds."""
        steps = abs(target - self._target)
        duration = min(steps, self.positions - steps) * seconds_per_step
        self._origin, self._target = self._target, target
        self._start, self._arrival = start, start + duration
        return duration

    @property
    def position(self) -> int:
        """The position of the wheel, or the one to which it is moving."""
        return self._target

    def in_beam(self, time: float | None = None) -> int | None:
        """Return the position that is in the beam; None while the wheel moves, because its rim blocks the beam."""
        now = self._clock.time() if time is None else time
        if now < self._start:
            return self._origin
        return self._target if now >= self._arrival else None


@dataclass(frozen=True)
class Diode:
    """A laser diode.

    Args:
        wavelength: nm.
        maximum_current: mA, the limit of its driver.
        threshold: mA, below which it does not lase.
        maximum_power: mW, at the maximum current.
        serial_number: as printed on it.
    """

    wavelength: float
    maximum_current: float
    threshold: float
    maximum_power: float
    serial_number: str

    def power(self, current: float) -> float:
        """Return the optical power in mW at a current in mA: linear above the threshold, nearly none below."""
        slope = self.maximum_power / (self.maximum_current - self.threshold)
        return slope * max(current - self.threshold, 0.0) + 1e-4 * slope * min(current, self.threshold)


class Laser:
    """Several laser diodes with one master switch. The power rises within about a second, and falls at once.

    Args:
        clock: the bench's.
        diodes: one for each channel.
        time_constant: s, with which the power follows the current.
    """

    def __init__(self, clock: Clock, diodes: tuple[Diode, ...], time_constant: float = 0.25) -> None:
        self.diodes = diodes
        self.currents = [0.0] * len(diodes)
        self.enabled = [False] * len(diodes)
        self.system = False
        self._time_constant = time_constant
        self._powers = [Lag(clock, 0.0, time_constant) for _ in diodes]

    def set_current(self, channel: int, current: float) -> None:
        """Set the current of a channel (from 0), in mA."""
        self.currents[channel] = current
        self._update(channel)

    def enable(self, channel: int, on: bool) -> None:
        """Switch a channel (from 0)."""
        self.enabled[channel] = on
        self._update(channel)

    def enable_system(self, on: bool) -> None:
        """Switch all channels at once; each needs its own switch too."""
        self.system = on
        for channel in range(len(self.diodes)):
            self._update(channel)

    def power(self, channel: int, time: float | None = None) -> float:
        """Return the true power of a channel (from 0) in mW."""
        return self._powers[channel].value(time)

    def _update(self, channel: int) -> None:
        on = self.system and self.enabled[channel]
        target = self.diodes[channel].power(self.currents[channel]) if on else 0.0
        self._powers[channel].go(target, self._time_constant if on else 0.0)


class PiezoAxis:
    """A piezo axis: in closed loop it reaches its target; in open loop it does not, because it is nonlinear.

    Args:
        clock: the bench's.
        full_range: µrad, from end to end; the position goes from minus to plus half of it.
        time_constant: s, with which it settles.
    """

    #: Part of the target by which the position is too small in open loop.
    OPEN_LOOP_ERROR = 0.06

    def __init__(self, clock: Clock, full_range: float = 2000.0, time_constant: float = 0.005) -> None:
        self.full_range = full_range
        self._time_constant = time_constant
        self._position = Lag(clock, 0.0, time_constant)

    def go(self, target: float, *, closed: bool = True, gain: float = 1.0) -> None:
        """Go to ``target`` in µrad, as far as the range reaches.

        Args:
            target: µrad from the middle of the range.
            closed: whether the servo loop is closed.
            gain: of the loop, relative to the gain that gives the time constant; with 0 it does not move.
        """
        reachable = min(max(target, -self.full_range / 2), self.full_range / 2)
        if not closed:
            self._position.go(reachable * (1 - self.OPEN_LOOP_ERROR), self._time_constant)
        else:
            self._position.go(reachable, self._time_constant / gain if gain > 0 else math.inf)

    def position(self, time: float | None = None) -> float:
        """Return the true position in µrad."""
        return self._position.value(time)


class MotorAxis:
    """A motor that goes to its target at a constant speed and can be stopped on the way.

    Args:
        clock: the bench's.
        position: at the start.
    """

    def __init__(self, clock: Clock, position: float = 0.0) -> None:
        self._clock = clock
        self._from = self._target = position
        self._start = self._arrival = clock.time()
        self._speed = 0.0

    def go(self, target: float, speed: float) -> None:
        """Go to ``target`` from where it is now.

        Args:
            target: in the unit of the position; may be infinite, for a motion that goes on until it is stopped.
            speed: units per second, above 0.
        """
        self._from, self._start = self.position(), self._clock.time()
        self._target, self._arrival = target, self._start + abs(target - self._from) / speed
        self._speed = math.copysign(speed, target - self._from)

    def stop(self) -> None:
        """Stay where it is."""
        self._from = self._target = self.position()
        self._arrival = self._clock.time()

    @property
    def target(self) -> float:
        """Where it is, or is going to."""
        return self._target

    @property
    def arrival(self) -> float:
        """When it is, or was, at its target, on the clock."""
        return self._arrival

    @property
    def moving(self) -> bool:
        """Whether it is on its way."""
        return self._clock.time() < self._arrival

    def position(self) -> float:
        """Return where it is."""
        now = self._clock.time()
        return self._target if now >= self._arrival else self._from + self._speed * (now - self._start)


class Drift:
    """A slow drift that starts at zero: the sum of four sine waves with random phases.

    Args:
        rng: the random numbers for phases and periods.
        amplitude: roughly how large the drift becomes.
        period: s, of the slowest wave; the others are faster and smaller.
    """

    def __init__(self, rng: np.random.Generator, amplitude: float, period: float) -> None:
        shares = (0.6, 0.25, 0.1, 0.05)
        self._waves = [
            (
                amplitude * share,
                2 * math.pi * (index + 1) ** 1.3 / period * rng.uniform(0.85, 1.15),
                rng.uniform(0, 2 * math.pi),
            )
            for index, share in enumerate(shares)
        ]

    def value(self, time: float) -> float:
        """Return the drift at ``time``, which is in seconds."""
        return sum(size * (math.sin(rate * time + phase) - math.sin(phase)) for size, rate, phase in self._waves)
