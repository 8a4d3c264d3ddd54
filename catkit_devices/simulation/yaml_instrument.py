"""A simulated instrument that a pyvisa-sim YAML file describes; pyvisa-sim itself reads the file and answers.

A file means what it means to pyvisa-sim, with these differences, most of them to have the same bytes as a real
instrument:

* The instrument gets bytes, so it understands several messages in one write, or one message in several writes. A
  terminator inside a dialogue of the file, such as the line ends of a script, does not end the message.
* ``eom`` is used exactly: spaces at its ends are kept (pyvisa-sim strips them), so a prompt can be written there.
* An address whose kind the file's ``eom`` does not list uses the one terminator pair that the file has. Where it has
  none, or several that differ, it uses LF, as in pyvisa-sim, and a warning is logged for several.
* A message that is no text in ``encoding`` is an unknown command, not a crash.
* ``RANDOM`` takes its numbers from the bench, so that the same seed gives the same replies; pyvisa-sim takes them from
  Python's global generator.

A message with several commands, ``A?;B?``, is divided at the device's ``delimiter``, and each reply has its terminator,
as in pyvisa-sim. But there each reply is a message of its own over GPIB and USB: the second reply stays unread, and the
next read takes it for another answer. Here all replies to one message are one message (``a``, LF, ``b``, LF), as with a
real instrument, and one read returns all of it. An instrument of IEEE 488.2 would send ``a;b`` (8.4.1). For this, write
``delimiter: ""`` and the whole message as a dialogue into the file, or override :meth:`YamlInstrument.answer`.

In requests and replies, spaces at the ends are removed; replies to settings are fixed texts, and nothing takes time. If
you need more, derive a class. :meth:`YamlInstrument.couple` connects a property of the file to the bench, and
:meth:`YamlInstrument.answer`, which may be overridden, gets each message::

    class Thermometer(YamlInstrument):
        def __init__(self, bench):
            super().__init__(bench, Path(__file__).with_name("thermometer.yaml"))
            self.couple("temperature", bench.temperature)
"""

from __future__ import annotations

import contextlib
import logging
import reprlib
from collections.abc import Mapping
from pathlib import Path
from types import FunctionType, MethodType
from typing import TYPE_CHECKING, Any

from catkit_devices._base.deferred import refuse_deferred
from catkit_devices.errors import ConfigurationError, SimulationError, nearest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pyvisa_sim.parser import Loader

    from catkit_devices.simulation.bench import Bench

__all__ = ["YamlInstrument"]

_log = logging.getLogger(__name__)


