"""What went over a wire, recorded and replayed: every byte, and a difference where there is one."""

from __future__ import annotations

import random

import pytest
import pyvisa
from hypothesis import example, given
from hypothesis import strategies as st

from catkit_devices.drivers import create_device
from catkit_devices.errors import ConfigurationError, DeviceTimeoutError, SimulationError
from catkit_devices.simulation import (
    Bench,
    Dialogue,
    Entry,
    Fault,
    Instrument,
    InstrumentServer,
    RecordingVisaLibrary,
    Replay,
    VirtualClock,
    build_library,
    read_entries,
)
from catkit_devices.simulation.wire_file import HEADER, escape, unescape

SERIAL = "ASRL3::INSTR"
USB = "USB0::0x1313::0x8078::P0001::INSTR"
SOCKET = "TCPIP0::10.0.0.7::2000::SOCKET"


@given(st.binary())
@example(b" a b ")
@example(b" ")
def test_every_byte_is_recorded_exactly(data):
    text = escape(data)
    assert unescape(text) == data
    assert text == text.strip()
    assert text.isascii()
    assert text.isprintable()


@given(st.lists(st.tuples(st.sampled_from("<>"), st.binary(min_size=1, max_size=300)), min_size=1, max_size=8))
def test_every_entry_is_read_as_it_was_recorded(tmp_path_factory, dialogue):
    from catkit_devices.simulation.recording import Recording

    path = tmp_path_factory.mktemp("wire") / "x.wire"
    recording = Recording(path, SERIAL, VirtualClock().time, messages=True)
    for kind, data in dialogue:
        recording.sent(data) if kind == ">" else recording.received(data, end=True)
    recording.close()
    assert [(entry.kind, entry.data) for entry in read_entries(path)] == dialogue
    assert all(len(line) < 130 for line in path.read_text().splitlines())


@pytest.mark.parametrize(("text", "problem"), [
    ("something else\n", "is not a recording: its first line should be"),
    (f"{HEADER}\n0.1 > ok\nnonsense\n", "line 3: expected seconds, one of < > !"),
    (f"{HEADER}\n\n0.1 > \\y\n", r"line 3: '\\\\y' is neither printable ASCII nor a known escape"),
    (f"{HEADER}\n0.1 ! exploded\n", "line 2: expected one of clear, close, open, trigger"),
    (f"{HEADER}\n0.1 ! status 256\n", "line 2: expected .*'status' and a byte in decimal"),
    (None, "cannot be read"),
])  # fmt: skip
def test_a_file_that_is_not_a_recording_is_refused_with_line_and_reason(tmp_path, text, problem):
    path = tmp_path / "x.wire"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigurationError, match=problem) as caught:
        read_entries(path)
    assert str(path) in str(caught.value)


def test_people_may_write_and_comment_a_recording(tmp_path):
    path = tmp_path / "x.wire"
    path.write_text(f"{HEADER}\n# by hand\n\n0 > pos\\\n     ?\\r\n\n0.5 < 3\\\\\\x00 \\\n \\x20!\\n\n0.5 <\n")
    entries = read_entries(path)
    assert [(entry.kind, entry.data, entry.time, entry.line) for entry in entries] == [
        (">", b"pos?\r", 0.0, 4), ("<", b"3\\\0  !\n", 0.5, 7), ("<", b"", 0.5, 9)
    ]  # fmt: skip


# --- recording


def record(tmp_path, address, simulator, options=None, **settings):
    library = build_library([Instrument(address, simulator, options or {})], clock="virtual", **settings)
    return library, RecordingVisaLibrary(library, tmp_path)


def test_a_recording_can_be_read(tmp_path):
    _library, recorder = record(tmp_path, SERIAL, "thorlabs_fw102c")
    with create_device("thorlabs_fw102c", "wheel", {"address": SERIAL}, visa_library=recorder) as wheel:
        wheel.position = 3
    lines = (tmp_path / "ASRL3_INSTR.wire").read_text().splitlines()
    assert lines[:2] == [HEADER, "# address: ASRL3::INSTR"]
    said = [line.split(" ", 1)[1] for line in map(str.strip, lines[3:])]
    assert said == [
        "! open",
        r"> *idn?\r",
        r"< *idn?\rTHORLABS FW102C/FW212C Filter Wheel version 1.07\r>\x20",
        r"> pcount?\r",
        r"< pcount?\r6\r>\x20",
        r"> pos=3\r",
        r"< pos=3\r",
        r"< >\x20",  # two seconds later
        r"> pos?\r",
        r"< pos?\r3\r>\x20",
        "! close",
    ]


