"""One bench for several processes: a simulation that lives on a server, and a VISA library that reaches it from others.

Devices may be spread over several server processes, but instruments that see the same light must share one bench. So
the bench and its instruments live in one process as a :class:`SharedSimulation`, an object of its server, and every
other process uses a :class:`RemoteVisaLibrary`. What is forwarded are whole VISA operations (write these bytes and end
the message; read until a message ends or this timeout is over), so a driver sees the same bytes, ends of messages,
timeouts and lost connections as beside the bench.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
import time
from typing import TYPE_CHECKING, Any, TypeVar

from pyvisa.constants import StatusCode

from catkit_devices._base.clock import Clock
from catkit_devices.errors import ServerError
from catkit_devices.multiprocessing.hosted import HostedObject
from catkit_devices.multiprocessing.locks.owner import current_call
from catkit_devices.simulation.session_library import InstrumentSession, SessionLibrary

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pyvisa.constants import BufferOperation

    from catkit_devices.multiprocessing.locks.owner import Session as ClientSession
    from catkit_devices.simulation.faults import Fault
    from catkit_devices.simulation.visa_library import SimulatedVisaLibrary

__all__ = ["RemoteVisaLibrary", "SharedSimulation"]

_T = TypeVar("_T")

_LAST_USE = 20.0
"""Seconds that the processes which use the instruments have to end, when the server ends."""
_LOOK = 0.05
"""Seconds between two looks whether the instruments are still in use."""

_OPERATIONS = frozenset({"clear", "flush", "read", "read_stb", "trigger", "write"})


class SharedSimulation(HostedObject):
    """The simulated instruments of one bench, for every process that has a proxy of it.

    Make it on a server, ``manager.get_object("simulation", factory)``. Beside what :class:`RemoteVisaLibrary` asks, it
    has what tests and tools do with a bench: faults, cables, time, and :meth:`evaluate` for everything else. The
    sessions that a process has opened are closed when that process ends, however it ends. It has no mutex: while one
    process waits for a reply, others go on.

    Args:
        library: of the bench.
    """

    def __init__(self, library: SimulatedVisaLibrary) -> None:
        self._library = library
        self._sessions: dict[int, tuple[ClientSession, InstrumentSession]] = {}
        self._handles = itertools.count(1)
        self._lock = threading.Lock()

    # --- what a bench is asked and told

    def addresses(self) -> tuple[str, ...]:
        """Return where instruments are, connected or not."""
        return self._library.addresses

    def evaluate(self, function: Callable[..., _T], *arguments: Any) -> _T:
        """Return ``function(library, *arguments)``, run beside the bench while no instrument is used.

        Args:
            function: of the :class:`~catkit_devices.simulation.SimulatedVisaLibrary`; ``library.bench`` is the bench
                and ``library.instrument(address)`` an instrument. It and what it returns must travel between processes.
            *arguments: further arguments.
        """
        with self._library.bench.lock:
            return function(self._library, *arguments)

    def inject(self, address: str, fault: Fault, count: int = 1, *, after: int = 0) -> None:
        """Strike ``count`` replies of the instrument at ``address``, once ``after`` have come unharmed."""
        line = self._library.line(address)
        with self._library.bench.lock:
            line.inject(fault, count, after=after)

    def clear_faults(self, address: str) -> None:
        """Forget the faults that were injected at ``address`` and have not struck yet."""
        line = self._library.line(address)
        with self._library.bench.lock:
            line.clear()

    def fault_history(self, address: str) -> list[tuple[int, str]]:
        """Return each fault that struck at ``address``: number of the write whose reply it was, and kind."""
        line = self._library.line(address)
        with self._library.bench.lock:
            return list(line.history)

    def disconnect(self, address: str) -> None:
        """Pull the cable of the instrument at ``address``."""
        self._library.disconnect(address)

    def reconnect(self, address: str) -> None:
        """Plug the cable back in."""
        self._library.reconnect(address)

    def time(self) -> float:
        """Return the time on the bench's clock, in seconds."""
        return self._library.bench.clock.time()

    def wait(self, seconds: float) -> None:
        """Return when at least ``seconds`` more have passed on the bench's clock, or the call was cancelled."""
        self._library.bench.clock.wait(seconds, current_call().wait)

    # --- what a library elsewhere asks

    def connected(self) -> list[str]:
        """Return the addresses at which sessions can be opened."""
        return list(self._library.connected())

    def open_session(self, address: str, manager: int) -> int | StatusCode:
        """Open a session for the calling process; return its number, or why there is none."""
        session = self._library.connect(address, manager)
        if isinstance(session, StatusCode):
            return session
        with self._lock:
            number = next(self._handles)
            self._sessions[number] = (current_call().session.carrier, session)
        return number

    def close_session(self, number: int) -> None:
        """Close a session; harmless when it is closed."""
        with self._lock:
            closed = self._sessions.pop(number, None)
        if closed is not None:
            closed[1].close()

    def operate(self, number: int, operation: str, *arguments: Any) -> Any:
        """Do one operation of :class:`~catkit_devices.simulation.session_library.InstrumentSession`."""
        session = self._session(number)
        if operation not in _OPERATIONS:
            raise AttributeError(f"a session has no operation {operation!r}")
        if session is None:
            status = StatusCode.error_invalid_object
            return {"read": (b"", status), "write": (0, status), "read_stb": (0, status)}.get(operation, status)
        return getattr(session, operation)(*arguments)

    def get_attribute(self, number: int, attribute: int) -> tuple[Any, StatusCode]:
        """Return an attribute of a session, and whether it has it."""
        session = self._session(number)
        return (0, StatusCode.error_invalid_object) if session is None else session.attributes.get(attribute)

    def set_attribute(self, number: int, attribute: int, value: Any) -> StatusCode:
        """Set an attribute of a session; return whether that was possible."""
        session = self._session(number)
        return StatusCode.error_invalid_object if session is None else session.attributes.set(attribute, value)

    # --- life on a server

    def _session(self, number: int) -> InstrumentSession | None:
        with self._lock:
            found = self._sessions.get(number)
        return None if found is None else found[1]

    def _server_stops_(self) -> None:
        """Go on for as long as instruments are in use, within a bounded time: their devices are being made safe.

        Whoever started the server, and ends it now, has no more use for them.
        """
        deadline = time.monotonic() + _LAST_USE
        while time.monotonic() < deadline:
            with self._lock:
                users = {owner.pid for owner, _session in self._sessions.values()}
            if users <= {os.getppid()}:
                return
            time.sleep(_LOOK)

    def _session_ended_(self, session: ClientSession, goodbye: bool) -> None:  # noqa: ARG002 - the server's call
        """Close what the process that has ended had open."""
        with self._lock:
            ended = [number for number, (owner, _session) in self._sessions.items() if owner is session]
        for number in ended:
            self.close_session(number)


