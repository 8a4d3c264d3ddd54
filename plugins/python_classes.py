"""Any Python class as a driver: ``driver = "python:package.module:Class"``.

Its public methods, properties and attributes become operations. If its constructor has an argument ``visa_library``,
``visalib`` or ``resource_manager``, it is given the device's VISA library there, and the ``address`` of the device as
its first argument (or as ``address``). Otherwise it opens its instrument by itself, with the ``options`` of the device.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from catkit_devices.errors import ConfigurationError
from catkit_devices.foreign import Description, DriverSource, found_class, read_class
from catkit_devices.hookspecs import hookimpl

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["PythonClasses"]

_LIBRARY = ("visa_library", "visalib", "resource_manager")
"""Arguments of constructors that take a VISA library; the last takes pyvisa's resource manager."""


class PythonClasses(DriverSource):
    """Finds classes by their module and name."""

    def find(self, text: str) -> type:
        """Return the class ``module:Class``."""
        module, colon, name = text.partition(":")
        if not (module and colon and name):
            raise ConfigurationError(f"expected 'python:package.module:Class', got 'python:{text}'")
        return found_class(module, name)

    def describe(self, cls: type) -> Description:
        """Return the public members of a class."""
        members, left_out = read_class(cls, without=("close",))
        return Description(
            doc=inspect.getdoc(cls) or f"An object of the class {cls.__qualname__}.",
            members=tuple(members),
            left_out=tuple(left_out),
            uses_visa=_library_of(cls) is not None,
        )

    def construct(self, cls: type, _name: str, address: str | None, library: Any, options: Mapping[str, Any]) -> Any:
        """Make the object."""
        argument = _library_of(cls)
        if argument is None:
            return cls(**options)
        given: Any = library
        if argument == "resource_manager":
            import pyvisa

            given = pyvisa.ResourceManager(library)
        if "address" in inspect.signature(cls).parameters:
            return cls(**{"address": address, argument: given, **options})
        return cls(address, **{argument: given, **options})


def _library_of(cls: type) -> str | None:
    try:
        parameters = inspect.signature(cls).parameters
    except (TypeError, ValueError):  # of a class that is not written in Python
        return None
    return next((name for name in _LIBRARY if name in parameters), None)


@hookimpl
def catkit_devices_driver_sources() -> dict[str, DriverSource]:
    """Provide ``python:``."""
    return {"python": PythonClasses()}