DRIVERS = [
    ("thorlabs_fw102c", SERIAL, {}), ("thorlabs_mcls1", SERIAL, {}), ("thorlabs_pm100d", USB, {"power": 1e-3}),
    ("npoint_lc400", SERIAL, {}), ("omega_ithx", SOCKET, {}),
    ("scpi_camera", "TCPIP0::10.0.0.8::5025::SOCKET", {"rows": 50, "columns": 40}),
]  # fmt: skip


def use(driver, address, library):
    """Read everything that a device tells, and a frame where it has any."""
    found = {}
    with create_device(driver, "device", {"address": address}, visa_library=library) as device:
        for name, facts in device.describe()["properties"].items():
            if facts["readable"]:
                found[name] = getattr(device, name)
        if driver == "scpi_camera":
            found["frame"] = device.frame().tolist()
        if driver == "npoint_lc400":
            device.move(100.0, -200.0)
            found["measured"] = device.measured_tip
    return found


@pytest.mark.parametrize(("driver", "address", "options"), DRIVERS)
@pytest.mark.parametrize("timing", [False, True])
def test_a_replay_gives_every_driver_what_it_got_when_it_was_recorded(tmp_path, driver, address, options, timing):
    _library, recorder = record(tmp_path, address, driver, options)
    recorded = use(driver, address, recorder)
    (path,) = tmp_path.glob("*.wire")
    replayed = build_library([Instrument(address, str(path), {"timing": timing})], clock="virtual")
    assert use(driver, address, replayed) == recorded
    replayed.instrument(address).finish()


def test_the_bytes_of_real_sockets_are_recorded_too(tmp_path):
    library = build_library([Instrument(SOCKET, "scpi_camera", {"rows": 50, "columns": 40})])
    with InstrumentServer(library) as server:
        address = server.served[SOCKET].visa
        recorder = RecordingVisaLibrary("@py", {address: tmp_path / "camera.wire"})
        recorded = use("scpi_camera", address, recorder)
    replayed = build_library([Instrument(address, tmp_path / "camera.wire")], clock="virtual")
    assert use("scpi_camera", address, replayed) == recorded


def test_a_recording_is_continued_and_others_are_left_alone(tmp_path):
    library = build_library([Instrument(SERIAL, "thorlabs_fw102c"), Instrument("ASRL4", "thorlabs_mcls1")])
    recorder = RecordingVisaLibrary(library, {"ASRL3": tmp_path / "a" / "wheel.wire"})
    for _ in range(2):
        use("thorlabs_fw102c", SERIAL, recorder)
    use("thorlabs_mcls1", "ASRL4", recorder)
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.wire")] == ["a/wheel.wire"]
    assert [str(entry) for entry in read_entries(tmp_path / "a" / "wheel.wire")].count("! open") == 2


def test_a_recorder_passes_everything_else_on_to_the_library_that_it_records(tmp_path):
    library, recorder = record(tmp_path, USB, "thorlabs_pm100d")
    manager = pyvisa.ResourceManager(recorder)
    assert manager.list_resources() == library.addresses
    assert not recorder.machine_wide
    with manager.open_resource(USB, timeout=1234) as meter:
        assert meter.timeout == 1234
        meter.write("*IDN?")
        assert meter.read_stb() == 16
        with pytest.raises(pyvisa.VisaIOError):
            meter.read_bytes(1000, chunk_size=1000, break_on_termchar=False)
        assert meter.last_status == pyvisa.constants.StatusCode.error_timeout
    manager.close()


class Averaging:
    """Takes a while; its status byte says when it is done, by a bit of its own and by the answer that waits."""

    message_end = b"\n"

    def __init__(self, bench):
        self._clock, self._done = bench.clock, None

    def feed(self, data):
        if data:
            self._done = self._clock.time() + 0.3
        if self._done is not None and self._clock.time() >= self._done:
            self._done = None
            return b"1.5\n"
        return b""

    def read_stb(self):
        return 0 if self._done is not None else 64 + 16


def poll_and_read(library):
    with pyvisa.ResourceManager(library).open_resource(USB, read_termination="\n") as meter:
        meter.write("READ?")
        statuses = []
        while not statuses or not statuses[-1] & 64:
            statuses.append(meter.read_stb())
            library.bench.clock.wait(0.05)
        return statuses, meter.read(), meter.read_stb()