class RemoteVisaLibrary(SessionLibrary):
    """A VISA library whose instruments are simulated in another process, or in this one behind a proxy.

    Args:
        simulation: a :class:`SharedSimulation`, or a proxy of one.

    Attributes:
        bench: what this process can know of the bench: its ``clock``.
    """

    def __init__(self, simulation: Any) -> None:
        super().__init__()
        self._simulation = simulation
        self.bench = _RemoteBench(simulation)

    def connected(self) -> Iterable[str]:
        """Return the addresses at which the server's library can open sessions."""
        addresses: list[str] = self._simulation.connected()
        return addresses

    def connect(self, address: str, manager: int) -> InstrumentSession | StatusCode:
        """Open a session on the server, or return the status that says why there is none."""
        opened: int | StatusCode = self._simulation.open_session(address, int(manager))
        return opened if isinstance(opened, StatusCode) else _RemoteSession(self._simulation, opened)


class _RemoteSession:
    """A session of the simulation's process; every operation is one round trip."""

    def __init__(self, simulation: Any, number: int) -> None:
        self._simulation = simulation
        self._number = number
        self.attributes = _RemoteAttributes(simulation, number)

    def close(self) -> None:
        with contextlib.suppress(ServerError):  # whose end has closed it
            self._simulation.close_session(self._number)

    def write(self, data: bytes) -> tuple[int, StatusCode]:
        written: tuple[int, StatusCode] = self._simulation.operate(self._number, "write", data)
        return written

    def read(self, count: int) -> tuple[bytes, StatusCode]:
        found: tuple[bytes, StatusCode] = self._simulation.operate(self._number, "read", count)
        return found

    def clear(self) -> StatusCode:
        return StatusCode(self._simulation.operate(self._number, "clear"))

    def flush(self, mask: BufferOperation) -> StatusCode:
        return StatusCode(self._simulation.operate(self._number, "flush", mask))

    def read_stb(self) -> tuple[int, StatusCode]:
        found: tuple[int, StatusCode] = self._simulation.operate(self._number, "read_stb")
        return found

    def trigger(self) -> StatusCode:
        return StatusCode(self._simulation.operate(self._number, "trigger"))


class _RemoteAttributes:
    def __init__(self, simulation: Any, number: int) -> None:
        self._simulation = simulation
        self._number = number

    def get(self, attribute: int) -> tuple[Any, StatusCode]:
        found: tuple[Any, StatusCode] = self._simulation.get_attribute(self._number, int(attribute))
        return found

    def set(self, attribute: int, value: Any) -> StatusCode:
        return StatusCode(self._simulation.set_attribute(self._number, int(attribute), value))


class _RemoteBench:
    def __init__(self, simulation: Any) -> None:
        self.clock = _RemoteClock(simulation)


class _RemoteClock(Clock):
    """The clock of the simulation's process."""

    def __init__(self, simulation: Any) -> None:
        self._simulation = simulation

    def time(self) -> float:
        return float(self._simulation.time())

    def wait(self, seconds: float, sleep: Callable[[float], object] | None = None) -> None:  # noqa: ARG002 - it can be
        self._simulation.wait(seconds)  # interrupted anyway: the call is cancelled

    def step(self, waited: float) -> float:  # noqa: ARG002 - one who waits here waits over there
        return 0.01
