"""pyvisa-sim files, served by the same backend as coded simulators."""

from __future__ import annotations

import random

import pytest
import pyvisa

from catkit_devices.errors import ConfigurationError, SimulationError
from catkit_devices.simulation import Bench, VirtualClock, YamlInstrument

SUPPLY = r"""
spec: "1.1"
devices:
  supply:
    eom:
      ASRL INSTR: {q: "\r", r: "\r> "}
      USB INSTR: {q: "\n", r: "\n"}
    error: ERR
    dialogues:
      - {q: "ID?", r: "supply of ours"}
      - {q: "BEEP"}
    properties:
      voltage:
        default: 1.5
        getter: {q: "V?", r: "{:.2f}"}
        setter: {q: "V {}", r: "OK"}
        specs: {type: float, min: 0, max: 10}
"""


@pytest.fixture
def supply(tmp_path):
    path = tmp_path / "supply.yaml"
    path.write_text(SUPPLY)
    return path


def bench():
    return Bench(clock=VirtualClock())


def test_dialogues_getters_and_setters_work(visa, supply):
    resource = visa(("USB::1::2::3::INSTR", supply)).open_resource(
        "USB::1::2::3::INSTR", read_termination="\n", write_termination="\n"
    )
    assert resource.query("ID?") == "supply of ours"
    assert resource.query("V?") == "1.50"
    assert resource.query("V 2.25") == "OK"
    assert resource.query("V?") == "2.25"
    assert resource.query("V 11") == "ERR"
    assert resource.query("nonsense") == "ERR"
    assert resource.query("V?") == "2.25"


def test_the_address_decides_which_terminators_hold_and_their_spaces_are_kept(visa, supply):
    resource = visa(("ASRL/dev/ttyUSB0::INSTR", supply)).open_resource("ASRL/dev/ttyUSB0::INSTR")
    resource.write_raw(b"ID?\r")
    assert resource.read_bytes(17) == b"supply of ours\r> "


def test_a_message_may_come_in_pieces_and_two_in_one_write(supply):
    instrument = YamlInstrument(bench(), supply, address="USB::1::2::3::INSTR")
    assert instrument.feed(b"I") == b""
    assert instrument.feed(b"D?\nV?\nBEEP\n") == b"supply of ours\n1.50\n"


def test_bytes_that_are_not_text_are_an_unknown_command(supply):
    instrument = YamlInstrument(bench(), supply, address="USB::1::2::3::INSTR")
    assert instrument.feed(b"\xff\xfe\n") == b"ERR\n"
    assert instrument.feed(b"V?\n") == b"1.50\n"


def test_text_is_sent_and_taken_in_the_encoding_of_the_instrument(visa, supply):
    supply.write_text(SUPPLY.replace("supply of ours", "5 µA").replace("BEEP", "°"))
    instrument = YamlInstrument(bench(), supply, address="USB::1::2::3::INSTR", encoding="latin-1")
    assert instrument.feed("ID?\n°\nµ\n".encode("latin-1")) == "5 µA\nERR\n".encode("latin-1")


def test_the_end_of_a_usb_message_replaces_its_terminator(visa, supply):
    resource = visa(("USB::1::2::3::INSTR", supply)).open_resource("USB::1::2::3::INSTR")
    resource.write("V?", termination="")
    assert resource.read_raw() == b"1.50\n"


def test_a_coupled_property_comes_from_the_bench_and_what_was_set_is_kept(supply):
    instrument = YamlInstrument(bench(), supply, address="USB::1::2::3::INSTR")
    instrument.couple("voltage", lambda: 10 * instrument.value("voltage"))
    assert instrument.feed(b"V?\nV 0.5\nV?\nV 99\nV?\n") == b"15.00\nOK\n5.00\nERR\n5.00\n"
    instrument.reset()
    assert instrument.feed(b"V?\n") == b"15.00\n"


def test_coupling_an_unknown_property_is_refused(supply):
    with pytest.raises(SimulationError, match="supply has no property 'current'"):
        YamlInstrument(bench(), supply).couple("current", float)


