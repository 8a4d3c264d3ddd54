"""Instruments that are read with SNMP, version 1 over UDP: the base of their drivers.

Messages, and errors such as noSuchName: RFC 1157. It needs the package pysnmp: ``pip install 'catkit-devices[snmp]'``.
"""

from __future__ import annotations

import socket
import time
from typing import Any, ClassVar

from catkit_devices.device import Device
from catkit_devices.errors import (
    DeviceDisconnectedError,
    DeviceOpenError,
    DeviceProtocolError,
    DeviceTimeoutError,
)

__all__ = ["SnmpDevice"]

_TRIES, _PATIENCE = 3, 1.5
"""How often a request is sent before it is an error, since UDP may lose it; and the seconds that each may take."""
_LARGEST = 65507  # bytes of a UDP packet


class _Agent:
    """The SNMP agent of an instrument; a stand-in has the same two methods."""

    def __init__(self, address: str, port: int, community: str) -> None:
        from pyasn1.codec.ber import decoder, encoder
        from pyasn1.error import PyAsn1Error
        from pysnmp.proto import api
        from pysnmp.proto.error import ProtocolError

        self._encode, self._decode = encoder.encode, decoder.decode
        self._wrong = (PyAsn1Error, ProtocolError)
        self._snmp = api.PROTOCOL_MODULES[api.SNMP_VERSION_1]
        self._community = community
        family, kind, protocol, _, where = socket.getaddrinfo(address, port, type=socket.SOCK_DGRAM)[0]
        self._socket = socket.socket(family, kind, protocol)
        self._socket.connect(where)  # so that packets from elsewhere are not taken for replies

    def get(self, oid: str) -> str:
        """Return the value of an object, as text.

        Raises:
            ValueError: there is no such object.
            OSError: no reply has come (TimeoutError), or the agent cannot be reached.
        """
        snmp = self._snmp
        request = snmp.GetRequestPDU()
        snmp.apiPDU.set_defaults(request)  # with a new request id
        snmp.apiPDU.set_varbinds(request, [(oid, snmp.Null(""))])
        message = snmp.Message()
        snmp.apiMessage.set_defaults(message)
        snmp.apiMessage.set_community(message, self._community)
        snmp.apiMessage.set_pdu(message, request)
        for _try in range(_TRIES):
            self._socket.send(self._encode(message))
            try:
                return self._value(snmp.apiPDU.get_request_id(request), oid)
            except TimeoutError:
                continue
        raise TimeoutError(f"no reply in {_TRIES * _PATIENCE:g} s")

    def _value(self, request_id: Any, oid: str) -> str:
        snmp = self._snmp
        deadline = time.monotonic() + _PATIENCE
        while True:
            self._socket.settimeout(max(deadline - time.monotonic(), 0.001))  # 0 would mean not to wait at all
            packet = self._socket.recv(_LARGEST)
            try:
                reply = snmp.apiMessage.get_pdu(self._decode(packet, asn1Spec=snmp.Message())[0])
                number, error = snmp.apiPDU.get_request_id(reply), snmp.apiPDU.get_error_status(reply)
                values = {str(name): value.prettyPrint() for name, value in snmp.apiPDU.get_varbinds(reply)}
            except self._wrong:
                continue  # bytes that are no SNMP message may be a damaged reply: the request is sent again
            if number != request_id:
                continue  # a late reply to an earlier request
            if error:
                raise ValueError(f"it answers {error.prettyPrint()}")
            if oid not in values:
                raise ValueError(f"the object {oid} was expected, got {', '.join(values) or 'none'}")
            return str(values[oid])

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


class SnmpDevice(Device):
    """An instrument with an SNMP agent. The command of a property is its object's name, without ``mib`` in front.

    Args:
        address: host name or IP address of its network card.
        port: UDP port.
        community: the name that the card asks for, like a password, to allow reading.
    """

    mib: ClassVar[str]
    """What the names of all its objects begin with: ``"1.3.6.1.2.1.33.1."``."""
    mib_name: ClassVar[str]
    """For messages."""
    always_there: ClassVar[str]
    """An object that each of these instruments has: it is read when the device is opened."""

    def __init__(self, name: str, *, address: str, port: int = 161, community: str = "public", **options: Any) -> None:
        super().__init__(name, **options)
        self._agent = address, port, community

    def _open(self) -> _Agent:
        try:
            agent = _Agent(*self._agent)
        except ImportError as error:
            raise DeviceOpenError(
                f"needs the package pysnmp ({error}): pip install 'catkit-devices[snmp]'", **self._facts()
            ) from error
        except OSError as error:
            raise DeviceOpenError(f"{self._where()}: {error}", **self._facts()) from error
        try:
            agent.get(f"{self.mib}{self.always_there}")
        except (OSError, ValueError) as error:
            agent.close()
            raise DeviceOpenError(
                f"{self._where()}: {error}; expected an instrument with the {self.mib_name} and the community "
                f"{self._agent[2]!r}",
                **self._facts(),
            ) from error
        return agent

    def _close(self) -> None:
        self._connection.close()

    def _where(self) -> str:
        return f"UDP port {self._agent[1]} of {self._agent[0]}"

    def _query(self, command: str) -> str:
        try:
            return str(self._connection.get(f"{self.mib}{command}"))
        except TimeoutError as error:
            raise DeviceTimeoutError(f"{self._where()}: {error}", **self._facts(command)) from error
        except OSError as error:
            raise DeviceDisconnectedError(f"{self._where()}: {error}", **self._facts(command)) from error
        except ValueError as error:
            raise DeviceProtocolError(str(error), **self._facts(command)) from error
