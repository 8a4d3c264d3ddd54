"""Safety checks: values that must stay between two limits, judged here and read elsewhere."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from catkit_devices.errors import SafetyError

if TYPE_CHECKING:
    from typing import Any

    from catkit_devices.testbed.configuration import Configuration

__all__ = ["CheckState", "SafetyTest", "safety_tests"]


@dataclass(frozen=True, kw_only=True)
class SafetyTest:
    """A property that must stay between two limits, both included.

    NaN, anything that is not a number, and a reading that raises fail the check as a value out of range does.
    """

    name: str
    device: str
    property: str
    minimum: float | None = None
    maximum: float | None = None
    interval: float = 5.0
    """Seconds between two readings."""
    timeout: float = 2.0
    """Seconds after which a reading that has not returned trips."""
    max_consecutive_failures: int = 0
    """Failures in a row that are tolerated."""

    def problem(self, value: Any) -> str | None:
        """Return what is wrong with a value that was read, or None where it is safe."""
        what = f"{self.device}.{self.property}"
        if isinstance(value, bool | str | bytes):
            return f"{what} is {value!r}, expected a number {self._range()}"
        try:
            number = float(value)
        except (TypeError, ValueError):
            return f"{what} is {value!r}, expected a number {self._range()}"
        # Said this way round so that NaN, which compares false with everything, fails.
        above = self.minimum is None or number >= self.minimum
        below = self.maximum is None or number <= self.maximum
        if above and below and not math.isnan(number):
            return None
        return f"{what} is {number:g}, expected {self._range()}"

    def failed_reading(self, error: BaseException) -> str:
        """Return what is wrong when reading raised."""
        return (
            f"{self.device}.{self.property} could not be read, expected a value {self._range()}: "
            f"{type(error).__name__}: {error}"
        )

    def hung(self, waited: float) -> str:
        """Return what is wrong when reading has not returned in ``waited`` seconds."""
        return f"{self.device}.{self.property} did not answer in {waited:g} s, expected a value {self._range()}"

    def _range(self) -> str:
        """The safe values, in words."""
        if self.minimum is None:
            return f"at most {self.maximum:g}"
        if self.maximum is None:
            return f"at least {self.minimum:g}"
        return f"{self.minimum:g} to {self.maximum:g}"


@dataclass(frozen=True)
class CheckState:
    """What is known of one check: its last reading, and how often it failed in a row."""

    test: SafetyTest
    value: float | None = None
    problem: str | None = None
    failures: int = 0
    time: float = 0.0
    """Of the last reading, in seconds since 1970 UTC; 0 when there was none."""

    def after(self, value: Any, problem: str | None, time: float) -> CheckState:
        """Return the state after another reading."""
        number = float(value) if isinstance(value, int | float) else None
        failures = 0 if problem is None else self.failures + 1
        return CheckState(self.test, number, problem, failures, time)

    @property
    def tripped(self) -> SafetyError | None:
        """The error, once it has failed more often in a row than is tolerated."""
        if self.problem is None or self.failures <= self.test.max_consecutive_failures:
            return None
        times = f", {self.failures} times in a row" if self.failures > 1 else ""
        return SafetyError(self.test.name, f"{self.problem}{times}")


def safety_tests(configuration: Configuration) -> tuple[SafetyTest, ...]:
    """Return the safety checks of a configuration."""
    return tuple(
        SafetyTest(
            name=name,
            device=configuration.device_name(table.device) or table.device,
            property=table.property,
            minimum=table.minimum,
            maximum=table.maximum,
            interval=table.interval,
            timeout=table.timeout,
            max_consecutive_failures=table.max_consecutive_failures,
        )
        for name, table in configuration.safety.items()
    )
