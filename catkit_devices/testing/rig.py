"""A driver under test: the device, its simulated instrument, and a tap on the wire between them."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from catkit_devices.drivers import Plugins
from catkit_devices.errors import ConfigurationError, DeviceError, nearest
from catkit_devices.simulation import VirtualClock, build_bench
from catkit_devices.testing.members import Member, members, settable
from catkit_devices.testing.simulations import Simulations
from catkit_devices.testing.tap import Tap

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from catkit_devices.device import Device
    from catkit_devices.simulation import Bench, SimulatedVisaLibrary

__all__ = ["Case", "Rig"]

_LONG = 600.0
"""Seconds on the bench's clock after which every quantity has settled at what was set."""
_STEP = 0.01
"""Seconds on the bench's clock between two checks whether data has come, at first."""
_GROWTH = 0.05
"""The part of what a read has waited already that the time between two checks becomes. Replies that a test delays come
at half a timeout, or half a second after it: a twentieth earlier or later is the same to every rule."""


@dataclass(frozen=True)
class Case:
    """What is tested, as data that can be pickled; its fields are those of ``DriverConformance``."""

    driver: str | type[Device]
    simulator: str | type | Path | None = None
    stand_in: type | None = None
    address: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    simulator_options: Mapping[str, Any] = field(default_factory=dict)
    bench: str | type[Bench] | None = None
    bench_options: Mapping[str, Any] = field(default_factory=dict)
    plugins: Sequence[str | Path] = ()
    values: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    refused: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    arguments: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    varying: Sequence[str] = ()
    left_out: Mapping[str, str] = field(default_factory=dict)

    def simulations(self) -> Simulations:
        """Return the simulations that make the device."""
        named = [name for name in (self.driver, self.simulator, self.bench) if isinstance(name, str)]
        plugins = Plugins(self.plugins, only=named)
        cls = plugins.bench(self.bench) if isinstance(self.bench, str) else self.bench
        bench = build_bench(cls, self.bench_options, clock=_CoarseClock())
        return Simulations(bench, plugins=plugins)

    def make(self, simulations: Simulations, *, address: str | None = None) -> Device:
        """Make the device, closed; ``address`` is that of its instrument, if the instrument exists already."""
        return simulations.make(
            self.driver,
            self.simulator,
            name="device",
            address=address or self.address,
            simulator_options=self.simulator_options,
            stand_in=self.stand_in,
            opens=False,
            **self.options,
        )


class _CoarseClock(VirtualClock):
    """A clock that checks less often whether data has come, because no test here depends on milliseconds."""

    def step(self, waited: float) -> float:
        return max(_STEP, _GROWTH * waited)


class Rig:
    """A device that was made and not opened, with a tap on its wire.

    Args:
        case: what is under test.
    """

    def __init__(self, case: Case) -> None:
        self.case = case
        self.simulations = case.simulations()
        self.device = case.make(self.simulations)
        described = self.device.describe()
        for name in case.left_out:
            if name not in (known := {**described["properties"], **described["commands"]}):
                raise ConfigurationError(
                    f"left_out names {name!r}, which the driver does not have", suggestion=nearest(name, known)
                )
        made = self.simulations.made(self.device)
        self.library: SimulatedVisaLibrary | None = made.library
        self.address = made.address
        self.simulator: Any = None
        self.tap: Tap | None = None
        if made.library is not None and made.address is not None:
            self.simulator = made.library.instrument(made.address)
            self.tap = Tap(made.library.resource(made.address))
        self.times_made_safe = 0
        """How many times it was made safe, by whomever: by the framework, or by the driver itself after an error."""
        for name in ("_make_safe", "_make_safe_in_doubt_"):
            vars(self.device)[name] = self._counting(getattr(self.device, name))

    def close(self) -> None:
        """Close the device, in whatever state the test has left it."""
        with contextlib.suppress(ExceptionGroup):  # problems are reported by the rules
            self.simulations.close()

    def _counting(self, make_safe: Callable[[], Any]) -> Callable[[], Any]:
        def counted() -> Any:
            returned = make_safe()
            self.times_made_safe += 1
            return returned

        return counted

    @property
    def written(self) -> int:
        """How many times something was written so far."""
        return 0 if self.tap is None else len(self.tap)

    def members(self) -> list[Member]:
        """Return the driver's operations; while the device is open, those that set a property use acceptable values."""
        values = self.settable() if self.device.is_open else self.case.values
        found = members(self.device, values, self.case.arguments)
        return [member for member in found if member.name not in self.case.left_out]

    def settable(self) -> dict[str, list[Any]]:
        """Return, for every property of the open device that can be set, values that it must accept; maybe none."""
        found = settable(self.device, self.case.values)
        return {name: values for name, values in found.items() if name not in self.case.left_out}

    @property
    def sessions(self) -> int:
        """How many sessions on the instrument are open."""
        return 0 if self.library is None else self.library.open_sessions

    @contextlib.contextmanager
    def opened(self) -> Iterator[Device]:
        """Open the device for a block."""
        self.device.open()
        try:
            yield self.device
        finally:
            with contextlib.suppress(DeviceError):
                self.device.close(force=True)

    def settle(self) -> None:
        """Wait, on the bench's clock, until quantities that follow their setting slowly have settled."""
        self.simulations.bench.clock.wait(_LONG)

    def mend(self) -> None:
        """Undo every fault on the line."""
        if self.tap is not None and self.library is not None and self.address is not None:
            self.tap.line.clear()
            self.library.reconnect(self.address)

    def repair(self) -> None:
        """Undo every fault, and make the device open and usable again, as an operator would."""
        self.mend()
        if self.device.state == "fault":
            self.device.reset()
        self.device.open()

    def reopen(self) -> None:
        """Close the device, however that ends, and open it again."""
        with contextlib.suppress(DeviceError):
            self.device.close(force=True)
        self.device._life_.abandon()
        self.repair()