class YamlInstrument:
    """One device of a pyvisa-sim YAML file.

    Args:
        bench: the simulated bench that it is part of.
        path: the file.
        device: which of the file's devices; may be left out if the file has only one, or says which one is at
            ``address``.
        address: where the instrument is, for ``eom`` and ``resources`` of the file; may be left out if the file has one
            terminator pair.
        encoding: of the text on the wire, independent of that of the file; pyvisa-sim sends UTF-8.

    Raises:
        ConfigurationError: the file cannot be used; the message names it and says why.
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
        self._path = self._file = str(path)
        self._name = ""
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
        """The terminator of the instrument's commands, which the end of a message replaces."""
        return self._terminator

    def reset(self) -> None:
        """Set every property to its default; properties that are coupled to the bench stay coupled."""
        from pyvisa_sim.parser import get_device

        try:
            self._device = get_device(self._name, self._definitions, self._loader, self._resource)
            self._terminator = self._choose_terminators()
            self._with_terminator_inside = sorted(
                (query for query in self._queries() if self._terminator in query), key=len, reverse=True
            )
            self._draw_from_bench()
        except ConfigurationError:
            raise
        except Exception as error:
            raise self._unusable(error) from error
        for name, read in self._coupled.items():
            self._couple(name, read)

    def couple(self, name: str, read: Callable[[], Any]) -> None:
        """Let the property ``name`` of the file take its value from ``read()`` whenever it is asked for.

        The format of its getter, and the limits and the reply of its setter, stay as the file says. :meth:`value`
        returns what was set.
        """
        refuse_deferred(read, f"what property {name!r} is coupled to")
        self._couple(name, read)
        self._coupled[name] = read

    def value(self, name: str) -> Any:
        """Return what the property ``name`` was last set to, or its default."""
        property_ = self._property(name)
        return type(property_).get_value(property_)  # the class's function: couple() replaces it on the instance

    def feed(self, data: bytes) -> bytes:
        """Take bytes and return the replies to the messages that they complete."""
        self._received += data
        replies = b""
        while (length := self._first_message()) is not None:
            message = bytes(self._received[:length])
            del self._received[: length + len(self._terminator)]
            replies += self.answer(message)
        return replies

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

    def _first_message(self) -> int | None:
        """Return the length of the first message that has come, without its terminator; None if none has."""
        for query in self._with_terminator_inside:
            if self._received.startswith(query + self._terminator):
                return len(query)
        length = self._received.find(self._terminator)
        return None if length < 0 else length

    def _load(self, device: str | None) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        self._loader = self._read(self._path)
        here = self._table(self._loader, "devices")
        resources = self._table(self._loader, "resources")
        resource = _at(resources, self._address)
        if device is not None and resource.get("device", device) != device:
            resource = {}
        definitions = self._devices_of(resource) if "filename" in resource else here
        # The files of other entries, by the name of the device; an entry for this address comes before them.
        elsewhere = (
            {} if resource else {one["device"]: one for one in resources.values() if {"device", "filename"} <= set(one)}
        )
        known = [*definitions, *(name for name in elsewhere if name not in definitions)]
        name = device or resource.get("device") or (known[0] if len(known) == 1 else None)
        if name is None:
            devices = f"{len(known)} devices ({', '.join(map(str, known))}): say which" if known else "no devices"
            raise self._unusable(f"it has {devices}")
        self._name = name
        if name not in definitions and name in elsewhere:
            definitions = self._devices_of(elsewhere[name])
            known = list(definitions)
        if name not in definitions:
            suggestion = nearest(name, map(str, known))
            raise ConfigurationError(f"there is no device {name!r}", file=self._file, suggestion=suggestion)
        definition: Mapping[str, Any] = definitions[name]
        return definition, resource

    def _devices_of(self, resource: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the devices of the file that an entry names: beside this file, or one that comes with pyvisa-sim."""
        bundled = str(resource.get("bundled", "")).lower() in {"true", "yes", "on"}
        path = resource["filename"] if bundled else str(Path(self._path).parent / resource["filename"])
        loader = self._read(path, bundled=bundled)
        self._file = path
        return self._table(loader, "devices")

    def _table(self, loader: Loader, key: str) -> Mapping[str, Any]:
        """Return one of the tables of a file, in which everything is a table as well; empty if there is none."""
        found: Any = loader.data.get(key) or {}
        if not isinstance(found, Mapping):
            raise self._unusable(f"a mapping was expected under {key!r}, got {found!r}")
        for name, entry in found.items():
            if not isinstance(entry, Mapping):
                raise self._unusable(f"a mapping was expected under {key!r}, {name!r}, got {entry!r}")
        return found

    def _read(self, path: str, *, bundled: bool = False) -> Loader:
        from pyvisa_sim.parser import Loader

        try:
            return Loader(path, bundled=bundled)
        except OSError as error:
            named = "" if path == self._path else f" (it is named in {self._path})"
            raise ConfigurationError(f"cannot be read: {error.strerror}{named}", file=path) from error
        except Exception as error:
            self._file = path
            raise self._unusable(error if bundled else _form_problem(path) or error) from error

    def _choose_terminators(self) -> bytes:
        """Tell pyvisa-sim which terminators hold at this address; return that of the commands."""
        from pyvisa_sim.component import to_bytes

        from catkit_devices.simulation.resource import parse_address

        parsed = parse_address(self._address)
        kind = f"{parsed.interface_type} {parsed.resource_class}"
        pairs = {key: (str(pair["q"]), str(pair["r"])) for key, pair in (self._definitions.get("eom") or {}).items()}
        different = set(pairs.values())
        if kind not in pairs and len(different) > 1:
            _log.warning(
                "%s, device %r: its eom has no entry for %s, only for %s: messages end with LF",
                self._file,
                self._name,
                kind,
                ", ".join(pairs),
            )
        query, reply = pairs.get(kind) or (different.pop() if len(different) == 1 else ("\n", "\n"))
        if not query:
            raise self._unusable(f"the eom of its commands at {kind} is empty")
        self._device.add_eom(kind, query, reply)
        self._device.resource_name = self._address
        return bytes(to_bytes(query))

    def _queries(self) -> Iterator[bytes]:
        """Yield the fixed texts that the device and its channels answer to."""
        device = vars(self._device)  # pyvisa-sim has no public way to them
        yield from (*device["_dialogues"], *device["_getters"])
        for channels in map(vars, device["_channels"].values()):
            for name in channels["_ids"] if channels["can_select"] else ["__default__"]:
                yield from (*channels["_dialogues"][name], *channels["_getters"][name])

    def _couple(self, name: str, read: Callable[[], Any]) -> None:
        self._property(name).get_value = read

    def _property(self, name: str) -> Any:
        properties = self._device._properties  # noqa: SLF001 - pyvisa-sim has no public way to a property
        if name not in properties:
            raise SimulationError(f"{self._path}: {self._name} has no property {name!r}")
        return properties[name]

    def _draw_from_bench(self) -> None:
        """Let ``RANDOM`` in the file use the random numbers of the bench.

        pyvisa-sim uses Python's global generator, as the module ``random``. Its functions that do so are copied with
        another namespace, in which the name ``random`` is the bench's generator.
        """
        from pyvisa_sim import component

        stream = f"{Path(self._path).name} {self._name} {self._address}"
        names = {**vars(component), "random": self.bench.rng(stream)}
        names["random_response"] = FunctionType(component.random_response.__code__, names)
        channels = self._device._channels  # noqa: SLF001 - pyvisa-sim has no public way to them
        for part in (self._device, *channels.values()):
            for name in ("_match_dialog", "_match_getters"):
                method = vars(component.Component)[name]
                own = FunctionType(method.__code__, names, argdefs=method.__defaults__)
                setattr(part, method.__name__, MethodType(own, part))

    def _unusable(self, why: str | BaseException) -> ConfigurationError:
        while isinstance(why, BaseException):  # pyvisa-sim's texts contain whole tracebacks; the first error is short
            why = why.__context__ or str(why) or type(why).__name__
        which = f", device {self._name!r}" if self._name else ""
        return ConfigurationError(f"is not a usable pyvisa-sim file{which}: {why}", file=self._file)


def _form_problem(path: str) -> str | None:
    """Return what is wrong with the form of a file of which pyvisa-sim says only what failed; None if nothing is."""
    import yaml  # type: ignore[import-untyped]  # pyvisa-sim, which brings it, has no types for it

    try:
        content: Any = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError):
        return None  # pyvisa-sim explains this mistake well itself
    if content is None:
        return "it is empty"
    if not isinstance(content, Mapping):
        return f"the keys 'spec' and 'devices' were expected, got {reprlib.repr(content)}"
    return None if "spec" in content else 'it does not say which version of the form it has, such as spec: "1.1"'


def _at(resources: Mapping[str, Any], wanted: str) -> Mapping[str, Any]:
    """Return the entry of a file for one address, in any spelling; empty if there is none."""
    for address, resource in resources.items():
        with contextlib.suppress(ConfigurationError):  # a kind of address that cannot be simulated: not this one
            if _canonical(address) == _canonical(wanted):
                found: Mapping[str, Any] = resource
                return found
    return {}


def _canonical(address: str) -> str:
    from catkit_devices.simulation.resource import parse_address

    return str(parse_address(address))
