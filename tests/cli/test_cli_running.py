"""Everything that the command line does with a testbed that runs, each command as a process of its own."""

import json
import os
import pty
import re
import select
import subprocess
import sys
import time

import numpy as np
import pytest


def rows(text):
    return [line.split() for line in text.splitlines()]


# --- looking ---------------------------------------------------------------------------------------------------------


def test_status_shows_devices_and_safety_checks_with_value_against_limit(running):
    status = running.json("status", "bench")
    assert status["name"] == "bench"
    assert set(status["devices"]) == {"wheel", "laser", "tank", "gauge"}
    assert status["safety"]["checks"]["level"]["test"]["maximum"] == 10
    shown = running.command("status").stdout
    assert "bench, simulated" in shown
    level = next(line for line in shown.splitlines() if line.strip().startswith("level"))
    assert "0 to 10" in level
    assert level.split()[1] == "2"


def test_devices_are_listed_with_state_without_any_configuration(running):
    running.command("get", "wheel.position")
    listed = running.json("devices")
    assert listed["running"] is True
    wheel = next(device for device in listed["devices"] if device["name"] == "wheel")
    assert (wheel["driver"], wheel["state"], wheel["aliases"]) == ("thorlabs_fw102c", "open", ["filters"])
    assert ["wheel", "thorlabs_fw102c", "ASRL3::INSTR", "open"] in [
        row[:4] for row in rows(running.command("devices").stdout)
    ]


# --- devices ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [["wheel.position", "4"], ["wheel", "position", "4"], ["filters.position=4"]])
def test_a_property_is_set_and_read_in_either_spelling(running, words):
    running.command("set", "wheel.position", "1")
    assert running.command("set", *words).stdout == "wheel.position = 4\n"
    assert running.command("get", "wheel", "position").stdout == "wheel.position = 4\n"
    assert running.json("get", "filters.position") == {
        "device": "wheel", "property": "position", "value": 4, "unit": None,
    }  # fmt: skip


def test_values_carry_units_both_ways_and_truth_values_are_words(running):
    assert running.command("set", "laser.current", "0.05 A").stdout.split()[:3] == ["laser.current", "=", "50.0"]
    assert running.json("set", "laser.current", "40")["unit"] == "mA"
    assert running.command("set", "tank.pump", "true").stdout == "tank.pump = True\n"
    assert running.command("set", "tank.pump", "off").stdout == "tank.pump = False\n"
    assert "expected on or off, got 'of'" in running.error("set", "tank.pump", "of")
    assert running.command("set", "tank.level", "-0").stdout == "tank.level = 0.0\n"
    running.command("set", "tank.level", "2")


def test_several_properties_are_set_in_order_and_read_in_one_command(running):
    assert running.command("set", "wheel.position=2", "laser.current=20 mA").stdout.splitlines() == [
        "wheel.position = 2", "laser.current = 20.0 mA",
    ]  # fmt: skip
    error = running.error("set", "wheel.position=3", "laser.current=5000", "tank.pump=on", exit_code=1)
    assert "set before that: wheel.position; not set: laser.current, tank.pump" in error
    read = running.json("get", "wheel.position", "laser.current")
    assert [(one["device"], one["property"], one["value"]) for one in read] == [
        ("wheel", "position", 3), ("laser", "current", 20.0),
    ]  # fmt: skip
    told = running.command("get", "wheel.position", "laser.nix", "nix.nix", "--json", exit_code=2)
    assert "expected a property" in told.stderr
    first, second, third = json.loads(told.stdout)
    assert first["value"] == 3
    assert (second["device"], second["property"], third["device"]) == ("laser", "nix", "nix")
    assert "expected a property" in second["error"]
    assert "can only be read" in running.error("set", "wheel.position=1", "wheel.positions=2")
    assert running.command("get", "wheel.position").stdout == "wheel.position = 3\n"


def test_a_dry_run_checks_type_and_limits_and_sets_nothing(running):
    running.command("set", "wheel.position", "2")
    assert running.command("set", "wheel.position", "3", "--dry-run").stdout == "wheel.position would be set to 3\n"
    assert running.json("set", "laser.current=0.03 A", "--dry-run")["value"] == 30.0
    assert "position must be 1 to 6, got 9" in running.error("set", "wheel.position", "9", "--dry-run", exit_code=1)
    assert "expected on or off" in running.error("set", "wheel.position=3", "tank.pump=of", "--dry-run")
    assert running.command("get", "wheel.position").stdout == "wheel.position = 2\n"


