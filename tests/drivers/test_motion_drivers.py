"""Drivers of mounts and motors: exact bytes against scripts written from their sources, behaviour on the simulators."""

import threading

import pytest

from catkit_devices.drivers import create_device
from catkit_devices.errors import ConfigurationError, DeviceOpenError, DeviceProtocolError

SERIAL = "ASRL7::INSTR"


@pytest.fixture
def bench(serve):
    """Open a driver on its own simulator or on one of the test's: ``device, simulator = bench(driver, address)``."""
    opened = []

    def build(driver, address=SERIAL, simulator=None, *, opens=True, options=None, **simulator_options):
        library = serve(address, simulator or driver, **simulator_options)
        device = create_device(driver, "device", {"address": address, **(options or {})}, visa_library=library)
        if opens:
            device.open()
            opened.append(device)
        return device, library.instrument(address)

    yield build
    for device in opened:
        if device.state == "fault":
            device._life_.abandon()
        device.close(force=True)


def moved_meanwhile(device, move, look, until):
    """Begin a motion in another thread, look until it is under way, and make it safe; return the errors that came."""
    raised = []

    def run():
        try:
            move()
        except DeviceProtocolError as error:
            raised.append(str(error))

    thread = threading.Thread(target=run)
    thread.start()
    until(look)
    device.make_safe()
    thread.join(20)
    assert not thread.is_alive()
    return raised


# --- APT: flip mount

INFO = bytes.fromhex("06 00 54 00 81 50") + (37000001).to_bytes(4, "little") + b"MFF101\0\0" + bytes(72)
ASKS_INFO, ASKS_STATUS, TO_2 = (bytes.fromhex(code) for code in ("050000005001", "290401005001", "6A0401025001"))


def status(bits):
    return bytes.fromhex("2A 04 06 00 81 50 01 00") + bits.to_bytes(4, "little")


def test_mff101_asks_and_flips_with_these_bytes(bench, frames):
    replies = {ASKS_INFO: INFO, TO_2: b"", ASKS_STATUS: [status(0x01), status(0x10), status(0x80000002), status(0x02)]}
    device, simulator = bench("thorlabs_mff101", simulator=frames, replies=replies)
    simulator.sent.clear()

    device.position = 2

    assert device.moving is False
    assert simulator.sent == [TO_2, *[ASKS_STATUS] * 4]


def test_mff101_that_is_in_neither_position_is_an_error(bench):
    device, _simulator = bench("thorlabs_mff101", blocked=True)

    with pytest.raises(TimeoutError, match="not at position 2 after 5 s"):
        device.position = 2
    with pytest.raises(DeviceProtocolError, match="in neither position"):
        _ = device.position


def test_mff101_takes_as_long_as_its_transit_time(bench):
    device, simulator = bench("thorlabs_mff101")
    device.transit_time = "2500 ms"
    begun = simulator.bench.clock.time()

    device.position = 2

    assert simulator.bench.clock.time() - begun >= 2.5
    assert (device.position, simulator.position) == (2, 2)


def test_mff101_is_no_motor(bench):
    with pytest.raises(DeviceOpenError, match="a model 'MFF10.12.' was expected, found 'KDC101'"):
        bench("thorlabs_mff101", simulator="thorlabs_kdc101")


# --- APT: motor


def test_kdc101_waits_until_it_has_arrived(bench):
    device, simulator = bench("thorlabs_kdc101", position=3.0)
    device.home()
    device.velocity = "1000 um/s"
    begun = simulator.bench.clock.time()

    device.position = 4

    assert simulator.bench.clock.time() - begun >= 4.0
    assert simulator.axis.position() == 4 * 34304
    assert (device.position, device.moving, device.homed) == (4.0, False, True)


def test_kdc101_is_not_moved_before_it_was_homed(bench):
    device, simulator = bench("thorlabs_kdc101", position=3.0)

    with pytest.raises(DeviceProtocolError, match=r"must be homed before it is moved: home\(\)"):
        device.position = 4

    assert simulator.axis.position() == 3 * 34304


def test_kdc101_that_is_made_safe_on_its_way_stops_and_says_so(bench, until):
    device, simulator = bench("thorlabs_kdc101", homed=True, position=0.0)
    device.velocity = 0.01

    raised = moved_meanwhile(
        device, lambda: setattr(device, "position", 20), lambda: 0.01 < device.position < 20, until
    )

    assert not simulator.axis.moving
    assert 0 < simulator.axis.position() < 20 * 34304
    assert raised == [] or "stopped at" in raised[0]


def test_kdc101_sends_no_message_at_the_end_of_a_motion(bench):
    device, simulator = bench("thorlabs_kdc101", homed=True)
    device.position = 6.0

    simulator.bench.clock.wait(1.0)

    assert simulator.feed(b"") == b""


def test_kdc101_limits_are_those_of_its_stage(bench):
    device, _simulator = bench("thorlabs_kdc101", options={"stage": "Z812"}, homed=True)

    with pytest.raises(ValueError, match="position must be 0 to 12 mm, got 13.0 mm"):
        device.position = 13
    with pytest.raises(ConfigurationError, match="stage must be one of Z806.*did you mean 'Z812'"):
        bench("thorlabs_kdc101", options={"stage": "Z813"}, opens=False)
