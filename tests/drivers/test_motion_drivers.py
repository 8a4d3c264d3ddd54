"""Drivers of mounts and motors: exact bytes against scripts written from their sources, behaviour on the simulators."""

import threading

import pytest

from catkit_devices.errors import ConfigurationError, DeviceOpenError, DeviceProtocolError

SERIAL = "ASRL7::INSTR"


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


def test_mff101_asks_and_flips_with_these_bytes(simulated, frames):
    replies = {ASKS_INFO: INFO, TO_2: b"", ASKS_STATUS: [status(0x01), status(0x10), status(0x80000002), status(0x02)]}
    device, simulator = simulated("thorlabs_mff101", simulator=frames, replies=replies)
    simulator.sent.clear()

    device.position = 2

    assert device.moving is False
    assert simulator.sent == [TO_2, *[ASKS_STATUS] * 4]


def test_mff101_that_is_in_neither_position_is_an_error(simulated):
    device, _simulator = simulated("thorlabs_mff101", blocked=True)

    with pytest.raises(TimeoutError, match="not at position 2 after 5 s"):
        device.position = 2
    with pytest.raises(DeviceProtocolError, match="in neither position"):
        _ = device.position


def test_mff101_takes_as_long_as_its_transit_time(simulated):
    device, simulator = simulated("thorlabs_mff101")
    device.transit_time = "2500 ms"
    begun = simulator.bench.clock.time()

    device.position = 2

    assert simulator.bench.clock.time() - begun >= 2.5
    assert (device.position, simulator.position) == (2, 2)


def test_mff101_is_no_motor(simulated):
    with pytest.raises(DeviceOpenError, match="a model 'MFF10.12.' was expected, found 'KDC101'"):
        simulated("thorlabs_mff101", simulator="thorlabs_kdc101")


# --- APT: motor


def test_kdc101_waits_until_it_has_arrived(simulated):
    device, simulator = simulated("thorlabs_kdc101", position=3.0)
    device.home()
    device.velocity = "1000 um/s"
    begun = simulator.bench.clock.time()

    device.position = 4

    assert simulator.bench.clock.time() - begun >= 4.0
    assert simulator.axis.position() == round(4 * 34554.96)
    assert device.position == pytest.approx(4.0, abs=2e-5)  # one count is 0.03 um
    assert (device.moving, device.homed) == (False, True)


def test_kdc101_is_not_moved_before_it_was_homed(simulated):
    device, simulator = simulated("thorlabs_kdc101", position=3.0)

    with pytest.raises(DeviceProtocolError, match=r"must be homed before it is moved: home\(\)"):
        device.position = 4

    assert simulator.axis.position() == 3 * 34554.96


def test_kdc101_that_is_made_safe_on_its_way_stops_and_says_so(simulated, until):
    device, simulator = simulated("thorlabs_kdc101", homed=True, position=0.0)
    device.velocity = 0.01

    raised = moved_meanwhile(
        device, lambda: setattr(device, "position", 20), lambda: 0.01 < device.position < 20, until
    )

    assert not simulator.axis.moving
    assert 0 < simulator.axis.position() < 20 * 34554.96
    assert raised == [] or "stopped at" in raised[0]


def test_kdc101_sends_no_message_at_the_end_of_a_motion(simulated):
    device, simulator = simulated("thorlabs_kdc101", homed=True)
    device.position = 6.0

    simulator.bench.clock.wait(1.0)

    assert simulator.feed(b"") == b""


def test_kdc101_limits_are_those_of_its_stage(simulated):
    device, _simulator = simulated("thorlabs_kdc101", options={"stage": "Z812"}, homed=True)

    with pytest.raises(ValueError, match="position must be 0 to 12 mm, got 13.0 mm"):
        device.position = 13
    with pytest.raises(ConfigurationError, match="stage must be one of Z806.*did you mean 'Z812'"):
        simulated("thorlabs_kdc101", options={"stage": "Z813"}, opens=False)


# --- 8742

PICOMOTORS = {b"*IDN?": b"New_Focus 8742 v3.04 08/01/13 11511\r\n", b"TB?": b"0, NO ERROR DETECTED\r\n"}
NETWORK = "TCPIP0::10.0.0.7::23::SOCKET"


