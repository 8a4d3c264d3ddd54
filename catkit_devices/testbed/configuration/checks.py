"""What a configuration must satisfy beyond its form: names, drivers, options, limits, references."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from catkit_devices._base.paths import same_path
from catkit_devices._device.members import gives_frames_continuously, is_shared, members_at, shared_properties
from catkit_devices._wire.address import is_expression
from catkit_devices.construction import option_problems, options_of
from catkit_devices.errors import ConfigurationError, nearest
from catkit_devices.readings import missing_in
from catkit_devices.simulation.contract import GIVEN_BY_THE_SIMULATION, SIMULATOR_FILES
from catkit_devices.testbed.configuration.bounds import plain_bound, plain_bounds
from catkit_devices.testbed.configuration.device_checks import check_devices, one_spelling, type_problems

if TYPE_CHECKING:
    from collections.abc import Iterator

    from catkit_devices.device import Device
    from catkit_devices.drivers import Plugins
    from catkit_devices.testbed.configuration.model import Configuration, SafetyConfiguration
    from catkit_devices.testbed.configuration.overlay import Overlay

__all__ = ["check", "start_order"]


def check(configuration: Configuration, overlay: Overlay) -> list[ConfigurationError]:
    """Return every problem of a well-formed configuration, in the order of the file."""
    missing = list(_plugin_directories(configuration, overlay))
    if missing:
        return missing  # without these plugins, each of their drivers would be reported, too
    plugins = configuration.plugins()
    return [
        *_names(configuration, overlay),
        *_gateway_ports(configuration, overlay),
        *check_devices(configuration, plugins, overlay),
        *_uses(configuration, overlay),
        *_shared_addresses(configuration, plugins, overlay),
        *_simulation(configuration, plugins, overlay),
        *_safety(configuration, plugins, overlay),
        *_telemetry(configuration, plugins, overlay),
        *_frames(configuration, plugins, overlay),
    ]


def _plugin_directories(configuration: Configuration, overlay: Overlay) -> Iterator[ConfigurationError]:
    for index, directory in enumerate(configuration.testbed.plugins):
        if not Path(directory).is_dir():
            yield overlay.problem(("testbed", "plugins", index), f"expected a directory, found none at {directory}")


def _names(configuration: Configuration, overlay: Overlay) -> Iterator[ConfigurationError]:
    from catkit_devices.testbed.devices.devices import Devices

    taken: dict[str, str] = {}
    for device in configuration.devices:
        path: tuple[Any, ...] = ("devices", device)
        if hasattr(Devices, device) or device == "mro":
            yield overlay.problem(
                path, f"expected another name: testbed.devices has an attribute {device!r} of its own"
            )
        taken[device] = f"the device {device!r}"
    for device, table in configuration.devices.items():
        for index, alias in enumerate(table.aliases):
            path = ("devices", device, "aliases", index)
            if alias in taken:
                yield overlay.problem(path, f"expected a name that is not used yet; {alias!r} is {taken[alias]}")
            elif hasattr(Devices, alias) or alias == "mro":
                yield overlay.problem(
                    path, f"expected another name: testbed.devices has an attribute {alias!r} of its own"
                )
            taken.setdefault(alias, f"an alias of {device!r}")


def _gateway_ports(configuration: Configuration, overlay: Overlay) -> Iterator[ConfigurationError]:
    """Each port serves one thing; the one of HiSLIP may be another one for the command `gateway`."""
    testbed = configuration.testbed
    taken = {testbed.gateway_port: "the port of HiSLIP, gateway_port in [testbed]"} if testbed.gateway else {}
    for device, table in configuration.devices.items():
        port = table.gateway_port
        if port is None:
            continue
        path = ("devices", device, "gateway_port")
        if table.gateway == "off":
            yield overlay.problem(path, f'expected no port, since gateway = "off" serves it to nobody, got {port}')
        elif port in taken:
            yield overlay.problem(path, f"expected a port that is not used yet; {port} is {taken[port]}")
        taken.setdefault(port, f"the port of device {device!r}")


# --- between devices -----------------------------------------------------------------------------------------------


def start_order(configuration: Configuration) -> list[str]:
    """Return the devices in the order in which they can be made: each after those that it uses.

    Raises:
        ConfigurationError: devices use each other in a circle.
    """
    order: list[str] = []
    open_: list[str] = []

    def visit(device: str) -> None:
        if device in order:
            return
        if device in open_:
            circle = " -> ".join([*open_[open_.index(device) :], device])
            raise ConfigurationError(f"devices use each other in a circle: {circle}", key=f"devices.{device}.uses")
        open_.append(device)
        for used in configuration.devices[device].uses.values():
            name = configuration.device_name(used)
            if name is not None:
                visit(name)
        open_.pop()
        order.append(device)

    for device in configuration.devices:
        visit(device)
    return order


def _uses(configuration: Configuration, overlay: Overlay) -> Iterator[ConfigurationError]:
    for device, table in configuration.devices.items():
        for role, used in table.uses.items():
            if configuration.device_name(used) is None:
                yield _no_device(("devices", device, "uses", role), used, configuration, overlay)
    try:
        start_order(configuration)
    except ConfigurationError as error:
        yield overlay.problem(str(error.key).split("."), error.problem)


def _shared_addresses(configuration: Configuration, plugins: Plugins, overlay: Overlay) -> Iterator[ConfigurationError]:
    first: dict[str, str] = {}
    for device, table in configuration.devices.items():
        address = one_spelling(table, plugins.drivers.get(table.driver))
        if address is None or is_expression(address):  # an expression may match several instruments
            continue
        other = first.setdefault(address, device)
        server = configuration.devices[other].server
        if table.server != server:
            yield overlay.problem(
                ("devices", device, "server"),
                f"expected {server!r}, the server of {other!r}, which has the same address; got {table.server!r}",
            )


def _no_device(path: tuple[Any, ...], name: str, configuration: Configuration, overlay: Overlay) -> ConfigurationError:
    known = [*configuration.devices, *(alias for table in configuration.devices.values() for alias in table.aliases)]
    return overlay.problem(
        path, f"expected a device ({', '.join(known) or 'there are none'}), got {name!r}", nearest(name, known)
    )


# --- simulation and safety -----------------------------------------------------------------------------------------


def _simulation(configuration: Configuration, plugins: Plugins, overlay: Overlay) -> Iterator[ConfigurationError]:
    for device, table in configuration.devices.items():
        if table.simulator is None:
            continue
        yield from _faults(device, table.faults, overlay)
        path: tuple[Any, ...] = ("devices", device, "simulator")
        if table.simulator.endswith(SIMULATOR_FILES):
            if not Path(table.simulator).is_file():
                yield overlay.problem(path, f"expected a file, found none at {table.simulator}")
            continue
        try:
            simulator = plugins.simulator(table.simulator)
        except ConfigurationError:
            yield _unregistered(path, "simulator", table.simulator, list(plugins.simulators), overlay)
            continue
        if isinstance(simulator, type):
            path = ("devices", device, "simulator_options")
            what = f"simulator {table.simulator!r}"
            yield from _model_options(path, what, simulator, table.simulator_options, overlay)
    shared = configuration.simulation
    if shared.bench is None:
        return
    try:
        bench = plugins.bench(shared.bench)
    except ConfigurationError:
        yield _unregistered(("simulation", "bench"), "bench", shared.bench, list(plugins.benches), overlay)
        return
    yield from _model_options(("simulation", "options"), f"bench {shared.bench!r}", bench, shared.options, overlay)


def _faults(device: str, faults: dict[str, float], overlay: Overlay) -> Iterator[ConfigurationError]:
    from catkit_devices.simulation import FAULTS

    for kind, probability in faults.items():
        path = ("devices", device, "faults", kind)
        if kind not in FAULTS:
            listed = ", ".join(FAULTS)
            yield overlay.problem(path, f"there is no such fault, expected one of {listed}", nearest(kind, FAULTS))
        elif not 0 <= probability <= 1:
            yield overlay.problem(path, f"expected a probability from 0 to 1, got {probability:g}")


def _model_options(
    path: tuple[Any, ...], what: str, cls: type, given: dict[str, Any], overlay: Overlay
) -> Iterator[ConfigurationError]:
    for option, problem, suggestion in option_problems(what, options_of(cls, GIVEN_BY_THE_SIMULATION), given):
        yield overlay.problem((*path, option), problem, suggestion)
    for option, problem in type_problems(cls, given):
        yield overlay.problem((*path, option), problem)


def _unregistered(
    path: tuple[Any, ...], kind: str, name: str, known: list[str], overlay: Overlay
) -> ConfigurationError:
    listed = ", ".join(sorted(known)) or "there are none"
    return overlay.problem(path, f"expected a registered {kind} ({listed}), got {name!r}", nearest(name, known))


def _safety(configuration: Configuration, plugins: Plugins, overlay: Overlay) -> Iterator[ConfigurationError]:
    for check_name, table in configuration.safety.items():
        path = ("safety", check_name)
        if table.test is not None:
            yield from _plugin_test(path, table, plugins, overlay)
            continue
        known = [name for name in type(table).model_fields if name != "test"]
        for extra in table.model_extra or {}:
            yield overlay.problem(
                (*path, extra), f"unknown key, expected one of {', '.join(known)}", nearest(extra, known)
            )
        if table.minimum is None and table.maximum is None:
            yield overlay.problem(path, "expected a minimum, a maximum or both, got neither")
        if table.device is None or table.property is None:
            for key in ("device", "property"):
                if getattr(table, key) is None:
                    yield overlay.problem((*path, key), "is missing")
            continue
        yield from _checked_property(path, table, configuration, plugins, overlay)


def _checked_property(
    path: tuple[str, str],
    table: SafetyConfiguration,
    configuration: Configuration,
    plugins: Plugins,
    overlay: Overlay,
) -> Iterator[ConfigurationError]:
    device = configuration.device_name(str(table.device))
    if device is None:
        yield _no_device((*path, "device"), str(table.device), configuration, overlay)
        return
    try:
        driver = plugins.driver_for(configuration.devices[device].driver, configuration.devices[device].class_options)
    except ConfigurationError:
        return  # the mistake is reported with the device
    yield from _bounds(path, table, driver, overlay)
    if table.telemetry and same_path(str(table.property), configuration.devices[device].telemetry) is None:
        text = f"expected a property that the device's table has as telemetry, got {table.property!r}"
        yield overlay.problem((*path, "telemetry"), text)
    for key in ("property", "timestamp"):
        if getattr(table, key) is not None:
            waits = "the check would wait for who holds the device"
            yield from _shared_property((*path, key), device, driver, getattr(table, key), waits, overlay)


def _shared_property(
    path: tuple[Any, ...], device: str, driver: type[Device], name: str, waits: str, overlay: Overlay
) -> Iterator[ConfigurationError]:
    """Yield what is wrong with a property that must be shared."""
    shared = shared_properties(driver)
    listed = f"expected a shared property: {', '.join(shared) or 'there is none'}"
    try:
        members = [member for _, member in members_at(driver, name)]
    except ConfigurationError as error:
        if same_path(name, driver._shared_when_open_) is not None:
            return  # checked when it is open
        text = f"device {device!r} has no property {name!r}; {listed}"
        yield overlay.problem(path, text, nearest(name, shared) or error.suggestion)
        return
    if not any(is_shared(member) and not callable(member) for member in members):
        text = f"{name!r} of device {device!r} is not shared: {waits}; {listed}"
        yield overlay.problem(path, text, nearest(name, shared))


def _telemetry(configuration: Configuration, plugins: Plugins, overlay: Overlay) -> Iterator[ConfigurationError]:
    for device, table in configuration.devices.items():
        try:
            driver = plugins.driver_for(table.driver, table.options)
        except ConfigurationError:
            continue  # reported with the device
        for name in table.telemetry:
            path = ("devices", device, "telemetry", name)
            waits = "its readings would wait for who holds the device"
            yield from _shared_property(path, device, driver, name, waits, overlay)


def _frames(configuration: Configuration, plugins: Plugins, overlay: Overlay) -> Iterator[ConfigurationError]:
    for device, table in configuration.devices.items():
        if table.frames is None:
            continue
        try:
            driver = plugins.driver_for(table.driver, table.options)
        except ConfigurationError:
            continue  # reported with the device
        method = table.frames.method
        if not hasattr(driver, method):
            known = [name for name in dir(driver) if not name.startswith("_")]
            text = f"driver {table.driver!r} has no method or property {method!r} that could return a frame"
            yield overlay.problem(("devices", device, "frames"), text, nearest(method, known))
        if table.frames.continuous and not gives_frames_continuously(driver):
            text = f"driver {table.driver!r} gives no frames continuously: it does not implement _continuous_frames()"
            yield overlay.problem(("devices", device, "frames", "continuous"), text)


def _bounds(
    path: tuple[str, str], table: SafetyConfiguration, driver: type[Device] | None, overlay: Overlay
) -> Iterator[ConfigurationError]:
    wrong = False
    for key in ("minimum", "maximum"):
        try:
            plain_bound(table, key, driver)
        except ValueError as error:
            wrong = True
            yield overlay.problem((*path, key), str(error))
    if not wrong:
        try:
            plain_bounds(table, driver)
        except ValueError as error:
            yield overlay.problem(path, str(error))


def _plugin_test(
    path: tuple[str, str], table: SafetyConfiguration, plugins: Plugins, overlay: Overlay
) -> Iterator[ConfigurationError]:
    name = str(table.test)
    try:
        cls = plugins.safety_test(name)
    except ConfigurationError:
        yield _unregistered((*path, "test"), "safety test", name, list(plugins.safety_tests), overlay)
        return
    for method in ("read", "problem"):
        if not callable(getattr(cls, method, None)):
            text = f"expected a class with read(devices) and problem(value), found no {method}()"
            yield overlay.problem((*path, "test"), text)
            return
    yield from _bounds(path, table, None, overlay)
    given = table.test_options()
    for option, problem, suggestion in option_problems(f"safety test {name!r}", options_of(cls), given):
        yield overlay.problem((*path, option), problem, suggestion)
    wrong = dict(type_problems(cls, given))
    for option, value in given.items():
        if (missing := missing_in(value)) is not None:
            wrong.setdefault(option, f"expected numbers that can be measured, got {missing}")
    for option, problem in wrong.items():
        yield overlay.problem((*path, option), problem)
