"""Safety checks: values that must stay between two limits.

This module decides whether a value is safe; the safety monitor reads it.
"""

from __future__ import annotations

import copy
import reprlib
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from catkit_devices._base.deferred import Watched, done
from catkit_devices._base.paths import get_at, same_path
from catkit_devices._device.values import checked, range_text, within
from catkit_devices.errors import CatkitDevicesError, SafetyError, in_one_line
from catkit_devices.readings import missing_in, no_measurement, real_number
from catkit_devices.testbed.configuration.bounds import plain_bounds
from catkit_devices.testbed.telemetry.view import TelemetryView, stale_after
from catkit_devices.testbed.trip import new_trip

if TYPE_CHECKING:
    from collections.abc import Mapping

    from catkit_devices.testbed.configuration.model import Configuration, SafetyConfiguration
    from catkit_devices.testbed.devices.devices import Devices
    from catkit_devices.testbed.layout import Layout
    from catkit_devices.testbed.telemetry.view import Reading

__all__ = ["Check", "CheckState", "Freshness", "PluginTest", "SafetyTest", "TelemetryTest", "safety_tests"]


_LOOK = 0.05
"""Seconds between two looks whether telemetry has a value."""


@dataclass(frozen=True, kw_only=True)
class Check:
    """What every safety check has."""

    name: str
    interval: float = 5.0
    """Seconds between two readings."""
    timeout: float = 2.0
    """Seconds after which a reading that has not returned trips the safety."""
    max_consecutive_failures: int = 0
    """Failures in a row that are tolerated."""

    timestamp: str | None = None
    """Name of a property that changes with every new value; None if the device measures when it is asked."""
    max_age: float | None = None
    """Seconds for which the timestamp may stay the same."""

    def started(self, layout: Layout) -> Check:  # noqa: ARG002 - for those that need it
        """Return the check, ready to read (called in the safety monitor's process)."""
        return self

    def read(self, devices: Devices) -> Any:
        """Return the value."""
        raise NotImplementedError

    def read_timestamp(self, devices: Devices) -> Any:  # noqa: ARG002 - for those that have one
        """Return when the device has measured the value; None if it does so when it is asked."""
        return None

    def problem(self, value: Any) -> str | None:
        """Return what is wrong with a value that was read, or None if it is safe."""
        raise NotImplementedError

    def failed_reading(self, error: BaseException) -> str:
        """Return what is wrong when reading raised."""
        return f"{self.what()} could not be read, expected {self.expected()}: {in_one_line(error)}"

    def hung(self, waited: float) -> str:
        """Return what is wrong when reading has not returned in ``waited`` seconds."""
        return f"{self.what()} did not answer in {waited:g} s, expected {self.expected()}"

    def stale(self, stamp: Any) -> str:
        """Return what is wrong when the timestamp does not change any more."""
        return f"{self.what()} is old: its {self.timestamp!r} is {stamp!r}, expected another within {self.max_age:g} s"

    def no_time(self, stamp: Any) -> str:
        """Return what is wrong with a timestamp that cannot be compared with the previous one."""
        return (
            f"{self.what()} may be old: its {self.timestamp!r} is {reprlib.repr(stamp)}, which is not equal to a copy "
            "of itself; expected a number, a text or a time"
        )

    def what(self) -> str:
        """Return what is checked, in words."""
        return self.name

    def expected(self) -> str:
        """Return what is safe, in words."""
        return "a safe value"