def test_describe_shows_properties_with_value_unit_and_limits_and_commands(running):
    running.command("set", "laser.current", "20")
    shown = running.command("describe", "laser").stdout
    current = next(line for line in shown.splitlines() if line.strip().startswith("current"))
    assert current.split()[1:9] == ["20.0", "mA", "0", "to", "68.09", "mA", "read,", "set"]
    assert "fill(" in running.command("describe", "tank", "--no-values").stdout
    told = running.json("describe", "filters")
    assert told["name"] == "wheel"
    position = told["properties"]["position"]
    assert (position["limits"], position["writable"], position["shared"]) == ([1, 6], True, False)
    assert "value" in position


def test_get_with_a_device_alone_reads_all_its_properties(running):
    shown = rows(running.command("get", "tank").stdout)
    assert ["level", "2.0", "How", "full", "it", "is."] in shown
    assert running.json("get", "tank")["properties"]["level"] == {"value": 2.0, "unit": None}


def test_get_shows_the_properties_that_can_be_read_and_fails_for_the_others(running):
    result = running.command("get", "gauge", exit_code=1)

    assert ["range", "3", "Range", "in", "use."] in rows(result.stdout)
    assert ["pressure", "no", "measurement", "(nan)"] in [row[:4] for row in rows(result.stdout)]
    assert ["inlet", "not", "read"] in [row[:3] for row in rows(result.stdout)]
    assert result.stderr.count("the flow sensor has no supply") == 1
    assert "not read: inlet, outlet" in result.stderr
    assert "ZeroDivisionError: division by zero" in result.stderr
    assert "gauge.relic returned an object of class vendor_library.Relic, which cannot be loaded" in result.stderr
    assert "gauge.handle returned an object of class _thread.lock, which cannot be pickled" in result.stderr
    properties = running.json("get", "gauge", exit_code=1)["properties"]
    assert properties["range"] == {"value": 3, "unit": None}
    assert "the flow sensor has no supply" in properties["outlet"]["error"]
    assert "cannot be written as JSON (RecursionError" in properties["knot"]["error"]
    for text in (result.stderr, properties["quitter"]["error"]):
        assert "device 'gauge': quitter tried to end the program (SystemExit: 3)" in text
    assert r"ValueError: \x1b[31mred\x1b[0m\x00 alert" in result.stderr
    assert "leave tried to end the program" in running.error("call", "gauge.leave", exit_code=1)


def test_a_number_that_is_no_measurement_is_null_in_json_with_a_reason(running):
    answer = strict_json(running.command("get", "gauge.pressure", "--json").stdout)
    assert (answer["value"], answer["reason"]) == (None, "no measurement (nan)")
    answer = strict_json(running.command("call", "gauge.trace", "--json").stdout)
    assert answer["result"] == {"mbar": [1.0, None], "(1, 2)": "\udcb5"}
    assert answer["reason"] == "no measurement (inf)"


def strict_json(text):
    """Read JSON as a reader does that is not Python's: NaN is no word of it."""
    return json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))


def test_a_command_is_called_with_positional_and_named_arguments(running):
    assert running.command("call", "tank.fill", "-0.5").stdout == "'1.5'\n"
    assert running.json("call", "tank", "fill", "0.5", "label=at ")["result"] == "at 2"
    assert running.json("call", "tank.picture", "rows=1")["result"] == [[0, 1, 2]]
    running.command("call", "tank.picture", "3", "--out", "picture.npy")
    np.testing.assert_array_equal(np.load(running.directory / "picture.npy"), np.arange(9).reshape(3, 3))
    assert running.command("call", "tank.make_safe").stdout == ""


