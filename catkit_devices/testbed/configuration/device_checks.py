"""What a device's table must satisfy: its driver exists, takes these options, and has these limits."""

from __future__ import annotations

import contextlib
import inspect
import json
import types
import typing
from typing import TYPE_CHECKING, Any

from catkit_devices._base.timeouts import LONGEST_TIMEOUT
from catkit_devices._wire.address import example, is_expression, matching, normalise
from catkit_devices.construction import bind_options, option_problems, options_of
from catkit_devices.errors import ConfigurationError, in_one_line, nearest
from catkit_devices.stand_ins import find_stand_in, takes_visa, why_real
from catkit_devices.testbed.configuration.problems import reworded

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from catkit_devices.device import Device
    from catkit_devices.drivers import Plugins
    from catkit_devices.testbed.configuration.model import Configuration, DeviceConfiguration
    from catkit_devices.testbed.configuration.overlay import Overlay

__all__ = [
    "SET_BY_THE_TESTBED",
    "check_devices",
    "not_made_safe",
    "not_simulated",
    "one_spelling",
    "refused",
    "simulated_addresses",
    "type_problems",
    "visa_address_of",
]

_SECONDS = {"timeout": "0 to", "safe_timeout": "above 0, at most", "late_window": "0 to"}
"""Options that are timeouts, of every device or of every one with a connection; and what they may be, up to the longest
timeout. With a timeout of 0 nobody waits for the mutex, and without a late window no reply is late; with no time at all
nothing could be made safe.
"""
SET_BY_THE_TESTBED = frozenset({"visa_library", "limits", "open_on_use"})
"""Options of a device that may not be in its table, because the testbed sets them."""


def check_devices(configuration: Configuration, plugins: Plugins, overlay: Overlay) -> Iterator[ConfigurationError]:
    """Yield every problem of the devices' own tables."""
    for device, table in configuration.devices.items():
        path = ("devices", device)
        try:
            driver = plugins.driver_for(table.driver, table.class_options)
        except ConfigurationError as error:
            where = (error.key or "driver").split(".")
            yield overlay.problem((*path, *where), error.problem, error.suggestion)
            continue
        yield from _address(path, table, driver, overlay)
        yield from _options(path, table, driver, overlay)
        yield from _limits(path, table, driver, overlay)
        yield from _stand_in(path, table, driver, overlay)
    if configuration.testbed.simulate:
        for device, text in not_simulated(configuration, plugins).items():
            yield overlay.problem(("devices", device), text)


def refused(configuration: Configuration, plugins: Plugins, order: Sequence[str]) -> dict[str, ConfigurationError]:
    """Return what drivers say against the options of their devices, by device.

    Each device is made, which touches no instrument, because only its driver knows which values make sense, such as
    which channels there are. Those that use a device that cannot be made are not looked at.

    Args:
        configuration: whose options have the right form.
        plugins: of the configuration.
        order: of the devices: each after those that it uses.
    """
    made: dict[str, Any] = {}
    found: dict[str, ConfigurationError] = {}
    for name in order:
        table = configuration.devices[name]
        used = {role: configuration.device_name(one) for role, one in table.uses.items()}
        if not all(one in made for one in used.values()):
            continue
        options = {**table.options, **{role: made[str(one)] for role, one in used.items()}}
        try:
            driver = plugins.driver_for(table.driver, table.class_options)
            made[name] = bind_options(driver, name, options)
        except ConfigurationError as error:
            found[name] = error
        except Exception as error:  # noqa: BLE001 - a driver may raise anything
            found[name] = ConfigurationError(f"its driver cannot be made: {in_one_line(error)}", key=f"devices.{name}")
    return found


