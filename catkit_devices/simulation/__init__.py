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
    from catkit_devices.simulation.faults import FAULTS, Fault, Line
    from catkit_devices.simulation.library import Instrument, build_bench, build_library
    from catkit_devices.simulation.recording import RecordingVisaLibrary
    from catkit_devices.simulation.replay import Dialogue, Replay
    from catkit_devices.simulation.serving import InstrumentServer, Served
    from catkit_devices.simulation.shared import RemoteVisaLibrary, SharedSimulation
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
    "Instrument",
    "InstrumentServer",
    "Line",
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
        "faults": ("FAULTS", "Fault", "Line"),
        "library": ("Instrument", "build_bench", "build_library"),
        "recording": ("RecordingVisaLibrary",),
        "replay": ("Dialogue", "Replay"),
        "serving": ("InstrumentServer", "Served"),
        "shared": ("RemoteVisaLibrary", "SharedSimulation"),
        "visa_library": ("SimulatedVisaLibrary",),
        "wire_file": ("Entry", "read_entries"),
        "yaml_instrument": ("YamlInstrument",),
    },
)
