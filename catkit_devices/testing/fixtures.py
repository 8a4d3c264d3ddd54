"""What the fixtures of the pytest plugin do."""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest

from catkit_devices._wire.wire_device import WireDevice
from catkit_devices.errors import ConfigurationError, DeviceError, SimulationError
from catkit_devices.simulation import SharedSimulation, VirtualClock, build_bench
from catkit_devices.simulation.replay import Dialogue
from catkit_devices.simulation.wire_file import Entry, read_entries

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from catkit_devices.device import Device
    from catkit_devices.drivers import Plugins
    from catkit_devices.simulation import Bench
    from catkit_devices.testbed import Configuration, Testbed
    from catkit_devices.testing.simulations import Simulations

__all__ = ["ConfiguredDevices", "Exchange", "dialogue", "find_line", "make_bench"]

#: What must be sent, and the answer: exact bytes, text to which the driver's terminations are added, or nothing.
Exchange: TypeAlias = "tuple[bytes | str | None, bytes | str | None]"


def make_bench(marker: pytest.Mark | None, plugins: Plugins) -> Bench:
    """Return the bench that the marker ``simulation`` of a test describes; without a marker, an empty bench."""
    options = dict(marker.kwargs) if marker is not None else {}
    if marker is not None and marker.args:
        raise pytest.UsageError("the marker 'simulation' takes keyword arguments only, such as bench='optical'")
    wanted = options.pop("bench", None)
    seed = options.pop("seed", 0)
    cls = plugins.bench(wanted) if isinstance(wanted, str) else wanted
    return build_bench(cls, options, seed=seed, clock=VirtualClock(), name=wanted if isinstance(wanted, str) else None)


# --- dialogues


class Script(Dialogue):
    """A dialogue that is written in a test.

    If it is a list of exchanges, it cannot say when the line is cleared; so a device clear is accepted anywhere.

    Args:
        bench: the bench to which it belongs.
        entries: the dialogue.
        recorded: whether it is a recording.
    """

    def __init__(self, bench: Bench, *, entries: tuple[Entry, ...], recorded: bool) -> None:
        self._recorded = recorded
        self._last: Entry | None = None
        self.recovering_from: Callable[[], str] = str
        """Returns the reason for which the driver is about to ask again which instrument it is; empty if it is not."""
        super().__init__(bench, entries, title="exchange")

    def clear(self) -> None:
        """Accept a device clear."""
        if self._recorded:
            super().clear()
        else:
            self._outbox.clear()
            self._answered.clear()

    def _next(self) -> None:
        self._last = self._entries[0]
        super()._next()

    def _refuse(self, text: str) -> SimulationError:
        reason = self.recovering_from()
        if reason and self._last is not None:
            text = (
                f"{self._place(self._last)}: {self._last}: {reason}\n"
                f"After such a failure the driver asks which instrument it is, before anything else. "
                f"If the test goes on, this belongs to the dialogue:\n{text}"
            )
        return super()._refuse(text)


@contextlib.contextmanager
def dialogue(
    simulations: Simulations,
    driver: str | type[Device],
    exchanges: Iterable[Exchange] | Path | str,
    *,
    address: str | None = None,
    **options: Any,
) -> Iterator[Device]:
    """Open a driver on an instrument that expects certain bytes, close it, and check that all of them were sent.

    Args:
        simulations: of the test; the fixture ``wire`` passes it.
        driver: its registered name, or its class.
        exchanges: pairs of what must be sent and the answer, in order, including those of opening and closing. How the
            bytes are divided into writes does not matter. Bytes are exact; to text, the driver's ``write_termination``
            or ``read_termination`` is added; None and ``b""`` mean nothing: a question with that answer times out, and
            before its next exchange the driver asks again which instrument it is. Or the path of a recording.
        address: as for ``simulated_device``.
        **options: keyword arguments of the driver.
    """
    cls = simulations.driver(driver)
    recorded = isinstance(exchanges, Path | str)
    entries = read_entries(exchanges) if isinstance(exchanges, Path | str) else list(_entries(cls, exchanges))
    given = {"entries": tuple(entries), "recorded": recorded}
    device = simulations.make(cls, Script, address=address, simulator_options=given, opens=False, **options)
    script: Script = simulations.instrument(device)
    if isinstance(device, WireDevice):
        script.recovering_from = lambda: device._exchanges_.recovering_from
    try:
        failure: Exception | None = None
        where = " (when it was opened)"
        try:
            device.open()
            where = ""
            yield device
        except Exception as error:
            if script.difference is None:
                raise
            failure, where = error, where or _line_of(error)
        try:
            device.close(force=True)
        except DeviceError as error:
            failure, where = failure or error, where or " (when it was closed)"
        _finish(script, f"device {device.name!r}: the dialogue on the wire is not as expected{where}")
        if failure is not None:
            raise failure
    finally:
        device._life_.abandon()  # it is still open if the dialogue does not have the commands that close it