def test_a_program_that_polls_the_status_byte_is_recorded_and_replayed(tmp_path):
    _library, recorder = record(tmp_path, USB, Averaging)
    statuses, value, after = poll_and_read(recorder)
    assert (len(statuses), statuses[0], statuses[-1], value, after) == (7, 0, 80, "1.5", 80)
    (path,) = tmp_path.glob("*.wire")
    said = [str(entry) for entry in read_entries(path)]
    assert said == ["! open", r"> READ?\r\n", "! status 0", "! status 80", r"< 1.5\n", "! close"]

    replayed = build_library([Instrument(USB, str(path))], clock="virtual")
    assert poll_and_read(replayed) == ([0, 80], "1.5", 64)  # no answer waits there any more
    replayed.instrument(USB).finish()


def test_a_program_that_polls_less_often_than_when_it_was_recorded_gets_its_answers(tmp_path):
    script = Dialogue(
        Bench(clock=VirtualClock()),
        [Entry(">", b"A?"), Entry("!", b"status 0"), Entry("!", b"status 80"), Entry("<", b"1"), Entry(">", b"B?"),
         Entry("<", b"2")],
    )  # fmt: skip
    assert script.feed(b"A?") == b"1"
    assert script.feed(b"B?") == b"2"
    assert script.read_stb() == 0
    script.finish()


# --- replay


def dialogue(*exchanges, **options):
    entries = []
    for sent, *answers in exchanges:
        entries += [Entry(">", sent), *(Entry("<", answer) for answer in answers)]
    return Dialogue(Bench(clock=VirtualClock()), entries, **options)


def test_how_the_bytes_are_divided_does_not_matter():
    script = dialogue((b"pos?\r", b"3\r> "), (b"speed?\r", b"1\r> "))
    assert script.feed(b"po") == b""
    assert script.feed(b"s?\rspeed") == b"3\r> "
    assert script.feed(b"?\r") == b"1\r> "
    script.finish()


def test_a_space_where_the_difference_begins_is_shown_as_one():
    script = dialogue((b"VOLT 5.0\n",), title="supply.wire")
    with pytest.raises(SimulationError) as caught:
        script.feed(b"VOLT5.0\n")
    assert r"expected  VOLT 5.0\n" in str(caught.value)


def test_a_difference_shows_what_was_expected_and_what_was_sent():
    script = dialogue((b"pos=3\r", b"> "), title="wheel.wire")
    script.feed(b"po")
    with pytest.raises(SimulationError) as caught:
        script.feed(b"s=4\r")
    assert str(caught.value) == (
        "wheel.wire: what was sent is not what is expected, from byte 4 on\n"
        "  expected  pos=3\\r\n"
        "  sent      pos=4\\r\n"
        "                ^"
    )
    assert script.difference is caught.value
    with pytest.raises(SimulationError, match="from byte 4 on"):
        script.finish()


def test_spaces_before_a_difference_are_shown_as_they_are():
    with pytest.raises(SimulationError, match=r"expected  VOLT 5.0\\n\n  sent      VOLT 6.0\\n\n                 \^"):
        dialogue((b"VOLT 5.0\n",)).feed(b"VOLT 6.0\n")


def test_a_difference_deep_in_binary_data_shows_its_surroundings():
    data = random.Random(1).randbytes(5000)
    script = dialogue((data,))
    with pytest.raises(SimulationError) as caught:
        script.feed(data[:3000] + bytes([data[3000] ^ 1]) + data[3001:])
    _title, expected, sent, mark = str(caught.value).splitlines()
    assert "from byte 3000 on" in _title
    assert len(expected) < 500
    place = mark.index("^")
    assert expected[12:place] == sent[12:place]
    assert escape(data[3000:3001]) == expected[place : place + len(escape(data[3000:3001]))]
    assert expected[place:] != sent[place:]


@pytest.mark.parametrize(("use", "problem"), [
    (lambda script: script.feed(b"*RST\n"), r"nothing more is expected, got  \*RST\\n"),
    (lambda script: script.clear(), "nothing more is expected, got a device clear"),
    (lambda script: script.trigger(), "nothing more is expected, got a trigger"),
])  # fmt: skip
def test_bytes_after_the_end_of_a_dialogue_are_a_difference(use, problem):
    with pytest.raises(SimulationError, match=problem):
        use(dialogue())


def test_the_rest_of_an_incomplete_dialogue_is_reported():
    script = dialogue((b"1\n", b"one\n"), (b"2\n", b"two\n"))
    with pytest.raises(SimulationError, match=r"never sent: > 1\\n \(4 such entries are left\)"):
        script.finish()
    assert script.feed(b"1\n2") == b"one\n"
    with pytest.raises(SimulationError, match=r"only 2 was sent of this: > 2\\n \(2 such"):
        script.finish()
    script = dialogue((b"1\n", b"one\n", b"more\n"))
    assert script.feed(b"1\n") == b"one\n"
    with pytest.raises(SimulationError, match=r"never read: < more\\n \(1 such"):
        script.finish()


