"""Fixtures for testing drivers and experiments without hardware; pytest finds this module by its entry point.

What a fixture needs is imported when it is first used, so that tests that do not use it are not slowed down.
``docs/how-to/test-with-pytest.md`` shows an example of each fixture.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from catkit_devices.device import Device
    from catkit_devices.drivers import Plugins
    from catkit_devices.simulation import Bench
    from catkit_devices.testbed import Configuration, Testbed
    from catkit_devices.testing.faults import Faults
    from catkit_devices.testing.simulations import Simulations

_FIXTURES = frozenset({"_catkit_devices_plugins", "testbed_configuration"})
"""All our fixtures use one of these: by this the check for leaks finds the tests that use our fixtures."""


# --- options, markers


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add our options and ini settings."""
    group = parser.getgroup("catkit_devices", "catkit_devices: testbeds and simulated instruments")
    group.addoption(
        "--hardware",
        action="store_true",
        help="run on the real instruments of the testbed's configuration, and tests marked 'hardware' too",
    )
    group.addoption(
        "--testbed-config",
        action="append",
        default=[],
        metavar="FILE",
        help="configuration of the fixture 'testbed'; may be repeated, later files over earlier ones",
    )
    parser.addini("testbed_config", "configuration files of the fixture 'testbed'", type="paths", default=[])
    parser.addini("testbed_scope", "scope of the fixture 'testbed': function, class, module, package or session")
    parser.addini("catkit_devices_plugins", "directories of driver plugins", type="paths", default=[])
    parser.addini(
        "catkit_devices_leak_check",
        "whether a test that leaves something behind fails: true (every test), false (none), "
        "fixtures (those that use our fixtures; the default)",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Declare our markers, and refuse real instruments to several processes at once."""
    config.addinivalue_line("markers", "hardware: needs real instruments; only with --hardware")
    config.addinivalue_line(
        "markers",
        "simulation(bench=None, seed=0, **options): the physical model that the simulated instruments of a test share",
    )
    if config.getini("catkit_devices_leak_check") not in _LEAK_CHECKS:
        raise pytest.UsageError(f"catkit_devices_leak_check must be one of {', '.join(filter(None, _LEAK_CHECKS))}")
    if config.getoption("--hardware") and getattr(config.option, "tx", None):
        raise pytest.UsageError("--hardware: an instrument serves one process at a time; add -n0")


_LEAK_CHECKS = ("", "fixtures", "true", "false")
"""What the setting may be; empty is the default."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip tests that need hardware unless ``--hardware`` is given."""
    if config.getoption("--hardware"):
        return
    skip = pytest.mark.skip(reason="needs real instruments: --hardware")
    for item in items:
        if item.get_closest_marker("hardware") is not None:
            item.add_marker(skip)


# --- simulated instruments


@pytest.fixture(scope="session")
def plugin_directories(pytestconfig: pytest.Config) -> list[Path]:
    """Directories of driver plugins: those of the ini setting ``catkit_devices_plugins``; override it for others."""
    directories: list[Path] = pytestconfig.getini("catkit_devices_plugins")
    return directories


@pytest.fixture(scope="session")
def _catkit_devices_loaded() -> dict[tuple[Path, ...], Plugins]:
    # Loading takes time, so it is done once for the same directories.
    return {}


@pytest.fixture
def _catkit_devices_plugins(
    plugin_directories: list[Path], _catkit_devices_loaded: dict[tuple[Path, ...], Plugins]
) -> Plugins:
    # Not for the whole session: modules and tests may have directories of their own.
    from catkit_devices.drivers import Plugins

    directories = tuple(plugin_directories)
    if directories not in _catkit_devices_loaded:
        _catkit_devices_loaded[directories] = Plugins(directories)
    return _catkit_devices_loaded[directories]


@pytest.fixture
def bench(request: pytest.FixtureRequest, _catkit_devices_plugins: Plugins) -> Bench:
    """The physical model that the simulated instruments of this test share, with a clock that costs no time.

    An empty one, or the one of ``@pytest.mark.simulation(bench="optical", seed=7, drift=0.0)``; override the fixture
    to build your own.
    """
    from catkit_devices.testing.fixtures import make_bench

    return make_bench(request.node.get_closest_marker("simulation"), _catkit_devices_plugins)


@pytest.fixture
def _catkit_devices_simulations(bench: Bench, _catkit_devices_plugins: Plugins) -> Iterator[Simulations]:
    from catkit_devices.testing.simulations import Simulations

    simulations = Simulations(bench, plugins=_catkit_devices_plugins)
    yield simulations
    simulations.close()


@pytest.fixture
def simulated_device(_catkit_devices_simulations: Simulations) -> Callable[..., Device]:
    """Returns a function that makes a real driver on a simulated instrument, and opens it.

    ``wheel = simulated_device("thorlabs_fw102c")``; arguments are those of
    :meth:`catkit_devices.testing.simulations.Simulations.make`. The instruments share ``bench``. The devices are closed
    after the test.
    """
    return _catkit_devices_simulations.make


@pytest.fixture
def simulated_instrument(_catkit_devices_simulations: Simulations) -> Callable[[Device], Any]:
    """Returns a function that returns the simulator of a device: ``simulated_instrument(wheel).wheel.in_beam()``."""
    return _catkit_devices_simulations.instrument


@pytest.fixture
def open_device(request: pytest.FixtureRequest, _catkit_devices_plugins: Plugins) -> Iterator[Callable[..., Device]]:
    """Like ``simulated_device``; but with ``--hardware``, it opens the configured device that has the driver.

    In that case the test is skipped if no device of the configuration has the driver.
    """
    if not request.config.getoption("--hardware"):
        yield request.getfixturevalue("simulated_device")
        return
    from catkit_devices.testing.fixtures import ConfiguredDevices

    devices = ConfiguredDevices(request.getfixturevalue("testbed_configuration"))
    yield devices.open
    devices.close()


@pytest.fixture
def faults(request: pytest.FixtureRequest) -> Faults:
    """Injects faults on the line of a simulated device: ``faults.inject(device, "late", delay=0.3)``.

    The device is one of ``simulated_device``, or one of ``testbed`` that has a simulated instrument.
    """
    from catkit_devices.testing.faults import Faults
    from catkit_devices.testing.fixtures import find_line

    return Faults(lambda device: find_line(device, request))


@pytest.fixture
def wire(_catkit_devices_simulations: Simulations) -> Callable[..., AbstractContextManager[Device]]:
    r"""Tests the exact bytes between a driver and its instrument, from opening to closing.

    ::

        with wire("acme_s1", [(b"*IDN?\n", b"ACME,S1\n"), (b"VOLT 5\n", None)]) as device:
            device.voltage = 5

    The driver must send exactly the bytes on the left, and all of them; it gets the answers on the right; None and
    ``b""`` are no answer. Arguments are those of :func:`catkit_devices.testing.fixtures.dialogue`.
    """
    from functools import partial

    from catkit_devices.testing.fixtures import dialogue

    return partial(dialogue, _catkit_devices_simulations)


# --- testbeds


def _testbed_scope(fixture_name: str, config: pytest.Config) -> Any:  # noqa: ARG001 - pytest gives both by name
    return config.getini("testbed_scope") or "function"


@pytest.fixture(scope="session")
def testbed_configuration(pytestconfig: pytest.Config) -> Configuration:
    """The configuration of ``testbed``: ``--testbed-config``, or the ini setting ``testbed_config``."""
    from catkit_devices.testbed import load_configuration

    files = pytestconfig.getoption("--testbed-config") or pytestconfig.getini("testbed_config")
    if not files:
        raise pytest.UsageError(
            "the fixture 'testbed' needs a configuration: --testbed-config FILE, or testbed_config = FILE in pytest.ini"
        )
    return load_configuration(files)


@pytest.fixture(scope=_testbed_scope)
def testbed(
    pytestconfig: pytest.Config, testbed_configuration: Configuration, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Testbed]:
    """A running testbed of the configuration, simulated unless ``--hardware`` is given; ended after the test.

    The ini setting ``testbed_scope`` lets it run for longer than one test.
    """
    from catkit_devices.testbed import Testbed

    simulate = not pytestconfig.getoption("--hardware")
    with Testbed(testbed_configuration, simulate=simulate, runs=tmp_path_factory.mktemp("runs")) as running:
        yield running


# --- leaks


@pytest.fixture(autouse=True)
def _catkit_devices_leak_check(request: pytest.FixtureRequest) -> Iterator[None]:
    # This is the first of a test's fixtures to be set up and the last to be torn down. So it sees what existed before
    # all others, and what is left after them. Fixtures of a wider scope exist before and after, and are no leaks.
    wanted = request.config.getini("catkit_devices_leak_check") or "fixtures"
    if wanted == "false" or (wanted == "fixtures" and _FIXTURES.isdisjoint(request.fixturenames)):
        yield
        return
    from catkit_devices.testing.leaks import Leaks

    leaks = Leaks()
    yield
    found = leaks.found()
    if found:
        pytest.fail("this test has left behind:\n" + "\n".join(f"  {leak}" for leak in found), pytrace=False)