@dataclass(frozen=True, kw_only=True)
class SafetyTest(Check):
    """A property that must stay between two limits, both included.

    NaN, infinities and the numbers that stand for them, anything that is not one plain number, and a reading that
    raises an error fail the check as a value out of range does.
    """

    device: str
    property: str
    minimum: float | None = None
    maximum: float | None = None

    def __post_init__(self) -> None:
        """Raise ValueError if the limits are none, such as infinity or NaN."""
        checked((self.minimum, self.maximum))

    def read(self, devices: Devices) -> Any:
        """Return the property's value."""
        return get_at(devices[self.device], self.property)

    def read_timestamp(self, devices: Devices) -> Any:
        """Return the timestamp's value."""
        return None if self.timestamp is None else get_at(devices[self.device], self.timestamp)

    def problem(self, value: Any) -> str | None:
        """Return what is wrong with a value that was read, or None if it is safe."""
        number = real_number(value)
        if number is None:
            return f"{self.what()} is {reprlib.repr(value)}, expected a number {self.limits()}"
        if no_measurement(number):
            return f"{self.what()} is {number:g}, which is no measurement, expected {self.limits()}"
        if within(number, (self.minimum, self.maximum)):
            return None
        return f"{self.what()} is {number:g}, expected {self.limits()}"

    def what(self) -> str:
        """Return what is checked, in words."""
        return f"{self.device}.{self.property}"

    def expected(self) -> str:
        """Return what is safe, in words."""
        return f"a value {self.limits()}"

    def limits(self) -> str:
        """Return the limits, in words."""
        return range_text((self.minimum, self.maximum), None)


@dataclass(frozen=True, kw_only=True)
class TelemetryTest(SafetyTest):
    """A property that must stay between two limits, as the telemetry of its device has read it.

    So a slow instrument is not read twice. A reading that is stale, or a device that cannot be read, fails the check.
    """

    patience: float
    """Seconds for the first reading of telemetry."""
    telemetry: TelemetryView | None = None
    seen: list[bool] = field(default_factory=list, compare=False, repr=False)
    """Not empty when telemetry has had a value."""

    def started(self, layout: Layout) -> TelemetryTest:
        """Return it with the telemetry of the testbed."""
        return replace(self, telemetry=TelemetryView(layout))

    def read(self, devices: Devices) -> Any:
        """Return what telemetry has read last.

        Raises:
            CatkitDevicesError: telemetry has no value; says why.
        """
        reading = self._reading()
        if reading.value is None and not self.seen:
            # Before the permit is given, only this process may open the device: then its server can read it.
            SafetyTest.read(self, devices)
            deadline = time.monotonic() + self.patience
            while (reading := self._reading()).value is None and time.monotonic() < deadline:
                time.sleep(_LOOK)
        if reading.problem is not None:
            raise CatkitDevicesError(f"telemetry has no value: {reading.problem}")
        if not self.seen:
            self.seen.append(True)
        return reading.value

    def _reading(self) -> Reading:
        if self.telemetry is None:
            raise RuntimeError(f"the check {self.name!r} was not started")
        return self.telemetry[f"{self.device}.{self.property}"]


@dataclass(frozen=True, kw_only=True)
class PluginTest(Check):
    """A check of a plugin's own kind: a class with ``read(devices)`` and ``problem(value)``, as in a check here."""

    test: str
    options: Mapping[str, Any] = field(default_factory=dict)
    plugins: tuple[str, ...] = ()
    implementation: Any = None

    def started(self, layout: Layout) -> PluginTest:  # noqa: ARG002 - see above
        """Return it with the plugin's class constructed."""
        from catkit_devices.drivers import Plugins

        cls = Plugins(self.plugins, only=[self.test]).safety_test(self.test)
        return replace(self, implementation=cls(**self.options))

    def read(self, devices: Devices) -> Any:
        """Return what the plugin's class reads."""
        what = f"read() of the test {self.test!r}"
        with Watched(what):
            return done(self.implementation.read(devices), what)

    def problem(self, value: Any) -> str | None:
        """Return what the plugin's class finds wrong with it.

        If it contains a number that is no measurement, the check fails without asking the class: few comparisons are
        written so that NaN fails them. Any result other than None is a problem, too.
        """
        missing = missing_in(value)
        if missing is not None:
            return f"{self.what()} has read {missing}, which is no measurement"
        what = f"problem() of the test {self.test!r}"
        with Watched(what):
            problem = done(self.implementation.problem(value), what)
        if problem is None or (isinstance(problem, str) and problem):
            return problem
        return f"{self.what()}: problem() returned {problem!r}, expected a text that says what is wrong, or None"