def test_several_arrays_that_a_command_returns_are_saved_together(running):
    running.command("call", "gauge.scan", "--out", "scan.npz")
    with np.load(running.directory / "scan.npz") as saved:
        assert [saved[name].shape for name in ("arr_0", "arr_1", "arr_2")] == [(3,), (3, 2), ()]
        assert saved["arr_2"] == 0.5
    told = running.command("call", "tank.fill", "0", "--out", "level.npy", "--json", exit_code=1)
    assert "level.npy is not written: the command returned no array but str" in told.stderr
    answer = json.loads(told.stdout)
    assert answer["error"] in told.stderr
    assert answer["result"]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["get", "weel.position"], "did you mean 'wheel'?"),
        (["get", "wheel.positon"], "did you mean 'position'?"),
        (["get", "tank.fill"], "'fill' is no property: `call` runs commands"),
        (["set", "wheel.position"], "expected a property and a value"),
        (["set", "tank.picture", "3"], "'picture' is no property"),
        (["call", "tank.fil", "1"], "did you mean 'fill'?"),
        (["call", "tank.pause", "1", "2"], "takes no more arguments, got '2'"),
        (["call", "tank"], "say which command: "),
        (["get", "wheel.position", "--testbed", "bensh"], ""),
    ],
)
def test_a_member_that_a_device_does_not_have_is_one_clear_error(running, words, text):
    assert text in running.error(*words, exit_code=3 if "bensh" in words else 2)


def test_an_error_that_a_device_raises_is_one_clear_error(running):
    assert "1 to 6, got 9" in running.error("set", "wheel.position", "9", exit_code=1)
    assert "ZeroDivisionError: no bottom" in running.error("call", "tank.leak", exit_code=1)


def test_ctrl_c_abandons_what_was_called_and_the_device_is_free_again(running):
    process = running.popen("call", "tank.pause", "30")
    try:
        running.until(lambda status: status["devices"]["tank"]["holder"])
    finally:
        running.end(process)
    assert process.returncode == 130
    assert running.command("set", "tank.pump", "off", "--timeout", "5").stdout == "tank.pump = False\n"


# --- experiments that join -------------------------------------------------------------------------------------------


def test_run_uses_the_running_testbed_and_starts_no_other(running):
    before = running.json("status")["server"]
    answer = running.json("run", "work.py:Turn", "--to", "5", "--config", "bench.toml")
    assert (answer["experiment"].partition("-")[0], answer["state"], answer["result"]) == ("Turn", "finished", 5)
    assert os.path.isfile(running.directory / answer["run"] / "data.sqlite")
    status = running.json("status")
    assert status["server"] == before
    assert answer["run"] in [experiment["run"] for experiment in status["experiments"].values()]


def test_run_starts_another_testbed_only_when_told_to(running):
    before = set(running.json("status")["experiments"])
    result = running.command("run", "work.py:Turn", "--new", "-c", "bench.toml", "--runs", "elsewhere")
    assert "Turn finished" in result.stdout
    assert [path for path in (running.directory / "elsewhere").iterdir() if path.is_dir()]
    assert set(running.json("status")["experiments"]) == before


def test_run_warns_that_the_directory_of_runs_of_a_running_testbed_cannot_be_changed(running):
    result = running.command("run", "work.py:Turn", "--runs", "over-there")
    assert "--runs changes nothing: testbed 'bench' is running already" in result.stderr
    assert not (running.directory / "over-there").exists()


def test_run_shows_the_error_of_its_experiment(running):
    told = running.command("run", "work.py:Fail", "--json", exit_code=1)
    assert "error: ZeroDivisionError: the lamp is too dim" in told.stderr
    assert "work.py:" in told.stderr
    assert "run directory: " in told.stderr
    answer = strict_json(told.stdout)
    assert (answer["experiment"], answer["state"], answer["exit_code"]) == ("Fail", "failed", 1)
    assert "ZeroDivisionError: the lamp is too dim" in answer["error"]
    assert (running.directory / answer["run"] / "run.json").exists()


def test_overrides_for_a_running_testbed_are_refused(running):
    for words in (["run", "work.py:Turn"], ["get", "wheel.position"]):
        error = running.error(*words, "--config", "bench.toml", "--set", "safety.level.maximum=20")
        assert "--set changes nothing there" in error
    assert "with simulated instruments" in running.error("get", "wheel.position", "--hardware")


