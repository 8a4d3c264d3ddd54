"""Every mistake of a user ends in one clear error on one screen, with an exit code that means something."""

import contextvars
import json
import os
import subprocess
import sys
import time

import pytest

from catkit_devices.datalog import find_runs, summarise

CONFIGURATION = """
[testbed]
name = "bench"
simulate = true
plugins = ["plugins"]

[simulation]
bench = "optical"

[devices.wheel]
driver = "thorlabs_fw102c"
address = "ASRL3::INSTR"
simulator = "thorlabs_fw102c"
simulator_options = {{ role = "nd", step_time = 0.01 }}
aliases = ["filters"]
{wheel}

[devices.sensor]
driver = "omega_ithx"
address = "TCPIP0::192.168.1.200::2000::SOCKET"
simulator = "omega_ithx"

[safety.humidity]
device = "sensor"
property = "humidity"
maximum = 28
{safety}
"""

EXPERIMENT = """
from catkit_devices.testbed import Experiment

class Turn(Experiment):
    to: int = 3

    def experiment(self):
        self.devices.wheel.position = self.to
        self.log_scalar("position", self.devices.filters.position)
        return self.devices.wheel.position
"""


@pytest.fixture
def bench(tmp_path):
    (tmp_path / "plugins").mkdir()

    def write(wheel="", safety=""):
        (tmp_path / "bench.toml").write_text(CONFIGURATION.format(wheel=wheel, safety=safety))
        (tmp_path / "turn.py").write_text(EXPERIMENT)
        return tmp_path

    return write


@pytest.fixture
def command(ready):
    """Run a command in a directory, as a process of its own."""

    def run(directory, *arguments, **environment):
        env = {**os.environ, "CATKIT_DEVICES_RUNTIME": str(directory / "runtime"), **environment}
        return ready.run(arguments, cwd=directory, env=env, timeout=60)

    return run


@pytest.fixture
def in_process(tmp_path, monkeypatch, capsys):
    """The same within this process, for commands that start nothing: a dozen of them take no longer than one above."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    known = set(sys.modules)

    def run(*arguments):
        from catkit_devices.cli import main

        # A process that is one command need not give back what stdout was when its arguments are wrong.
        code = contextvars.copy_context().run(main, arguments)
        return subprocess.CompletedProcess(arguments, code, *capsys.readouterr())

    yield run
    for module in set(sys.modules) - known:
        if str(tmp_path) in (getattr(sys.modules[module], "__file__", None) or ""):
            del sys.modules[module]


def screen_lines(text):
    """How many lines of a terminal of 80 columns it takes."""
    return sum(1 + max(0, len(line) - 1) // 80 for line in text.splitlines())


def assert_one_clear_error(result, exit_code, *words):
    assert result.returncode == exit_code, result.stderr
    assert "Traceback" not in result.stderr
    assert screen_lines(result.stderr) <= 20
    for word in words:
        assert word in result.stderr
    if result.stdout:  # with --json
        told = json.loads(result.stdout)
        assert told["exit_code"] == exit_code
        assert told["error"]


def test_a_good_configuration_is_reported_as_valid(command, bench):
    result = command(bench(), "check-config", "bench.toml")
    assert (result.returncode, result.stderr) == (0, "")
    assert "testbed 'bench' is valid: 2 devices, 1 safety check" in result.stdout


@pytest.mark.parametrize(
    ("where", "line", "words"),
    [
        ("wheel", 'adress = "x"', ["bench.toml: devices.wheel.adress", "(did you mean 'address'?)"]),
        ("wheel", "server = 3", ["bench.toml: devices.wheel.server", "expected", "string", "got 3"]),
        ("wheel", "limits = { position = [1, 9] }", ["devices.wheel.limits.position", "1 to 9 is not within 1 to 6"]),
        ("wheel", "limits = { positon = [1, 4] }", ["devices.wheel.limits.positon", "(did you mean 'position'?)"]),
        ("wheel", "limits = { position = [1] }", ["devices.wheel.limits.position[1]: is missing"]),
        ("wheel", "limits = { position = 3 }", ["devices.wheel.limits.position", "expected", "3"]),
        ("wheel", "limits = { position = [1, 2, 3] }", ["devices.wheel.limits.position"]),
        ("safety", 'interval = "soon"', ["bench.toml: safety.humidity.interval", "number", "'soon'"]),
        ("safety", "interval = -1", ["bench.toml: safety.humidity.interval", "greater than 0", "-1"]),
        ("safety", "minimum = 90", ["bench.toml: safety.humidity", "minimum <= maximum", "90 > 28"]),
        ("safety", "maximun = 3", ["bench.toml: safety.humidity.maximun", "(did you mean 'maximum'?)"]),
        ("safety", "not toml", ["bench.toml", "not valid TOML"]),
    ],
)
def test_a_wrong_configuration_is_one_clear_error(bench, in_process, where, line, words):
    bench(**{where: line})
    assert_one_clear_error(in_process("check-config", "bench.toml"), 2, *words)


def test_check_config_says_everything_that_is_wrong_at_once(bench, in_process):
    directory = bench(
        wheel="server = 3\nadress = 'x'\nlimits = { positon = [1, 4] }", safety="interval = 'soon'\nmaximun = 3"
    )
    with (directory / "bench.toml").open("a") as file:
        file.write("""
