"""A device that another one needs to be made safe is reached for that, also when it is closed."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest

from catkit_devices.device import Device
from catkit_devices.errors import DeviceClosedError, DeviceFaultError, SafetyError
from catkit_devices.multiprocessing.server.objects import Host

FIRE = SafetyError("heat", "too hot")


class Relay(Device):
    """A board of relays that switches everything on when it is opened, as many an instrument does."""

    def __init__(self, name, **options):
        super().__init__(name, **options)
        self._journal = []
        self._faults = set()
        self._switching = threading.Event()
        self._may_switch = threading.Event()
        self._may_switch.set()

    def _open(self):
        if "unplugged" in self._faults:
            raise OSError("no such port")
        self._journal.append("open")
        return self._journal

    def _close(self):
        self._journal.append("close")

    def _make_safe(self):
        if "stuck" in self._faults:
            raise OSError("a contact is stuck")
        self._connection.append("all off")

    def switch(self, on: bool) -> None:
        """Switch the gas."""
        self._require_connection()
        self._switching.set()
        self._may_switch.wait(5.0)
        self._connection.append("gas on" if on else "gas off")

    def switch_twice(self, on: bool) -> None:
        """Switch the gas, to be sure."""
        self.switch(on)
        self.switch(on)

    def _require_connection(self):
        if self._connection is None:
            raise DeviceClosedError("is not open", **self._facts())


class OwnRelay(Relay):
    """Keeps its connection by itself."""

    def _open(self):
        super()._open()

    def _make_safe(self):
        self._journal.append("all off")

    def switch(self, on: bool) -> None:
        """Switch the gas."""
        self._journal.append("gas on" if on else "gas off")


class Furnace(Device):
    """Burns while its relay is on."""

    def __init__(self, name, *, relay, how=lambda relay: relay.switch(False), **options):
        super().__init__(name, **options)
        self._relay = relay
        self._how = how

    def _open(self):
        return self

    def _make_safe(self):
        self._how(self._relay)


def _with_block(relay):
    with relay:
        relay.switch(False)


@pytest.fixture
def tripped(monkeypatch):
    """A function after which nothing may be changed or opened any more."""
    host = Host()
    monkeypatch.setattr("catkit_devices._device.access.running_server", [SimpleNamespace(host=host)])

    def trip():
        host.gate = lambda device, operation, changes: FIRE

    return trip


@pytest.mark.parametrize("kind", [Relay, OwnRelay])
@pytest.mark.parametrize("open_on_use", [False, True])
@pytest.mark.parametrize("how", [lambda relay: relay.switch(False), _with_block], ids=["operation", "with"])
def test_a_closed_device_is_opened_to_make_another_one_safe_after_a_trip(tripped, kind, open_on_use, how):
    relay = kind("relay", open_on_use=open_on_use)
    with Furnace("furnace", relay=relay, how=how) as furnace:
        tripped()
        furnace.make_safe()
        assert relay._journal == ["open", "all off", "gas off", "close"]
        assert relay.state == "closed"
        assert furnace._life_.doubt() is None
        with pytest.raises(SafetyError):
            relay.open()


def test_the_operations_of_an_operation_reach_a_closed_device_over_one_connection():
    relay = Relay("relay")
    with Furnace("furnace", relay=relay, how=lambda relay: relay.switch_twice(False)):
        pass
    assert relay._journal == ["open", "all off", "gas off", "gas off", "close"]


def test_a_device_whose_needed_device_cannot_be_opened_is_named_and_made_safe_when_it_can():
    relay = Relay("relay")
    furnace = Furnace("furnace", relay=relay)
    furnace.open()
    relay._faults.add("unplugged")
    with pytest.raises(DeviceFaultError, match="could not be made safe .*no such port"):
        furnace.make_safe()
    assert "no such port" in furnace._life_.doubt()

    relay._faults.clear()
    furnace.make_safe()
    assert furnace._life_.doubt() is None
    assert relay._journal == ["open", "all off", "gas off", "close"]
    furnace.reset()


def test_a_needed_device_that_opening_may_have_switched_on_is_named_if_it_cannot_be_made_safe_again():
    relay = Relay("relay")
    with Furnace("furnace", relay=relay) as furnace:
        relay._faults.add("stuck")
        furnace.make_safe()
        assert relay._journal == ["open", "gas off", "close"]
        assert furnace._life_.doubt() is None
        assert "a contact is stuck" in relay._life_.doubt()
        assert relay.state == "fault"

        relay._faults.clear()
        relay.make_safe()
        assert relay._life_.doubt() is None
        relay.reset()


def test_a_device_whose_opening_fails_is_named_if_what_it_has_switched_on_cannot_be_made_safe():
    class Failing(Relay):
        def _open(self):
            self._connection = super()._open()
            raise ValueError("no such model")

    relay = Failing("relay")
    relay._faults.add("stuck")
    with pytest.raises(ValueError, match="no such model"):
        relay.open()
    assert relay._life_.doubt() is not None
    assert relay.state == "fault"

    relay._faults.clear()
    with pytest.raises(DeviceFaultError):
        relay.make_safe()  # opening it fails still, but what it has switched on is switched off
    assert relay._journal[-2:] == ["all off", "close"]
    assert relay._life_.doubt() is not None
    relay._life_.abandon()


def test_two_devices_that_need_a_closed_one_at_once_are_both_made_safe(until):
    relay = Relay("relay")
    with Furnace("furnace", relay=relay) as furnace, Furnace("kiln", relay=relay) as kiln:
        relay._may_switch.clear()
        first = furnace._life_.begin_to_make_safe()
        assert relay._switching.wait(5.0)
        second = kiln._life_.begin_to_make_safe()
        until(lambda: second.begun)
        relay._may_switch.set()
        for errand in (first, second):
            assert errand.wait(5.0)
            assert errand.failure is None
        assert relay._journal == 2 * ["open", "all off", "gas off", "close"]


def test_a_device_that_somebody_opens_while_another_one_needs_it_is_opened_when_that_has_ended(until):
    relay = Relay("relay")
    with Furnace("furnace", relay=relay) as furnace:
        relay._may_switch.clear()
        errand = furnace._life_.begin_to_make_safe()
        assert relay._switching.wait(5.0)
        opening = threading.Thread(target=relay.open)
        opening.start()
        until(lambda: relay._access_.mutex_lock.holder() is not None)
        relay._may_switch.set()
        opening.join(5.0)
        assert errand.wait(5.0)
        assert errand.failure is None
        assert relay._journal == ["open", "all off", "gas off", "close", "open"]
        relay.close()