def not_simulated(configuration: Configuration, plugins: Plugins) -> dict[str, str]:
    """Return why devices cannot be simulated, by device: they would open a real instrument, or find none.

    Mistakes in a declared stand-in are not reported here.
    """
    drivers = _drivers(configuration, plugins)
    addresses = {name: one_spelling(configuration.devices[name], driver) for name, driver in drivers.items()}
    served = {address for name, address in addresses.items() if configuration.devices[name].simulator is not None}
    problems = {}
    for name, driver in drivers.items():
        table = configuration.devices[name]
        if table.stand_in is not None:
            continue
        if not takes_visa(driver):
            text = why_real(driver, None)
        elif addresses[name] is None:
            text = f"driver {table.driver!r} uses VISA: declare address and simulator to simulate it"
        elif addresses[name] not in served:
            text = f"driver {table.driver!r} would find no simulated instrument at {table.address}: declare simulator"
        else:
            text = None
        if text is not None:
            problems[name] = text
    return problems


def not_made_safe(configuration: Configuration, plugins: Plugins) -> dict[str, str]:
    """Return why nothing happens when devices are made safe, by device."""
    reasons = {name: driver._why_not_made_safe_() for name, driver in _drivers(configuration, plugins).items()}
    return {name: reason for name, reason in reasons.items() if reason is not None}


def _drivers(configuration: Configuration, plugins: Plugins) -> dict[str, type[Device]]:
    """Return the class of each device; what is wrong with a driver's name or options is told elsewhere."""
    found = {}
    for name, table in configuration.devices.items():
        with contextlib.suppress(ConfigurationError):
            found[name] = plugins.driver_for(table.driver, table.class_options)
    return found


def _address(
    path: tuple[Any, ...], table: DeviceConfiguration, driver: type[Device], overlay: Overlay
) -> Iterator[ConfigurationError]:
    from catkit_devices._wire.wire_device import WireDevice

    address = visa_address_of(table, driver)
    if address is None:
        return
    try:
        if is_expression(address):
            if not issubclass(driver, WireDevice):
                text = f"driver {table.driver!r} needs the address itself, not an expression for it"
                yield overlay.problem((*path, "address"), text)
            elif table.simulator is not None:
                example(address, 1)
            else:
                matching(["ASRL1::INSTR"], address)  # raises an error if it is not a valid expression
        elif table.simulator is not None:
            from catkit_devices.simulation.resource import parse_address

            parse_address(address)
        elif issubclass(driver, WireDevice):
            normalise(address)
    except ValueError as error:
        yield overlay.problem((*path, "address"), str(error))


def _stand_in(
    path: tuple[Any, ...], table: DeviceConfiguration, driver: type[Device], overlay: Overlay
) -> Iterator[ConfigurationError]:
    if table.stand_in is None:
        return
    try:
        stand_in = find_stand_in(table.stand_in)
    except ConfigurationError as error:
        yield overlay.problem((*path, "stand_in"), error.problem, error.suggestion)
        return
    if (problem := why_real(driver, stand_in)) is not None:
        yield overlay.problem((*path, "stand_in"), problem)
        return
    if table.simulator is not None:
        yield overlay.problem((*path, "simulator"), "expected stand_in or simulator, got both")
    given = table.simulator_options
    for option, problem, suggestion in option_problems(repr(table.stand_in), options_of(stand_in, {"clock"}), given):
        if option in given:  # an option that is missing may be one of the driver from which the stand-in derives
            yield overlay.problem((*path, "simulator_options", option), problem, suggestion)
    for option, problem in type_problems(stand_in, given):
        yield overlay.problem((*path, "simulator_options", option), problem)


def _options(
    path: tuple[Any, ...], table: DeviceConfiguration, driver: type[Device], overlay: Overlay
) -> Iterator[ConfigurationError]:
    accepted = options_of(driver, SET_BY_THE_TESTBED)
    given = table.options
    owner = f"driver {table.driver!r}"
    for option, text, suggestion in option_problems(owner, accepted, given, type(table).model_fields):
        if option not in table.uses:
            yield overlay.problem((*path, option), text, suggestion)
    wrong = dict(type_problems(driver, given))
    for key, allowed in _SECONDS.items():
        value = given.get(key, 1.0)
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not (number and (0 < value <= LONGEST_TIMEOUT or (value == 0 and allowed == "0 to"))):
            wrong[key] = f"expected a number of seconds, {allowed} {LONGEST_TIMEOUT:.0f}, got {value!r}"
    for key, problem in wrong.items():
        yield overlay.problem((*path, key), problem)
    for role in table.uses:
        if role not in accepted:
            yield overlay.problem(
                (*path, "uses", role), f"driver {table.driver!r} uses no such device", nearest(role, accepted)
            )