@pytest.fixture
def hold(running):
    """An experiment that holds the wheel, started by another terminal; with its name on the testbed."""
    process = running.popen("run", "work.py:Hold")
    try:
        status = running.until(lambda status: status["devices"]["wheel"]["holder"])
        process.experiment = status["devices"]["wheel"]["holder"]["process"]
        yield process
    finally:
        running.end(process)


def test_holders_of_mutexes_are_listed_and_a_command_that_waits_too_long_names_the_holder(running, hold):
    (lock,) = running.json("locks", "--held")["locks"]
    assert (lock["name"], lock["device"], lock["holder"]["process"].partition("-")[0]) == ("wheel", True, "Hold")
    assert "Hold" in next(
        line for line in running.command("locks").stdout.splitlines() if line.strip().startswith("wheel")
    )
    error = running.error("set", "wheel.position", "2", "--timeout", "0.2", exit_code=5)
    assert "not acquired in 0.2 s: held for" in error
    assert "Hold" in error


def test_get_waits_for_a_device_no_longer_than_its_timeout_for_all_properties_together(running):
    process = running.popen("call", "gauge.hum", "60")
    try:
        running.until(lambda status: status["devices"]["gauge"]["holder"])
        result = running.command("get", "gauge", "--timeout", "0.5", exit_code=5)
        several = running.command("get", *["gauge.pressure"] * 3, "--timeout", "0.5", exit_code=5)
    finally:
        running.end(process)

    # The pressure is read without the mutex, but between operations, and this one never pauses.
    waited = [float(seconds) for seconds in re.findall(r"not acquired in ([0-9.]+) s: held for", result.stderr)]
    assert waited in ([0.5], [0.5, 0.5])
    waited = [float(seconds) for seconds in re.findall(r"not acquired in ([0-9.]+) s: held for", several.stderr)]
    assert sum(waited) <= 0.5
    assert waited
    assert ["pressure", "not", "read"] in [row[:3] for row in rows(result.stdout)]
    assert "pressure" in result.stderr


def test_an_experiment_is_stopped_from_another_terminal(running, hold):
    name = hold.experiment
    assert f"{name} told to stop" in running.command("stop", "bench", "--experiment", name).stdout
    _, errors = hold.communicate(timeout=30)
    assert hold.returncode == 1, errors
    assert running.json("status")["experiments"][name]["state"] == "stopped"
    assert "runs no experiment 'Nothing'" in running.error("stop", "bench", "-e", "Nothing", exit_code=1)


def test_an_experiment_is_told_to_finish_its_step_from_another_terminal(running, hold):
    name = hold.experiment
    running.command("stop", "bench", "--experiment", name, "--finish")
    _, errors = hold.communicate(timeout=30)
    assert hold.returncode == 0, errors


def test_a_mutex_is_broken_and_its_owner_is_told(running, hold):
    answer = running.json("break-lock", "filters", "--reason", "it hangs")
    assert answer["holder"]["process"].partition("-")[0] == "Hold"
    assert running.command("set", "wheel.position", "3").stdout == "wheel.position = 3\n"
    name = answer["holder"]["process"]
    running.command("stop", "bench", "--experiment", name)
    _, errors = hold.communicate(timeout=30)
    assert hold.returncode == 1
    assert "it hangs" in errors
    (event,) = running.json("runs", running.json("status")["experiments"][name]["run"])["events"]
    assert event["kind"] == "mutex_broken"
    assert "it hangs" in event["text"]
    assert "nobody held 'wheel'" in running.command("break-lock", "wheel", "--yes").stdout
    assert "'weel'" in running.error("break-lock", "weel", exit_code=2)


# --- what an experiment prints ----------------------------------------------------------------------------------------


def test_with_json_nothing_else_is_on_stdout_whatever_an_experiment_prints(running):
    result = running.command("run", "talk.py", "--json")

    answer = strict_json(result.stdout)
    assert (answer["state"], answer["result"], answer["reason"]) == ("finished", None, "no measurement (nan)")
    for said in ("on import", "by print", "by a library", "by a program", "on stderr", "last"):
        assert f"said {said}" in result.stderr


