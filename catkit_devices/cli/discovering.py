"""Finds the instruments and ports of this computer."""

from __future__ import annotations

import contextlib
import warnings
from typing import TYPE_CHECKING, Any, NamedTuple

from catkit_devices._wire.address import visa_address
from catkit_devices.errors import ConfigurationError, DeviceBusyError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Resource", "ask_identity", "find_resources"]

_QUERIES = ("*IDN?", "*idn?")
"""The identity query of SCPI, and as some serial instruments spell it; both are harmless to an instrument that does not
know them.
"""
_ENDINGS = ("\n", "\r")
"""Line ends that instruments wait for; both are tried."""
_BLANK = " \t\r\n>"
"""What surrounds an identity: white space, and the prompt of some instruments."""
_LONGEST = 1000
"""Bytes of an identity; a longer answer is something else."""
_SILENCE = 100.0
"""Milliseconds without a byte that end an answer on a line without messages."""


class Resource(NamedTuple):
    """One resource: its VISA address (empty if it has none), the serial port that it is, and what it is."""

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
            with contextlib.closing(pyvisa.ResourceManager(visa_library)) as manager:
                addresses = list(manager.list_resources("?*"))
        except (OSError, ValueError, pyvisa.errors.Error) as error:
            raise ConfigurationError(f"VISA library {visa_library!r} cannot be used: {error}") from error
    notes = [str(warning.message) for warning in caught if issubclass(warning.category, UserWarning)]
    ports = {visa_address(port.device): port for port in list_ports.comports()}
    # A serial port that might be a GPIB adapter is not listed a second time.
    addresses = [address for address in addresses if not address.startswith("PRLGX")]
    found = [_described(address, ports.pop(address, None)) for address in addresses]
    return [*found, *(Resource("", port.device, _facts(port)) for port in ports.values())], list(dict.fromkeys(notes))


def ask_identity(
    visa_library: str, baud_rate: int, timeout: float
) -> Callable[[str], tuple[str | None, str | None]]:  # fmt: skip
    """Return a function that asks what is at an address for its identity: its answer, or why there is none."""

    def ask(address: str) -> tuple[str | None, str | None]:
        if not address:
            return None, "this VISA library does not know the port"
        from catkit_devices._wire.address import normalise
        from catkit_devices._wire.ownership import Ownership

        try:
            ownership = Ownership(normalise(address))
        except DeviceBusyError as error:
            return None, str(error)
        except ValueError as error:
            return None, str(error)
        try:
            return _ask(visa_library, address, baud_rate, timeout)
        finally:
            ownership.release()

    return ask


def _ask(visa_library: str, address: str, baud_rate: int, timeout: float) -> tuple[str | None, str | None]:
    import pyvisa

    try:
        with contextlib.closing(pyvisa.ResourceManager(visa_library)) as manager:
            resource: Any = manager.open_resource(address, open_timeout=int(timeout * 1000))
            try:
                resource.timeout = timeout * 1000
                if address.upper().startswith("ASRL"):
                    resource.baud_rate = baud_rate
                return _query(resource)
            finally:
                resource.close()
    except Exception as error:  # noqa: BLE001 - VISA backends raise any exception; the next address must still be asked
        return None, f"{type(error).__name__}: {error}"


def _query(resource: Any) -> tuple[str | None, str | None]:
    refusal = None
    for ending in _ENDINGS:
        if ending == _ENDINGS[1]:
            # An instrument that waits for this line end has also received the queries before it.
            _try(resource, "", ending)
        for query in _QUERIES:
            # Some instruments echo the query before the answer, and send a prompt after it.
            answer = _try(resource, query, ending).strip(_BLANK).removeprefix(query).strip(_BLANK)
            if answer and "error" not in answer.lower():
                return " ".join(answer.split()), None
            refusal = refusal or answer
    return None, f"answers {refusal!r}" if refusal else "no answer"


def _try(resource: Any, query: str, ending: str) -> str:
    """Return the answer to a query; empty if there is none in time."""
    import pyvisa

    try:
        return _exchange(resource, query, ending)
    except pyvisa.errors.VisaIOError as error:
        if error.error_code != pyvisa.constants.StatusCode.error_timeout:
            raise
    return ""


def _exchange(resource: Any, query: str, ending: str) -> str:
    resource.write_termination = ending
    if not resource.resource_name.upper().startswith("ASRL") and not resource.resource_name.upper().endswith("SOCKET"):
        answer: str = resource.query(query)
        return answer
    # How its answers end is not known: they are over when nothing more comes.
    import pyvisa

    usual = resource.timeout
    resource.write(query)
    received = b""
    try:
        while True:
            received += resource.read_bytes(1)
            if len(received) == _LONGEST:
                break
            resource.timeout = min(usual, _SILENCE)
    except pyvisa.errors.VisaIOError as error:
        if not received or error.error_code != pyvisa.constants.StatusCode.error_timeout:
            raise
    finally:
        resource.timeout = usual
    return received.decode("ascii", "replace")


def _described(address: str, port: Any) -> Resource:
    return Resource(address, None if port is None else port.device, None if port is None else _facts(port))


def _facts(port: Any) -> str | None:
    facts = [port.description] if port.description not in (None, "n/a") else []
    if port.serial_number:
        facts.append(f"serial number {port.serial_number}")
    return ", ".join(facts) or None
