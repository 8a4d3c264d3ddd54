import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from instruments import Instrument

from catkit_devices.multiprocessing import SharedMemoryManager


@pytest.fixture
def manager(runtime):
    with SharedMemoryManager("bench") as started:
        yield started


@pytest.fixture
def instrument(manager):
    return manager.get_object("instrument", Instrument, "instrument", open_on_use=True)


@pytest.fixture
def second_manager(runtime):
    with SharedMemoryManager("second") as started:
        yield started
