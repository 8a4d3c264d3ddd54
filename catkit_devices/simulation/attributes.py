"""The VISA attributes of one session, with the defaults and the limits that pyvisa documents for its kind."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pyvisa import attributes, constants, rname
from pyvisa.constants import ResourceAttribute, StatusCode

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Attributes"]


class Attributes:
    """The attributes of one session, for ``viGetAttribute`` and ``viSetAttribute``.

    Args:
        parsed: the address.
        resource_manager: the session of the resource manager that opened it.
        available: returns the number of bytes that can be read without waiting, and the status of that question.
    """

    def __init__(
        self, parsed: rname.ResourceName, resource_manager: int, available: Callable[[], tuple[int, StatusCode]]
    ) -> None:
        self._kind = (parsed.interface_type_const, parsed.resource_class)
        self._available = available
        self._values: dict[int, Any] = {
            ResourceAttribute.resource_manager_session: resource_manager,
            ResourceAttribute.resource_name: str(parsed),
            ResourceAttribute.resource_class: parsed.resource_class,
            ResourceAttribute.interface_type: parsed.interface_type_const,
            ResourceAttribute.resource_manufacturer_name: "catkit_devices",
            ResourceAttribute.resource_impl_version: 0x00100000,
            **_of_address(parsed),
        }
        if isinstance(parsed, rname.TCPIPSocket):
            # A stream of bytes has no marks for the end of a message, and the usual VISA libraries do not look for any.
            self._values[ResourceAttribute.suppress_end_enabled] = True

    def get(self, attribute: int) -> tuple[Any, StatusCode]:
        """Return the value of an attribute, and whether this kind of session has it."""
        known = self._known(attribute)
        if known is None or not known.read:
            return 0, StatusCode.error_nonsupported_attribute
        if attribute == constants.VI_ATTR_ASRL_AVAIL_NUM:
            return self._available()
        value = self._values.get(attribute, known.default)
        if value is attributes.NotAvailable:
            return 0, StatusCode.error_nonsupported_attribute
        return value, StatusCode.success

    def set(self, attribute: int, value: Any) -> StatusCode:
        """Set an attribute, and return whether that was possible."""
        known = self._known(attribute)
        if known is None:
            return StatusCode.error_nonsupported_attribute
        if not known.write:
            return StatusCode.error_attribute_read_only
        if not _is_acceptable(known, value):
            return StatusCode.error_nonsupported_attribute_state
        self._values[attribute] = value
        return StatusCode.success

    def value(self, attribute: ResourceAttribute) -> Any:
        """Return the value of an attribute, for the simulation's own use."""
        return self._values.get(attribute, attributes.AttributesByID[attribute].default)

    def _known(self, attribute: int) -> type[attributes.Attribute[Any]] | None:
        known = attributes.AttributesByID.get(attribute)
        return known if known is not None and known.in_resource(self._kind) else None


def _is_acceptable(known: type[attributes.Attribute[Any]], value: Any) -> bool:
    if issubclass(known, attributes.RangeAttribute):
        return known.min_value <= value <= known.max_value or value in (known.values or ())
    if issubclass(known, attributes.EnumAttribute | attributes.FlagAttribute):
        return value in {int(member) for member in known.enum_type} or issubclass(known, attributes.FlagAttribute)
    return True


def _of_address(parsed: rname.ResourceName) -> dict[int, Any]:
    found: dict[int, Any] = {}
    board = getattr(parsed, "board", "0")
    if board.isdecimal():  # a serial port may have a name instead
        found[ResourceAttribute.interface_number] = int(board)
    if isinstance(parsed, rname.TCPIPInstr | rname.TCPIPSocket | rname.VICPInstr):
        found[ResourceAttribute.tcpip_address] = parsed.host_address
        found[ResourceAttribute.tcpip_hostname] = parsed.host_address
    if isinstance(parsed, rname.TCPIPSocket):
        found[ResourceAttribute.tcpip_port] = int(parsed.port)
    if isinstance(parsed, rname.TCPIPInstr):
        found[ResourceAttribute.tcpip_device_name] = parsed.lan_device_name
    if isinstance(parsed, rname.USBInstr | rname.USBRaw):
        found[ResourceAttribute.manufacturer_id] = int(parsed.manufacturer_id, 16)
        found[ResourceAttribute.model_code] = int(parsed.model_code, 16)
        found[ResourceAttribute.usb_serial_number] = parsed.serial_number
        found[ResourceAttribute.usb_interface_number] = int(parsed.usb_interface_number)
    if isinstance(parsed, rname.GPIBInstr):
        found[ResourceAttribute.gpib_primary_address] = int(parsed.primary_address)
        secondary = parsed.secondary_address
        found[ResourceAttribute.gpib_secondary_address] = (
            constants.VI_NO_SEC_ADDR if secondary is None else int(secondary)
        )
    return found