def _finish(script: Script, title: str) -> None:
    try:
        script.finish()
    except SimulationError as problem:
        raise pytest.fail.Exception(f"{title}\n{problem}", pytrace=False) from None


def _line_of(failure: Exception) -> str:
    """Return the line of the test in which an error was raised."""
    for frame in traceback.extract_tb(failure.__traceback__):
        if not frame.filename.startswith((_FRAMEWORK, _STANDARD)):
            return f" (at {Path(frame.filename).name}:{frame.lineno}: {frame.line})"
    return ""


def _entries(cls: type[Device], exchanges: Iterable[Exchange]) -> Iterator[Entry]:
    if isinstance(exchanges, Mapping) or not isinstance(exchanges, Iterable):
        raise TypeError(f"pairs of what is sent and the answer were expected, got {exchanges!r}")
    for number, exchange in enumerate(exchanges, 1):
        if not isinstance(exchange, tuple | list) or len(exchange) != 2:
            raise TypeError(f"exchange {number}: a pair of what is sent and the answer was expected, got {exchange!r}")
        sent, answered = exchange
        for kind, data, termination in ((">", sent, "write_termination"), ("<", answered, "read_termination")):
            if data is not None:
                yield Entry(kind, _as_bytes(cls, data, termination, number), line=number)


def _as_bytes(cls: type[Device], data: Any, termination: str, number: int) -> bytes:
    """Return one side of an exchange as it goes over the wire."""
    if isinstance(data, bytes | bytearray):
        return bytes(data)
    if not isinstance(data, str):
        raise TypeError(f"exchange {number}: bytes, text or None was expected, got {data!r}")
    encoding = getattr(cls, "encoding", "ascii")
    try:
        return (data + getattr(cls, termination, "")).encode(encoding)
    except UnicodeEncodeError as error:
        expected = f"text in {encoding!r} was expected (the driver's class attribute 'encoding')"
        raise ValueError(f"exchange {number}: {expected}, got {data!r}") from error


_FRAMEWORK = str(Path(__file__).parents[1])
"""Code in here is not the test that is to be named."""
_STANDARD = str(Path(contextlib.__file__).parent / "contextlib.py")
"""The same: it is between a test and a fixture that is a context manager."""


# --- devices of a configuration


class ConfiguredDevices:
    """Opens real devices of a configuration, by their drivers.

    Args:
        configuration: of the testbed.
    """

    def __init__(self, configuration: Configuration) -> None:
        self._configuration = configuration
        self._cleanup = contextlib.ExitStack()

    def open(self, driver: str | type[Device], *_simulator: Any, name: str | None = None, **options: Any) -> Device:
        """Open the configured device that has this driver; arguments for the simulation only are ignored.

        Args:
            driver: its registered name, or its class.
            name: of the device, if several devices have this driver.
            **options: replace those of the configuration.
        """
        from catkit_devices.drivers import create_device

        wanted = driver if isinstance(driver, str) else driver.driver
        tables = self._configuration.devices
        found = [key for key, table in tables.items() if table.driver == wanted and name in (None, key)]
        if not found:
            pytest.skip(f"the configuration of the testbed has no device with driver {wanted!r}")
        table = tables[found[0]]
        given = {key: value for key, value in options.items() if key not in _OF_THE_SIMULATION}
        device = create_device(
            wanted,
            found[0],
            {**table.options, **({"limits": dict(table.limits)} if table.limits else {}), **given},
            plugin_directories=self._configuration.testbed.plugins,
            visa_library=self._configuration.testbed.visa_library if table.address is not None else None,
        )
        self._cleanup.callback(device.close, force=True)
        device.open()
        return device

    def close(self) -> None:
        """Close the devices."""
        self._cleanup.close()


_OF_THE_SIMULATION = frozenset({"address", "faults", "opens", "simulator", "simulator_options", "stand_in"})
"""Keys of a device's table that say how it is simulated."""


# --- faults


def find_line(device: Any, request: pytest.FixtureRequest) -> tuple[SharedSimulation, str]:
    """Return the simulation of a device of this test, and the address of its instrument.

    Raises:
        ConfigurationError: it has no simulated instrument.
    """
    if request.config.getoption("--hardware"):
        pytest.skip("faults need a simulation")
    if "testbed" in request.fixturenames:
        testbed: Testbed = request.getfixturevalue("testbed")
        entry = testbed.layout.device(device if isinstance(device, str) else device.name)
        if entry.address is None or entry.simulator is None:
            raise ConfigurationError(f"device {entry.name!r} has no simulated instrument")
        return testbed.simulation, entry.address
    simulations: Simulations = request.getfixturevalue("_catkit_devices_simulations")
    library, address = simulations.line_of(device)
    return SharedSimulation(library), address
