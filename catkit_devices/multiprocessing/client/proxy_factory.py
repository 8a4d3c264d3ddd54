"""Makes proxies: their classes from the interfaces that servers send, and the proxy of an object that was found."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from catkit_devices.multiprocessing.client.component_proxy import ComponentProxy, ComponentsProxy
from catkit_devices.multiprocessing.client.proxy import (
    Here,
    ObjectProxy,
    found_again,
    hosted_here,
    keep_missing,
    members_of,
    mutex_of,
)
from catkit_devices.multiprocessing.protocol import running_server
from catkit_devices.multiprocessing.wire.endpoint import Endpoint

if TYPE_CHECKING:
    from collections.abc import Callable

    from catkit_devices.multiprocessing.client.proxy import Remote
    from catkit_devices.multiprocessing.locks.mutex import Mutex
    from catkit_devices.multiprocessing.protocol import HostedHere, Interface, PartInterface, Reference
    from catkit_devices.multiprocessing.wire.endpoint import Address

__all__ = ["hosted_reference", "proxy_found", "proxy_of"]


def proxy_of(remote: Remote) -> Any:
    """Return a proxy of the object; on the server that has it, the object itself."""
    hosted = hosted_here(remote.server.address, remote.kind, remote.name)
    if hosted is not None:
        return _local(hosted, remote.server.name)
    interface = remote.reference.interface
    return mutex_of(remote) if interface is None else _make_proxy(remote, interface, None)


def proxy_found(server_name: str, address: Address, kind: str, name: str) -> Any:
    """Return the proxy that was sent to this process; on the server of the object, the object itself."""
    hosted = hosted_here(address, kind, name)
    if hosted is not None:
        return _local(hosted, server_name)
    return proxy_of(found_again(server_name, address, kind, name))


def hosted_reference(reference: Reference) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """Return how an object of this server is pickled: as a function, with arguments, that returns a proxy of it."""
    server = running_server[0]
    return proxy_found, (server.name, server.address, reference.kind, reference.name)


def _local(hosted: HostedHere, server_name: str) -> Any:
    """Return an object of this server for another object of it: the object itself, or a proxy without a connection."""
    interface = hosted.reference.interface
    if interface is None:
        return hosted.mutex
    if hosted.object._direct_:
        return hosted.object
    server = running_server[0]
    here = Here(hosted, Endpoint(server_name, server.address, bytes(server.authkey), 0))
    return _make_proxy(here, interface, hosted.mutex)


def _make_proxy(remote: Remote | Here, interface: Interface, mutex: Mutex | None) -> ObjectProxy:
    proxy: ObjectProxy = _new(interface)
    object.__setattr__(proxy, "_remote_", remote)
    object.__setattr__(proxy, "_mutex", mutex)
    return proxy


_classes: dict[tuple[Any, ...], Any] = {}


def _new(interface: Interface) -> Any:
    """Return a proxy whose object is not set yet."""
    cls = _class_for(interface)
    return cls.__new__(cls)


def _class_for(interface: Interface) -> Any:
    key = _identity(interface)
    cls: Any = _classes.get(key)
    if cls is None:
        cls = _classes[key] = _make_class(interface)
    return cls


def _identity(interface: Interface) -> tuple[Any, ...]:
    """Return a key that is equal for two interfaces if their proxies can have the same class."""
    parts = tuple(
        (name, part.single, part.kind, tuple((key, _identity(one)) for key, one in (part.there or {}).items()))
        for name, part in interface.parts.items()
    )
    # With the docs: limits in them may differ between two devices of one driver.
    told = (interface.methods, interface.properties, interface.signatures)
    return (*interface[:2], *(tuple(one.items()) for one in told), *interface[4:-2], parts)


def _make_class(interface: Interface) -> type[Any]:
    members: dict[str, Any] = {"__slots__": (), "_interface": interface, "__doc__": f"Proxy of a {interface.name}."}
    base: type = ComponentProxy
    if interface.kind != "component":
        base, members["__reduce__"] = ObjectProxy, _reduce
        members["_class_for_"] = staticmethod(_class_for)
    members |= members_of(interface, base)
    members |= {name: _components(name, part) for name, part in interface.parts.items()}
    return type(f"{interface.name}Proxy", (base,), members)


def _reduce(self: ObjectProxy) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    return proxy_found, self._remote_.whereabouts()


def _components(name: str, part: PartInterface) -> property:
    def get(self: Any) -> ComponentProxy | ComponentsProxy:
        components = ComponentsProxy(self, name, part, _new)
        if not part.single:
            return components
        try:
            return components._only_()
        except AttributeError as error:
            keep_missing(name, error)
            raise

    return property(get, doc=f"{part.kind}: {'a component' if part.single else 'components, by key'}.")
