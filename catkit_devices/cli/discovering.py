"""What instruments there are to be found on this computer."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, NamedTuple

from catkit_devices.errors import ConfigurationError, DeviceBusyError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Resource", "ask_identity", "find_resources"]

_QUERIES = ("*IDN?", "*idn?")
"""The identity query of SCPI, and as some serial instruments spell it; both are harmless to whoever does not know them.
"""


class Resource(NamedTuple):
    """One resource: its VISA address, the serial port that it is, and what the system knows of it."""

    address: str
    port: str | None
    what: str | None


def find_resources(visa_library: str) -> tuple[list[Resource], list[str]]:
    """Return the resources of a VISA library and the serial ports of the system, and what could not be looked for.

    Raises:
        ConfigurationError: there is no such VISA library.
    """
    import pyvisa
    from serial.tools import list_ports

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            with pyvisa.ResourceManager(visa_library) as manager:
                addresses = list(manager.list_resources("?*"))
        except (OSError, ValueError, pyvisa.errors.Error) as error:
            raise ConfigurationError(f"VISA library {visa_library!r} cannot be used: {error}") from error
    notes = list(dict.fromkeys(str(warning.message) for warning in caught))
    ports = {f"ASRL{port.device}::INSTR": port for port in list_ports.comports()}
    found = [_described(address, ports.get(address)) for address in addresses]
    found += [_described(address, port) for address, port in ports.items() if address not in addresses]
    return found, notes


def ask_identity(
    visa_library: str, baud_rate: int, timeout: float
) -> Callable[[str], tuple[str | None, str | None]]:  # fmt: skip
    """Return a function that asks what is at an address for its identity: its answer, or why there is none."""

    def ask(address: str) -> tuple[str | None, str | None]:
        from catkit_devices.ownership import Ownership, normalise

        try:
            ownership = Ownership(normalise(address))
        except DeviceBusyError as error:
            return None, str(error)
        except ValueError as error:
            return None, f"not an address: {error}"
        try:
            return _ask(visa_library, address, baud_rate, timeout)
        finally:
            ownership.release()

    return ask


def _ask(visa_library: str, address: str, baud_rate: int, timeout: float) -> tuple[str | None, str | None]:
    import pyvisa

    try:
        with pyvisa.ResourceManager(visa_library) as manager:
            resource: Any = manager.open_resource(address, open_timeout=int(timeout * 1000))
            try:
                resource.timeout = timeout * 1000
                if address.upper().startswith("ASRL"):
                    resource.baud_rate = baud_rate
                return _query(resource)
            finally:
                resource.close()
    except Exception as error:  # noqa: BLE001 - backends let anything escape, and the next address is another matter
        return None, f"{type(error).__name__}: {error}"


def _query(resource: Any) -> tuple[str | None, str | None]:
    import pyvisa

    for query in _QUERIES:
        for ending in ("\n", "\r"):
            resource.write_termination = resource.read_termination = ending
            try:
                answer = resource.query(query).strip(" \t\r\n>")
            except pyvisa.errors.VisaIOError as error:
                if error.error_code != pyvisa.constants.StatusCode.error_timeout:
                    raise
                continue
            # Some instruments send back what they are sent before they answer it.
            answer = answer.removeprefix(query).strip(" \t\r\n>")
            if answer:
                return answer, None
    return None, "no answer"


def _described(address: str, port: Any) -> Resource:
    if port is None:
        return Resource(address, None, None)
    facts = [port.description] if port.description not in (None, "n/a") else []
    if port.serial_number:
        facts.append(f"serial number {port.serial_number}")
    return Resource(address, port.device, ", ".join(facts) or None)
