from __future__ import annotations

import pytest
import pyvisa

from catkit_devices.simulation import Instrument, build_library


@pytest.fixture(scope="module", autouse=True)
def _children_begin_ready(ready_children):
    """How processes are started is shown in ``sharing``."""


@pytest.fixture
def visa():
    """Build simulated instruments from (address, simulator[, options]) and return a resource manager for them."""
    managers = []

    def build(*instruments, clock="virtual", **options):
        library = build_library([Instrument(*instrument) for instrument in instruments], clock=clock, **options)
        managers.append(pyvisa.ResourceManager(library))
        return managers[-1]

    yield build
    for manager in managers:
        manager.close()