def type_problems(cls: type, given: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield each option whose value is not of the type that the class declares for it, and what is wrong."""
    hints = _type_hints(cls)
    for key, value in given.items():
        if key in hints and (problem := _type_problem(hints[key], value)):
            yield key, problem


def _type_hints(of: type) -> dict[str, Any]:
    """Return the declared types of the constructors' arguments, without those that only type checkers know."""
    hints: dict[str, Any] = {}
    for cls in reversed(of.__mro__):
        constructor = vars(cls).get("__init__")
        if constructor is None or cls is object:
            continue
        for name, annotation in inspect.get_annotations(constructor).items():
            one = types.SimpleNamespace(__annotations__={name: annotation})
            try:
                hints.update(typing.get_type_hints(one, constructor.__globals__, include_extras=True))
            except (NameError, TypeError):
                hints.pop(name, None)
    return hints


def _type_problem(annotation: Any, value: Any) -> str | None:
    import pydantic

    try:
        adapter = pydantic.TypeAdapter(annotation)
    except pydantic.PydanticUserError:
        return None  # a type of the driver's own
    try:
        text = json.dumps(value)
    except (TypeError, ValueError):  # a date of TOML, or what a program has put there
        text = None
    try:
        if text is None:
            adapter.validate_python(value)
        else:
            # As JSON, which has the types of TOML: so a truth value or a text is no number, but a list is a tuple.
            adapter.validate_json(text, strict=True)
    except pydantic.ValidationError as error:
        return reworded(error.errors(include_url=False)[0])
    return None


def _limits(
    path: tuple[Any, ...], table: DeviceConfiguration, driver: type[Device], overlay: Overlay
) -> Iterator[ConfigurationError]:
    from catkit_devices._device.members import narrow

    if table.limits and "limits" not in options_of(driver):
        yield overlay.problem(
            (*path, "limits"),
            f"driver {table.driver!r} takes no limits: its constructor must pass **options on to the next",
        )
        return
    for name, wanted in table.limits.items():
        try:
            narrow(driver, path[-1], {name: wanted})
        except ConfigurationError as error:
            yield overlay.problem((*path, "limits", name), error.problem, error.suggestion)


def visa_address_of(table: DeviceConfiguration, driver: type[Device]) -> str | None:
    """Return the VISA address of a device's instrument; None if it has none."""
    from catkit_devices._wire.address import visa_address
    from catkit_devices.serial_device import SerialDevice

    if table.address is not None and issubclass(driver, SerialDevice):
        return visa_address(table.address)
    return table.address


def one_spelling(table: DeviceConfiguration, driver: type[Device] | None) -> str | None:
    """Return the address of a device's instrument in the one spelling that VISA addresses have here.

    An address that is not a VISA address is returned unchanged; an unknown driver (None) may have such addresses.
    """
    address = table.address if driver is None else visa_address_of(table, driver)
    try:
        return None if address is None else normalise(address)
    except ValueError:
        return address


def simulated_addresses(configuration: Configuration, plugins: Plugins) -> dict[str, str]:
    """Return the addresses of the simulated instruments, by device; for an expression, an address that it matches."""
    found: dict[str, str] = {}
    numbers: dict[tuple[str, Any], int] = {}
    for name, table in configuration.devices.items():
        address = visa_address_of(table, plugins.driver_for(table.driver, table.class_options))
        if table.simulator is None or address is None:
            continue
        if is_expression(address):
            wanted = (address, table.options.get("serial_number"))
            address = example(address, numbers.setdefault(wanted, len(numbers) + 1))
        found[name] = address
    return found