def test_half_a_message_is_forgotten_when_the_instrument_is_cleared(visa, supply):
    resource = visa(("USB::1::2::3::INSTR", supply)).open_resource("USB::1::2::3::INSTR", send_end=False)
    resource.write_raw(b"garb")
    resource.clear()
    resource.write_raw(b"V?\n")
    assert resource.read_raw() == b"1.50\n"


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        (SUPPLY, {"encoding": "latin-0"}, "encoding: unknown encoding: latin-0"),
        (SUPPLY, {"device": "suply"}, "there is no device 'suply' (did you mean 'supply'?)"),
        (SUPPLY.replace("supply:", "a: {}\n  b:"), {}, "it has 2 devices (a, b): say which"),
        (SUPPLY.replace("type: float", "type: flot"), {}, "device 'supply': Invalid property type 'flot'"),
        (SUPPLY.replace("error: ERR", "bases: [{device: supply}]"), {}, "device 'supply': NotImplementedError"),
        ("spec: '9.9'\ndevices: {}", {}, "The spec version of the file is"),
        ("devices: [", {}, "while parsing"),
        ("", {}, "is not a usable pyvisa-sim file: it is empty"),
        ("# nothing yet", {}, "it is empty"),
        ("hello", {}, "the keys 'spec' and 'devices' were expected, got 'hello'"),
        ("[]", {}, "the keys 'spec' and 'devices' were expected, got []"),
        ("devices: {}", {}, "it does not say which version of the form it has"),
        ("spec: '1.1'", {}, "it has no devices"),
        ("spec: '1.1'\ndevices: 3", {}, "a mapping was expected under 'devices', got '3'"),
        ("spec: '1.1'\ndevices: {a: }", {}, "a mapping was expected under 'devices', 'a', got ''"),
        (
            SUPPLY + "\nresources: {ASRL1::INSTR: supply}",
            {},
            "a mapping was expected under 'resources'",
        ),
    ],
)
def test_a_file_that_cannot_be_used_is_named_with_the_reason(tmp_path, text, options, message):
    path = tmp_path / "broken.yaml"
    path.write_text(text)
    with pytest.raises(ConfigurationError) as caught:
        YamlInstrument(bench(), path, **options)
    assert str(caught.value).startswith(str(path))
    assert message in str(caught.value)


def test_a_file_with_several_devices_may_say_which_one_is_at_an_address(tmp_path):
    path = tmp_path / "two.yaml"
    path.write_text("""
spec: "1.1"
devices:
  one: {dialogues: [{q: "?", r: "one"}]}
  two: {dialogues: [{q: "?", r: "two"}]}
resources:
  GPIB0::1::INSTR: {device: one}
  GPIB0::2::INSTR: {device: two}
""")
    assert YamlInstrument(bench(), path, address="GPIB::2").feed(b"?\n") == b"two\n"
    assert YamlInstrument(bench(), path, address="GPIB::9", device="one").feed(b"?\n") == b"one\n"


INDEX = """
spec: "1.1"
resources:
  GPIB0::1::INSTR: {device: supply, filename: makers/supply.yaml}
  GPIB0::2::INSTR: {device: gone, filename: makers/supply.yaml}
  GPIB0::3::INSTR: {device: lost, filename: makers/lost.yaml}
  GPIB0::4::INSTR: {device: device 1, filename: default.yaml, bundled: true}
  GPIB0::INTFC: {device: controller, filename: makers/controller.yaml}
  GPIB0::5::INSTR: {device: here}
  GPIB0::6::INSTR: {filename: makers/supply.yaml}
devices:
  here: {dialogues: [{q: "?", r: "here"}]}
"""


@pytest.fixture
def index(tmp_path):
    (tmp_path / "makers").mkdir()
    (tmp_path / "makers" / "supply.yaml").write_text(SUPPLY.replace("USB INSTR", "GPIB INSTR"))
    path = tmp_path / "index.yaml"
    path.write_text(INDEX)
    return path


@pytest.mark.parametrize(
    ("options", "command", "reply"),
    [
        ({"address": "GPIB::1"}, b"ID?\n", b"supply of ours\n"),
        ({"address": "GPIB::9", "device": "supply"}, b"ID?\n", b"supply of ours\n"),
        ({"address": "GPIB::1", "device": "here"}, b"?\n", b"here\n"),
        ({"address": "GPIB::4"}, b"?IDN\n", b"LSG Serial #1234\n"),
        ({"address": "GPIB::5"}, b"?\n", b"here\n"),
        ({"address": "GPIB::6"}, b"ID?\n", b"supply of ours\n"),
    ],
)
def test_a_device_may_be_in_a_file_that_the_resource_names(index, options, command, reply):
    assert YamlInstrument(bench(), index, **options).feed(command) == reply


@pytest.mark.parametrize(
    ("options", "file", "problem"),
    [
        ({"address": "GPIB::2"}, "makers/supply.yaml", "there is no device 'gone'"),
        (
            {"address": "GPIB::9", "device": "suply"},
            "index.yaml",
            "there is no device 'suply' (did you mean 'supply'?)",
        ),
        ({"address": "GPIB::9", "device": "gone"}, "makers/supply.yaml", "there is no device 'gone'"),
        ({"address": "GPIB::6", "device": "suply"}, "makers/supply.yaml", "no device 'suply' (did you mean 'supply'?)"),
    ],
)
def test_an_unknown_device_is_refused_with_the_known_names(index, options, file, problem):
    with pytest.raises(ConfigurationError) as caught:
        YamlInstrument(bench(), index, **options)

    assert str(caught.value).startswith(str(index.parent / file))
    assert str(caught.value).endswith(problem)


