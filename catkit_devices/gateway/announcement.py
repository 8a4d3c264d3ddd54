"""Instruments that announce themselves on the local network: finding them, and announcing those of a gateway.

It is done by multicast DNS (RFC 6762, RFC 6763), with the services that LXI names (LXI Device Specification 1.6, 10):
``_hislip._tcp``, ``_vxi-11._tcp`` and ``_scpi-raw._tcp``. It needs the package zeroconf: the extra ``mdns``.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from catkit_devices.errors import ConfigurationError
from catkit_devices.gateway.server import HISLIP_PORT, sub_address

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["Announced", "announcing", "find_announced"]

_HISLIP, _VXI_11, _RAW = "_hislip._tcp.local.", "_vxi-11._tcp.local.", "_scpi-raw._tcp.local."
"""The kinds of services that have a VISA address. ``_lxi._tcp`` is the page of an instrument and has none."""
_SUB_ADDRESS = "SubAddress"
"""In what a service says of itself: where it is at its port. LXI has no word for it; its instruments are at hislip0."""
_FACTS = ("Manufacturer", "Model", "SerialNumber")
"""What an LXI instrument says of itself."""
_LONGEST_NAME = 58
"""Bytes of the name of a service: 63 (RFC 6763, 4.1.1), less a number that is put after it where it is taken."""
_SECONDS = 2.0
"""For which answers are waited. The question is sent two or three times meanwhile, however many there are."""
_DETAILS = 500.0
"""Milliseconds to ask for what an answer did not say."""
_REGISTRATION = 20.0
"""Seconds for making sure that a name is free, and announcing it three times (RFC 6762, 8)."""


class Announced(NamedTuple):
    """One instrument that announces itself: its VISA address, and what it says of itself."""

    address: str
    what: str


def find_announced(interface: str | None = None, seconds: float = _SECONDS) -> list[Announced]:
    """Return the instruments on the local network that announce themselves; takes ``seconds``.

    Args:
        interface: address of this computer in the network where they are looked for; all of its networks if None.
        seconds: for which answers are waited.

    Raises:
        ConfigurationError: there is no package zeroconf, or no such interface.
    """
    zeroconf = _package()
    with _opened(zeroconf, None if interface is None else [interface]) as network:
        names: set[tuple[str, str]] = set()
        changed = zeroconf.ServiceStateChange

        def heard(*, service_type: str, name: str, state_change: Any, **_: Any) -> None:
            (names.discard if state_change is changed.Removed else names.add)((service_type, name))

        browser = zeroconf.ServiceBrowser(network, [_HISLIP, _VXI_11, _RAW], [heard])
        time.sleep(seconds)
        browser.cancel()
        details = [network.get_service_info(*name, timeout=_DETAILS) for name in sorted(names)]
    return [one for info in details if info is not None for one in _described(info)]


@contextlib.contextmanager
def announcing(devices: Mapping[str, str], *, testbed: str, host: str, port: int) -> Iterator[None]:
    """Announce the devices of a gateway on the network of ``host`` during a block.

    Args:
        devices: the names of the devices, and of their drivers.
        testbed: the name of the testbed.
        host: where the gateway serves, an address of this computer; 0.0.0.0 for all of them.
        port: of HiSLIP.

    Raises:
        ConfigurationError: there is no package zeroconf, or the host cannot be announced.
    """
    zeroconf = _package()
    addresses = _addresses(host)
    services = [
        zeroconf.ServiceInfo(
            _HISLIP,
            f"{_shortened(f'{device} of testbed {testbed}')}.{_HISLIP}",
            addresses=[socket.inet_aton(address) for address in addresses],
            port=port,
            properties={
                "txtvers": "1", "Manufacturer": "catkit_devices", "Model": driver, _SUB_ADDRESS: sub_address(device),
            },
            server=f"{socket.gethostname().partition('.')[0]}-{port}.local.",
        )
        for device, driver in devices.items()
    ]  # fmt: skip
    with _opened(zeroconf, addresses) as network:
        asyncio.run_coroutine_threadsafe(_registered(network, services), network.loop).result(_REGISTRATION)
        yield  # closing it says goodbye for all of them


async def _registered(network: Any, services: list[Any]) -> None:
    """Register services, all at the same time; one whose name is taken gets a number after it."""

    async def register(service: Any) -> None:
        await (await network.async_register_service(service, allow_name_change=True))

    await asyncio.gather(*(register(service) for service in services))


def _package() -> Any:
    try:
        import zeroconf
    except ImportError as error:
        raise ConfigurationError(
            f"instruments that announce themselves need the package zeroconf ({error}): "
            "pip install 'catkit-devices[mdns]'"
        ) from error
    return zeroconf


@contextlib.contextmanager
def _opened(zeroconf: Any, interfaces: list[str] | None) -> Iterator[Any]:
    try:
        for address in interfaces or ():  # zeroconf would leave a socket open
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as tried:
                tried.bind((address, 0))
        network = zeroconf.Zeroconf(**({} if interfaces is None else {"interfaces": interfaces}))
    except (OSError, ValueError, zeroconf.Error) as error:
        where = "the local network" if interfaces is None else " and ".join(interfaces)
        raise ConfigurationError(f"{where}: multicast DNS is not possible there: {error}") from error
    try:
        yield network
    finally:
        network.close()


def _addresses(host: str) -> list[str]:
    """Return the IPv4 addresses of this computer at which ``host`` serves."""
    if host in ("", "0.0.0.0"):  # noqa: S104 - compared, not bound
        import ifaddr  # zeroconf needs it, too

        every = [ip.ip for adapter in ifaddr.get_adapters() for ip in adapter.ips if isinstance(ip.ip, str)]
        return [ip for ip in every if not ip.startswith("127.")] or ["127.0.0.1"]
    try:
        return [socket.gethostbyname(host)]
    except OSError as error:
        raise ConfigurationError(f"{host!r} cannot be announced, expected an IPv4 address: {error}") from error


def _shortened(name: str) -> str:
    return name.encode("utf-8")[:_LONGEST_NAME].decode("utf-8", "ignore")


def _described(info: Any) -> Iterator[Announced]:
    """Yield what a service is, at each of its addresses."""
    said = {key.decode("utf-8", "replace"): (value or b"").decode("utf-8", "replace")
            for key, value in info.properties.items()}  # fmt: skip
    facts = " ".join(said[fact] for fact in _FACTS if said.get(fact))
    name = info.name.removesuffix(f".{info.type}")
    for ip in info.parsed_addresses():
        if ":" in ip:
            continue  # VISA addresses have no IPv6 without brackets, which most libraries do not take
        if info.type == _HISLIP:
            port = "" if info.port == HISLIP_PORT else f",{info.port}"
            address = f"TCPIP::{ip}::{said.get(_SUB_ADDRESS) or 'hislip0'}{port}::INSTR"
        elif info.type == _VXI_11:
            address = f"TCPIP::{ip}::inst0::INSTR"
        else:
            address = f"TCPIP::{ip}::{info.port}::SOCKET"
        yield Announced(address, f"{name} ({facts})" if facts else name)