@dataclass(frozen=True)
class CheckState:
    """What is known of one check: its last reading, and how often it failed in a row."""

    test: Check
    value: float | None = None
    """None if there was none, or if it is not one number."""
    problem: str | None = None
    failures: int = 0
    time: float = 0.0
    """Time of the last reading, in seconds since 1970 UTC; 0 when there was none."""
    passed: float = 0.0
    """The time of the last reading that was in order; 0 when there was none."""

    def after(self, value: Any, problem: str | None, time: float) -> CheckState:
        """Return the state after another reading."""
        number = real_number(value)
        if number is not None and no_measurement(number):
            number = None
        failures = 0 if problem is None else self.failures + 1
        return CheckState(self.test, number, problem, failures, time, time if problem is None else self.passed)

    @property
    def tripped(self) -> SafetyError | None:
        """The error, once it has failed more often in a row than is tolerated."""
        if self.problem is None or self.failures <= self.test.max_consecutive_failures:
            return None
        times = f", {self.failures} times in a row" if self.failures > 1 else ""
        return new_trip(self.test.name, f"{self.problem}{times}")


class Freshness:
    """Watches whether a timestamp goes on changing."""

    def __init__(self, test: Check) -> None:
        self._test = test
        self._stamp: Any = None
        self._since: float | None = None
        self.confirmed = test.timestamp is None
        """Whether it was seen to change at all."""

    def problem(self, stamp: Any, now: float) -> str | None:
        """Return what is wrong with the timestamp of a reading at the time ``now``, in seconds."""
        if self._test.timestamp is None or self._test.max_age is None:
            return None
        if stamp is None or missing_in(stamp) is not None:  # NaN would seem to change with every look
            return self._test.stale(stamp)
        if not _compares_by_value(stamp):
            return self._test.no_time(stamp)
        if self._since is None or stamp != self._stamp:
            self.confirmed = self._since is not None
            self._stamp, self._since = stamp, now
            return None
        return self._test.stale(stamp) if now - self._since > self._test.max_age else None


def _compares_by_value(stamp: Any) -> bool:
    """Return whether a timestamp equals a copy of itself: if not, it would seem to be another one at every look."""
    try:
        return bool(stamp == copy.deepcopy(stamp))
    except Exception:  # noqa: BLE001 - objects of any class may raise here; then it counts as not comparable
        return False


def safety_tests(configuration: Configuration) -> tuple[Check, ...]:
    """Return the safety checks of a configuration."""
    return tuple(_made(name, table, configuration) for name, table in configuration.safety.items())


def _made(name: str, table: SafetyConfiguration, configuration: Configuration) -> Check:
    common: dict[str, Any] = {
        "name": name,
        "interval": table.interval,
        "timeout": table.timeout,
        "max_consecutive_failures": table.max_consecutive_failures,
    }
    if table.test is not None:
        return PluginTest(
            **common, test=table.test, options=table.test_options(), plugins=configuration.testbed.plugins
        )
    device = configuration.device_name(table.device or "") or table.device or ""
    driver = None
    if isinstance(table.minimum, str) or isinstance(table.maximum, str):
        table_of_device = configuration.devices[device]
        driver = configuration.plugins().driver_for(table_of_device.driver, table_of_device.class_options)
    minimum, maximum = plain_bounds(table, driver)
    about = {
        **common,
        "device": device,
        "property": table.property or "",
        "minimum": minimum,
        "maximum": maximum,
        "timestamp": table.timestamp,
        "max_age": table.max_age if table.max_age is not None else 2 * table.interval,
    }
    if not table.telemetry:
        return SafetyTest(**about)
    rates = configuration.devices[device].telemetry
    path = same_path(table.property or "", rates) or ""
    return TelemetryTest(**about | {"property": path}, patience=stale_after(rates[path]))