@pytest.mark.parametrize(
    ("address", "file", "message"),
    [
        ("GPIB::2", "makers/supply.yaml", "there is no device 'gone'"),
        ("GPIB::3", "makers/lost.yaml", r"cannot be read: No such file or directory \(it is named in .*index.yaml\)"),
    ],
)
def test_a_file_that_a_resource_names_is_named_where_it_cannot_be_used(index, address, file, message):
    with pytest.raises(ConfigurationError, match=message) as caught:
        YamlInstrument(bench(), index, address=address)
    assert caught.value.file == str(index.parent / file)


RANDOM = r"""
spec: "1.1"
devices:
  noisy:
    dialogues: [{q: "D?", r: "{RANDOM(0, 10, 3):.4f}"}]
    properties:
      v: {default: 1.0, getter: {q: "V?", r: "{RANDOM(0, 1, 1):.4f}"}, specs: {type: float}}
    channels:
      c:
        ids: [1, 2]
        can_select: True
        dialogues: [{q: "C{ch_id}?", r: "{RANDOM(0, 1, 1):.4f}"}]
"""


def test_random_replies_are_the_same_for_the_same_seed_and_leave_others_alone(tmp_path, visa):
    path = tmp_path / "noisy.yaml"
    path.write_text(RANDOM)

    def replies(seed):
        noisy = visa(("GPIB::1", path), seed=seed).open_resource("GPIB::1", write_termination="\n")
        return [noisy.query(command).strip() for command in ("D?", "V?", "C2?", "D?")]

    state = random.getstate()
    first = replies(1)

    assert replies(1) == first
    assert first[0] != first[3]
    assert all(0 <= float(number) <= 10 for reply in first for number in reply.split(", "))
    assert replies(2) != first
    assert random.getstate() == state


def test_the_replies_to_several_commands_in_one_message_are_one_message(visa, supply):
    resource = visa(("USB::1::2::3::INSTR", supply)).open_resource("USB::1::2::3::INSTR", write_termination="\n")
    resource.write("ID?;V?")
    assert resource.read_raw() == b"supply of ours\n1.50\n"


def test_the_only_terminator_pair_of_a_file_is_used_at_every_address(tmp_path, visa):
    path = tmp_path / "one.yaml"
    path.write_text('spec: "1.1"\ndevices: {x: {eom: {ASRL INSTR: {q: ";", r: "!"}}, dialogues: [{q: "a", r: "b"}]}}')
    resource = visa(("GPIB::1", path)).open_resource("GPIB::1", read_termination="!", write_termination=";")
    assert resource.query("a") == "b"


def test_messages_end_with_lf_where_the_file_has_several_pairs_but_none_for_the_kind_of_address(supply, caplog):
    instrument = YamlInstrument(bench(), supply, address="GPIB::1")
    assert instrument.feed(b"ID?\n") == b"supply of ours\n"
    [record] = caplog.records
    assert "its eom has no entry for GPIB INSTR, only for ASRL INSTR, USB INSTR: messages end with LF" in record.message


SCRIPT = r"""
spec: "1.1"
devices:
  script:
    dialogues:
      - {q: "load\nsetup()\nend", r: loaded}
      - {q: "load", r: "load what?"}
    channels:
      c:
        ids: [1, 2]
        can_select: True
        dialogues: [{q: "run\nc{ch_id}", r: done}]
"""


@pytest.mark.parametrize(
    ("pieces", "reply"),
    [
        ([b"load\nsetup()\nend\n"], b"loaded\n"),
        ([b"load\nload\nsetup()\nend\nload\n"], b"load what?\nloaded\nload what?\n"),
        ([b"lo", b"ad\nsetup()\nend\nrun\nc2\n"], b"loaded\ndone\n"),
    ],
)
def test_a_terminator_inside_a_dialogue_does_not_end_the_message(tmp_path, pieces, reply):
    path = tmp_path / "script.yaml"
    path.write_text(SCRIPT)
    instrument = YamlInstrument(bench(), path, address="USB::1::2::3::INSTR")
    assert b"".join(instrument.feed(piece) for piece in pieces) == reply


def test_an_unknown_command_without_an_error_reply_gets_no_reply(tmp_path, visa):
    path = tmp_path / "shy.yaml"
    path.write_text('spec: "1.1"\ndevices: {x: {dialogues: [{q: "a", r: "b"}]}}')
    resource = visa(("GPIB::1", path)).open_resource("GPIB::1", write_termination="\n")
    with pytest.raises(pyvisa.VisaIOError):
        resource.query("what?")
