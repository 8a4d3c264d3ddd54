"""One open VISA session: reading and writing with the rules of its kind of interface.

The rules are those of the VISA library specification (VPP-4.3, 6.1): a read ends at the end of a message where the
interface has such ends, at the termination character where that is enabled, at the number of bytes asked for, or at the
timeout, whichever comes first. A read that times out loses what it had received so far, as with the real libraries.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyvisa import constants
from pyvisa.constants import BufferOperation, InterfaceType, ResourceAttribute, SerialTermination, StatusCode

from catkit_devices.simulation.attributes import Attributes

if TYPE_CHECKING:
    from catkit_devices.simulation.resource import SimulatedResource

__all__ = ["SimulatedSession"]

#: Seconds that stand for an infinite timeout: a day, so that nothing waits for ever.
_INFINITE = 86400.0

#: Shortest wait, in seconds: enough to change the reading of a virtual clock, in spite of rounding.
_SHORTEST = 1e-6

_DISCARD_INPUT = (
    BufferOperation.discard_read_buffer
    | BufferOperation.discard_read_buffer_no_io
    | BufferOperation.discard_receive_buffer
    | BufferOperation.discard_receive_buffer2
)
"""The parts of VISA's ``flush`` that throw away what was received."""


class SimulatedSession:
    """A session on one simulated instrument.

    Args:
        resource: the instrument at its address.
        resource_manager: the session of the resource manager.
    """

    def __init__(self, resource: SimulatedResource, resource_manager: int) -> None:
        self._resource = resource
        self._serial = resource.kind[0] is InterfaceType.asrl
        self._closed = False
        self._waited = 0.0
        """Seconds that reads have waited without success since something was last sent or received. The pause between
        looks grows with it, also where a driver waits for one reply in many short reads."""
        self.attributes = Attributes(resource.parsed, resource_manager, self._available)
        with resource.lock:
            self._generation = resource.generation
            self._receiver = resource.attach()

    def close(self) -> None:
        """Close the session; a read in another thread ends with an error."""
        with self._resource.lock:
            self._closed = True
            self._resource.detach(self._receiver)

    def write(self, data: bytes) -> tuple[int, StatusCode]:
        """Send ``data``."""
        end = bool(self.attributes.value(ResourceAttribute.send_end_enabled))
        with self._resource.lock:
            if (lost := self._lost()) is not None:
                return 0, lost
            self._waited = 0.0
            self._resource.clock.exchanged()
            self._resource.write(self._outgoing(data, end=end) if self._serial else data, self._receiver, end=end)
        return len(data), StatusCode.success

    def read(self, count: int) -> tuple[bytes, StatusCode]:
        """Return up to ``count`` bytes, as soon as one of the rules ends the read."""
        clock = self._resource.clock
        start = clock.time()
        timeout = self.attributes.value(ResourceAttribute.timeout_value)
        deadline = start + (_INFINITE if timeout == constants.VI_TMO_INFINITE else timeout / 1000)
        while True:
            with self._resource.lock:
                now = clock.time()
                if (lost := self._lost()) is not None:
                    return b"", lost
                self._resource.poll(self._receiver)
                self._discard_nulls()
                found = self._find(count)
                if found is not None:
                    self._waited = 0.0
                    return self._receiver.take(found[0]), found[1]
                if now >= deadline:
                    self._waited += now - start
                    return self._receiver.take(len(self._receiver)), StatusCode.error_timeout
            clock.wait(max(min(clock.step(self._waited + now - start), deadline - now), _SHORTEST))

    def clear(self) -> StatusCode:
        """Discard what arrived, and clear the instrument where the interface can."""
        with self._resource.lock:
            if (lost := self._lost()) is not None:
                return lost
            self._resource.clear(self._receiver)
        return StatusCode.success

    def flush(self, mask: BufferOperation) -> StatusCode:
        """Discard what arrived, if ``mask`` says so; what is sent is never buffered here."""
        with self._resource.lock:
            if (lost := self._lost()) is not None:
                return lost
            if mask & _DISCARD_INPUT:
                self._resource.poll(self._receiver)
                self._receiver.clear()
        return StatusCode.success

    def read_stb(self) -> tuple[int, StatusCode]:
        """Return the status byte, on interfaces that have one."""
        if not self._resource.has_end:
            return 0, StatusCode.error_nonsupported_operation
        with self._resource.lock:
            if (lost := self._lost()) is not None:
                return 0, lost
            return self._resource.status_byte(self._receiver), StatusCode.success

    def trigger(self) -> StatusCode:
        """Trigger the instrument, on interfaces that can."""
        with self._resource.lock:
            if (lost := self._lost()) is not None:
                return lost
            possible = self._resource.has_end and self._resource.trigger(self._receiver)
        return StatusCode.success if possible else StatusCode.error_nonsupported_operation

    def _lost(self) -> StatusCode | None:
        if self._closed:
            return StatusCode.error_invalid_object
        return StatusCode.error_connection_lost if self._generation != self._resource.generation else None

    def _available(self) -> tuple[int, StatusCode]:
        with self._resource.lock:
            if (lost := self._lost()) is not None:
                return 0, lost
            self._resource.poll(self._receiver)
            self._discard_nulls()
            return len(self._receiver), StatusCode.success

    def _find(self, count: int) -> tuple[int, StatusCode] | None:
        value = self.attributes.value
        stops = [(count, 2, StatusCode.success_max_count_read)] if len(self._receiver) >= count else []
        if not value(ResourceAttribute.suppress_end_enabled):
            end = self._serial_end() if self._serial else self._receiver.end()
            if end is not None:
                stops.append((end, 0, StatusCode.success))
        if value(ResourceAttribute.termchar_enabled):
            stop = self._receiver.find(value(ResourceAttribute.termchar))
            if stop is not None:
                stops.append((stop, 1, StatusCode.success_termination_character_read))
        if not stops:
            return None
        length, _rank, status = min(stops)
        return length, status

    def _serial_end(self) -> int | None:
        match self.attributes.value(ResourceAttribute.asrl_end_in):
            case SerialTermination.termination_char:
                return self._receiver.find(self.attributes.value(ResourceAttribute.termchar))
            case SerialTermination.last_bit:
                return self._receiver.find_bit(self._top_bit())
        return None

    def _outgoing(self, data: bytes, *, end: bool) -> bytes:
        match self.attributes.value(ResourceAttribute.asrl_end_out):
            case SerialTermination.termination_char if end:
                return data + bytes([self.attributes.value(ResourceAttribute.termchar)])
            case SerialTermination.last_bit if end and data:
                return data[:-1] + bytes([data[-1] | self._top_bit()])
        return data

    def _top_bit(self) -> int:
        return 1 << (int(self.attributes.value(ResourceAttribute.asrl_data_bits)) - 1)

    def _discard_nulls(self) -> None:
        if self._serial and self.attributes.value(ResourceAttribute.asrl_discard_null):
            self._receiver.discard(0)