def test_what_an_experiment_prints_goes_to_a_piped_stdout_and_earlier_runs_are_not_reported(running):
    running.command("run", "work.py:Fail", exit_code=1)

    result = running.command("run", "talk.py")

    said = ["said by print", "said by a library", "said by a program"]
    assert [line for line in result.stdout.splitlines() if line in said] == said
    assert "said on stderr" in result.stderr
    assert ": finished" in result.stderr
    assert "Fail" not in result.stderr


def on_screen(drawn):
    """The lines that are on a terminal when all of this was written to it."""
    lines, row, column = [""], 0, 0
    for part in re.findall(r"\x1b\[[0-9;?]*[A-Za-z]|[^\x1b]", drawn):
        if part == "\n":
            row += 1
            lines += [""] * (row + 1 - len(lines))
        elif part == "\r":
            column = 0
        elif part.endswith("A") and part.startswith("\x1b"):
            row -= int(part[2:-1] or 1)
        elif part == "\x1b[2K":
            lines[row] = ""
        elif not part.startswith("\x1b"):
            lines[row] = f"{lines[row]:{column}}"[:column] + part + lines[row][column + 1 :]
            column += 1
    return [line.rstrip() for line in lines]


def test_what_an_experiment_prints_stays_on_a_terminal_above_the_picture(running):
    master, slave = pty.openpty()
    environment = running.environment(TERM="xterm-256color", COLUMNS="120", LINES="50")
    command = [sys.executable, "-m", "catkit_devices", "run", "talk.py"]
    process = subprocess.Popen(
        command, cwd=running.directory, env=environment, stdin=slave, stdout=slave, stderr=slave, start_new_session=True
    )  # fmt: skip
    os.close(slave)
    try:
        drawn = read_terminal(master, [b"run directory"], 60).decode()
    finally:
        process.kill()
        process.wait()
        os.close(master)
    shown = on_screen(drawn)
    said = ["said by print", "said by a library", "said by a program", "said on stderr", "said last"]
    assert [line for line in shown if line in said] == said
    picture = next(number for number, line in enumerate(shown) if line.startswith("bench, simulated"))
    assert shown.index("said on stderr") < picture


# --- watching --------------------------------------------------------------------------------------------------------


def test_watching_as_json_prints_one_line_for_each_status(running):
    with running.popen("status", "--watch", "--json", "--interval", "0.05") as process:
        statuses = [json.loads(process.stdout.readline()) for _ in range(3)]
        running.end(process)
    assert statuses[0]["time"] < statuses[1]["time"] < statuses[2]["time"]


def test_watching_without_a_terminal_prints_changes_as_plain_lines(running):
    with running.popen("status", "--watch") as process:
        seen = ""
        while "safety check level: 2 (0 to 10)" not in seen:
            line = process.stdout.readline()
            assert line, process.stderr.read()
            seen += line
        assert "\x1b" not in seen
        running.command("run", "work.py:Turn", "--to", "2")
        while "Turn" not in line or "finished" not in line:
            line = process.stdout.readline()
            assert line, process.stderr.read()
        running.end(process)
        assert process.returncode == 130


def read_terminal(descriptor, wanted, seconds=30):
    """What is drawn on a terminal until all of the words were."""
    seen = b""
    deadline = time.monotonic() + seconds
    while not all(word in seen for word in wanted):
        ready, _, _ = select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))
        assert ready, seen.decode()
        seen += os.read(descriptor, 65536)
    return seen


def test_watching_on_a_terminal_draws_a_picture_that_stays_in_place(running):
    master, slave = pty.openpty()
    environment = running.environment(TERM="xterm-256color", COLUMNS="120", LINES="50")
    command = [sys.executable, "-m", "catkit_devices", "status", "--watch"]
    process = subprocess.Popen(
        command, cwd=running.directory, env=environment, stdin=slave, stdout=slave, stderr=slave, start_new_session=True
    )  # fmt: skip
    os.close(slave)
    try:
        seen = read_terminal(master, [b"wheel", b"laser", b"level", b"0 to 10"])
        assert b"\x1b[" in seen
        assert read_terminal(master, [b"\x1b[1A", b"wheel"])  # it went up again, and drew it anew
    finally:
        process.kill()
        process.wait()
        os.close(master)
