"""Where an object of a server is, and the client's side of its lock."""

from __future__ import annotations

import hmac
from multiprocessing import AuthenticationError, current_process
from typing import TYPE_CHECKING, Any

from catkit_devices.errors import CatkitDevicesError, ConfigurationError, MutexBrokenError
from catkit_devices.multiprocessing.client.calls import connection_to
from catkit_devices.multiprocessing.locks.entries import OwnEntries, new_entry
from catkit_devices.multiprocessing.locks.mutex import Mutex
from catkit_devices.multiprocessing.locks.owner import current_owner
from catkit_devices.multiprocessing.protocol import CALL, LOCK, ROOT, running_server
from catkit_devices.multiprocessing.wire.endpoint import Endpoint, endpoint

if TYPE_CHECKING:
    from collections.abc import Callable

    from catkit_devices.multiprocessing.client.calls import CallConnection
    from catkit_devices.multiprocessing.client.session import ClientSession
    from catkit_devices.multiprocessing.locks.lock import Holder
    from catkit_devices.multiprocessing.locks.owner import Call, Owner
    from catkit_devices.multiprocessing.protocol import HostedHere, Reference
    from catkit_devices.multiprocessing.wire.endpoint import Address

__all__ = ["Remote", "RemoteLock", "found_again", "hosted_here", "mutex_found", "mutex_of", "obtain", "reach"]


class Remote:
    """Where one object of a server is, found anew by its name when the server was started anew.

    An owner that was in sections of its lock when the server ended holds nothing any more, and may not know that yet:
    that owner is refused until the sections are left. All else of the new server is free to use, and so is the same
    object where it is got anew.
    """

    __slots__ = ("_ended", "_entered", "kind", "name", "reference", "server", "session")

    def __init__(self, server: Endpoint, kind: str, name: str, reference: Reference, session: ClientSession) -> None:
        self.server = server
        self.kind = kind
        self.name = name
        self.reference = reference
        self.session = session
        self._ended: list[tuple[ClientSession, int | None]] = []
        """The sessions of before, and the number of its lock in each."""
        self._entered = OwnEntries()

    def connection(self, *, refuse: bool = True) -> CallConnection:
        """Return this thread's connection to the server, with ``reference`` right for it.

        Args:
            refuse: whether an owner with sections that have ended with their server is refused.

        Raises:
            MutexBrokenError: it is.
        """
        if refuse and (self._ended or self.session.lost is not None):
            ended = self.ended_sections(current_owner())
            if ended is not None:
                raise _ended_with(ended, self.name)
        connection = connection_to(self.server)
        if connection.session is not self.session:
            self._find_again(connection)
        return connection

    def _find_again(self, connection: CallConnection) -> None:
        reference = connection.call(ROOT, CALL, "obtain", (self.kind, self.name, {}, None, ((), {})), None)
        # In this order: another thread that comes in between finds its sections of before in one place or the other.
        kept = [one for one in self._ended if one[0].sections]
        self._ended = [*kept, (self.session, self.reference.lock)]
        self.reference = reference
        self.session = connection.session

    def ended_sections(self, owner: Owner) -> tuple[ClientSession, int] | None:
        """Return where an owner has sections of its lock, not yet left, that ended with their server."""
        if self.session.lost is None and not self._ended:
            return None
        for session, lock in (*self._ended, (self.session, self.reference.lock)):
            if lock is not None and session.lost is not None and lock in session.sections.get(owner.key, ()):
                return session, lock
        return None

    def enter(self, *, block: bool) -> None:
        """Have the object opened, and kept open for a `with` block or until ``close()``, for this process."""
        connection = self.connection()
        opened = connection.session.opened.setdefault(self.reference.target, [])
        entry = new_entry(block=block)
        try:
            connection.call(self.reference.target, CALL, "_enter_entry_", (entry,), None)
            if not block:
                opened.append(entry)
            self._entered.add(entry, connection.session)
        except BaseException:
            # Interrupted after the server counted it, perhaps: what it thinks must be what this side says.
            self._entered.discard(entry)
            if entry in opened:
                opened.remove(entry)
            connection.session.say(("withdraw", self.reference.target, entry))
            raise

    def leave(self, *, block: bool, force: bool = False) -> None:
        """End what the newest ``enter`` of this owner began over this object; force ends everybody's.

        Where this object has none, a ``close()`` ends the newest ``open()`` of this process over another one.
        """
        connection = self.connection()
        opened = connection.session.opened.get(self.reference.target, [])
        found = self._entered.newest(block=block)
        if found is not None:
            entry = found.entry if found.session is connection.session else None  # else it has ended with its server
        else:
            entry = opened[-1] if opened and not block else None
        if found is not None and entry is None and not force:
            self._entered.discard(found.entry)
            return
        try:
            connection.call(self.reference.target, CALL, "_leave_entry_", (entry, force), None)
        except BaseException:
            if entry is not None:
                connection.session.say(("withdraw", self.reference.target, entry))
            raise
        finally:
            if found is not None:
                self._entered.discard(found.entry)
            if entry is not None and entry in opened:
                opened.remove(entry)

    def whereabouts(self) -> tuple[str, Address, str, str]:
        """Return what it is found by in any process: the server's name and address, and its own kind and name."""
        return self.server.name, self.server.address, self.kind, self.name


def reach(name: str, address: Address | None = None, authkey: bytes | None = None) -> Endpoint:
    """Return how a server is reached: by its name on this host, or at an address.

    Args:
        name: of the server.
        address: of a server that is reached over TCP.
        authkey: its secret; None for the one that a server on this host has left for its user, and over TCP for
            this process's.

    Raises:
        ServerNotFoundError: no server of that name runs here.
        AuthenticationError: the server of that name has another key.
    """
    if address is None or isinstance(address, str):
        found = endpoint(name)
        if authkey is not None and not hmac.compare_digest(found.authkey, authkey):
            raise AuthenticationError(f"the key that was given is not that of server {name!r} (pid {found.pid})")
        return found
    return Endpoint(name, address, bytes(authkey or current_process().authkey), 0)


