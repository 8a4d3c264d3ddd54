"""A simulated instrument that a pyvisa-sim YAML file describes, parsed and played by pyvisa-sim itself.

What the file says is what pyvisa-sim makes of it, with four differences, each there to keep the bytes true:

* The instrument is fed bytes, so several messages in one write, or one in several, are understood.
* ``eom`` counts as written: spaces at its ends are kept (pyvisa-sim strips them), so a prompt can be written there.
* An address whose kind the file's ``eom`` does not list uses the one terminator pair that the file has, and LF where
  it has none; a file with several different pairs must list the kind it is used at.
* A message that is no text in ``encoding`` is an unknown command, not a crash.

Requests and replies themselves are stripped of spaces at their ends, replies to settings are fixed texts and nothing
takes time: for anything more, derive a class. :meth:`YamlInstrument.couple` ties a property of the file to the bench,
and overriding :meth:`YamlInstrument.answer` sees each message::

    class Thermometer(YamlInstrument):
        def __init__(self, bench):
            super().__init__(bench, Path(__file__).with_name("thermometer.yaml"))
            self.couple("temperature", bench.temperature)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from catkit_devices.deferred import refuse_deferred
from catkit_devices.errors import ConfigurationError, SimulationError, nearest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from catkit_devices.simulation.bench import Bench

__all__ = ["YamlInstrument"]


class YamlInstrument:
    """One device of a pyvisa-sim YAML file.

    Args:
        bench: what it belongs to.
        path: the file.
        device: which of the file's devices; may be left out where the file has one, or says which one is at
            ``address``.
        address: where the instrument is, for ``eom`` and ``resources`` of the file; a class for one instrument, whose
            file has one terminator pair, leaves it out.
        encoding: of the text on the wire, whatever that of the file; pyvisa-sim sends UTF-8.

    Raises:
        ConfigurationError: when the file cannot be used; the text names it and says why.
    """

    def __init__(
        self,
        bench: Bench,
        path: str | Path,
        *,
        device: str | None = None,
        address: str | None = None,
        encoding: str = "utf-8",
    ) -> None:
        self.bench = bench
        self._path = str(path)
        self._encoding = encoding
        try:
            "".encode(encoding)
        except LookupError as error:
            raise ConfigurationError(f"encoding: {error}", file=self._path) from error
        self._address = address or "ASRL1::INSTR"
        self._definitions, self._resource = self._load(device)
        self._received = bytearray()
        self._coupled: dict[str, Callable[[], Any]] = {}
        self.reset()

    @property
    def message_end(self) -> bytes:
        """What the end of a message stands for: the terminator of the instrument's commands."""
        return self._terminator

    def reset(self) -> None:
        """Put every property back to its default; couplings stay."""
        from pyvisa_sim.parser import get_device

        try:
            self._device = get_device(self._name, self._definitions, self._loader, self._resource)
            self._terminator = self._choose_terminators()
        except ConfigurationError:
            raise
        except Exception as error:
            raise self._unusable(error) from error
        for name, read in self._coupled.items():
            self._couple(name, read)

    def couple(self, name: str, read: Callable[[], Any]) -> None:
        """Let the property ``name`` of the file take its value from ``read()`` whenever it is asked for.

        The format of its getter, the limits and the reply of its setter stay as the file says; what was set is to be
        had by :meth:`value`.
        """
        refuse_deferred(read, f"what property {name!r} is coupled to")
        self._couple(name, read)
        self._coupled[name] = read

    def value(self, name: str) -> Any:
        """Return what the property ``name`` was last set to, or its default."""
        property_ = self._property(name)
        return type(property_).get_value(property_)  # past a coupling, which hides it on the instance

    def feed(self, data: bytes) -> bytes:
        """Take bytes and return the replies to the messages that they complete."""
        self._received += data
        *messages, rest = bytes(self._received).split(self._terminator)
        self._received = bytearray(rest)
        return b"".join(self.answer(message) for message in messages)

    def clear(self) -> None:
        """Forget a half-received message."""
        self._received.clear()

    def answer(self, message: bytes) -> bytes:
        """Return the reply to one message (without its terminator), its own terminator included; may be empty."""
        text = message.decode(self._encoding, errors="replace").encode()
        self._device.write(text + self._terminator)
        reply = bytearray()
        while byte := self._device.read()[0]:
            reply += byte
        return reply.decode().encode(self._encoding)

    def _load(self, device: str | None) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        from pyvisa_sim.parser import Loader

        try:
            self._loader = Loader(self._path, bundled=False)
        except OSError as error:
            raise ConfigurationError(f"cannot be read: {error.strerror}", file=self._path) from error
        except Exception as error:
            raise self._unusable(error) from error
        definitions = self._loader.data.get("devices") or {}
        resource = self._find_resource()
        name = device or resource.get("device") or (next(iter(definitions)) if len(definitions) == 1 else None)
        if name is None:
            raise self._unusable(f"it has {len(definitions)} devices ({', '.join(definitions)}): say which")
        if name not in definitions:
            raise ConfigurationError(
                f"there is no device {name!r}", file=self._path, suggestion=nearest(name, definitions)
            )
        self._name: str = name
        return definitions[name], resource if resource.get("device") == name else {}

    def _find_resource(self) -> Mapping[str, Any]:
        from catkit_devices.simulation.wire import parse_address

        for address, resource in (self._loader.data.get("resources") or {}).items():
            if str(parse_address(address)) == str(parse_address(self._address)):
                found: Mapping[str, Any] = resource
                return found
        return {}

    def _choose_terminators(self) -> bytes:
        """Tell pyvisa-sim which terminators hold at this address; return that of the commands."""
        from pyvisa_sim.component import to_bytes

        from catkit_devices.simulation.wire import parse_address

        parsed = parse_address(self._address)
        kind = f"{parsed.interface_type} {parsed.resource_class}"
        pairs = {key: (str(pair["q"]), str(pair["r"])) for key, pair in (self._definitions.get("eom") or {}).items()}
        if kind not in pairs and len(set(pairs.values())) > 1:
            raise self._unusable(f"its eom says nothing of {kind}, only of {', '.join(pairs)}")
        query, reply = pairs.get(kind) or next(iter(pairs.values()), ("\n", "\n"))
        if not query:
            raise self._unusable(f"the eom of its commands at {kind} is empty")
        self._device.add_eom(kind, query, reply)
        self._device.resource_name = self._address
        return bytes(to_bytes(query))

    def _couple(self, name: str, read: Callable[[], Any]) -> None:
        self._property(name).get_value = read

    def _property(self, name: str) -> Any:
        # pyvisa-sim offers no public way to a property; the name is stable since its first release.
        properties = self._device._properties
        if name not in properties:
            raise SimulationError(f"{self._path}: {self._name} has no property {name!r}")
        return properties[name]

    def _unusable(self, why: str | BaseException) -> ConfigurationError:
        while isinstance(why, BaseException):  # pyvisa-sim wraps what went wrong into texts with whole tracebacks
            why = why.__context__ or str(why)
        return ConfigurationError(f"no usable pyvisa-sim file: {why}", file=self._path)