def test_8742_moves_with_these_bytes_and_asks_whether_it_was_refused(simulated, script):
    replies = {b"2TP?;2TP?": [b"5; 5\r\n", b"20; 20\r\n"], b"2VA?;2VA?": b"2000; 2000\r\n", b"2PA20": b"",
               b"2MD?;2MD?": [b"0; 0\r\n", b"1; 1\r\n"]}  # fmt: skip
    device, simulator = simulated("newport_8742", NETWORK, script, end=b"\r", replies=PICOMOTORS | replies)
    simulator.sent.clear()

    device.motors[2].position = 20

    assert simulator.sent == [b"2TP?;2TP?", b"2VA?;2VA?", b"2PA20", b"TB?", *[b"2MD?;2MD?"] * 2, b"2TP?;2TP?"]
    simulator._replies |= {b"AB": b"", **{b"%dMD?;%dMD?" % (n, n): b"1; 1\r\n" for n in (1, 2, 3, 4)}}


def test_8742_moves_one_motor_at_a_time(simulated):
    device, simulator = simulated("newport_8742", NETWORK)
    device.write("1MV+")

    with pytest.raises(DeviceProtocolError, match=r"refused: 314, MOTION IN PROGRESS.*'3PA100'"):
        device.motors[3].position = 100

    assert (device.motors[1].moving, device.motors[3].moving) == (True, False)
    assert simulator.axes[3].position() == 0


def test_8742_that_is_made_safe_on_its_way_stops_and_says_so(simulated, until):
    device, simulator = simulated("newport_8742", NETWORK)
    motor = device.motors[4]
    motor.velocity = 1

    raised = moved_meanwhile(device, lambda: setattr(motor, "position", 1000), lambda: 1 < motor.position < 1000, until)

    assert not simulator.axes[4].moving
    assert raised == [] or "motor 4 stopped at" in raised[0]


# --- 789A-4


def test_789a4_finds_its_home_and_counts_from_there(simulated):
    device, simulator = simulated("mcpherson_789a4", position=-30000)
    assert device.position is None

    device.home()
    device.velocity = 36000
    begun = simulator.bench.clock.time()
    device.move_by(72000)

    assert simulator.bench.clock.time() - begun >= 2.0
    assert (device.position, simulator.axis.position(), simulator.home_circuit) == (72000, 72000, 0)


def test_789a4_that_meets_a_limit_switch_says_so(simulated):
    device, _simulator = simulated("mcpherson_789a4", position=3900000)

    with pytest.raises(DeviceProtocolError, match="a limit switch has stopped the motion"):
        device.move_by(500000)

    assert (device.at_high_limit, device.at_low_limit, device.position) == (True, False, None)


def test_789a4_takes_no_reply_with_another_echo(simulated, script):
    replies = {b" ": b" v2.55\r\n", b"X": b"X K= 50 I= 1000 V= 61440\r\n", b"^": b"] 32\r\n"}
    device, simulator = simulated("mcpherson_789a4", simulator=script, end=b"\r", replies=replies)
    assert device.velocity == 61440

    with pytest.raises(DeviceProtocolError, match=r"the echo '\^' was expected, got '\] 32'"):
        _ = device.moving
    simulator._replies |= {b"^": b"^ 0\r\n", b"@": b"@\r\n", b"A0": b"A0\r\n"}


# --- 747


def test_747_reads_a_word_with_the_frames_of_the_manual(simulated, frames):
    # The header and the data are the manual's examples: V2240, and the word 1.
    enquiry, header = b"N!\x05", b"\x010101" + b"04A1" + b"000401" + b"\x17" + b"71"
    state = b"\x010101" + b"4183" + b"000401" + b"\x17" + b"0B"
    word = b"\x06\x02" + b"0100" + b"\x03" + b"01"
    replies = {enquiry: b"N!\x06", header: word, state: b"\x06\x02" + b"0000" + b"\x03" + b"00", b"\x06": b"\x04"}
    device, simulator = simulated("mcpherson_747", simulator=frames, replies=replies)
    simulator.sent.clear()

    assert device.parts[1].position == 1
    assert simulator.sent == [enquiry, header, b"\x06", b"\x04"]


def test_747_moves_what_was_initialised(simulated):
    device, simulator = simulated("mcpherson_747")
    with pytest.raises(DeviceProtocolError, match=r"device 3 must be initialised first: initialise\(\)"):
        device.parts[3].position = 4

    device.parts[3].initialise()
    device.parts[3].position = 4

    assert (device.parts[3].position, simulator.axes[2].position()) == (4, 4.0)


def test_747_refuses_a_position_that_does_not_exist(simulated):
    device, _simulator = simulated("mcpherson_747", initialised=True)

    with pytest.raises(DeviceProtocolError, match="device 1 did not go to 3: it is at 1"):
        device.parts[1].position = 3

    assert not device.parts[1].initialised