def obtain(
    server: Endpoint,
    kind: str,
    name: str,
    parameters: dict[str, Any],
    factory: Any = None,
    args: tuple[Any, ...] = (),
    kwargs: dict[str, Any] | None = None,
) -> Remote:
    """Return the one object of that kind and name on the server, made there now if it is not there."""
    connection = connection_to(server)
    reference = connection.call(ROOT, CALL, "obtain", (kind, name, parameters, factory, (args, kwargs or {})), None)
    return Remote(server, kind, name, reference, connection.session)


def found_again(server_name: str, address: Address, kind: str, name: str) -> Remote:
    """Return where an object is that another process had."""
    return obtain(reach(server_name, address), kind, name, {})


def hosted_here(address: Address, kind: str, name: str) -> HostedHere | None:
    """Return an object of the server that this process is."""
    if running_server and running_server[0].address == address:
        hosted: HostedHere | None = running_server[0].host.find(kind, name)
        return hosted
    return None


def mutex_of(remote: Remote) -> Mutex:
    """Return the mutex of an object on a server."""
    return Mutex.over(RemoteLock(remote), remote.reference.timeout)


class RemoteLock:
    """The client's side of a lock on a server: says on each call how many sections its owner then has."""

    __slots__ = ("name", "remote")

    def __init__(self, remote: Remote) -> None:
        self.remote = remote
        self.name = remote.name

    @property
    def order(self) -> tuple[str, str, str]:
        """Where it stands in the one order in which several are acquired."""
        return (str(self.remote.server.address), self.remote.kind, self.name)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RemoteLock) and self.order == other.order

    def __hash__(self) -> int:
        return hash(self.order)

    def acquire(self, call: Call, timeout: float, depth: int | None = None, site: str | None = None) -> None:
        """As ``OwnedLock.acquire``."""
        connection = self.remote.connection()
        target = self._target()
        sections = connection.session.sections.setdefault(call.owner.key, {})
        if depth is None:
            depth = sections.get(target, 0) + 1
        connection.session.names[target] = self.name
        try:
            # Either of the two lines fails, and then the server has been told that there is no such section, or both
            # are done: nothing is called between them, and Ctrl-C comes on calls.
            connection.call(target, LOCK, "acquire", (timeout, depth, site), None)
            sections[target] = depth
        except BaseException:
            if not sections:
                connection.session.sections.pop(call.owner.key, None)
            raise

    def release(self, call: Call, depth: int | None = None) -> None:
        """As ``OwnedLock.release``."""
        if depth is None:
            depth = self.depth(call) - 1
        ended = self.remote.ended_sections(call.owner)
        if ended is not None:
            session, lock = ended
            _leave(session, call, lock, depth)
            raise _ended_with(ended, self.name)
        connection = self.remote.connection()
        target = self._target()
        try:
            _leave(connection.session, call, target, depth)
            connection.call(target, LOCK, "release", (max(depth, 0),), None)
        except CatkitDevicesError:
            raise
        except BaseException:
            connection.abandon()  # interrupted, perhaps before the server was told
            raise

    def depth(self, call: Call) -> int:
        """As ``OwnedLock.depth``."""
        session, lock = self.remote.ended_sections(call.owner) or (self.remote.session, self._target())
        return session.sections.get(call.owner.key, {}).get(lock, 0)

    def holder(self) -> Holder | None:
        """As ``OwnedLock.holder``."""
        connection = self.remote.connection(refuse=False)
        holder: Holder | None = connection.call(self._target(), LOCK, "holder", (), None)
        return holder

    def waiters(self) -> list[Holder]:
        """As ``OwnedLock.waiters``."""
        connection = self.remote.connection(refuse=False)
        waiters: list[Holder] = connection.call(self._target(), LOCK, "waiters", (), None)
        return waiters

    def break_(self, reason: str) -> str | None:
        """As ``OwnedLock.break_``."""
        connection = self.remote.connection(refuse=False)
        whose: str | None = connection.call(self._target(), LOCK, "break_", (reason,), None)
        return whose

    def _target(self) -> int:
        target = self.remote.reference.lock
        if target is None:
            raise ConfigurationError(f"{self.remote.kind} {self.name!r} has no mutex")
        return target

    @property
    def found_by(self) -> tuple[Callable[..., Mutex], tuple[str, Address, str, str]]:
        """As ``OwnedLock.found_by``."""
        return mutex_found, self.remote.whereabouts()


def _ended_with(ended: tuple[ClientSession, int], name: str) -> MutexBrokenError:
    return MutexBrokenError(name, f"the server that kept it is lost ({ended[0].lost})")


def _leave(session: ClientSession, call: Call, target: int, depth: int) -> None:
    """Note that an owner has so many sections on a lock from now on."""
    held = session.sections.get(call.owner.key, {})
    if depth > 0:
        held[target] = depth
    else:
        held.pop(target, None)
    if not held:
        session.sections.pop(call.owner.key, None)


def mutex_found(server_name: str, address: Address, kind: str, name: str, shown: str, timeout: float) -> Mutex:
    """Return the mutex that another process has sent."""
    hosted = hosted_here(address, kind, name)
    if hosted is not None and hosted.lock is not None:
        mutex = Mutex.over(hosted.lock, timeout)
    else:
        mutex = Mutex.over(RemoteLock(found_again(server_name, address, kind, name)), timeout)
    mutex.name = shown
    return mutex