def test_a_device_clear_must_come_where_it_was(tmp_path):
    path = tmp_path / "x.wire"
    path.write_text(f"{HEADER}\n0 ! open\n0 > a\\n\n0 < A\\n\n0 ! clear\n0 > b\\n\n0 < B\\n\n")

    def opened():
        library = build_library([Instrument("GPIB::5", path)], clock="virtual")
        resource = pyvisa.ResourceManager(library).open_resource("GPIB::5")
        resource.write_raw(b"a\n")
        return resource

    resource = opened()
    resource.clear()
    resource.write_raw(b"b\n")
    assert resource.read_raw() == b"B\n"
    with pytest.raises(SimulationError, match=r"x.wire:5: a device clear is expected, got  b\\n"):
        opened().write_raw(b"b\n")
    resource = opened()
    resource.clear()
    with pytest.raises(SimulationError, match=r"x.wire:6: > b\\n is expected, got a device clear"):
        resource.clear()


def test_a_replay_keeps_its_time_if_it_is_told_to(tmp_path):
    _library, recorder = record(tmp_path, SERIAL, "thorlabs_fw102c")
    with create_device("thorlabs_fw102c", "wheel", {"address": SERIAL}, visa_library=recorder) as wheel:
        wheel.position = 4
    (path,) = tmp_path.glob("*.wire")
    for timing, least, most in ((False, 0.0, 1.0), (True, 3.0, 5.0)):
        replayed = build_library([Instrument(SERIAL, path, {"timing": timing})], clock="virtual")
        with create_device("thorlabs_fw102c", "wheel", {"address": SERIAL}, visa_library=replayed) as wheel:
            began = replayed.bench.clock.time()
            wheel.position = 4
            assert least <= replayed.bench.clock.time() - began < most


@pytest.mark.parametrize(
    ("driver", "address", "quantity"), [("thorlabs_fw102c", SERIAL, "speed"), ("thorlabs_pm100d", USB, "averaging")]
)
def test_a_missing_reply_and_the_recovery_after_it_are_replayed(tmp_path, driver, address, quantity):
    library, recorder = record(tmp_path, address, driver)

    def fail(visa_library):
        with create_device(driver, "device", {"address": address}, visa_library=visa_library) as device:
            if visa_library is recorder:
                library.line(address).inject(Fault("no_reply"))
            with pytest.raises(DeviceTimeoutError):
                getattr(device, quantity)
            return getattr(device, quantity)

    recorded = fail(recorder)
    (path,) = tmp_path.glob("*.wire")
    clears = [entry for entry in read_entries(path) if entry.data == b"clear"]
    assert bool(clears) == (address == USB)  # where there is a device clear
    replayed = build_library([Instrument(address, path)], clock="virtual")
    assert fail(replayed) == recorded
    replayed.instrument(address).finish()


def test_a_driver_that_was_changed_fails_with_the_difference(tmp_path):
    _library, recorder = record(tmp_path, SERIAL, "thorlabs_fw102c")
    use("thorlabs_fw102c", SERIAL, recorder)
    (path,) = tmp_path.glob("*.wire")
    replayed = build_library([Instrument(SERIAL, path)], clock="virtual")
    device = create_device("thorlabs_fw102c", "wheel", {"address": SERIAL}, visa_library=replayed)
    device.open()
    with pytest.raises(SimulationError, match=r"(?s)ASRL3_INSTR.wire:\d+: .*expected  position|pos.*sent      save"):
        device.write("save")


@pytest.mark.parametrize(("options", "problem"), [
    ({"device": "x"}, "no such option, expected one of timing"),
    ({}, "nowhere.wire: cannot be read"),
])  # fmt: skip
def test_a_recording_that_cannot_be_replayed_is_refused(options, problem):
    with pytest.raises(ConfigurationError, match=problem):
        build_library([Instrument(SERIAL, "nowhere.wire", options)])


def test_a_replay_can_be_used_without_a_library(tmp_path):
    path = tmp_path / "x.wire"
    path.write_text(f"{HEADER}\n0 < hello\\n\n")
    replay = Replay(Bench(clock=VirtualClock()), path)
    assert replay.feed(b"") == b"hello\n"
    replay.finish()
