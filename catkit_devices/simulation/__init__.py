"""Simulated instruments under the real VISA stack.

A simulated instrument is a class with one method, ``feed(bytes) -> bytes``, or a pyvisa-sim YAML file. A bench holds
the physics that instruments share. :func:`build_library` puts instruments at VISA addresses, and
``pyvisa.ResourceManager(library)`` opens them as it opens real ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from catkit_devices.lazy import importing

if TYPE_CHECKING:
    from catkit_devices.simulation.bench import Bench
    from catkit_devices.simulation.clock import Clock, RealClock, VirtualClock
    from catkit_devices.simulation.contract import LineDroppedError, Outbox, Simulator
    from catkit_devices.simulation.faults import FAULTS, Fault, FaultyLine
    from catkit_devices.simulation.library import Instrument, build_bench, build_library
    from catkit_devices.simulation.recording import RecordingVisaLibrary
    from catkit_devices.simulation.remote_library import RemoteVisaLibrary, SharedSimulation
    from catkit_devices.simulation.replay import Dialogue, Replay
    from catkit_devices.simulation.tcp_server import InstrumentServer, Served
    from catkit_devices.simulation.visa_library import SimulatedVisaLibrary
    from catkit_devices.simulation.wire_file import Entry, read_entries
    from catkit_devices.simulation.yaml_instrument import YamlInstrument

__all__ = [
    "FAULTS",
    "Bench",
    "Clock",
    "Dialogue",
    "Entry",
    "Fault",
    "FaultyLine",
    "Instrument",
    "InstrumentServer",
    "LineDroppedError",
    "Outbox",
    "RealClock",
    "RecordingVisaLibrary",
    "RemoteVisaLibrary",
    "Replay",
    "Served",
    "SharedSimulation",
    "SimulatedVisaLibrary",
    "Simulator",
    "VirtualClock",
    "YamlInstrument",
    "build_bench",
    "build_library",
    "read_entries",
]

__getattr__ = importing(
    __name__,
    {
        "bench": ("Bench",),
        "clock": ("Clock", "RealClock", "VirtualClock"),
        "contract": ("LineDroppedError", "Outbox", "Simulator"),
        "faults": ("FAULTS", "Fault", "FaultyLine"),
        "library": ("Instrument", "build_bench", "build_library"),
        "recording": ("RecordingVisaLibrary",),
        "replay": ("Dialogue", "Replay"),
        "remote_library": ("RemoteVisaLibrary", "SharedSimulation"),
        "tcp_server": ("InstrumentServer", "Served"),
        "visa_library": ("SimulatedVisaLibrary",),
        "wire_file": ("Entry", "read_entries"),
        "yaml_instrument": ("YamlInstrument",),
    },
)