[devices.laser]
driver = "thorlabs_mcls1"
address = "ASRL1::INSTR"
simulator = "thorlabs_mcls1"
channel = 5

[devices.lamp]
adress = "ASRL7::INSTR"

[safety.lamp]
device = "lamp"
property = "power"
maximum = 3
""")
    told = in_process("check-config", "bench.toml", "--json")
    assert (told.returncode, told.stderr) == (2, "")
    found = {one["key"]: one["problem"] for one in json.loads(told.stdout)["problems"]}
    assert found.keys() == {
        "devices.wheel.server",  # in form
        "devices.wheel.adress",
        "devices.wheel.limits.positon",  # in meaning
        "safety.humidity.interval",
        "safety.humidity.maximun",
        "devices.laser.channel",  # for the driver
        "devices.lamp.driver",  # and nothing about a check of the lamp, which is a device all the same
    }
    assert found["devices.laser.channel"] == "channel must be 1 to 4, got 5"
    assert found["devices.lamp.driver"].startswith("is missing")
    assert_one_clear_error(in_process("check-config", "bench.toml"), 2, "7 problems in the configuration", *found)


@pytest.mark.parametrize(
    ("words", "exit_code", "error"),
    [
        (["status", "nix"], 3, "nix"),
        (["status", "nix", "--watch"], 3, "nix"),
        (["queue", "--testbed", "nix"], 3, "nix"),
        (["get", "wheel.position", "--config", "nix.toml"], 2, "nix.toml"),
        (["call", "wheel.home", "--testbed", "nix"], 3, "nix"),
        (["check-config", "nix.toml"], 2, "nix.toml"),
        (["check-config"], 2, "say which configuration"),
        (["run", "nix.py", "--config", "bench.toml"], 2, "nix.py"),
        (["runs", "nix"], 2, "nix"),
        (["export", "nix", "--to", "x.csv"], 2, "nix"),
        (["call", "wheel.home", "--out", "x.fits", "--config", "bench.toml"], 2, "ends in .npy or .npz, got 'x.fits'"),
        (["call", "wheel.home", "--out", "x/x.npy", "--config", "bench.toml"], 2, "there is no directory 'x'"),
        (["run", "turn.py", "--plot-to", "x.fits", "--config", "bench.toml"], 2, "--plot-to: expected a file name"),
        (["get"], 2, "Missing argument"),
        (["status", "--nix"], 2, "--nix"),
        (["nix"], 2, "nix"),
    ],
)
@pytest.mark.parametrize("first", [True, False])
def test_with_json_a_command_that_fails_prints_one_document(bench, in_process, words, exit_code, error, first):
    bench()
    told = in_process(words[0], *(["--json", *words[1:]] if first else [*words[1:], "--json"]))
    answer = json.loads(told.stdout)
    if "problems" in answer:
        assert error in answer["problems"][0]["file"]
    else:
        assert answer["exit_code"] == exit_code
        assert error in answer["error"]
        assert error in told.stderr
    assert told.returncode == exit_code


def test_an_argument_after_two_dashes_is_not_the_option_json(in_process):
    assert in_process("status", "nix", "--", "--json").stdout == ""


def test_check_config_with_nothing_wrong_says_so_in_json(bench, in_process):
    bench()
    told = in_process("check-config", "bench.toml", "--json")
    assert (told.returncode, json.loads(told.stdout)["problems"]) == (0, [])


@pytest.mark.parametrize("given", ["inf", "nan", "-1", "1e300", "soon"])
@pytest.mark.parametrize(
    "arguments",
    [
        ("get", "wheel.position", "--timeout"),
        ("set", "wheel.position=3", "--timeout"),
        ("call", "wheel.home", "--timeout"),
        ("stop", "bench", "--timeout"),
        ("start", "--background", "--timeout"),
        ("discover", "--identify", "--timeout"),
        ("status", "--watch", "--json", "--interval"),
    ],
)
def test_a_timeout_that_is_no_possible_number_of_seconds_is_a_usage_error(in_process, arguments, given):
    assert_one_clear_error(in_process(*arguments, given), 2, f"Invalid value for '{arguments[-1]}'")


def test_the_schema_of_configurations_is_printed_for_editors(in_process):
    result = in_process("check-config", "--schema")
    assert result.returncode == 0
    assert json.loads(result.stdout)["properties"]["devices"]
    assert_one_clear_error(in_process("check-config"), 2, "FILE")


def test_check_config_takes_the_option_that_other_commands_have(in_process, bench):
    bench()
    assert "testbed 'bench' is valid" in in_process("check-config", "--config", "bench.toml").stdout


def test_instruments_that_do_not_fit_their_bench_are_one_clear_error(bench, in_process):
    bench()
    wrong = in_process("check-config", "bench.toml", "--set", 'devices.wheel.simulator_options.role="third"')
    assert_one_clear_error(wrong, 2, "ASRL3::INSTR", "third")
    wrong = in_process("check-config", "bench.toml", "--set", 'devices.wheel.simulator="thorlabs_fw212c"')
    assert_one_clear_error(wrong, 2, "ASRL3::INSTR", "has 6 slots, not 12")


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ('devices.wheel.driver="thorlabs_fw102"', ["devices.wheel.driver", "did you mean 'thorlabs_fw102c'?"]),
        ('safety.humidity.device="senser"', ["safety.humidity.device", "did you mean 'sensor'?"]),
        ('devices.wheel.simulator="thorlabs_fw102"', ["devices.wheel.simulator", "did you mean 'thorlabs_fw102c'?"]),
        ("devices.wheel.server=fast", ["--set", "expected a TOML value"]),
        ("nonsense", ["--set", "expected KEY=VALUE, got 'nonsense'"]),
    ],
)
def test_a_wrong_override_is_one_clear_error(bench, in_process, setting, words):
    bench()
    assert_one_clear_error(in_process("check-config", "bench.toml", "--set", setting), 2, *words)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["check-config", "absent.toml"], ["absent.toml", "no such file"]),
        (["devices", "--config", "absent.toml"], ["absent.toml", "no such file"]),
        (["run", "absent.py", "--config", "bench.toml"], ["absent.py", "no such file"]),
        (["run", "turn.py:Tern", "--config", "bench.toml"], ["did you mean 'Turn'?"]),
        (["run", "turn.py", "--config", "bench.toml", "--too", "3"], ["--too", "did you mean '--to'?"]),
        (["run", "turn.py", "--config", "bench.toml", "--to", "far"], ["Turn: to", "integer", "'far'"]),
        (["drivers", "--plugins", "nowhere"], ["nowhere"]),
        (["frobnicate"], ["frobnicate"]),
        (["check-config"], ["FILE"]),
        (["drivers", "--jsn"], ["--jsn"]),
    ],
)
def test_wrong_usage_is_one_clear_error_with_code_2(bench, in_process, arguments, words):
    bench()
    assert_one_clear_error(in_process(*arguments), 2, *words)


def test_without_a_testbed_the_error_says_how_to_start_one_and_has_code_3(command, bench):
    for arguments in (["run", "turn.py"], ["devices"], ["status"], ["locks"], ["get", "wheel.position"]):
        assert_one_clear_error(command(bench(), *arguments), 3, "no testbed is running", "start --config FILE")


def test_a_plugin_that_cannot_be_imported_is_named_and_the_others_still_work(command, bench):
    directory = bench()
    (directory / "plugins" / "broken.py").write_text("import no_such_vendor\n")
    listed = command(directory, "drivers", "--config", "bench.toml")
    assert listed.returncode == 2
    assert "broken.py" in listed.stderr
    assert "No module named 'no_such_vendor'" in listed.stderr
    assert "Traceback" not in listed.stderr
    assert "thorlabs_fw102c" in listed.stdout

    checked = command(directory, "check-config", "bench.toml")
    assert checked.returncode == 0
    assert "warning: " in checked.stderr
    assert "no_such_vendor" in checked.stderr


def test_a_driver_of_a_plugin_that_cannot_be_imported_is_an_error_that_says_why(command, bench):
    directory = bench()
    (directory / "plugins" / "lamp.py").write_text("import no_such_vendor\n# drivers: {'lamp': Lamp}\n")
    result = command(directory, "check-config", "bench.toml", "--set", 'devices.wheel.driver="lamp"')
    assert_one_clear_error(result, 2, "devices.wheel.driver", "lamp.py", "No module named 'no_such_vendor'")


def test_an_address_where_nothing_answers_fails_the_run_naming_device_and_address(command, bench):
    directory = bench(wheel="faults = { no_reply = 1.0 }")
    result = command(directory, "run", "turn.py", "--config", "bench.toml")
    assert result.returncode == 1, result.stderr
    assert "error: device 'wheel' (thorlabs_fw102c at ASRL3::INSTR)" in result.stderr
    assert "Traceback" not in result.stderr


def test_an_experiment_that_raises_fails_the_run_with_what_it_raised_and_where(command, bench):
    directory = bench()
    (directory / "turn.py").write_text(
        "from catkit_devices.testbed import Experiment\n"
        "class Turn(Experiment):\n"
        "    def experiment(self):\n"
        "        raise ZeroDivisionError('the lamp is too dim')\n"
    )
    result = command(directory, "run", "turn.py", "--config", "bench.toml")
    assert result.returncode == 1
    assert "error: ZeroDivisionError: the lamp is too dim" in result.stderr
    assert "turn.py:4" in result.stderr
    assert "run directory: runs/" in result.stderr
    assert "Traceback" not in result.stderr


def test_an_experiment_that_raises_a_group_keeps_its_message_beside_each_error(command, bench):
    directory = bench()
    (directory / "turn.py").write_text(
        "from catkit_devices.testbed import Experiment\n"
        "class Turn(Experiment):\n"
        "    def experiment(self):\n"
        "        raise ExceptionGroup('two lamps are dark', [ValueError('the left'), ExceptionGroup('behind', "
        "[KeyError('right')])])\n"
    )
    result = command(directory, "run", "turn.py", "--config", "bench.toml")
    assert result.returncode == 1
    said = [line for line in result.stderr.splitlines() if line.startswith(("error: ", "run directory: "))]
    assert said[0] == "error: two lamps are dark"
    assert said[1].startswith("run directory: runs/")
    assert said[2].startswith("error: ValueError: the left")
    assert said[3:] == ["error: behind", "error: KeyError: 'right'"]
    (run,) = find_runs(directory / "runs")
    group = "ExceptionGroup: two lamps are dark (ValueError: the left; ExceptionGroup: behind (KeyError: 'right'))"
    assert summarise(run).detail == group


def test_an_experiment_that_raises_a_base_exception_fails_the_run_without_a_traceback(bench, command):
    directory = bench()
    (directory / "turn.py").write_text(
        "from catkit_devices.testbed import Experiment\n"
        "class Turn(Experiment):\n"
        "    def experiment(self):\n"
        "        raise BaseExceptionGroup('both ended', [KeyboardInterrupt(), ValueError('too dim')])\n"
    )
    result = command(directory, "run", "turn.py", "--config", "bench.toml")
    assert result.returncode == 1
    assert "error: both ended\nrun directory: runs/" in result.stderr
    assert "error: KeyboardInterrupt" in result.stderr
    assert "error: ValueError: too dim" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_value_out_of_limits_fails_the_run_and_says_which_are_allowed(command, bench):
    result = command(bench(), "run", "turn.py", "--config", "bench.toml", "--to", "9")
    assert result.returncode == 1
    assert "device 'wheel'" in result.stderr
    assert "1 to 6, got 9" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_safety_check_that_fails_at_the_start_fails_the_run(command, bench):
    result = command(bench(), "run", "turn.py", "--config", "bench.toml", "--set", "safety.humidity.maximum=5")
    assert result.returncode == 4
    assert result.stderr.count("safety check 'humidity'") == 1
    assert "at most 5" in result.stderr
    assert "Traceback" not in result.stderr


def test_debug_shows_the_traceback_before_or_after_the_command(command, bench):
    directory = bench()
    for arguments in (["--debug", "check-config", "absent.toml"], ["check-config", "absent.toml", "--debug"]):
        result = command(directory, *arguments)
        assert result.returncode == 2
        assert "Traceback" in result.stderr


def test_an_experiment_runs_and_its_result_is_printed(command, bench):
    result = command(bench(), "run", "turn.py", "--config", "bench.toml", "--to", "4", "--json")
    assert result.returncode == 0, result.stderr
    answer = json.loads(result.stdout)
    assert (answer["experiment"], answer["state"], answer["result"]) == ("Turn", "finished", 4)
    assert os.path.isdir(os.path.join(bench(), answer["run"]))


def test_devices_are_listed_with_driver_address_and_state(command, bench):
    result = command(bench(), "devices", "--config", "bench.toml", "--json")
    assert result.returncode == 0, result.stderr
    listed = json.loads(result.stdout)
    assert listed["running"] is False
    assert [device["name"] for device in listed["devices"]] == ["wheel", "sensor"]
    assert listed["devices"][0] == {
        "name": "wheel", "driver": "thorlabs_fw102c", "address": "ASRL3::INSTR", "state": "not running",
        "holder": None, "aliases": ["filters"], "server": "devices",
    }  # fmt: skip
    plain = command(bench(), "devices", CATKIT_DEVICES_CONFIG="bench.toml")
    assert ["wheel", "thorlabs_fw102c", "ASRL3::INSTR"] in [line.split()[:3] for line in plain.stdout.splitlines()]


def test_devices_of_a_running_testbed_are_listed_with_who_holds_them(command, bench):
    directory = bench()
    (directory / "hold.py").write_text(
        "import pathlib, time\n"
        "from catkit_devices.testbed import Experiment\n"
        "class Hold(Experiment):\n"
        "    def experiment(self):\n"
        "        deadline = time.monotonic() + 30\n"
        "        with self.lock('wheel'):\n"
        "            self.devices.wheel.position\n"
        "            while not pathlib.Path('go').exists() and time.monotonic() < deadline: time.sleep(0.02)\n"
    )
    environment = {**os.environ, "CATKIT_DEVICES_RUNTIME": str(directory / "runtime")}
    arguments = [sys.executable, "-m", "catkit_devices", "run", "hold.py", "-c", "bench.toml"]
    with subprocess.Popen(arguments, cwd=directory, env=environment, stderr=subprocess.PIPE) as running:
        try:
            deadline = time.monotonic() + 30
            while True:
                answer = command(directory, "devices", "-c", "bench.toml", "--json")
                assert answer.returncode == 0, answer.stderr
                listed = json.loads(answer.stdout)
                wheel = listed["devices"][0]
                if (wheel["holder"] and wheel["state"] == "open") or time.monotonic() > deadline:
                    break
        finally:
            (directory / "go").write_text("")
            _, errors = running.communicate(timeout=30)
    assert running.returncode == 0, errors
    assert listed["running"] is True
    assert wheel["state"] == "open"
    assert wheel["holder"]["process"] == "Hold"


def test_drivers_are_listed_with_their_instruments(command, bench):
    result = command(bench(), "drivers", "--json")
    assert result.returncode == 0, result.stderr
    drivers = {driver["driver"]: driver for driver in json.loads(result.stdout)["drivers"]}
    assert drivers["thorlabs_fw102c"]["class"].startswith("catkit_devices.plugins.")
    assert drivers["thorlabs_fw102c"]["summary"]


def test_a_plugin_adds_a_command(command, bench):
    directory = bench()
    (directory / "plugins" / "greeting.py").write_text(
        "from catkit_devices.hookspecs import hookimpl\n"
        "@hookimpl\n"
        "def catkit_devices_commands(cli):\n"
        "    @cli.command()\n"
        "    def greet():\n"
        "        '''Say hello.'''\n"
        "        print('hello')\n"
    )
    environment = {"CATKIT_DEVICES_PLUGINS": str(directory / "plugins")}
    assert command(directory, "greet", **environment).stdout == "hello\n"
    assert "Say hello." in command(directory, "--help", **environment).stdout


def test_a_command_of_a_plugin_that_is_a_coroutine_or_generator_is_an_error(command, bench):
    directory = bench()
    (directory / "plugins" / "greeting.py").write_text(
        "from catkit_devices.hookspecs import hookimpl\n"
        "@hookimpl\n"
        "def catkit_devices_commands(cli):\n"
        "    @cli.command()\n"
        "    async def greet():\n"
        "        print('hello')\n"
    )

    result = command(directory, "greet", CATKIT_DEVICES_PLUGINS=str(directory / "plugins"))

    assert result.returncode == 1
    assert "the command 'greet' of a plugin is a coroutine" in result.stderr


def test_version_and_help_are_printed():
    from importlib.metadata import version

    directory = None
    result = subprocess.run([sys.executable, "-m", "catkit_devices", "--version"], cwd=directory, capture_output=True,
                            text=True, timeout=60, check=False)  # fmt: skip
    assert result.stdout == f"catkit-devices {version('catkit-devices')}\n"
    assert result.returncode == 0


def test_starting_a_command_imports_no_large_library():
    program = (
        "import sys\nfrom catkit_devices.cli import main\n"
        "main(['run', '--help'])\n"
        "heavy = {'numpy', 'pint', 'pyvisa', 'matplotlib', 'pluggy'} & set(sys.modules)\n"
        "sys.exit(f'loaded: {heavy}' if heavy else 0)\n"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stderr
