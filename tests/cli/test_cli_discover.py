"""``discover`` lists what VISA finds, and asks for identities only when told to; never what somebody else has open."""

import json
import os
import subprocess
import sys

import pytest

# An instrument that answers, one that spells the query otherwise and echoes it before a prompt, and one that is silent.
INSTRUMENTS = r"""
spec: "1.1"
devices:
  meter:
    eom:
      USB INSTR: {q: "\n", r: "\n"}
    dialogues:
      - {q: "*IDN?", r: "ACME,Meter,1,2.0"}
  wheel:
    eom:
      ASRL INSTR: {q: "\r", r: "\r> "}
    dialogues:
      - {q: "*idn?", r: "*idn?\rTHORLABS FW102C"}
    error: "Command error CMD_NOT_DEFINED"
  silent:
    eom:
      ASRL INSTR: {q: "\n", r: "\n"}
    dialogues:
      - {q: "hello", r: "hi"}
resources:
  USB0::0x1111::0x2222::0x3333::0::INSTR: {device: meter}
  ASRL1::INSTR: {device: wheel}
  ASRL2::INSTR: {device: silent}
"""


@pytest.fixture
def bench(tmp_path):
    (tmp_path / "bench.yaml").write_text(INSTRUMENTS)
    return tmp_path


def discover(directory, *arguments, exit_code=0):
    result = subprocess.run(
        [sys.executable, "-m", "catkit_devices", "discover", *arguments],
        cwd=directory, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert result.returncode == exit_code, result.stderr
    return result


def found(directory, *arguments):
    answer = json.loads(discover(directory, "--visa-library", "bench.yaml@sim", "--json", *arguments).stdout)
    return {row["address"]: row for row in answer["resources"] if row["address"]}


def test_resources_are_listed_without_asking_them_anything(bench):
    resources = found(bench)
    assert list(resources) == ["USB0::0x1111::0x2222::0x3333::0::INSTR", "ASRL1::INSTR", "ASRL2::INSTR"]
    assert all(row["identity"] is None and row["problem"] is None for row in resources.values())


def test_discover_with_identify_shows_the_identity_of_each_instrument(bench):
    resources = found(bench, "--identify", "--timeout", "0.1")
    assert resources["USB0::0x1111::0x2222::0x3333::0::INSTR"]["identity"] == "ACME,Meter,1,2.0"
    assert resources["ASRL1::INSTR"]["identity"] == "THORLABS FW102C"
    assert (resources["ASRL2::INSTR"]["identity"], resources["ASRL2::INSTR"]["problem"]) == (None, "no answer")


def test_an_instrument_that_another_program_has_open_is_not_asked(bench):
    from catkit_devices._wire.ownership import Ownership

    ownership = Ownership("ASRL1::INSTR")
    try:
        wheel = found(bench, "--identify", "--timeout", "0.1")["ASRL1::INSTR"]
    finally:
        ownership.release()
    assert wheel["identity"] is None
    assert f"(pid {os.getpid()}" in wheel["problem"]


def test_the_real_library_is_listed_as_text(bench):
    assert "found" in discover(bench).stdout.splitlines()[0]


def test_a_visa_library_that_is_not_there_is_one_clear_error(bench):
    result = discover(bench, "--visa-library", "@nope", exit_code=2)
    assert "VISA library '@nope' cannot be used" in result.stderr
