"""Stand-ins: classes that replace the instrument of a driver without VISA under simulation.

A simulation replaces VISA. A driver that opens its instrument in another way, for example with a vendor's library,
would open the real instrument nevertheless. So under simulation such a driver needs a stand-in for its instrument;
without one, it is not made.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import inspect
from typing import TYPE_CHECKING, Any

from catkit_devices.construction import bind_options, options_of
from catkit_devices.device import Device
from catkit_devices.errors import ConfigurationError, nearest

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["create_simulated", "find_stand_in", "takes_visa", "why_real"]

_PLUGINS = "catkit_devices.plugins"
"""Where bundled stand-ins are."""


def takes_visa(driver: type[Device]) -> bool:
    """Whether a driver reaches its instrument through the VISA library that it is given."""
    return "visa_library" in options_of(driver)


def find_stand_in(text: str) -> type:
    """Return the class that ``"module:Class"`` names; the module is looked for in the plugin directories first.

    Raises:
        ConfigurationError: there is no such class.
    """
    module, _colon, name = text.partition(":")
    if not (module and name):
        raise ConfigurationError(f"expected 'module:Class', got {text!r}")
    try:
        found = importlib.import_module(f"{_PLUGINS}.{module}" if _is_plugin(module) else module)
    except Exception as error:  # importing a module may raise anything
        raise ConfigurationError(f"{module!r} cannot be imported: {type(error).__name__}: {error}") from error
    stand_in = getattr(found, name, None)
    if not isinstance(stand_in, type):
        classes = [known for known, value in vars(found).items() if isinstance(value, type)]
        raise ConfigurationError(f"{module!r} has no class {name!r}", suggestion=nearest(name, classes))
    return stand_in


def _is_plugin(module: str) -> bool:
    try:
        return importlib.util.find_spec(f"{_PLUGINS}.{module}") is not None
    except ModuleNotFoundError:
        return False


def why_real(driver: type[Device], stand_in: type | None) -> str | None:
    """Return why a driver cannot be simulated with a stand-in, and what to do; None if it can.

    Args:
        driver: its class.
        stand_in: the class of the stand-in; None without one.
    """
    name = repr(driver.driver or driver.__qualname__)
    if stand_in is None:
        if takes_visa(driver) or not driver.has_instrument:
            return None
        return (
            f"driver {name} does not use VISA, so it would open the real instrument under simulation: declare "
            'stand_in = "module:Class" (a driver that opens no instrument says has_instrument = False in its class)'
        )
    found = f"{stand_in.__module__}:{stand_in.__qualname__}"
    if not issubclass(stand_in, Device):
        if takes_visa(driver):
            return f"driver {name} uses VISA, which is simulated: declare simulator, not stand_in = {found!r}"
        return None
    if not issubclass(stand_in, driver):
        return f"expected a class that derives from the driver's, {driver.__qualname__}, or from no device, got {found}"
    same_open = inspect.getattr_static(stand_in, "_open") is inspect.getattr_static(driver, "_open")
    if same_open and driver.has_instrument and not takes_visa(driver):
        return f"{found} has the _open() of driver {name}, which opens the real instrument: it needs its own _open()"
    return None


def create_simulated(
    driver: type[Device],
    stand_in: type | None,
    name: str,
    options: Mapping[str, Any],
    stand_in_options: Mapping[str, Any],
    clock: Any,
) -> Device:
    """Make a device that opens no real instrument; it is not opened.

    Args:
        driver: its class.
        stand_in: a class. If it derives from the driver, it is used instead of the driver; if not, an object of it is
            used instead of what ``_open`` returns.
        name: of the device.
        options: keyword arguments of the driver.
        stand_in_options: keyword arguments of ``stand_in``. If it has an argument ``clock``, it gets the simulation's.
        clock: of the simulation.

    Raises:
        ConfigurationError: the device would open a real instrument, or an option is wrong.
    """
    problem = why_real(driver, stand_in)
    if problem is not None:
        raise ConfigurationError(f"device {name!r}: {problem}", key=f"devices.{name}")
    instead = None
    if stand_in is None:
        device = bind_options(driver, name, options)
    else:
        given = {**stand_in_options, **({"clock": clock} if "clock" in options_of(stand_in) else {})}
        if issubclass(stand_in, Device):
            device = bind_options(stand_in, name, {**options, **given})
        else:
            device = bind_options(driver, name, options)
            instead = functools.partial(stand_in, **given)
    device._simulated_(clock, instead)
    return device
